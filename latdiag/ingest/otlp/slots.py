"""How many connections a door has, and which of them gives way."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Protocol

from latdiag.ingest.otlp.limits import MAX_CONNECTIONS, STALLED_S


class Connection(Protocol):
    """``moved_s``: MONOTONIC seconds of the last byte that it took or gave."""

    moved_s: float

    def abort(self) -> None: ...


class Slots:
    """The connections of a door. Where all places are taken, the one that has made no progress
    for longest gives way to a new one, if that is a second at least."""

    def __init__(self, most: int = MAX_CONNECTIONS) -> None:
        self._most = most
        self._open: set[Connection] = set()

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._open))

    def add(self, connection: Connection) -> bool:
        """Take a connection in; False, and it has no place, where there is none."""
        if len(self._open) >= self._most:
            stalled = min(self._open, key=lambda one: one.moved_s)
            if time.monotonic() - stalled.moved_s < STALLED_S:
                return False
            self._open.discard(stalled)
            stalled.abort()
        self._open.add(connection)
        return True

    def discard(self, connection: Connection) -> None:
        self._open.discard(connection)
