"""A process ends, whatever moment a signal's handler chooses to raise in."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from latdiag.runtime.children import Child

#: Far beyond what a kill takes: a lock that stays held would never be given back.
_FOREVER_S = 30


class Raised(BaseException):
    """What a handler raises."""


@pytest.fixture
def bounded() -> Iterator[None]:
    """A hang fails the test."""

    def hangs(_number: int, _frame: FrameType | None) -> None:
        raise AssertionError("it still waits")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(_FOREVER_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def _raise_at(line: int, child: Child) -> bool:
    """Look whether ``child`` lives, and raise as the line of that number begins, of this package
    or of the standard library; whether there were so many."""
    left = line

    def trace(_frame: FrameType, event: str, _arg: Any) -> Any:
        nonlocal left
        if event == "line":
            left -= 1
            if left < 0:
                raise Raised
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        child.alive()
    except Raised:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.usefixtures("bounded")
def test_a_signal_at_any_line_of_a_look_leaves_no_process_behind() -> None:
    for line in range(50):
        process = subprocess.Popen(["sleep", "60"])
        child = Child(process.pid, process)
        raised = _raise_at(line, child)
        child.end()
        assert child.status == -signal.SIGKILL
        if not raised:
            break
    assert 0 < line < 49


def test_the_status_of_one_that_ended_by_itself_is_kept() -> None:
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    child = Child(process.pid, process)
    assert child.wait() == 3 == process.returncode
    assert not child.alive() and child.end_words == "status 3"
