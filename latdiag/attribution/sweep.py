"""Interval algebra: who owns every nanosecond of a request, from intervals that overlap.

Each claim is an interval with the set of leaves that it contains. At any instant

1. a claim gives way to every claim that is active too and covers a part of its leaves only, or
   the same and works for it (a span to what happens inside it);
2. of those left, one in which nothing narrower lies anywhere goes before one that holds others:
   what is stated goes before what is left over;
3. then the one that ends last owns the instant: the critical path, walked backwards from the
   end, goes through the child that finished last.

What a claim owns is named by its leaves minus those that narrower claims of the same server, or
of one that works for it, cover anywhere: subtraction needs no clock. Everything is integer
nanoseconds, and no result depends on the order of the claims.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.nest import Intervals, narrower, padded


@dataclass(frozen=True, slots=True)
class Owned:
    """What claims own: entries (claim index, ns, ns of it before the row's cut)."""

    claim: NDArray[np.int64]
    ns: NDArray[np.int64]
    before: NDArray[np.int64]


def sweep(intervals: Intervals, cut: NDArray[np.int64]) -> Owned:
    """What each claim owns. ``cut``: one instant per row on its axis (the first token)."""
    owned = np.zeros(len(intervals.row), dtype=np.int64)
    before = np.zeros(len(intervals.row), dtype=np.int64)
    simple = narrower(intervals) == 0
    for index in padded(intervals.row):
        winner, begin, end = _winners(intervals, simple, index)
        at = cut[intervals.row[index[:, 0]]][:, None]
        for amounts, stop in ((owned, end), (before, np.minimum(end, at))):
            lengths = np.maximum(stop - begin, 0)
            good = (winner >= 0) & (lengths > 0)
            np.add.at(amounts, winner[good], lengths[good])
    keep = np.flatnonzero(owned)
    return Owned(keep, owned[keep], before[keep])


def _winners(
    intervals: Intervals, simple: NDArray[np.bool_], index: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(owner or -1, start, end) of every elementary interval of some requests."""
    absent = index < 0
    start = np.where(absent, 0, intervals.start[index])
    end = np.where(absent, 0, intervals.end[index])
    covers = np.where(absent, 0, intervals.covers[index])
    edges = np.sort(np.concatenate((start, end), axis=1), axis=1)
    begin, stop = edges[:, :-1], edges[:, 1:]
    width = index.shape[1]
    active = [
        (start[:, [k]] <= begin) & (end[:, [k]] >= stop) & ~absent[:, [k]] & (begin < stop)
        for k in range(width)
    ]
    own = np.where(absent, 0, intervals.own[index])
    below = np.where(absent, 0, intervals.below[index])
    works = (below[:, :, None] & own[:, None, :] != 0) & (own[:, :, None] != own[:, None, :])
    inside = (covers[:, None, :] & ~covers[:, :, None] == 0) & (
        (covers[:, None, :] != covers[:, :, None]) | works
    )
    best = np.full(begin.shape, -1, dtype=np.int64)
    rank = _ranks(start, end, covers, simple[index])
    held = np.full(begin.shape, -1, dtype=np.int64)
    for k in range(width):
        open_ = active[k]
        for j in range(width):
            if inside[:, k, j].any():
                open_ = open_ & ~(active[j] & inside[:, k, j][:, None])
        wins = open_ & (rank[:, [k]] > held)
        held = np.where(wins, rank[:, [k]], held)
        best = np.where(wins, index[:, [k]], best)
    return best, begin, stop


def _ranks(
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    covers: NDArray[np.int64],
    simple: NDArray[np.bool_],
) -> NDArray[np.int64]:
    """Order of the claims of each line: simple ones last, then by end, then later start, then
    leaves; content alone."""
    order = np.lexsort((covers, start, end, simple), axis=1)
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(order.shape[1])[None, :], axis=1)
    return rank
