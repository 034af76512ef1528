"""The heartbeat of a reader: how late its loop is, and once a second how it fares."""

from __future__ import annotations

import asyncio
import gc
import resource
import time
from collections.abc import Callable
from time import monotonic_ns

from latdiag.load.processes.outbox import Outbox, Reading
from latdiag.runtime.run_queue import RunQueue
from latdiag.runtime.wake import WakeSelector
from latdiag.store.clock import sample

#: Longest wait of what was read before it goes to the writer.
BEAT_S = 0.02
_TICK_S = 1.0
#: Cyclic objects that may pile up before they are collected: about 1 us each.
_YOUNG = 2000


class Pulse:
    """Every 20 ms what was read goes to the writer; every second a reading goes with it.

    ``on_offset``: takes REALTIME minus MONOTONIC in ns at each reading.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        selector: WakeSelector,
        outbox: Outbox,
        on_offset: Callable[[int], None],
    ) -> None:
        self._loop = loop
        self._selector = selector
        self._outbox = outbox
        self._on_offset = on_offset
        self._queue = RunQueue()
        self._lags: list[int] = []
        self._due_ns = 0

    def start(self) -> None:
        self._tick()
        self._due_ns = monotonic_ns()
        self._beat()

    def _beat(self) -> None:
        now = monotonic_ns()
        self._lags.append(now - self._due_ns)
        self._due_ns = now + int(BEAT_S * 1e9)
        self._loop.call_later(BEAT_S, self._beat)
        self._outbox.hand_over()
        if gc.get_count()[0] > _YOUNG:
            gc.collect(0)  # what failed requests leave; the rest of the process is frozen

    def _tick(self) -> None:
        self.read()
        self._loop.call_later(_TICK_S, self._tick)

    def read(self) -> None:
        """Put a reading into the outbox: the clock's offset now, and how this process fares."""
        now = sample()
        self._on_offset(now.real_ns - now.mono_ns)
        lags, self._lags = self._lags, []
        reading = Reading(
            clock=(now.mono_ns, now.real_ns, now.width_ns),
            cpu_ns=time.process_time_ns(),
            queued_ns=self._queue.delay_ns(),
            starved_ns=self._selector.starved_ns,
            queue_known=self._selector.queue_known,
            loop_lags_ns=tuple(lags),
            backlog=self._outbox.backlog,
            rss_kb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        )
        self._outbox.say(reading)
