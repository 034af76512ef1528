"""What spans and their attributes claim of each request: intervals on one axis, with leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.leaves import HIDDEN_BITS, MASK, bits
from latdiag.attribution.nest import Intervals, narrower, remaining
from latdiag.attribution.spans.align import Groups, Marks, axes, grouped, kin, without_ranks
from latdiag.attribution.spans.columns import LONGEST_NS, NEVER, Spans
from latdiag.model.units import UNIT_NS
from latdiag.stacks.signal import Place, Signal

#: A request with more spans is not taken apart: time and memory go with their square.
MOST_SPANS = 60
#: Meanings of what no signal claims: from first to last token by the client's stamps, or by what
#: a server says of its first token.
CLIENT_STREAM, SERVER_STREAM = -1, -2
#: The bit of the client among the groups of a row.
_CLIENT = 1 << 61


@dataclass(frozen=True, slots=True)
class Claimed:
    """``claims``: sorted by row, on the rows' axes. ``meaning``: index into ``signals`` of each,
    negative for what no signal claims. ``engine``: whether an engine claims it, not a gateway.
    ``first``: per row the end of the interval that ends with the first token, ``NEVER`` where no
    signal does; ``last``: the end of the span that says so. ``lo``, ``hi``: per row, the axis
    that spans take. ``over``: per row, ns by which stated times do not fit into the span that
    bears them. ``loose``: rows of which two servers were laid together as if they had begun at
    once."""

    claims: Intervals
    meaning: NDArray[np.int64]
    engine: NDArray[np.bool_]
    signals: tuple[Signal, ...]
    stack_of: tuple[str, ...]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    lo: NDArray[np.int64]
    hi: NDArray[np.int64]
    over: NDArray[np.int64]
    spans: Spans
    loose: NDArray[np.bool_]

    @property
    def joined(self) -> NDArray[np.bool_]:
        """Per row, whether anything is claimed of it."""
        found = np.zeros(len(self.first), dtype=bool)
        found[self.claims.row] = True
        return found


def claimed(spans: Spans, rows: int) -> Claimed:
    """All claims of joined spans on ``rows`` requests."""
    spans = spans.select(np.flatnonzero(spans.signal >= 0))
    many = np.bincount(spans.row, minlength=rows) > MOST_SPANS
    spans = spans.select(np.flatnonzero(~many[spans.row]))
    table = np.array([bits(s.covers) for s in spans.signals] or [0], dtype=np.int64)
    spans = without_ranks(spans, table[spans.signal])
    covers = table[spans.signal]
    groups = grouped(spans, covers)
    outermost = np.ones(spans.n, dtype=bool)
    above = spans.parent
    same = (above >= 0) & (groups.group[above] == groups.group)
    outermost[same] = False
    marks = Marks(covers, outermost, *_tokens(spans, groups, covers))
    placed = axes(spans, groups, marks)
    shift = placed.shift[groups.group]
    start, end = _within(spans.start + shift, spans.end + shift, above)
    book = _Book(spans, start, end, rows)
    book.loose[groups.row[placed.loose]] = True
    book.kin = kin(spans, groups, placed, covers)
    book.add_spans(covers)
    book.add_attributes()
    return book.closed()


def _tokens(
    spans: Spans, groups: Groups, covers: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each group, on its sender's clock: the first token as an attribute states it, and the
    begin of the first span that is of decode alone; NEVER."""
    first = np.full(groups.n, NEVER, dtype=np.int64)
    for code, bearer in enumerate(spans.signals):
        mine = np.flatnonzero(spans.signal == code)
        if not len(mine):
            continue
        for signal in spans.stacks[int(spans.stack[mine[0]])].signals:
            told = signal.first_token and signal.bearer == bearer.name
            at_start = signal.starts == Place("start")
            if told and at_start and str(spans.role[mine[0]]) in signal.roles:
                values = spans.values[signal.foreign][mine] * UNIT_NS[signal.unit]
                good = np.isfinite(values) & (values >= 0) & (values < LONGEST_NS)
                at = spans.start[mine[good]] + np.rint(values[good]).astype(np.int64)
                np.maximum.at(first, groups.group[mine[good]], at)
    decode = MASK["decode"]
    alone = (covers & decode != 0) & (covers & ~decode & ~HIDDEN_BITS == 0)
    stream = np.full(groups.n, -NEVER, dtype=np.int64)
    np.minimum.at(stream, groups.group[alone], spans.start[alone])
    return first, np.where(stream == -NEVER, NEVER, stream)


