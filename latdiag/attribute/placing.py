"""Spans of several clocks on one time axis per request, by nesting alone.

All that one sender said of a request moves together, as its clock has it. Where it goes is
decided by lengths: a span that another sender's span has called lies in the middle of that; what
two servers do one after the other lies end to end; the whole lies in the middle of what the
client saw. So no instant of one clock is ever compared with one of another, and a clock that is
wrong by any constant changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from latdiag.attribute.leafbits import sizes
from latdiag.attribute.spans import Spans

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Servers behind servers, at most.
_LEVELS = 16


@dataclass(frozen=True, slots=True)
class Groups:
    """What one sender said of one request: one entry each. ``group``: of every span.

    ``row``, ``start``, ``end``: of the group on the sender's clock. ``covers``: bits of all its
    spans. ``entry``: the span that another sender's span called, -1 if none."""

    group: NDArray[np.int64]
    row: NDArray[np.int64]
    sender: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    covers: NDArray[np.int64]
    entry: NDArray[np.int64]
    lost: NDArray[np.bool_]

    @property
    def n(self) -> int:
        return len(self.row)

    @property
    def length(self) -> NDArray[np.int64]:
        return self.end - self.start


def grouped(spans: Spans, covers: NDArray[np.int64]) -> Groups:
    """The groups of spans (sorted by row). ``covers``: bits of leaves of every span."""
    import numpy as np

    width = len(spans.senders) or 1
    keys, first, group = np.unique(
        spans.row * width + spans.sender, return_index=True, return_inverse=True
    )
    n = len(keys)
    start = np.full(n, np.iinfo(np.int64).max)
    end = np.full(n, np.iinfo(np.int64).min)
    bits = np.zeros(n, dtype=np.int64)
    np.minimum.at(start, group, spans.start)
    np.maximum.at(end, group, spans.end)
    np.bitwise_or.at(bits, group, covers)
    called = (spans.parent >= 0) & (group[spans.parent] != group)
    entry = np.full(n, -1, dtype=np.int64)
    # The longest of several calls leaves the least room: sorted last, it stays.
    order = np.flatnonzero(called)
    order = order[np.lexsort((spans.start[order], (spans.end - spans.start)[order]))]
    entry[group[order]] = order
    lost = np.ones(n, dtype=bool)
    lost[group[(spans.parent < 0) & ~spans.lost]] = False
    sender = spans.sender[first]
    return Groups(group, spans.row[first], sender, start, end, bits, entry, lost)


def without_ranks(spans: Spans, covers: NDArray[np.int64]) -> Spans:
    """Of the ranks of one server, only the one that took longest: they work on one request
    together, not one after the other."""
    import numpy as np

    groups = grouped(spans, covers)
    numbered = np.zeros(spans.n, dtype=bool)
    for at, stack in enumerate(spans.stacks):
        for name in stack.ranks:
            numbered |= (spans.stack == at) & ~np.isnan(spans.values[name])
    entry = groups.entry
    ranked = np.flatnonzero((entry >= 0) & numbered[entry])
    if not len(ranked):
        return spans
    above, signal = spans.parent[entry[ranked]], spans.signal[entry[ranked]]
    order = np.lexsort((groups.sender[ranked], -groups.length[ranked], signal, above))
    above, signal = above[order], signal[order]
    again = np.concatenate(([False], (above[1:] == above[:-1]) & (signal[1:] == signal[:-1])))
    gone = np.zeros(groups.n, dtype=bool)
    gone[ranked[order][again]] = True
    return spans.select(np.flatnonzero(~gone[groups.group]))


