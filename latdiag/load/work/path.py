"""Requests about the path to a server and what stands before its model: they bring no token.

Cheap GETs on fresh connections and on one that is kept, and POSTs that a server refuses once it
has parsed them. Each leaves at a random moment, so that no timer of the server's keeps step.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence

from latdiag.load.plan import BUSY, LOADED_PATH, Work

#: Longest wait before a request; how long exactly is drawn for each.
_WAIT_NS = 100_000_000
#: So many requests in a row without any reply: the server is gone, and more would tell nothing.
_SILENT = 3


def path_work(
    stage: str,
    gets: int,
    fresh: int,
    refused: Sequence[int],
    body: Callable[[int, int], bytes],
    numbers: Iterator[int],
    draw: random.Random,
) -> list[Work]:
    """``gets`` GETs, ``fresh`` of them on connections of their own, and refused POSTs, mixed.

    ``refused``: an ISL for each POST, whose bytes are ``body(number, isl)``. The first request
    opens the connection that the others keep, so it is one of the fresh ones where there are any.
    """
    fresh = min(fresh, gets)
    kinds = [(alone, 0) for alone in [True] * (fresh - 1) + [False] * (gets - max(fresh, 1))]
    kinds += [(False, isl) for isl in refused]
    draw.shuffle(kinds)
    if gets:
        kinds.insert(0, (False, 0))
    work = []
    for alone, isl in kinds:
        number = next(numbers)
        sent = body(number, isl) if isl else b""
        wait_ns = round(draw.uniform(0.0, _WAIT_NS))
        work.append(Work(number, -1, isl, 0, stage, sent, alone, wait_ns))
    return work


def path_shots(
    shots: Iterable[tuple[int, int, int]],
    body: Callable[[int, int], bytes],
    numbers: Iterator[int],
) -> Iterator[Work]:
    """The same requests in an open loop, from (ISL, 0, due offset in ns) each; a GET where the ISL
    is 0."""
    for isl, _, due_ns in sorted(shots, key=lambda shot: shot[2]):
        number = next(numbers)
        yield Work(number, due_ns, isl, 0, LOADED_PATH, body(number, isl) if isl else b"")


class PathReplies:
    """What the replies so far mean for the rest of the stage.

    ``accepted``: a POST that should have been refused was taken, and no other should be sent.
    """

    def __init__(self) -> None:
        self.accepted = False
        self._silent = 0

    def end_with(self, work: Work, status: int) -> bool:
        """Whether the stage ends with this reply (status 0: there was none): the server is busy,
        or has said nothing several times in a row."""
        self.accepted = self.accepted or (bool(work.body) and status == 200)
        self._silent = 0 if status else self._silent + 1
        return self._silent >= _SILENT or status in BUSY
