"""How many connections a door has, and which of them gives way."""

from __future__ import annotations

import time
from typing import Protocol

from latdiag.ingest.otlp.limits import FLOOR_BYTES_PER_S, MAX_CONNECTIONS, YOUNG_S


class Standing:
    """What a connection does for its place: whole requests, and bytes of bodies that come faster
    than a floor. Any other byte, either way, is no progress.

    ``asked``: a request has begun. ``gave``: one with a body was answered. ``spent``: nothing is
    to be expected of it, since it is refused, or does not read what it is answered.
    """

    __slots__ = ("asked", "begun_s", "gave", "spent", "useful_s")

    def __init__(self) -> None:
        self.begun_s = self.useful_s = time.monotonic()
        self.asked = self.gave = self.spent = False

    def body(self, size: int) -> None:
        """``size`` bytes of a body came: worth the time that they may take, and no more."""
        worth_s = size / FLOOR_BYTES_PER_S
        self.useful_s = min(time.monotonic(), self.useful_s + worth_s)

    def whole(self) -> None:
        """A request with a body was answered."""
        self.useful_s = time.monotonic()
        self.gave = True

    def rank(self, now_s: float) -> tuple[bool, bool, float]:
        """The lowest goes first: the young, who had no time yet, after all others, and of them
        those who asked for something last."""
        young = not self.gave and now_s - self.begun_s < YOUNG_S
        return young, young and self.asked, self.begun_s if young else self.useful_s


class Connection(Protocol):
    standing: Standing

    def give_way(self) -> None:
        """End at once: another needs the place."""


class Slots:
    """The connections of a door. A new one always finds a place: where all are taken, the one
    that gives least makes way at once.

    Those that gave something are not driven out by those that only come: while more than a
    quarter of the places are held by who gave nothing, one of these goes.
    """

    def __init__(self, most: int = MAX_CONNECTIONS) -> None:
        self._most = most
        self._open: set[Connection] = set()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, connection: Connection) -> None:
        """Take a connection in."""
        if len(self._open) >= self._most:
            least = self._least()
            self._open.discard(least)
            least.give_way()
        self._open.add(connection)

    def discard(self, connection: Connection) -> None:
        self._open.discard(connection)

    def _least(self) -> Connection:
        now = time.monotonic()
        spent = [one for one in self._open if one.standing.spent]
        gave_nothing = [one for one in self._open if not one.standing.gave]
        many = gave_nothing if len(gave_nothing) > self._most // 4 else self._open
        return min(spent or many, key=lambda one: one.standing.rank(now))
