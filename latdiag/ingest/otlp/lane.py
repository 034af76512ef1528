"""Decoding in slices of a few milliseconds, between which the event loop serves everybody else.

One body after the other would let a large one hold up a small one, so who has used least is next.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from typing import Any

from latdiag.ingest.otlp.limits import DECODE_S, PATIENCE_S, RETRY_S, Refusal, Steps
from latdiag.ingest.otlp.room import Claim

_SLICE_S = 0.004


class _Job:
    __slots__ = ("begun_s", "future", "steps", "stopped", "used_s")

    def __init__(self, steps: Steps[Any], future: asyncio.Future[Any]) -> None:
        self.steps = steps
        self.future = future
        self.used_s = 0.0
        self.begun_s = time.monotonic()
        self.stopped: Refusal | None = None

    def stop(self, refusal: Refusal) -> None:
        self.stopped = self.stopped or refusal


class Lane:
    """Takes steps of many bodies in turns, in the running event loop."""

    def __init__(self, cpu_s: float = DECODE_S, patience_s: float = PATIENCE_S) -> None:
        self._cpu_s = cpu_s
        self._patience_s = patience_s
        self._jobs: list[tuple[float, int, _Job]] = []
        self._numbers = itertools.count()
        self._runner: asyncio.Task[None] | None = None

    async def result(self, steps: Steps[Any], claim: Claim) -> Any:
        """What the steps make. Raises what they raise; Refusal beyond the time of one body, or
        where ``claim`` has to give way."""
        job = _Job(steps, asyncio.get_running_loop().create_future())
        claim.give_way = job.stop
        heapq.heappush(self._jobs, (0.0, next(self._numbers), job))
        if self._runner is None:
            self._runner = asyncio.create_task(self._run())
        return await job.future

    async def _run(self) -> None:
        try:
            while self._jobs:
                _, _, job = heapq.heappop(self._jobs)
                if self._slice(job):
                    heapq.heappush(self._jobs, (job.used_s, next(self._numbers), job))
                await asyncio.sleep(0)
        finally:
            self._runner = None

    def _slice(self, job: _Job) -> bool:
        """Some steps of one body; whether it has more."""
        future, steps = job.future, job.steps
        if future.done():  # whoever waited is gone
            steps.close()
            return False
        job.stopped = job.stopped or self._out_of_time(job)
        if job.stopped is not None:
            steps.close()
            future.set_exception(job.stopped)
            return False
        begun, until = time.thread_time(), time.monotonic() + _SLICE_S
        try:
            while time.monotonic() < until:
                next(steps)
        except StopIteration as end:
            future.set_result(end.value)
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
