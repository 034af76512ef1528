"""Whose a piece of time can be: the partition that the evidence of a probe leaves.

The time of a request falls into pieces, each found by an experiment of its own (``explain``). What
took a piece is not always known: any of its ``suspects`` may have, all those that no evidence
excludes from it. A component stands alone only where nothing else can have a part of its time.
Suspects of a piece that matters are merged; one that hangs on two pieces merges both. A piece that
is small goes to its ``likely`` owner, and the interval of everybody else has room for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.ledger import Move, united
from latdiag.model.components import COMPONENTS

#: A piece of which more is open than this share of the whole merges its suspects: with less, the
#: interval of each says enough.
_MATTERS = 0.03
#: What can take time before the first token, behind the way of a GET.
BEFORE_FIRST = frozenset({"gateway", "frontend", "queue", "prefill", "interconnect"})


@dataclass(frozen=True, slots=True)
class Piece:
    """Time of each row, ns, and whose it can be.

    ``name``: its column; ``suspects``: components; ``likely``: the one that has it where it is
    small; ``why``: by component what excludes it from this piece, in words.
    """

    name: str
    ns: NDArray[np.int64]
    suspects: frozenset[str]
    likely: str
    why: Mapping[str, str]

    def __post_init__(self) -> None:
        assert self.likely in self.suspects, self


def piece(
    name: str,
    ns: NDArray[np.int64],
    excluded: Mapping[str, str],
    likely: Sequence[str],
    among: Iterable[str] = BEFORE_FIRST,
) -> Piece:
    """The piece whose suspects are all of ``among`` but for the ``excluded``. The first of
    ``likely`` that is not excluded has it; one of them has to be left."""
    suspects = frozenset(among) - set(excluded)
    return Piece(name, ns, suspects, next(c for c in likely if c in suspects), dict(excluded))


def merged(pieces: Sequence[Piece], total: NDArray[np.int64]) -> dict[str, tuple[str, ...]]:
    """Of each component the class that it is merged in: the connected parts of what nothing
    excludes. ``total``: end to end of each row, ns."""
    return united(each.suspects for each in pieces if _matters(each, total))


def _matters(each: Piece, total: NDArray[np.int64]) -> bool:
    """Whether it is too large, over all rows or over the slowest, for an interval to hold it."""
    if len(each.suspects) < 2 or not len(total):
        return False
    slow = total >= np.quantile(total, 0.95, method="higher")
    for rows in (slice(None), slow):
        whole = float(total[rows].sum())
        if abs(float(each.ns[rows].sum())) > _MATTERS * whole:
            return True
    return False


def room(pieces: Sequence[Piece], merges: Mapping[str, tuple[str, ...]]) -> list[Move]:
    """What small pieces may have been instead: moves from their likely owner's class to those of
    the other suspects."""
    moves = []
    for each in pieces:
        giver = merges.get(each.likely, (each.likely,))[0]
        takers = {merges.get(name, (name,))[0] for name in each.suspects} - {giver}
        for taker in sorted(takers, key=COMPONENTS.index):
            moves.append(Move(giver, taker, np.abs(each.ns).astype(float)))
    return moves


def limits(
    pieces: Sequence[Piece], merges: Mapping[str, tuple[str, ...]]
) -> dict[str, NDArray[np.float64]]:
    """By class the ns of each row that its small pieces can lose, whoever takes them."""
    found: dict[str, NDArray[np.float64]] = {}
    for each in pieces:
        giver = merges.get(each.likely, (each.likely,))[0]
        if any(merges.get(name, (name,))[0] != giver for name in each.suspects):
            found[giver] = found.get(giver, 0.0) + np.abs(each.ns).astype(float)
    return found
