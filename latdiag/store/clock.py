"""The clocks of a writer: monotonic for every instant, realtime beside it, and how the two lie.

Each process that writes into a run samples REALTIME - MONOTONIC about once a second, and keeps the
series in its state: kernel stamps (REALTIME) become instants of the run's clock by it, and a clock
that was stepped shows.
"""

from __future__ import annotations

import hashlib
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


#: A change of the offset between two samples (a second apart) that no slewing explains: the
#: kernel slews by at most 500 ppm.
STEP_NS = 1_000_000
_KEPT = 4096


class ClockSample(NamedTuple):
    """``real_ns - mono_ns``: the offset at ``mono_ns``, known to +- ``width_ns`` / 2."""

    mono_ns: int
    real_ns: int
    width_ns: int


def sample(tries: int = 5) -> ClockSample:
    """Read REALTIME between two MONOTONIC reads; keep the narrowest of some tries."""
    best = ClockSample(0, 0, 1 << 62)
    for _ in range(tries):
        before = time.monotonic_ns()
        real = time.clock_gettime_ns(time.CLOCK_REALTIME)
        after = time.monotonic_ns()
        if after - before < best.width_ns:
            best = ClockSample((before + after) // 2, real, after - before)
    return best


def clock_id() -> str:
    """Names the monotonic clock of this boot of this host, hashed, so that it tells no more.

    Two runs with the same id may be compared instant by instant; others never.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = str(time.time_ns() - time.monotonic_ns() >> 36)
    # A time namespace shifts the monotonic clock within one boot.
    try:
        space = Path("/proc/self/ns/time").readlink().name
    except OSError:
        space = ""
    text = f"{boot}|{socket.gethostname()}|{space}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


class ClockSeries:
    """Samples of REALTIME - MONOTONIC, about one a second, in order."""

    def __init__(self) -> None:
        self.samples: list[ClockSample] = []
        #: spans of MONOTONIC time in which the clock was stepped
        self.steps: list[tuple[int, int]] = []

    def add(self, new: ClockSample) -> None:
        if self.samples:
            old = self.samples[-1]
            change = (new.real_ns - new.mono_ns) - (old.real_ns - old.mono_ns)
            # Both offsets are known only to their widths.
            if abs(change) > STEP_NS + (old.width_ns + new.width_ns) // 2:
                self.steps.append((old.mono_ns, new.mono_ns))
        self.samples.append(new)
        if len(self.samples) > _KEPT:
            self._thin()

    def _thin(self) -> None:
        """Half of the older samples go, but for those at a step: memory stays bounded."""
        edges = {instant for step in self.steps for instant in step}
        old, new = self.samples[: _KEPT // 2], self.samples[_KEPT // 2 :]
        self.samples = [s for i, s in enumerate(old) if i % 2 == 0 or s.mono_ns in edges] + new

    @property
    def newest_ns(self) -> int:
        return self.samples[-1].mono_ns if self.samples else 0

    @property
    def offset_ns(self) -> int:
        """The offset of the newest sample; 0 before the first."""
        return self.samples[-1].real_ns - self.samples[-1].mono_ns if self.samples else 0

    def monotonic(
        self, real_ns: NDArray[np.int64], near_ns: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """MONOTONIC instants of kernel stamps; ``near_ns``: user stamps of the same reads.

        Between two samples the offset is interpolated, since a slewed clock drifts by up to
        0.5 ms a second; across a step the older sample stays in force.
        """
        import numpy as np

        if not self.samples or not len(real_ns):
            return real_ns
        base = self.offset_ns
        at = [s.mono_ns for s in self.samples]
        # Differences to one offset: the offsets themselves exceed what a float64 holds.
        change = [float(s.real_ns - s.mono_ns - base) for s in self.samples]
        for begun, ended in self.steps:
            if begun in at and ended in at:
                place = at.index(ended)
                at.insert(place, ended - 1)
                change.insert(place, change[at.index(begun)])
        drift = np.interp((near_ns - at[0]).astype(float), np.subtract(at, at[0]), change)
        converted: NDArray[np.int64] = real_ns - base - np.rint(drift).astype(np.int64)
        return converted

    def stepped(self, begun_ns: int, ended_ns: int) -> bool:
        """Whether the clock was stepped somewhere in this span."""
        return any(begun_ns < until and since < ended_ns for since, until in self.steps)