def shifts(
    spans: Spans, groups: Groups, covers: NDArray[np.int64], outermost: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """What to add to the instants of each group, so that they lie on the axis of their row.

    The axis of a row begins where its main group does: of those that nobody called, the one
    that covers most. ``outermost``: the spans that no span of their own sender is above.
    """
    import numpy as np

    place = _Places(spans, groups)
    roots = np.flatnonzero(groups.entry < 0)
    main = _mains(groups, roots)
    place.put(main, -groups.start[main])
    place.called()
    others = np.setdiff1d(roots, main)
    if len(others):
        _put_beside(place, covers, outermost, others)
        place.called()
    # Calls that go round in a circle have no place: they begin where the row does.
    place.put(np.flatnonzero(~place.known), -groups.start[~place.known])
    return place.shift


class _Places:
    """What was added to the instants of each group so far, and which groups have a place."""

    def __init__(self, spans: Spans, groups: Groups) -> None:
        import numpy as np

        self.spans, self.groups = spans, groups
        self.length = spans.end - spans.start
        self.shift = np.zeros(groups.n, dtype=np.int64)
        self.known = np.zeros(groups.n, dtype=bool)

    def put(self, which: NDArray[np.int64], shift: NDArray[np.int64]) -> None:
        self.shift[which] = shift
        self.known[which] = True

    def called(self) -> None:
        """Put what was called by groups that have a place, and what that called, and so on."""
        import numpy as np

        spans, groups = self.spans, self.groups
        above = np.where(groups.entry >= 0, spans.parent[groups.entry], -1)
        for _ in range(_LEVELS):
            ready = ~self.known & (above >= 0) & self.known[groups.group[above]]
            if not ready.any():
                return
            inner, outer = groups.entry[ready], above[ready]
            room = self.length[outer] - self.length[inner]
            at = spans.start[outer] + self.shift[groups.group[outer]] + room // 2
            self.put(np.flatnonzero(ready), at - spans.start[inner])


def _mains(groups: Groups, roots: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of each row the group that covers most, then lasts longest, then sorts last by sender; one
    that the client called before others."""
    import numpy as np

    width = sizes(groups.covers[roots])
    called = ~groups.lost[roots]
    keys = (groups.sender[roots], groups.length[roots], width, called, groups.row[roots])
    order = np.lexsort(keys)
    sorted_ = roots[order]
    row = groups.row[sorted_]
    last = np.concatenate((row[1:] != row[:-1], [True])) if len(row) else np.zeros(0, bool)
    return sorted_[last]


def _put_beside(
    place: _Places,
    covers: NDArray[np.int64],
    outermost: NDArray[np.bool_],
    others: NDArray[np.int64],
) -> None:
    """Groups that nobody called, beside the main one of their row.

    Inside the narrowest span there that covers all of theirs, else before the row's axis begins.
    A span that covers just the same is a host only if it waits for them, so not if it is the
    whole of its own server: that is another try, unless what called them was lost.
    """
    import numpy as np

    spans, groups = place.spans, place.groups
    rows = groups.row[others]
    members: dict[int, list[int]] = {row: [] for row in rows.tolist()}
    near = place.known[groups.group] & np.isin(spans.row, rows)
    for at in np.flatnonzero(near).tolist():
        members[int(spans.row[at])].append(at)
    begun: dict[int, int] = {}
    names = [spans.senders[code] for code in groups.sender[others].tolist()]
    for row, _, other in sorted(zip(rows.tolist(), names, others.tolist(), strict=True)):
        bits, length = int(groups.covers[other]), int(groups.length[other])
        hosts = [
            (int(covers[at]).bit_count(), -int(place.length[at]), int(spans.start[at]), at)
            for at in members[row]
            if bits & ~int(covers[at]) == 0
            and (int(covers[at]) != bits or not outermost[at] or groups.lost[other])
        ]
        if hosts:
            at = min(hosts)[3]
            room = max(0, int(place.length[at]) - length)
            begin = int(spans.start[at] + place.shift[groups.group[at]]) + room // 2
        else:
            begin = begun[row] = begun.get(row, 0) - length
        place.put(np.array([other]), np.array([begin - groups.start[other]]))
