"""How latdiag's own processes talk: length-prefixed marshal over pipes.

Both ends are forks of one process, so marshal (the fastest serialiser that Python has) meets
only itself. A frame that a killed sender left half written is dropped with its pipe.
"""

from __future__ import annotations

import fcntl
import marshal
import os
from collections.abc import Iterator
from typing import Any

_F_SETPIPE_SZ = 1031
_PIPE_SIZE = 1 << 20


class Record:
    """First item of every tuple that a reader sends: plain ints, marshal knows no enum."""

    BODY = 0  # (BODY, n, real_ns, user_ns, floor_ns, bytes)
    BEGUN = 1  # (BEGUN, n, request_id, trace_id, span_id, due_ns, isl, osl, stage, sent_ns, body)
    ENDED = 2  # (ENDED, n, {exchange field: value})
    TICK = 3  # (TICK, {name: value})
    HEAD = 5  # (HEAD, n, status, content-encoding, content-type), before the first BODY
    BYE = 4  # (BYE, {name: value}): the reader came to its end and lost nothing
    SHORT = 6  # (SHORT, {text, remedy}): this machine lacks something that the load needs


def wide_pipe() -> tuple[int, int]:
    """A pipe with as much room as the system grants, so that nobody waits for a moment's burst."""
    reading, writing = os.pipe()
    try:
        fcntl.fcntl(writing, _F_SETPIPE_SZ, _PIPE_SIZE)
    except OSError:
        pass
    return reading, writing


def encode(records: list[tuple[Any, ...]]) -> bytes:
    data = marshal.dumps(records)
    return len(data).to_bytes(4, "little") + data


class Frames:
    """Bytes in, whole frames out."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[list[tuple[Any, ...]]]:
        held = self._held
        held += data
        start = 0
        while len(held) - start >= 4:
            size = int.from_bytes(held[start : start + 4], "little")
            if len(held) - start - 4 < size:
                break
            with memoryview(held) as view:
                records = marshal.loads(view[start + 4 : start + 4 + size])
            start += 4 + size
            yield records
        del held[:start]
