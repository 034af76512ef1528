"""What comes in is looked at in turns, a millisecond at a time.

Bytes that cost much to look at (chunks of a byte, thousands of small requests or frames) are cheap
to send: without turns one round over all connections would take seconds.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from typing import Any

#: What one round of the event loop may look at, and one connection of it.
_ROUND_S, _TURN_S = 0.001, 0.0005
#: What a connection may take of all time before it counts as having used it.
_SHARE = 0.05
_BUFFER = 64 << 10


class Turns:
    """Gives the inlets of all connections their turns, in the running event loop.

    The next is the one that has used least: who is new waits for nobody who had a turn already,
    however many of them there are.
    """

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(_BUFFER))
        self._waiting: list[tuple[float, int, Inlet]] = []
        self._numbers = itertools.count()
        self._left_s = _ROUND_S
        self._begun = False

    def take(self, inlet: Inlet) -> None:
        """A turn of ``inlet``, now if there is time, else in a later round."""
        if self._left_s > 0 and not self._waiting:
            self._turn(inlet)
        else:
            self._wait(inlet)
        self._next_round()

    def _turn(self, inlet: Inlet) -> None:
        begun = time.perf_counter()
        more = inlet.look(begun + min(_TURN_S, self._left_s))
        took = time.perf_counter() - begun
        inlet.charge(begun, took)
        self._left_s -= took
        if more:
            self._wait(inlet)

    def _wait(self, inlet: Inlet) -> None:
        used_s = inlet.used_by(time.perf_counter())
        heapq.heappush(self._waiting, (used_s, next(self._numbers), inlet))

    def _next_round(self) -> None:
        if not self._begun:
            self._begun = True
            asyncio.get_running_loop().call_soon(self._round)

    def _round(self) -> None:
        self._begun = False
        self._left_s = _ROUND_S
        while self._waiting and self._left_s > 0:
            self._turn(heapq.heappop(self._waiting)[-1])
        if self._waiting:
            self._next_round()


class Inlet:
    """What a connection has received and not looked at. It is read on when that is done, and
    nothing holds it.

    ``look_at`` takes pieces of at most ``piece`` bytes.
    """

    def __init__(self, turns: Turns, look_at: Callable[[bytes], None], piece: int) -> None:
        self._turns = turns
        self._look_at = look_at
        self.piece = piece
        self._transport: Any = None
        self._data, self._at = b"", 0
        self._holds: set[str] = set()
        self._paused = self._waits = False
        self._used_s = self._charged_s = 0.0

    def open(self, transport: Any) -> None:
        self._transport = transport

    def received(self, size: int) -> None:
        """So many bytes lie in the buffer of the turns."""
        self._data, self._at = bytes(self._turns.buffer[:size]), 0
        self._begin()

    def put_back(self, data: bytes) -> None:
        """To be looked at once more, before what came after it."""
        self._data, self._at = data + self._data[self._at :], 0

    def hold(self, why: str) -> None:
        """Look at nothing more until ``free`` with the same reason."""
        self._holds.add(why)
        self._read()

    def free(self, why: str) -> None:
        self._holds.discard(why)
        if not self._holds:
            self._begin()

    def look(self, until_s: float) -> bool:
        """Look until then (``perf_counter``), but at one piece at least; whether there is more."""
        self._waits = False
        while self._data and not self._holds:
            piece = self._data[self._at : self._at + self.piece]
            self._at += len(piece)
            if self._at == len(self._data):
                self._data = b""
            self._look_at(piece)
            if time.perf_counter() >= until_s:
                break
        self._waits = bool(self._data) and not self._holds
        self._read()
        return self._waits

    def charge(self, now_s: float, took_s: float) -> None:
        """A turn that began at ``now_s`` took so long."""
        self._used_s, self._charged_s = self.used_by(now_s) + took_s, now_s

    def used_by(self, now_s: float) -> float:
        """Seconds that its turns took beyond the share of the connection."""
        return max(0.0, self._used_s - _SHARE * (now_s - self._charged_s))

    def rest(self) -> bytes:
        """What is not looked at, for one who looks at it now: the connection is lost."""
        rest = self._data[self._at :]
        self.end()
        return rest

    def end(self) -> None:
        """The connection is lost, or what it sends is of no interest any more: it is read, so that
        the sender comes to the answer, and thrown away."""
        self._data, self._at = b"", 0
        self._holds.clear()
        self._read()

    def _begin(self) -> None:
        if self._data and not self._waits and not self._holds:
            self._waits = True
            self._turns.take(self)
        self._read()

    def _read(self) -> None:
        pause = bool(self._data or self._holds)
        if pause != self._paused and self._transport is not None:
            self._paused = pause
            if pause:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()
