"""The client's clocks: monotonic for every instant, realtime only to convert kernel stamps."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from pathlib import Path
from typing import NamedTuple


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
