"""Spans of several clocks on one time axis per request, by nesting alone.

All that one sender said of a request moves together, as its clock has it. Where it goes is
decided by lengths: a span that another sender's span has called lies in the middle of that, or
so that both tell of one first token; what two servers do one after the other lies end to end; the
whole lies in the middle of what the client saw. So no instant of one clock is ever compared with
one of another, and a clock that is wrong by any constant changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.leaves import MASK, sizes
from latdiag.attribution.spans.columns import NEVER, Spans

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


@dataclass(frozen=True, slots=True)
class Axes:
    """Where groups lie. ``shift``: to add to the instants of each, so that they lie on the axis of
    their row. ``host``: the span that called each or waits for it, -1 if none. ``loose``: two
    servers that the client called at once, laid as if they had begun at once."""

    shift: NDArray[np.int64]
    host: NDArray[np.int64]
    loose: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Marks:
    """What is known of spans beside their times. ``covers``: bits of leaves of each.
    ``outermost``: no span of its own sender is above it. Of groups: ``first`` token by what their
    spans state, and the begin of the ``stream`` after it by the spans themselves; NEVER."""

    covers: NDArray[np.int64]
    outermost: NDArray[np.bool_]
    first: NDArray[np.int64]
    stream: NDArray[np.int64]


def axes(spans: Spans, groups: Groups, marks: Marks) -> Axes:
    """Every group on the axis of its row, which begins where the row's main group does: of those
    that nobody else called, the one that covers most."""
    place = _Places(spans, groups, marks)
    roots = np.flatnonzero(groups.entry < 0)
    main = _mains(groups, roots)
    place.put(main, -groups.start[main])
    place.called()
    others = np.setdiff1d(roots, main)
    # First what lost its caller: it may be what the others wait inside.
    for some in (others[groups.lost[others]], others[~groups.lost[others]]):
        _put_beside(place, some)
        place.called()
    _put_beside(place, place.waiting())
    place.called()
    # Calls that go round in a circle have no place: they begin where the row does.
    place.put(np.flatnonzero(~place.known), -groups.start[~place.known])
    return Axes(place.shift, place.host, place.loose)


class _Places:
    """What was added to the instants of each group so far, which groups have a place, and in
    which span they lie (``host``, -1: in none)."""

    def __init__(self, spans: Spans, groups: Groups, marks: Marks) -> None:
        self.spans, self.groups, self.marks = spans, groups, marks
        self.length = spans.end - spans.start
        self.shift = np.zeros(groups.n, dtype=np.int64)
        self.known = np.zeros(groups.n, dtype=bool)
        self.host = np.full(groups.n, -1, dtype=np.int64)
        self.loose = np.zeros(groups.n, dtype=bool)
        self._tried: set[int] = set()
        self.caller = np.where(groups.entry >= 0, spans.parent[groups.entry], -1)

    def put(self, which: NDArray[np.int64], shift: NDArray[np.int64]) -> None:
        self.shift[which] = shift
        self.known[which] = True

    def waiting(self) -> NDArray[np.int64]:
        """Groups without a place whose caller has one: a sibling waits for them."""
        caller = self.caller
        return np.flatnonzero(~self.known & (caller >= 0) & self.known[self.groups.group[caller]])

    def called(self) -> None:
        """Put what was called by groups that have a place, and what that called, and so on."""
        for _ in range(_LEVELS):
            ready = self.waiting()
            callers, count = np.unique(self.caller[ready], return_counts=True)
            alone = ready[np.isin(self.caller[ready], callers[count == 1])]
            put = self._put_inside(alone)
            for caller in callers[count > 1].tolist():
                put += self._put_siblings(ready[self.caller[ready] == caller], caller)
            if not put:
                return

    def _put_inside(self, which: NDArray[np.int64]) -> int:
        """Each in the middle of the span that called it; where both tell of the first token, so
        that they tell of the same."""
        if not len(which):
            return 0
        spans, groups, marks = self.spans, self.groups, self.marks
        inner, outer = groups.entry[which], self.caller[which]
        over = groups.group[outer]
        room = np.maximum(self.length[outer] - self.length[inner], 0)
        begin = spans.start[outer] + self.shift[over]
        middle = begin + (self.length[outer] - self.length[inner]) // 2
        token = marks.first[over] + self.shift[over]
        told = (marks.first[over] > NEVER) & (marks.stream[which] > NEVER) & (room > 0)
        by_token = token - (marks.stream[which] - spans.start[inner])
        at = np.where(told, np.clip(by_token, begin, begin + room), middle)
        self.host[which] = outer
        self.put(which, at - spans.start[inner])
        return len(which)

    def _put_siblings(self, which: NDArray[np.int64], caller: int) -> int:
        """Of several that one span called: those that the widest does not cover worked before
        it, if there is time for all of them one after the other. Others wait for their host."""
        groups = self.groups
        names = [self.spans.senders[code] for code in groups.sender[which].tolist()]
        keys = sizes(groups.covers[which]).tolist(), groups.length[which].tolist(), names
        ordered = [g for *_, g in sorted(zip(*keys, which.tolist(), strict=True))]
        last = ordered[-1]
        wide = int(groups.covers[last])
        before = [
            g
            for g in ordered[:-1]
            if int(groups.covers[g]) & ~wide or int(groups.covers[g]) == wide
        ]
        row = [*before, last]
        if last in self._tried:
            return 0
        self._tried.add(last)
        taken = sum(int(groups.length[g]) for g in row)
        outer = int(groups.group[caller])
        begin = int(self.spans.start[caller] + self.shift[outer])
        room = int(self.length[caller]) - taken
        for g in row:
            middle = begin + (int(self.length[caller]) - int(groups.length[g])) // 2
            at = begin + room // 2 if room >= 0 else middle
            self.host[g] = caller
            self.put(np.array([g]), np.array([at - int(groups.start[g])]))
            begin += int(groups.length[g]) if room >= 0 else 0
        return len(row)


def _mains(groups: Groups, roots: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of each row the group that covers most; then one that the client called, then the longest,
    then the last by sender."""
    width = sizes(groups.covers[roots])
    called = ~groups.lost[roots]
    keys = (groups.sender[roots], groups.length[roots], called, width, groups.row[roots])
    order = np.lexsort(keys)
    sorted_ = roots[order]
    row = groups.row[sorted_]
    last = np.concatenate((row[1:] != row[:-1], [True])) if len(row) else np.zeros(0, bool)
    return sorted_[last]


