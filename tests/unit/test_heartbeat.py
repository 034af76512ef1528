"""Busy is not dead: what a parent makes of the signs of life of its child."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from latdiag.runtime.heartbeat import Heartbeat


@contextmanager
def _child(work: Callable[[], None]) -> Iterator[int]:
    """A process that does ``work`` and never comes to anything else."""
    pid = os.fork()
    if not pid:
        try:
            work()
        finally:
            os._exit(0)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _until(holds: Callable[[], bool]) -> None:
    patience = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < patience, "it did not happen"
        time.sleep(0.02)


def test_a_child_that_only_works_beats_and_a_stopped_one_does_not() -> None:
    heart = Heartbeat()

    def busy() -> None:
        heart.start()
        while True:
            pass

    with _child(busy) as pid:
        beats = 0
        before = b""

        def beaten() -> bool:
            nonlocal beats, before
            now = bytes(heart._shared[:])
            beats += now != before
            before = now
            return beats >= 4

        _until(beaten)
        os.kill(pid, signal.SIGSTOP)
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
        heart.silent_s()
        _until(lambda: heart.silent_s() > 1.5)
        os.kill(pid, signal.SIGCONT)
        _until(lambda: heart.silent_s() == 0.0)


def test_silence_is_what_the_parent_was_there_to_hear(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    heart = Heartbeat()

    def heard(after_s: float, beat: bool = False) -> float:
        now[0] += after_s
        if beat:
            heart._shared[:] = os.urandom(8)
        return heart.silent_s()

    assert heard(0.5, beat=True) == 0.0
    assert [heard(0.5) for _ in range(4)] == [0.5, 1.0, 1.5, 2.0]
    # A parent that was stopped for an hour has heard nothing of it, a beat included.
    assert heard(3600.0) == 3.0
    assert heard(0.5, beat=True) == 0.0
    assert heard(1.0) == 1.0


def test_a_child_that_never_beats_is_silent_from_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [5.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    heart = Heartbeat()
    heart._seen = bytes(8)
    for _ in range(40):
        now[0] += 1.0
        silent = heart.silent_s()
    assert silent == 40.0
