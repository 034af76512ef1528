"""What one process pair is given to do for both arms, block by block, as replies come back."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import islice

from latdiag.load.plan import Work
from latdiag.load.processes.counters import Counts
from latdiag.load.processes.outbox import Write
from latdiag.load.processes.run import Next
from latdiag.load.work.prepare import Prepared
from latdiag.load.work.schedule import OpenLoop
from latdiag.model.units import NS_PER_MS, NS_PER_S

#: From the moment that a block is handed over to its first arrival.
_LEAD_NS = 20 * NS_PER_MS
#: How long what has ended may take to the disk.
_WRITTEN_NS = 10 * NS_PER_S
WARMUP = "warmup"
ARMS = ("base", "candidate")
#: Numbers of requests that are of no pair, from here on, those of the candidate odd: ids have room
#: for 48 bits.
UNPAIRED = 1 << 40


class Sending:
    """``arms``: base and candidate, asked alike. ``apart``: with other texts of the same lengths,
    since one server that has seen a prompt may keep it in a cache. Methods that yield are parts
    of the work of ``run_load``, which calls ``start`` and ``hear``."""

    def __init__(self, arms: tuple[Prepared, Prepared], apart: bool = False) -> None:
        self._arms = arms
        self._apart = apart
        self._sent = 0
        self._start_ns = 0
        self._counts = Counts(0, 0, 0, 0)
        self._unpaired = UNPAIRED

    def start(self, start_ns: int) -> None:
        """What due times count from."""
        self._start_ns = start_ns

    def hear(self, counts: Counts) -> None:
        """What has come back."""
        self._counts = counts

    @property
    def now_ns(self) -> int:
        """Since the start."""
        return time.monotonic_ns() - self._start_ns

    @property
    def failed(self) -> int:
        """Requests so far."""
        return self._counts.failed

    @property
    def next_unpaired(self) -> int:
        """The number of the next request that is of no pair."""
        return self._unpaired

    def started(self) -> Iterator[Next]:
        """Until the processes are there."""
        while not self._start_ns:
            yield None

    def alone(self, arm: int, requests: int) -> Iterator[Next]:
        """Requests of no pair, one after the other."""
        for _ in range(requests):
            yield from self.burst(arm, 1, (0,))

    def burst(self, arm: int, requests: int, offsets: Sequence[int]) -> Iterator[Next]:
        """Requests of no pair at these offsets."""
        first, self._unpaired = self._unpaired, self._unpaired + 2 * requests
        numbers = range(first + arm, self._unpaired, 2)
        yield from self.block(arm, numbers, numbers, offsets, WARMUP)

    def block(
        self,
        arm: int,
        numbers: Sequence[int],
        prompts: Sequence[int],
        offsets: Sequence[int],
        stage: str = "",
    ) -> Iterator[Next]:
        """One block to one arm, until all its replies have ended. ``numbers`` make ids, and
        ``prompts`` say what is asked."""
        workload = self._arms[arm].workload
        begin = self.now_ns + _LEAD_NS
        for number, prompt, offset in zip(numbers, prompts, offsets, strict=True):
            isl, osl = workload.wanted(prompt)
            if self._apart and arm and isl is not None:
                body = workload.shot(prompt + UNPAIRED // 2, isl, osl or 0)
            else:
                body = workload.body(prompt)
            due = begin + offset
            yield Work(number, due, isl or 0, osl or 0, stage or ARMS[arm], body, other=bool(arm))
        self._sent += len(numbers)
        while self._counts.done < self._sent:
            yield None

    def written(self) -> Iterator[Next]:
        """Until what has ended is on disk."""
        yield Write()
        until = self.now_ns + _WRITTEN_NS
        while self._counts.written < self._sent and self.now_ns < until:
            yield None


def arrivals(rate: float, requests: int, seed: int) -> tuple[int, ...]:
    """Offsets of a block, ns: as from many users, the first at 0."""
    drawn = list(islice(OpenLoop(rate, "poisson", seed=seed).offsets(), requests))
    return tuple(each - drawn[0] for each in drawn)