def _put_beside(place: _Places, others: NDArray[np.int64]) -> None:
    """Groups that nobody called, beside the main one of their row.

    Inside the narrowest span there that covers all of theirs, else before the row's axis begins.
    A span that covers just the same is a host only if it waits for them, so not if it is the
    whole of its own server: that is another try, unless what called them was lost.
    """
    spans, groups, covers = place.spans, place.groups, place.marks.covers
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
            and (int(covers[at]) != bits or not place.marks.outermost[at] or groups.lost[other])
        ]
        if hosts:
            begin = _begin_in(place, min(hosts)[3], other)
            place.host[other] = min(hosts)[3]
        else:
            begin = begun[row] = begun.get(row, 0) - length
        place.put(np.array([other]), np.array([begin - groups.start[other]]))


def _begin_in(place: _Places, host: int, guest: int) -> int:
    """Where a group begins that a span waits for.

    Two servers that the client called at once begin at once. What has no part in the stream lies
    before it; else the middle is as good as any place.
    """
    groups, marks = place.groups, place.marks
    begin = int(place.spans.start[host] + place.shift[groups.group[host]])
    if not marks.outermost[host] and not groups.lost[guest] and groups.entry[guest] < 0:
        place.loose[guest] = True
        return min(begin, 0)
    streams = MASK["decode"]
    if int(marks.covers[host]) & streams and not int(groups.covers[guest]) & streams:
        return begin
    return begin + max(0, int(place.length[host] - groups.length[guest])) // 2


def kin(
    spans: Spans, groups: Groups, placed: Axes, covers: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(A bit of each span, unique in its row; the bits of all that work for it, its own among
    them). A row has at most 60 spans."""
    first = np.flatnonzero(np.concatenate(([True], spans.row[1:] != spans.row[:-1])))
    sizes_ = np.diff(np.append(first, spans.n))
    rank = np.arange(spans.n) - np.repeat(first, sizes_)
    own = np.left_shift(np.int64(1), rank)
    up = np.where(spans.parent >= 0, spans.parent, placed.host[groups.group])
    up = np.where(groups.group[up] == groups.group, np.where(spans.parent >= 0, up, -1), up)
    ends = np.append(first[1:], spans.n)
    of_row = np.repeat(np.arange(len(first)), sizes_)
    for at in np.flatnonzero(spans.lost & (up < 0)).tolist():
        up[at] = _adopted(at, int(first[of_row[at]]), int(ends[of_row[at]]), spans, covers)
    below, above = own.copy(), up.copy()
    for _ in range(_LEVELS):
        some = np.flatnonzero(above >= 0)
        if not len(some):
            break
        np.bitwise_or.at(below, above[some], own[some])
        above[some] = up[above[some]]
    return own, below


def _adopted(
    at: int,
    first: int,
    end: int,
    spans: Spans,
    covers: NDArray[np.int64],
) -> int:
    """The span that one whose parent was lost most likely works for: the narrowest that covers
    more than it, of its own server first; -1 for none."""
    mine = int(covers[at])
    wider = [
        (spans.sender[i] != spans.sender[at], int(covers[i]).bit_count(), i)
        for i in range(first, end)
        if i != at and mine & ~int(covers[i]) == 0 and mine != int(covers[i])
    ]
    return min(wider)[2] if wider else -1
