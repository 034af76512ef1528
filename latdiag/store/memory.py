"""How much memory reading a run may take, whatever its files say of themselves.

A parquet file states the sizes of what is in it, and a hostile one states others; a text that is
stored once may stand in every row. So what counts is what decoding really takes: the system
refuses a batch more than ``BATCH_MEMORY``, and rows in all may take ``ROOM`` and a multiple of
the bytes on disk.
"""

from __future__ import annotations

import contextlib
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

#: For one batch. Ours take at most 85 MiB: 4 Mi arrivals in five columns.
BATCH_MEMORY = 256 * 1024 * 1024
ROOM = BATCH_MEMORY
TIMES_ENCODED = 128
#: A file of ours has at least one byte for so many decoded: what compresses better is filled up.
TIMES_WRITTEN = TIMES_ENCODED // 2
#: By table the rows that a run may have beyond one for so many of its bytes: whoever computes on
#: requests holds some 5 KB for each, and ours have three ids of their own.
FEW_ROWS = {"requests": 20_000, "evidence": 100_000}
ROW_BYTES = {"requests": 16, "evidence": 1}
#: Address space that others of this process may reserve at any moment: a thread that begins and an
#: allocator that grows take 64 to 128 MiB, of which they use next to nothing.
_RESERVED = 64 * 1024 * 1024
_TRIES = 3

T = TypeVar("T")


class Budget:
    """Rows and decoded bytes that a table of a run may still have, while its files are read."""

    def __init__(self, table: str) -> None:
        self._left = ROOM
        self._row_bytes = ROW_BYTES[table]
        self._rows = FEW_ROWS[table]

    def add(self, encoded: int) -> None:
        """A file of ``encoded`` bytes is read next."""
        self._left += TIMES_ENCODED * encoded
        self._rows += encoded // self._row_bytes

    def claim(self, rows: int) -> bool:
        """Whether that many rows of the file are still within the budget."""
        self._rows -= rows
        return self._rows >= 0

    def spend(self, decoded: int) -> bool:
        """Whether that is still within the budget."""
        self._left -= decoded
        return self._left >= 0


def within(make: Callable[[], T]) -> T:
    """What ``make`` returns, made in ``bounded``; MemoryError if that is not enough.

    The system counts the whole process. So ``make`` is called again where others have reserved
    room meanwhile, and keep it: a sound file is not to be refused for what they took.
    """
    for left in reversed(range(_TRIES)):
        before = _size()
        try:
            with bounded():
                return make()
        except MemoryError:
            if not left or _size() - before < _RESERVED:
                raise
    raise AssertionError("the last try returns or raises")


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """In here at most BATCH_MEMORY more than now is to be had: MemoryError instead.

    Where the system does not tell what a process has, nothing is bounded.
    """
    has = _size()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = has + BATCH_MEMORY
    if not has or (soft != resource.RLIM_INFINITY and soft <= limit):
        yield
        return
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _size() -> int:
    """The address space of this process in bytes; 0 if unknown."""
    if sys.platform != "linux":
        return 0
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (OSError, ValueError):
        return 0
