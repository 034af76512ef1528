"""Sockets and one alarm, on time: the waits of asyncio are rounded up to whole milliseconds.

Also the measure of how well the time was kept.
"""

from __future__ import annotations

import os
import selectors
import signal
import sys
from collections.abc import Callable
from time import monotonic_ns
from typing import Any, TypedDict

from latdiag.runtime.timer import rang, timerfd

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

#: The alarm rings so long before its instant, and the rest is spent looking at the clock: an idle
#: core takes some 50 us to come back, in a virtual machine more.
AHEAD_NS = 100_000

Ready = Callable[[int], None]


class Loop:
    """Which sockets are ready, and an alarm exact to some microseconds.

    Callbacks take the mask of READ and WRITE that is ready.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._set: Callable[[int], None] | None = None
        self._set_to = 0
        self._alarm = -1
        if (timer := timerfd()) is not None:
            self._alarm, self._set = timer
            self._selector.register(self._alarm, READ, self._rang)

    def close(self) -> None:
        self._selector.close()
        if self._alarm >= 0:
            os.close(self._alarm)

    def watch(self, what: Any, mask: int, ready: Ready) -> None:
        """Call ``ready`` for a file object or descriptor; replaces what was watched for it."""
        try:
            self._selector.modify(what, mask, ready)
        except KeyError:
            self._selector.register(what, mask, ready)

    def forget(self, what: Any) -> None:
        try:
            self._selector.unregister(what)
        except (KeyError, ValueError):
            pass

    def end_by(self, stop: Callable[[], None]) -> None:
        """Call ``stop`` when stdin is at its end (the parent ended), and at SIGINT and SIGTERM."""
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda _number, _frame: None)
        self.watch(reading, READ, lambda _mask: stop())
        stdin = sys.stdin.fileno()
        self.watch(stdin, READ, lambda _mask: stop() if _at_end(stdin) else None)

    def wait(self, due_ns: int | None) -> None:
        """Until ``due_ns`` (MONOTONIC) or until something is ready, which is called then."""
        if due_ns is None:
            self._call(self._selector.select(None))
            return
        left_ns = due_ns - monotonic_ns()
        if left_ns > AHEAD_NS:
            self._call(self._selector.select(self._timeout(due_ns - AHEAD_NS, left_ns)))
            return
        ready = self._selector.select(0)
        if ready:
            self._call(ready)
            return
        while monotonic_ns() < due_ns:
            pass

    def _timeout(self, ring_ns: int, left_ns: int) -> float | None:
        """Set the alarm; None, or without an alarm the seconds until it would ring."""
        if self._set is None:
            return max(0, left_ns - AHEAD_NS) / 1e9
        if ring_ns != self._set_to:
            self._set(ring_ns)
            self._set_to = ring_ns
        return None

    def _rang(self, _mask: int) -> None:
        self._set_to = 0
        rang(self._alarm)

    @staticmethod
    def _call(found: list[tuple[selectors.SelectorKey, int]]) -> None:
        for key, mask in found:
            key.data(mask)


def _at_end(fd: int) -> bool:
    """Whether nothing more will come: closed in good order, or with messages of ours unread."""
    try:
        return not os.read(fd, 1024)
    except OSError:
        return True


class LateFigures(TypedDict):
    """How many things were done, how late half and 99 % of them were at most (None of nothing),
    and the worst."""

    n: int
    p50_us: int | None
    p99_us: int | None
    max_ns: int


class Lateness:
    """How late things were done: counts of whole microseconds, and the worst."""

    TOP_US = 100_000

    def __init__(self) -> None:
        self._counts = [0] * (self.TOP_US + 1)
        self.n = 0
        self.sum_ns = 0
        self.max_ns = 0

    def add(self, ns: int) -> None:
        self._counts[min(ns // 1000, self.TOP_US)] += 1
        self.n += 1
        self.sum_ns += ns
        if ns > self.max_ns:
            self.max_ns = ns

    def percentile_us(self, percent: float) -> int | None:
        """The whole microseconds that ``percent`` of all stayed below or at; None of nothing.

        Above ``TOP_US`` it is only known to be that much.
        """
        rank, seen = percent / 100 * self.n, 0
        for us, count in enumerate(self._counts):
            seen += count
            if count and seen >= rank:
                return us
        return None

    def at_most(self, bounds_us: list[int]) -> list[int]:
        """How many were at most so late, for rising whole microseconds up to ``TOP_US``."""
        found, seen, place = [], 0, 0
        for bound in bounds_us:
            seen += sum(self._counts[place : bound + 1])
            place = bound + 1
            found.append(seen)
        return found

    def report(self) -> LateFigures:
        return {
            "n": self.n,
            "p50_us": self.percentile_us(50),
            "p99_us": self.percentile_us(99),
            "max_ns": self.max_ns,
        }