def _within(
    start: NDArray[np.int64], end: NDArray[np.int64], above: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cut every span to the one above it, from the top down."""
    inner = np.flatnonzero(above >= 0)
    for _ in range(32):
        lo, hi = start[above[inner]], end[above[inner]]
        new_start, new_end = np.clip(start[inner], lo, hi), np.clip(end[inner], lo, hi)
        if (new_start == start[inner]).all() and (new_end == end[inner]).all():
            break
        start, end = start.copy(), end.copy()
        start[inner], end[inner] = new_start, new_end
    return start, end


class _Book:
    """Collects claims, a column at a time."""

    def __init__(
        self, spans: Spans, start: NDArray[np.int64], end: NDArray[np.int64], rows: int
    ) -> None:
        self.spans, self.start, self.end = spans, start, end
        self.signals: list[Signal] = list(spans.signals)
        self.stack_of = [""] * len(spans.signals)
        for code, stack in {
            (int(s), int(k)) for s, k in zip(spans.signal, spans.stack, strict=True)
        }:
            self.stack_of[code] = spans.stacks[stack].name
        self.first = np.full(rows, NEVER, dtype=np.int64)
        self.last = np.full(rows, NEVER, dtype=np.int64)
        self.over = np.zeros(rows, dtype=np.int64)
        self.loose = np.zeros(rows, dtype=bool)
        self.parts: list[tuple[NDArray[np.int64], ...]] = []
        #: of every span: its bit, and those of the spans below it
        self.kin = (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
        layers = [stack.layer == "engine" for stack in spans.stacks]
        self.is_engine = np.array([*layers, False], dtype=bool)[spans.stack]

    def add_spans(self, covers: NDArray[np.int64]) -> None:
        rest = np.array([bits([s.rest] if s.rest else []) for s in self.signals] or [0])
        everything = np.arange(self.spans.n)
        signal = self.spans.signal
        self._add(everything, self.start, self.end, covers, rest[signal], signal)
        for code, meant in enumerate(self.signals):
            if meant.first_token:
                self._note_first(np.flatnonzero(signal == code), self.end)

    def add_attributes(self) -> None:
        """The attributes of each kind of bearer, where they lie in its span."""
        for code, bearer in enumerate(self.spans.signals):
            mine = np.flatnonzero(self.spans.signal == code)
            if not len(mine):
                continue
            stack = self.spans.stacks[int(self.spans.stack[mine[0]])]
            role = str(self.spans.role[mine[0]])
            meant = {
                s.name: s
                for s in stack.signals
                if s.kind in ("attribute", "reply")
                and s.foreign in self.spans.values
                and s.bearer == bearer.name
                and s.covers
                and role in (s.roles or (role,))
            }
            self._add_of(mine, meant, stack.name)

    def _add_of(self, mine: NDArray[np.int64], meant: Mapping[str, Signal], stack: str) -> None:
        placed: dict[str, tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]] = {}
        for name in meant:
            self._place(name, mine, meant, placed)
        for name, (begin, end, known) in placed.items():
            signal, which = meant[name], np.flatnonzero(known)
            if not len(which):
                continue
            lo, hi = self.start[mine], self.end[mine]
            cut_begin, cut_end = np.clip(begin, lo, hi), np.clip(end, lo, hi)
            lost = (end - begin) - (cut_end - cut_begin)
            np.add.at(self.over, self.spans.row[mine[which]], lost[which])
            code = len(self.signals)
            self.signals.append(signal)
            self.stack_of.append(stack)
            count = len(which)
            self._add(
                mine[which],
                cut_begin[which],
                cut_end[which],
                np.full(count, bits(signal.covers)),
                np.full(count, bits([signal.rest] if signal.rest else [])),
                np.full(count, code),
                indexed=False,
            )
            if signal.first_token:
                ends = np.zeros(self.spans.n, dtype=np.int64)
                ends[mine[which]] = cut_end[which]
                self._note_first(mine[which], ends)
                np.maximum.at(self.last, self.spans.row[mine[which]], hi[which])

    def _place(
        self,
        name: str,
        mine: NDArray[np.int64],
        meant: Mapping[str, Signal],
        placed: dict[str, tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]],
    ) -> None:
        """Where the interval of an attribute lies; beside what it hangs on, found first."""
        if name in placed:
            return
        signal = meant[name]
        values = self.spans.values[signal.foreign][mine] * UNIT_NS[signal.unit]
        known = np.isfinite(values) & (values >= 0) & (values < LONGEST_NS)
        length = np.rint(np.where(known, values, 0)).astype(np.int64)
        lo = self.start[mine]
        placed[name] = (lo, lo + length, known)  # a circle ends here
        for place, is_end in ((signal.starts, False), (signal.ends, True)):
            if place is not None:
                at = self._edge(place, mine, meant, placed)
                begin = np.where(at == NEVER, lo, at - length if is_end else at)
                placed[name] = (begin, begin + length, known)
        if signal.ends_by is not None:
            latest = self._edge(signal.ends_by, mine, meant, placed)
            begin = placed[name][0]
            begin = np.where(latest == NEVER, begin, np.minimum(begin, latest - length))
            placed[name] = (begin, begin + length, known)

    def _edge(
        self,
        place: Place,
        mine: NDArray[np.int64],
        meant: Mapping[str, Signal],
        placed: dict[str, tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]],
    ) -> NDArray[np.int64]:
        """The instant of a place per span, NEVER where the span does not tell it."""
        if not place.signal:
            return (self.start if place.edge == "start" else self.end)[mine]
        if place.signal not in meant:
            return np.full(len(mine), NEVER, dtype=np.int64)
        self._place(place.signal, mine, meant, placed)
        begin, end, known = placed[place.signal]
        return np.where(known, begin if place.edge == "start" else end, NEVER)

    def _note_first(self, which: NDArray[np.int64], ends: NDArray[np.int64]) -> None:
        np.maximum.at(self.first, self.spans.row[which], ends[which])

    def _add(
        self,
        which: NDArray[np.int64],
        start: NDArray[np.int64],
        end: NDArray[np.int64],
        covers: NDArray[np.int64],
        rest: NDArray[np.int64],
        code: NDArray[np.int64],
        indexed: bool = True,
    ) -> None:
        if indexed:
            start, end = start[which], end[which]
            covers, rest, code = covers[which], rest[which], code[which]
        engine = self.is_engine[which].astype("int64")
        kin = [each[which] for each in self.kin]
        self.parts.append((self.spans.row[which], start, end, covers, rest, *kin, code, engine))

    def closed(self) -> Claimed:
        columns = [np.concatenate(each) for each in zip(*self.parts, strict=True)]
        row, start, end, covers, rest, own, below, code, engine = (
            c.astype(np.int64) for c in columns
        )
        lo = np.full(len(self.first), np.iinfo(np.int64).max)
        hi = np.full(len(self.first), np.iinfo(np.int64).min)
        np.minimum.at(lo, row, start)
        np.maximum.at(hi, row, end)
        empty = hi < lo
        order = np.lexsort((code, covers, end, start, row))
        return Claimed(
            Intervals(
                *(row[order], start[order], end[order], covers[order], rest[order]),
                own[order],
                below[order] | _CLIENT,
            ),
            code[order],
            engine[order].astype(bool),
            tuple(self.signals),
            tuple(self.stack_of),
            self.first,
            self.last,
            np.where(empty, 0, lo),
            np.where(empty, 0, hi),
            self.over,
            self.spans,
            self.loose,
        )


def with_decode(
    found: Claimed, first: NDArray[np.int64], last: NDArray[np.int64], meaning: int
) -> Claimed:
    """With the interval from first to last token (on the rows' axes) as a claim on decode, in the
    rows in which no server claims any time for decode alone. ``meaning``: ``CLIENT_STREAM`` or
    ``SERVER_STREAM``, by whose stamps."""
    claims = found.claims
    decode = MASK["decode"]
    alone = (claims.covers & ~decode & ~HIDDEN_BITS == 0) & (claims.covers & decode != 0)
    stated = np.zeros(len(first), dtype=np.int64)
    np.add.at(stated, claims.row[alone], (claims.end - claims.start)[alone])
    known = np.zeros(len(first), dtype=bool)
    known[claims.row] = True
    new = np.flatnonzero(known & (stated == 0) & (last > first))
    if not len(new):
        return found
    row = np.concatenate((claims.row, new))
    order = np.argsort(row, kind="stable")

    def both(old: NDArray[np.int64], more: NDArray[np.int64]) -> NDArray[np.int64]:
        joined: NDArray[np.int64] = np.concatenate((old, more))[order]
        return joined

    return Claimed(
        Intervals(
            row[order],
            both(claims.start, first[new]),
            both(claims.end, last[new]),
            both(claims.covers, np.full(len(new), decode)),
            both(claims.rest, np.full(len(new), bits(["decode.base"]))),
            both(claims.own, np.full(len(new), _CLIENT)),
            both(claims.below, np.full(len(new), _CLIENT)),
        ),
        both(found.meaning, np.full(len(new), meaning)),
        # No server said it: of what is behind a gateway it says nothing.
        np.concatenate((found.engine, np.zeros(len(new), dtype=bool)))[order],
        *(found.signals, found.stack_of, found.first, found.last, found.lo, found.hi),
        *(found.over, found.spans, found.loose),
    )


def meanings(found: Claimed, rows: int) -> NDArray[np.int64]:
    """For every claim the leaves that what it owns may belong to (0: it owns nothing).

    Those that it covers, less those that narrower claims of the request cover; if only leaves
    that are never seen alone remain, its ``rest``. A gateway expects no other leaves behind it
    than the engine there does.
    """
    claims = found.claims
    engines = np.zeros(rows, dtype=np.int64)
    np.bitwise_or.at(engines, claims.row[found.engine], claims.covers[found.engine])
    behind = engines[claims.row]
    possible = np.where(found.engine | (behind == 0), -1, behind | MASK["gateway"])
    return remaining(claims.covers & possible, narrower(claims), claims.rest)
