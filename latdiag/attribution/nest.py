"""What lies inside what, and whose the time is that is left when that is taken away.

One rule for spans, replies and metrics: an interval lies inside another if it is part of what the
other's server does, and covers a part of the other's leaves, or the same in less time. What is
left of an interval belongs to the leaves that nothing inside of it covers; a signal may name the
leaf that has the ``rest``. Sets of leaves are bits, so that one rule serves a column and a number.

Spans have a place in time (``Intervals``, a column each); sums and the times in replies are
lengths alone (``Length``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.leaves import HIDDEN_BITS

#: Requests that are looked at together: bounds the memory of the padded matrices.
_CHUNK = 8192
_Bits = TypeVar("_Bits", int, NDArray[np.int64])


def remaining(covers: _Bits, inside: _Bits, rest: _Bits) -> _Bits:
    """The leaves that what is left of an interval may belong to, when all that covers ``inside``
    is taken away; 0 where nothing is left. ``rest``: the bit of the leaf that has it, 0 for none.
    Leaves that are never seen alone do not count.
    """
    return covers & ~inside & ~rest & ~HIDDEN_BITS | rest


# ---------------------------------------------------------------------- lengths
class Length(NamedTuple):
    """A length without a place. ``covers``: leaves as bits, without those that are never seen
    alone; ``rest``: see ``remaining``. ``server``: who states it. ``size``, ``name``: decide
    which of two of the same leaves is the longer."""

    covers: int
    rest: int
    server: str
    size: float
    name: str = ""


@dataclass(frozen=True, slots=True)
class Nesting:
    """Lengths by their places in the sequence that was nested. ``inside``: of each that is used,
    from narrow to wide, those within it, narrow ones first. ``crossed``: of each that is not used
    the one that it overlaps with, although neither is inside the other."""

    inside: Mapping[int, tuple[int, ...]]
    crossed: Mapping[int, int]


def nested(lengths: Sequence[Length]) -> Nesting:
    """Which lengths lie inside which.

    What another server did is inside with all that it did for the request, or not at all: one
    that waits for the other contains it, one that is called after it does not. Two that overlap
    on different servers follow each other. Of two that overlap on one server nothing tells which
    of them has the time that they share: a length that holds both stands for them, and where
    there is none, the narrower.
    """
    all_of: dict[str, int] = {}
    for one in lengths:
        all_of[one.server] = all_of.get(one.server, 0) | one.covers
    order = sorted(range(len(lengths)), key=lambda at: _from_narrow_to_wide(lengths[at], all_of))
    crossed: dict[int, int] = {}
    while True:
        inside: dict[int, tuple[int, ...]] = {}
        for at in order:
            if at not in crossed:
                within = (k for k in inside if _is_inside(lengths[k], lengths[at], all_of))
                inside[at] = tuple(within)
        pair = _first_crossing(lengths, inside)
        if pair is None:
            return Nesting(inside, crossed)
        narrow, wide = pair
        crossed[wide] = narrow
        both = lengths[narrow].covers | lengths[wide].covers
        server = lengths[narrow].server
        if any(lengths[k].server == server and not both & ~lengths[k].covers for k in inside):
            crossed[narrow] = wide


def _first_crossing(
    lengths: Sequence[Length], inside: Mapping[int, tuple[int, ...]]
) -> tuple[int, int] | None:
    """The narrowest two of one server that have leaves in common which nothing inside of them
    covers, although neither is inside the other."""
    open_ = {
        at: lengths[at].covers & ~union(lengths[k].covers for k in within)
        for at, within in inside.items()
    }
    for wide, within in inside.items():
        for narrow in inside:
            if narrow == wide:
                break
            same = lengths[narrow].server == lengths[wide].server
            if same and narrow not in within and open_[narrow] & open_[wide]:
                return narrow, wide
    return None


def _from_narrow_to_wide(one: Length, all_of: Mapping[str, int]) -> tuple[int, int, float, str]:
    """Of one width, a server's that is inside another comes before that other."""
    server = all_of[one.server].bit_count()
    return one.covers.bit_count(), server, one.size, one.name


def _is_inside(inner: Length, outer: Length, all_of: Mapping[str, int]) -> bool:
    """``inner`` comes before ``outer`` in the order: of the same leaves it is the shorter."""
    if inner.server == outer.server:
        return not inner.covers & ~outer.covers
    mine, theirs = all_of[outer.server], all_of[inner.server]
    return theirs != mine and not theirs & ~mine and not theirs & ~outer.covers


def union(masks: Iterable[int]) -> int:
    """The leaves of several sets."""
    together = 0
    for mask in masks:
        together |= mask
    return together


# ---------------------------------------------------------------------- intervals
@dataclass(frozen=True, slots=True)
class Intervals:
    """One entry per interval, sorted by ``row`` (0 to n - 1; rows may be missing).

    ``start``, ``end``: ns on a time axis of the row's own. ``covers``: bit i is leaf i.
    ``rest``: the bit of the leaf for what is left over, 0 for none. ``own``, ``below``: the bit of
    who states it, and of all that work for that one, itself among them.
    """

    row: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    covers: NDArray[np.int64]
    rest: NDArray[np.int64]
    own: NDArray[np.int64]
    below: NDArray[np.int64]


def narrower(intervals: Intervals) -> NDArray[np.int64]:
    """For every interval the union of leaves of those inside of it: they work for it, its own
    span's among them, and cover less than it, or the same further below."""
    inside = np.zeros(len(intervals.row), dtype=np.int64)
    for index in padded(intervals.row):
        covers = np.where(index >= 0, intervals.covers[index], 0)
        mine, other = covers[:, :, None], covers[:, None, :]
        good = index >= 0
        own = np.where(good, intervals.own[index], 0)
        below = np.where(good, intervals.below[index], 0)
        within = below[:, :, None] & own[:, None, :] != 0
        within &= other & ~mine == 0
        within &= (other != mine) | (own[:, :, None] != own[:, None, :])
        unions = np.bitwise_or.reduce(np.where(within, other, 0), axis=2)
        inside[index[good]] = unions[good]
    return inside


def padded(row: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Indices of intervals as matrices, a request a line, -1 beyond its last; few sizes only, so
    that one request with many intervals does not widen all lines."""
    if not len(row):
        return []
    starts = np.flatnonzero(np.concatenate(([True], row[1:] != row[:-1])))
    sizes = np.diff(np.append(starts, len(row)))
    matrices = []
    widths = 1 << np.ceil(np.log2(sizes)).astype(np.int64)
    for width in np.unique(widths).tolist():
        chosen = np.flatnonzero(widths == width)
        step = max(1, _CHUNK * 16 // (width * width))
        for place in range(0, len(chosen), step):
            lines = chosen[place : place + step]
            index = starts[lines][:, None] + np.arange(width)
            matrices.append(np.where(np.arange(width) < sizes[lines][:, None], index, -1))
    return matrices
