"""What a reader has for its writer: handed over in batches, never waited for but at the end."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from latdiag.runtime.channel import Fault, Record, encode, message, packed


@message
class Reading(NamedTuple):
    """How a reader fares, once a second. ``clock``: a ``ClockSample``; ``cpu_ns``, ``queued_ns``,
    ``starved_ns``: since the process began, the last two of no meaning unless ``queue_known``;
    ``loop_lags_ns``: of each beat since the last reading; ``backlog``: bytes.
    """

    clock: tuple[int, int, int]
    cpu_ns: int
    queued_ns: int
    starved_ns: int
    queue_known: bool
    loop_lags_ns: tuple[int, ...]
    backlog: int
    rss_kb: int

    @property
    def mono_ns(self) -> int:
        return self.clock[0]


@message
class Write(NamedTuple):
    """An order of the parent, which reader and writer hear: what has ended goes to disk now."""


@message
class Bye(NamedTuple):
    """The reader came to its end and lost nothing. ``why``: the run's word for that end."""

    why: str


class Outbox:
    """Records in, frames out to a pipe. ``records`` is appended to directly: it is the hot path.

    ``backlog``: bytes that the writer has not taken yet. ``on_lost`` is called once if the
    writer is gone. ``throttle`` is called with True when the backlog is over ``limit``, and with
    False when half of it is gone: memory stays bounded whatever a server sends.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        fd: int,
        on_lost: Callable[[], None],
        throttle: Callable[[bool], None] = lambda _: None,
        limit: int = 64 << 20,
    ) -> None:
        self.records: list[tuple[Any, ...]] = []
        self.backlog = 0
        self.broken = False
        self._loop = loop
        self._fd = fd
        self._on_lost = on_lost
        self._throttle = throttle
        self._limit = limit
        self._throttled = False
        self._waiting: deque[memoryview] = deque()
        self._watched = False
        os.set_blocking(fd, False)

    def say(self, content: Reading | Bye | Fault | Write) -> None:
        """Add a declared message, for what is said seldom."""
        self.records.append((Record.MESSAGE, packed(content)))

    def hand_over(self) -> None:
        """Give what has gathered to the pipe, as far as it takes it now."""
        if not self.records or self.broken:
            return
        data = encode(self.records)
        self.records.clear()
        self._waiting.append(memoryview(data))
        self.backlog += len(data)
        if not self._watched:
            self._write()
        if self.backlog > self._limit and not self._throttled:
            self._throttled = True
            self._throttle(True)

    def _write(self) -> None:
        while self._waiting:
            head = self._waiting[0]
            try:
                written = os.write(self._fd, head)
            except BlockingIOError:
                self._watch(True)
                return
            except OSError:  # nothing more can be kept
                self._lose()
                return
            self.backlog -= written
            if self._throttled and self.backlog < self._limit // 2:
                self._throttled = False
                self._throttle(False)
            if written == len(head):
                self._waiting.popleft()
            else:
                self._waiting[0] = head[written:]
        self._watch(False)

    def _watch(self, wanted: bool) -> None:
        if wanted and not self._watched:
            self._loop.add_writer(self._fd, self._write)
        elif self._watched and not wanted:
            self._loop.remove_writer(self._fd)
        self._watched = wanted

    def _lose(self) -> None:
        self._watch(False)
        self.broken = True
        self._waiting.clear()
        self.backlog = 0
        self._on_lost()

    def close(self) -> None:
        """Hand over all that is left, waiting for the writer as long as it takes."""
        data = encode(self.records)
        self.records.clear()
        with suppress(OSError):
            os.set_blocking(self._fd, True)
            for part in [*self._waiting, memoryview(data)]:
                while part:
                    part = part[os.write(self._fd, part) :]
        with suppress(OSError):
            os.close(self._fd)
