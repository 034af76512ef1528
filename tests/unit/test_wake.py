"""When the loop woke: a floor below every arrival; and an alarm that is exact."""

from __future__ import annotations

import asyncio
import os
import random
import selectors
import signal
import socket
import statistics
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic_ns

import pytest

from latdiag.load.row import TOLERANCE_NS
from latdiag.runtime import wake
from latdiag.runtime.wake import FREE_WAKE_NS, Alarm, WakeSelector, new_loop

US, MS = 1_000, 1_000_000
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux only")


# ---------------------------------------------------------------------- the rule, step by step
class Scripted(WakeSelector):
    """Each select takes, and waits for its core, as long as the test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, known: bool = True) -> None:
        self.now = 10 * MS
        self.waited = 0
        super().__init__()
        self._queue = self  # type: ignore[assignment]
        self.known = known
        self._delay_ns = 0
        monkeypatch.setattr(wake, "monotonic_ns", lambda: self.now)
        monkeypatch.setattr(selectors.DefaultSelector, "select", self._sleep)
        self._takes = 0

    def delay_ns(self) -> int:
        return self.waited

    def _sleep(self, _selector: object, _timeout: float | None = None) -> list[object]:
        self.now += self._takes
        return []

    def wakes_after(self, takes: int, waited: int = 0, timeout: float | None = None) -> int:
        """One select; the floor after it, as an age at the wake (or -1 for none)."""
        self._takes = takes
        self.waited += waited
        self.select(timeout)
        return self.now - self.floor_ns if self.floor_ns else -1


def test_a_wake_is_traced_back_over_its_wait_for_a_core(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    selector = Scripted(monkeypatch)
    assert selector.wakes_after(5 * MS) == 500 * US, "the way from the stamp to the reader"
    assert selector.wakes_after(5 * MS, waited=3 * MS) == 3 * MS + 500 * US
    assert selector.wakes_after(5 * MS, waited=9 * MS) == 5 * MS, "not before the select began"


def test_a_select_that_did_not_sleep_gives_no_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    selector = Scripted(monkeypatch)
    assert selector.wakes_after(10 * US) == -1
    assert selector.wakes_after(60 * US) == 60 * US, "too short to ask for the run queue"
    assert selector.wakes_after(5 * MS, timeout=0) == -1, "a preempted poll, not a sleep"


def test_a_process_that_was_stopped_knows_only_when_it_began_to_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    selector = Scripted(monkeypatch)
    selector.note_stop(signal.SIGCONT, None)
    assert selector.wakes_after(50 * MS) == 50 * MS
    assert selector.wakes_after(50 * MS) == 500 * US, "once"
    selector.note_stop(signal.SIGCONT, None)
    assert selector.wakes_after(10 * US) == -1, "stopped while it did not sleep"


def test_without_a_run_queue_the_begin_of_the_sleep_is_the_floor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    selector = Scripted(monkeypatch, known=False)
    assert selector.wakes_after(5 * MS, waited=3 * MS) == 5 * MS
    assert not selector.queue_known and selector.starved_ns == 0


def test_a_wake_of_an_idle_core_is_no_starvation(monkeypatch: pytest.MonkeyPatch) -> None:
    selector = Scripted(monkeypatch)
    for _ in range(100):
        selector.wakes_after(1 * MS, waited=FREE_WAKE_NS)
    assert selector.starved_ns == 0
    selector.wakes_after(1 * MS, waited=7 * MS)
    assert selector.starved_ns == 7 * MS - FREE_WAKE_NS


def test_selects_that_do_not_sleep_excuse_no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy loop makes thousands of them a second, which rivals would hide behind."""
    selector = Scripted(monkeypatch)
    for _ in range(1000):
        selector.wakes_after(5 * US, waited=50 * US)
    selector.wakes_after(1 * MS)
    assert selector.starved_ns == 50 * MS - FREE_WAKE_NS


# ---------------------------------------------------------------------- against real arrivals
SENDS = 600


def _sender(into: socket.socket, told: int) -> None:
    """Send bytes at random instants; tell between which two stamps each was sent."""
    drawn = random.Random(3)
    stamps = []
    for _ in range(SENDS):
        time.sleep(drawn.choice((0, 0.0002, 0.001)))
        before = monotonic_ns()
        into.send(b"x")
        stamps.append(struct.pack("qq", before, monotonic_ns()))
    os.write(told, b"".join(stamps))


