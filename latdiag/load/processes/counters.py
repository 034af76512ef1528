"""Counters that the processes of a load share, for the parent's progress line."""

from __future__ import annotations

import mmap
import struct
from typing import NamedTuple

_CELL = struct.Struct("=q")
#: Where it stands whether a reader is ready; the counts stand before it.
_READY = 64


class Counts(NamedTuple):
    begun: int
    done: int
    failed: int
    tokens: int
    #: of those that failed: refused as too many
    shed: int = 0
    #: rows on disk
    written: int = 0


class Counters:
    """Numbers in memory shared by a reader and its writer; each has one writer."""

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, mmap.PAGESIZE)
        self._begun = 0

    def add_begun(self) -> None:
        self._begun += 1
        _CELL.pack_into(self._map, 0, self._begun)

    def set_ready(self) -> None:
        _CELL.pack_into(self._map, _READY, 1)

    @property
    def ready(self) -> bool:
        return bool(_CELL.unpack_from(self._map, _READY)[0])

    def set_done(self, done: int, failed: int, tokens: int, shed: int) -> None:
        for place, value in ((8, done), (16, failed), (24, tokens), (32, shed)):
            _CELL.pack_into(self._map, place, value)

    def set_written(self, rows: int) -> None:
        _CELL.pack_into(self._map, 40, rows)

    def read(self) -> Counts:
        places = range(len(Counts._fields))
        return Counts(*(_CELL.unpack_from(self._map, 8 * place)[0] for place in places))
