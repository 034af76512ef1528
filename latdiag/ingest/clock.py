"""The clock of a collecting process: instants are MONOTONIC, REALTIME is noted beside them."""

from __future__ import annotations

import hashlib
import socket
import time
from pathlib import Path

#: A change of the offset between two samples that no slewing of the kernel explains.
STEP_NS = 1_000_000
_KEPT = 4096


def clock_id() -> str:
    """Names the monotonic clock of this boot of this host, as every writer of a run names it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = str(time.time_ns() - time.monotonic_ns() >> 36)
    try:
        space = Path("/proc/self/ns/time").readlink().name
    except OSError:
        space = ""
    text = f"{boot}|{socket.gethostname()}|{space}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


class Clock:
    """REALTIME - MONOTONIC as it was sampled: ``samples`` are (mono_ns, real_ns, width_ns), the
    offset being known to half the width; ``steps`` are spans of MONOTONIC in which it jumped."""

    def __init__(self) -> None:
        self.samples: list[tuple[int, int, int]] = []
        self.steps: list[tuple[int, int]] = []

    def sample(self, tries: int = 5) -> None:
        """Read REALTIME between two reads of MONOTONIC; the narrowest of some tries is kept."""
        reads = []
        for _ in range(tries):
            before = time.monotonic_ns()
            real = time.clock_gettime_ns(time.CLOCK_REALTIME)
            after = time.monotonic_ns()
            reads.append(((before + after) // 2, real, after - before))
        new = min(reads, key=lambda read: read[2])
        if self.samples:
            old = self.samples[-1]
            change = (new[1] - new[0]) - (old[1] - old[0])
            if abs(change) > STEP_NS + (old[2] + new[2]) // 2:
                self.steps.append((old[0], new[0]))
        self.samples.append(new)
        if len(self.samples) > _KEPT:  # older ones are thinned, but for those at a step
            edges = {instant for step in self.steps for instant in step}
            older, newer = self.samples[: _KEPT // 2], self.samples[_KEPT // 2 :]
            self.samples = [s for i, s in enumerate(older) if i % 2 == 0 or s[0] in edges] + newer
