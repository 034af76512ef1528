"""The demo's event loop: on time, without burning the processor, awake when there is something."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator

import pytest

from latdiag.sim.loop import AHEAD_NS, READ, WRITE, Loop


@pytest.fixture(params=["alarm", "none"])
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    """With the kernel's alarm, and as on a system that has none."""
    with monkeypatch.context() as patch:
        if request.param == "none":
            patch.setattr(sys, "platform", "elsewhere")
        made = Loop()
    yield made
    made.close()


def test_it_waits_until_the_instant_and_sleeps_meanwhile(loop: Loop) -> None:
    for ahead_ms in (0, 1, 20, 5):
        due_ns = time.monotonic_ns() + ahead_ms * 1_000_000
        rounds, begun = 0, time.thread_time()
        while time.monotonic_ns() < due_ns:
            loop.wait(due_ns)
            rounds += 1
        assert rounds <= 4
        assert time.thread_time() - begun < AHEAD_NS / 1e9 + 0.003
    begun_ns = time.monotonic_ns()
    loop.wait(begun_ns - 1_000_000_000)
    assert time.monotonic_ns() - begun_ns < 1_000_000_000


def test_an_earlier_instant_takes_the_place_of_a_later_one_and_is_not_rung_for_twice(
    loop: Loop,
) -> None:
    near, far = socket.socketpair()
    with near, far:
        heard = list[int]()
        far.send(b"x")
        loop.watch(near, READ, lambda mask: heard.append(near.recv(9)[0]))
        loop.wait(time.monotonic_ns() + 60_000_000_000)  # ends by the socket: the alarm stays set
        due_ns = time.monotonic_ns() + 5_000_000
        while time.monotonic_ns() < due_ns:
            loop.wait(due_ns)
        assert time.monotonic_ns() - due_ns < 10_000_000_000
        # Nothing is left that would wake it: only the socket does.
        loop.watch(near, READ | WRITE, heard.append)
        loop.wait(None)
        assert heard == [ord("x"), WRITE]
        loop.watch(near, READ, lambda mask: heard.append(near.recv(9)[0]))
        far.send(b"y")
        loop.wait(None)
        assert heard[2:] == [ord("y")]


def test_what_is_forgotten_is_not_called(loop: Loop) -> None:
    reading, writing = os.pipe()
    try:
        os.write(writing, b"x")
        heard = list[int]()
        loop.watch(reading, READ, heard.append)
        loop.forget(reading)
        loop.forget(reading)
        loop.wait(time.monotonic_ns() + 1_000_000)
        loop.watch(reading, READ, heard.append)
        loop.wait(time.monotonic_ns() + 1_000_000)
        assert heard == [READ]
    finally:
        os.close(reading)
        os.close(writing)
