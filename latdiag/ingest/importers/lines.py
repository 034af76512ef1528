"""Lines of a file that came from outside, plain or gzipped, with bounds on all that could grow."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

#: One line; JSON may take thirty times that in memory. And a document that is not in lines.
LINE_BYTES = 16 << 20
WHOLE_BYTES = 32 << 20
#: A file may inflate to this many times its size; small files may in any case to ``_FREE``.
RATIO = 100
_FREE = 64 << 20
_TOTAL = 8 << 30


@dataclass(slots=True)
class Skipped:
    """What could not be read of a file: lines too long, and why the rest was not read."""

    long: int = 0
    stopped: str = ""


def lines(path: Path, skipped: Skipped, limit: int = LINE_BYTES) -> Iterator[bytes]:
    """The lines of ``path`` (gzip by its ending ``.gz``) without their ends; none is empty.

    A line over ``limit`` bytes is skipped and counted. Reading stops, with a reason in
    ``skipped.stopped``, at damaged gzip data and where the file inflates beyond its bound.
    Raises OSError where the file cannot be read.
    """
    most = _most_bytes(path)
    with closing(_opened(path)) as file:
        total = 0
        while True:
            try:
                line, size = _one(file, limit, most - total)
            except (EOFError, gzip.BadGzipFile, zlib.error):
                skipped.stopped = "the gzip data is damaged or cut off"
                return
            if not size:
                return
            total += size
            if total >= most:
                skipped.stopped = f"it inflates to more than {most >> 20:,} MiB"
                return
            if line is None:
                skipped.long += 1
            elif stripped := line.strip():
                yield stripped


def whole(path: Path, skipped: Skipped, limit: int = WHOLE_BYTES) -> bytes | None:
    """All of ``path`` if it has at most ``limit`` bytes, inflated; else None, and why."""
    with closing(_opened(path)) as file:
        try:
            data = file.read(limit + 1)
        except (EOFError, gzip.BadGzipFile, zlib.error):
            skipped.stopped = "the gzip data is damaged or cut off"
            return None
    if len(data) > limit:
        skipped.stopped = f"it has more than {limit >> 20:,} MiB"
        return None
    return data


def _opened(path: Path) -> IO[bytes]:
    if path.name.endswith(".gz"):
        return cast("IO[bytes]", gzip.open(path, "rb"))
    return path.open("rb")


def _most_bytes(path: Path) -> int:
    """A bound on what is read of ``path``; a plain file cannot grow."""
    size = path.stat().st_size
    return min(_TOTAL, max(_FREE, RATIO * size) if path.name.endswith(".gz") else size + 1)


def _one(file: IO[bytes], limit: int, most: int) -> tuple[bytes | None, int]:
    """(The next line, None if it is over ``limit``; its bytes, 0 at the end)."""
    line = file.readline(limit + 1)
    size = len(line)
    if size <= limit:
        return line, size
    while size < most:
        part = file.readline(1 << 20)
        size += len(part)
        if not part or part.endswith(b"\n"):
            break
    return None, size
