"""A sign of life that waits for no work: a thread beats, and the parent reads it in shared memory.

A process that is busy answers late and beats all the same; one that is dead, or stopped for long,
does not.
"""

from __future__ import annotations

import mmap
import threading
import time

_EVERY_S = 0.5
#: What one look may add to the silence: whoever looks was perhaps stopped itself.
_LOOK_S = 1.0


class Heartbeat:
    """Made before the fork; then ``start`` in the child, ``silent_s`` in the parent."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 8)
        self._seen = b""
        self._looked_s = time.monotonic()
        self._silent_s = 0.0

    def start(self) -> None:
        """Beat from now on, until this process ends."""
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def _beat(self) -> None:
        count = 0
        while True:
            count += 1
            self._shared[:] = count.to_bytes(8, "little")
            time.sleep(_EVERY_S)

    def silent_s(self) -> float:
        """Seconds without a beat, as far as this process was there to see; to be asked every
        second or so."""
        now, count = time.monotonic(), self._shared[:]
        if count != self._seen:
            self._seen, self._silent_s = count, 0.0
        else:
            self._silent_s += min(now - self._looked_s, _LOOK_S)
        self._looked_s = now
        return self._silent_s