@pytest.fixture
def child() -> Iterator[Callable[[Callable[[], None]], int]]:
    """Forks a process for the test's other side; it is gone when the test is."""
    pids: list[int] = []

    def fork(life: Callable[[], None]) -> int:
        pid = os.fork()
        if not pid:
            try:
                life()
            finally:
                os._exit(0)
        pids.append(pid)
        return pid

    yield fork
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@linux
def test_no_arrival_lies_below_its_floor(child: Callable[[Callable[[], None]], int]) -> None:
    """A core that the hypervisor takes away is seen by nobody: a few floors may be late by it."""
    near, far = socket.socketpair()
    told, telling = os.pipe()
    child(lambda: _sender(far, telling))
    selector = WakeSelector()
    selector.register(near, selectors.EVENT_READ)
    floors: list[int] = []
    while len(floors) < SENDS:
        assert selector.select(10.0), "the sender is gone"
        floors += [selector.floor_ns] * len(near.recv(4096))
    sent = list(struct.iter_unpack("qq", os.read(told, 16 * SENDS)))
    selector.close()
    near.close()
    far.close()
    os.close(told)
    os.close(telling)
    late = [f - after for f, (_, after) in zip(floors, sent, strict=True) if f > after]
    assert len([one for one in late if one > TOLERANCE_NS]) <= 0.01 * SENDS, late
    # And it says something: most arrivals are known to a few hundred microseconds.
    tight = [f for f, (before, _) in zip(floors, sent, strict=True) if f > before - 500 * US]
    assert len(tight) > 0.3 * SENDS


@linux
def test_after_a_stop_what_came_meanwhile_is_above_the_floor(
    child: Callable[[Callable[[], None]], int],
) -> None:
    """The run queue does not count the time in which a process is stopped."""
    near, far = socket.socketpair()
    told, telling = os.pipe()

    def wait() -> None:
        selector = WakeSelector()
        signal.signal(signal.SIGCONT, selector.note_stop)
        selector.register(near, selectors.EVENT_READ)
        os.write(telling, b"ready...")
        selector.select(10.0)
        os.write(telling, struct.pack("q", selector.floor_ns))

    pid = child(wait)
    assert os.read(told, 8) == b"ready..."
    time.sleep(0.02)
    os.kill(pid, signal.SIGSTOP)
    os.waitpid(pid, os.WUNTRACED)
    far.send(b"x")
    arrived = monotonic_ns()
    time.sleep(0.03)
    os.kill(pid, signal.SIGCONT)
    (floor,) = struct.unpack("q", os.read(told, 8))
    for end in (near, far):
        end.close()
    for fd in (told, telling):
        os.close(fd)
    assert 0 < floor <= arrived


# ---------------------------------------------------------------------- the alarm
def rung(act: Callable[[Alarm], None], count: int = 1) -> list[int]:
    """The instants at which an alarm rang ``count`` times after ``act`` had set it."""
    loop, _ = new_loop()
    rang: list[int] = []
    done = loop.create_future()

    def ring() -> None:
        rang.append(monotonic_ns())
        if len(rang) == count and not done.done():
            done.set_result(None)
        elif len(rang) < count:
            act(alarm)

    alarm = Alarm(loop, ring)
    try:
        act(alarm)
        loop.run_until_complete(asyncio.wait_for(done, 10))
    finally:
        alarm.close()
        loop.close()
    return rang


def lateness(count: int) -> list[int]:
    due: list[int] = []

    def act(alarm: Alarm) -> None:
        due.append(monotonic_ns() + 1_300 * US)
        alarm.at(due[-1])

    return [at - when for at, when in zip(rung(act, count), due, strict=True)]


@linux
def test_the_alarm_is_exact_where_the_loops_timer_rounds_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exact = lateness(40)
    assert min(exact) >= 0, "never early"
    monkeypatch.setattr(sys, "platform", "other")
    rounded = lateness(40)
    assert statistics.median(exact) < 0.5 * statistics.median(rounded)


@pytest.mark.parametrize("platform", [sys.platform, "other"])
def test_an_instant_in_the_past_rings_at_once(
    monkeypatch: pytest.MonkeyPatch, platform: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    for past in (0, 1, monotonic_ns() - 1):
        assert len(rung(lambda alarm, past=past: alarm.at(past))) == 1  # type: ignore[misc]


@pytest.mark.parametrize("platform", [sys.platform, "other"])
def test_a_new_instant_replaces_the_last(monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    begun = monotonic_ns()

    def act(alarm: Alarm) -> None:
        alarm.at(begun + 3_600_000 * MS)
        alarm.at(begun + 5 * MS)
        alarm.at(begun + 10 * MS)

    (at,) = rung(act)
    assert at - begun >= 10 * MS * 0.999


def test_a_closed_alarm_holds_nothing() -> None:
    loop, _ = new_loop()
    before = descriptors()
    alarm = Alarm(loop, lambda: None)
    alarm.at(monotonic_ns() + 3_600_000 * MS)
    alarm.close()
    alarm.close()
    assert descriptors() == before
    loop.close()


def descriptors() -> int:
    """How many this process has open; 0 where the system does not tell."""
    place = Path("/proc/self/fd")
    return len(list(place.iterdir())) if place.exists() else 0
