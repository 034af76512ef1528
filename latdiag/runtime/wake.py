"""When the event loop woke, and an alarm that is exact to some microseconds.

asyncio rounds its waits up to whole milliseconds, which would be schedule lag; and it does not
say whether a wake was late, which decides how far an overwritten stamp can be trusted.
"""

from __future__ import annotations

import asyncio
import os
import selectors
from collections.abc import Callable
from time import monotonic_ns

from latdiag.runtime.run_queue import RunQueue
from latdiag.runtime.timer import rang, timerfd

#: A select that took longer than this found nothing ready when it was called, and blocked.
_BLOCKED_NS = 20_000
#: A sleep shorter than this is not worth a look at the run queue, which takes some 3 us.
_SLEPT_NS = 80_000
#: From a segment's stamp in the kernel to its reader being runnable. Generously: the core of a
#: virtual machine takes 50 us and more to leave its idle state before it even takes the wake.
_WAKE_PATH_NS = 500_000
#: What a wake may wait for its core without any rival: a virtual machine's idle core takes some
#: 50 us to come back. At thousands of wakes a second that adds up, and it is no starvation.
FREE_WAKE_NS = 100_000


class WakeSelector(selectors.DefaultSelector):
    """A selector that knows when its last sleep was ended, and not merely when it got to run.

    ``floor_ns``: what is readable after this wake arrived later than this instant (MONOTONIC),
    or 0 if the loop did not sleep. Time in the run queue after the wake is taken off, which
    the kernel counts in schedstat. ``starved_ns``: all such time so far but ``FREE_WAKE_NS`` for
    each wake: what rivals for the core took.
    """

    def __init__(self) -> None:
        super().__init__()
        self._queue = RunQueue()
        self._delay_ns = self._queue.delay_ns()
        self._wakes = 0
        self._stopped = False
        self.floor_ns = 0
        self.starved_ns = 0

    def note_stop(self, _number: int, _frame: object) -> None:
        """Handler of SIGCONT: this process was stopped, which the run queue does not count."""
        self._stopped = True

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        begun = monotonic_ns()
        ready = super().select(timeout)
        woken = monotonic_ns()
        stopped, self._stopped = self._stopped, False
        took = 0 if timeout == 0 else woken - begun
        self._wakes += took > _BLOCKED_NS
        if took > _SLEPT_NS and self._queue.known and not stopped:
            waited = self._take_delay()
            self.floor_ns = max(begun, woken - waited - _WAKE_PATH_NS)
        else:
            self.floor_ns = begun if took > _BLOCKED_NS else 0
        return ready

    def _take_delay(self) -> int:
        """Time in the run queue since the last look, ns."""
        now = self._queue.delay_ns()
        waited, self._delay_ns = now - self._delay_ns, now
        self.starved_ns += max(0, waited - self._wakes * FREE_WAKE_NS)
        self._wakes = 0
        return waited

    @property
    def queue_known(self) -> bool:
        return self._queue.known


def run_at_once() -> None:
    """Real-time priority, the lowest there is: before every ordinary process of the machine.

    A reader that the server's own threads keep from its core finds several tokens in one read.
    Raises PermissionError without the right to it (root, CAP_SYS_NICE).
    """
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


def new_loop() -> tuple[asyncio.SelectorEventLoop, WakeSelector]:
    """An event loop and its selector, which knows how it woke."""
    selector = WakeSelector()
    return asyncio.SelectorEventLoop(selector), selector


class Alarm:
    """Calls back at an instant of the monotonic clock: by timerfd, else by the loop's timer."""

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._handle: asyncio.TimerHandle | None = None
        self._set: Callable[[int], None] | None = None
        self._fd = -1
        if (timer := timerfd()) is not None:
            self._fd, self._set = timer
            loop.add_reader(self._fd, self._rang)

    def at(self, mono_ns: int) -> None:
        """Ring once at ``mono_ns``; an instant in the past rings at once. Replaces the last."""
        if self._set is not None:
            self._set(mono_ns)
            return
        if self._handle is not None:
            self._handle.cancel()
        delay = max(0, mono_ns - monotonic_ns()) / 1e9
        self._handle = self._loop.call_later(delay, self._callback)

    def _rang(self) -> None:
        if rang(self._fd):
            self._callback()

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
        if self._handle is not None:
            self._handle.cancel()
