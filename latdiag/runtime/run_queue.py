"""How long a process waited for a core, as its kernel counts it."""

from __future__ import annotations

import os


class RunQueue:
    """How long this process was ready but not running, and its CPU time: /proc/self/schedstat."""

    def __init__(self) -> None:
        try:
            self._fd = os.open("/proc/self/schedstat", os.O_RDONLY)
        except OSError:
            self._fd = -1

    def delay_ns(self) -> int:
        """Nanoseconds since the process began that it waited for a core; 0 where unknown."""
        if self._fd < 0:
            return 0
        return int(os.pread(self._fd, 64, 0).split()[1])

    @property
    def known(self) -> bool:
        return self._fd >= 0
