"""Decoding in slices of half a millisecond, between which the event loop serves everybody else.

A large body does not hold up a small one: those that are small, and have used little, come first.
Among equals it is one after the other, so that few are held half decoded.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from typing import Any

from latdiag.ingest.otlp.limits import DECODE_S, PATIENCE_S, RETRY_S, Refusal, Steps

#: A new gRPC connection takes some 28 rounds of the loop until it is answered, and each waits for
#: a slice: where other programs compete for the processor, for several times its length.
_SLICE_S, _FIRST_S = 0.0005, 0.001
#: Below this length all are equal; as many bytes as are decoded in a second.
_SMALL, _BYTES_PER_S = 1 << 20, 16 << 20


class _Job:
    __slots__ = ("begun_s", "future", "number", "size", "steps", "used_s")

    def __init__(
        self, steps: Steps[Any], size: int, number: int, future: asyncio.Future[Any]
    ) -> None:
        self.size = size
        self.number = number
        self.steps = steps
        self.future = future
        self.used_s = 0.0
        self.begun_s = time.monotonic()

    def turn(self) -> tuple[int, bool, int]:
        """The smallest is next, and of equals one that had no turn yet: most end in their first,
        and those that inflate to much do not."""
        size = max(self.size, round(self.used_s * _BYTES_PER_S))
        return (size // _SMALL).bit_length(), self.used_s > 0, self.number


class Lane:
    """Takes steps of many bodies in turns, in the running event loop."""

    def __init__(self, cpu_s: float = DECODE_S, patience_s: float = PATIENCE_S) -> None:
        self._cpu_s = cpu_s
        self._patience_s = patience_s
        self._jobs: list[tuple[tuple[int, bool, int], _Job]] = []
        self._numbers = itertools.count()
        self._runner: asyncio.Task[None] | None = None

    async def result(self, steps: Steps[Any], size: int) -> Any:
        """What the steps make of a body of ``size`` bytes. Raises what they raise, and Refusal
        beyond the time of one body."""
        future = asyncio.get_running_loop().create_future()
        job = _Job(steps, size, next(self._numbers), future)
        heapq.heappush(self._jobs, (job.turn(), job))
        if self._runner is None:
            self._runner = asyncio.create_task(self._run())
        future = job.future
        try:
            return await future
        finally:
            # The traceback of a refusal holds this frame, which would hold the refusal: all that
            # was decoded would stay until the garbage collector comes by.
            del future, job

    async def _run(self) -> None:
        try:
            while self._jobs:
                until = time.monotonic() + _SLICE_S
                while self._jobs and time.monotonic() < until:
                    _, job = heapq.heappop(self._jobs)
                    if self._slice(job, until):
                        heapq.heappush(self._jobs, (job.turn(), job))
                await asyncio.sleep(0)
        finally:
            self._runner = None

    def _slice(self, job: _Job, until_s: float) -> bool:
        """The steps of one body until then; whether it has more."""
        future, steps = job.future, job.steps
        if future.done():  # whoever waited is gone
            steps.close()
            return False
        stopped = self._out_of_time(job)
        if stopped is not None:
            steps.close()
            future.set_exception(stopped)
            return False
        begun = time.thread_time()
        first = not job.used_s
        try:
            # The first turn is bounded by CPU time: on a busy machine a ms can pass without work.
            while time.thread_time() - begun < _FIRST_S if first else time.monotonic() < until_s:
                next(steps)
        except StopIteration as end:
            future.set_result(end.value)
            return False
        except Refusal as no:
            future.set_exception(no.with_traceback(None))
            return False
        except Exception as fault:
            future.set_exception(fault)
            return False
        job.used_s += time.thread_time() - begun
        return True

    def _out_of_time(self, job: _Job) -> Refusal | None:
        if job.used_s > self._cpu_s:
            return Refusal("costly", f"a body that takes more than {self._cpu_s:g} s to decode")
        if time.monotonic() - job.begun_s > self._patience_s:
            text = f"it waited {self._patience_s:g} s for its turn; send again in {RETRY_S} s"
            return Refusal("busy", text, retry=True)
        return None
