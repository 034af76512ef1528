"""Signals: taken over for the time of a block, and what a child leaves to its parent."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType

#: What ends a command: a Ctrl-C in the terminal, and whoever terminates it.
ENDING = (signal.SIGINT, signal.SIGTERM)
#: A Ctrl-C reaches the whole group: the parent decides, its children go on until it does.
PARENTAL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)


@contextlib.contextmanager
def handled(
    handler: Callable[[int, FrameType | None], object],
    numbers: tuple[signal.Signals, ...] = ENDING,
) -> Iterator[None]:
    """Call ``handler`` for these signals while the block lasts, and then whoever was before."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, one in before.items():
            signal.signal(number, one)


@contextlib.contextmanager
def spared(numbers: tuple[signal.Signals, ...] = ENDING) -> Iterator[None]:
    """The first of these signals does nothing while the block lasts; the next has its effect."""
    before = {number: signal.getsignal(number) for number in numbers}

    def spare(_number: int, _frame: FrameType | None) -> None:
        for number, one in before.items():
            signal.signal(number, one)

    with handled(spare, numbers):
        yield


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Let these signals wait while a child starts: none may find it with its parent's handlers."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, PARENTAL)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore() -> None:
    """Leave these signals to the parent from here on."""
    for number in PARENTAL:
        signal.signal(number, signal.SIG_IGN)
