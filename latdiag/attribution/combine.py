"""Several accounts of the same requests as one: the stronger fixes sums, the weaker splits them.

The partition that comes out is never coarser than either, as long as they agree. Where a class of
the stronger is a sum of several components, and the weaker knows some of them, alone or less what
the stronger knows, it is split into these and the remainder, which takes what is left of the sum
to the nanosecond. Where the two exclude each other, the stronger stands, and what the weaker only
infers splits nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.ledger import OVER_SHARE
from latdiag.attribution.parts import Parts, Source
from latdiag.attribution.rows import of_the_same_rows
from latdiag.model.components import COMPONENTS, in_time_order

#: The stronger speaks for all requests from this share, and this number, of them on; else for its
#: own alone.
_SAMPLE, _LEAST = 0.5, 30
_TWO_SIDED = 1.96
_INTERVALS = ("client_ttft", "decode")
_MEASURED = ("A", "B")
_REST = "unattributed"

Column = NDArray[Any]


class Disagreement(NamedTuple):
    """What two accounts say of the same components over the same requests, ns in all. ``room_ns``:
    the weaker may be off by this much of itself."""

    members: tuple[str, ...]
    strong_ns: int
    weak_ns: int
    room_ns: int
    rows: int


class Combined(NamedTuple):
    """``stands``: which of the two accounts are in ``parts``. ``against``: where they exclude each
    other."""

    parts: Parts
    stands: tuple[bool, bool] = (True, False)
    against: tuple[Disagreement, ...] = ()


def combined(strong: Parts, weak: Parts, is_of_all: bool = False) -> Combined:
    """One account out of two; ``strong`` is believed where they differ.

    ``is_of_all``: where the stronger knows few of the requests, the weaker keeps the others.
    """
    both = of_the_same_rows(strong, weak)
    if both is None:
        return Combined(strong)
    ours, theirs = both
    against = _disagreements(ours, theirs)
    finer = _with_leaves(_split(ours, theirs, bool(against)), theirs, against)
    few = len(strong.total) < max(_SAMPLE * len(weak.total), min(_LEAST, len(weak.total)))
    if is_of_all and few:
        mixed = None if against else _for_its_own(finer, weak)
        return Combined(weak if mixed is None else mixed, (mixed is not None, True), against)
    if finer is ours:
        return Combined(strong, against=against)
    return Combined(finer, (True, True), against)


# ---------------------------------------------------------------------- do they agree
def members_of(parts: Parts, name: str) -> tuple[str, ...]:
    """The components of a class."""
    return parts.sources[name].members or (name,)


def _classes(parts: Parts) -> dict[str, frozenset[str]]:
    return {name: frozenset(members_of(parts, name)) for name in parts.parts if name != _REST}


class _Piece(NamedTuple):
    """What ``weak`` knows of a class of ``strong``: its class ``name`` less the classes ``minus``
    of the stronger. ``lacking``: components of it that the stronger knows nothing of."""

    name: str
    members: frozenset[str]
    minus: tuple[str, ...]
    lacking: bool


def _pieces(whole: frozenset[str], strong: Parts, weak: Parts) -> list[_Piece]:
    """What the weaker account knows of some components that the stronger states together."""
    known = _classes(strong)
    pieces = []
    for name, members in _classes(weak).items():
        outside = members - whole
        minus = tuple(n for n, each in known.items() if each <= outside)
        named = frozenset().union(*known.values())
        if members & whole and outside & named == frozenset().union(*(known[n] for n in minus)):
            lacking = bool(outside - named)
            pieces.append(_Piece(name, members & whole, minus, lacking))
    return pieces


def _amount(piece: _Piece, strong: Parts, weak: Parts, interval: str | None = None) -> Column:
    """ns of each row that a piece has, in all or inside an interval."""
    ours, theirs = (each.inside(interval) if interval else each.parts for each in (strong, weak))
    nothing = np.zeros(len(strong.total), dtype=np.int64)
    return sum((-ours.get(n, nothing) for n in piece.minus), theirs.get(piece.name, nothing))


def _room(piece: _Piece, strong: Parts, weak: Parts) -> float:
    """ns by which the sum of a piece may be off, by the weaker account's own doubts."""
    draws = weak.draws.get(piece.name)
    room = 0.0 if draws is None else _TWO_SIDED * float(draws.sum(axis=1).std())
    slack = [weak.slack.get(piece.name), *(strong.slack.get(n) for n in piece.minus)]
    room += max((float(end.sum()) for ends in slack if ends for end in ends), default=0.0)
    if piece.lacking:
        room += max(0.0, float(_unclaimed(strong).sum()))
    return room


def _unclaimed(parts: Parts) -> Column:
    """ns of each row that an account gives to nobody."""
    nothing = np.zeros(len(parts.total), dtype=np.int64)
    return np.maximum(parts.parts.get(_REST, nothing), 0)


def _disagreements(strong: Parts, weak: Parts) -> tuple[Disagreement, ...]:
    """The classes of the stronger account that the weaker excludes: it makes more of what they
    hold than there is, or less where it knows all that they hold."""
    out = []
    slight = OVER_SHARE * float(strong.total.sum())
    for name, members in _classes(strong).items():
        pieces = _pieces(members, strong, weak)
        if not pieces:
            continue
        stated = int(strong.parts[name].sum())
        sums = [int(_amount(piece, strong, weak).sum()) for piece in pieces]
        room = slight + sum(_room(piece, strong, weak) for piece in pieces)
        if name in strong.slack:
            room += max(float(end.sum()) for end in strong.slack[name])
        if name in strong.draws:
            room += _TWO_SIDED * float(strong.draws[name].sum(axis=1).std())
        known = frozenset().union(*(piece.members for piece in pieces))
        low = sum(sums) - stated < -room - float(_unclaimed(strong).sum())
        if sum(sums) - stated > room or (low and known == members):
            ordered = tuple(c for c in COMPONENTS if c in members)
            out.append(Disagreement(ordered, stated, sum(sums), round(room), len(strong.total)))
    return tuple(out)


# ---------------------------------------------------------------------- a sum split
def _split(strong: Parts, weak: Parts, doubtful: bool) -> Parts:
    """``strong`` with each merged class split as far as ``weak`` can. ``doubtful``: by what it
    measures alone."""
    found = strong
    for name, members in _classes(strong).items():
        if len(members) > 1:
            pieces = [
                piece
                for piece in _pieces(members, strong, weak)
                if not doubtful or weak.sources[piece.name].grade in _MEASURED
            ]
            open_ = members - frozenset().union(*(piece.members for piece in pieces))
            if not open_ and pieces:
                # One of them takes what is left: the one that is known least.
                last = max(pieces, key=lambda p: (weak.sources[p.name].grade, p.name))
                pieces.remove(last)
                open_ = last.members
            if pieces:
                found = _divided(found, strong, weak, name, pieces, open_)
    return found


def _divided(
    into: Parts,
    strong: Parts,
    weak: Parts,
    name: str,
    pieces: list[_Piece],
    open_: frozenset[str],
) -> Parts:
    """``into`` with the class ``name`` of ``strong`` as its pieces and the remainder."""
    keys = [_first(piece.members) for piece in pieces]
    rest = _first(open_)
    columns = dict(into.parts)
    whole = columns.pop(name)
    amounts = [_amount(piece, strong, weak) for piece in pieces]
    columns |= {**dict(zip(keys, amounts, strict=True)), rest: whole - sum(amounts)}
    within = {}
    for interval in _INTERVALS:
        inside = dict(into.inside(interval))
        if name in inside:
            shares = [_amount(piece, strong, weak, interval) for piece in pieces]
            inside |= dict(zip(keys, shares, strict=True))
            inside[rest] = strong.inside(interval)[name] - sum(shares)
            if name not in (*keys, rest):
                del inside[name]
        within[interval] = in_time_order(inside)
    draws: dict[str, Column] = dict(into.draws)
    slack: dict[str, tuple[Column, Column]] = dict(into.slack)
    drawn = [_drawn(piece, strong, weak) for piece in pieces]
    less: Column = np.zeros(len(whole))
    more: Column = less
    given = slack.pop(name, None)
    sums: Column = draws.pop(name, whole)
    for key, piece, draw in zip(keys, pieces, drawn, strict=True):
        if draw is not None:
            draws[key] = draw
        slack[key] = _open(piece, strong, weak)
        less, more = less + slack[key][1], more + slack[key][0]
    if sums is not whole or any(draw is not None for draw in drawn):
        taken = [a if d is None else d for a, d in zip(amounts, drawn, strict=True)]
        sums, *taken = _cycled([sums, *taken])
        draws[rest] = sums - sum(taken)
    slack[rest] = (less + given[0], more + given[1]) if given else (less, more)
    sources = dict(into.sources)
    sources.pop(name)
    most = max(zip(keys, amounts, strict=True), key=lambda each: int(each[1].sum()))[0]
    for key, piece in zip(keys, pieces, strict=True):
        sources[key] = _source(strong, weak, name, [piece], piece.members, rest)
    sources[rest] = _source(strong, weak, name, pieces, open_, most)
    return replace(
        into,
        parts=in_time_order(columns),
        within=within,
        draws=draws,
        slack=slack,
        sources=sources,
        most={**into.most, **dict.fromkeys((*keys, rest), whole)},
    )


def _first(members: Iterable[str]) -> str:
    return min(members, key=COMPONENTS.index)


def _drawn(piece: _Piece, strong: Parts, weak: Parts) -> NDArray[np.float64] | None:
    draws = weak.draws.get(piece.name)
    return None if draws is None else draws - sum(strong.parts[n] for n in piece.minus)


def _cycled(columns: list[Column]) -> list[Column]:
    """With as many draws of each of those that have some."""
    n = max(len(each) for each in columns if each.ndim > 1)
    return [each[np.arange(n) % len(each)] if each.ndim > 1 else each for each in columns]


def _open(piece: _Piece, strong: Parts, weak: Parts) -> tuple[Column, Column]:
    """(less, more) ns of each row that both accounts leave open for a piece."""
    none = np.zeros(len(strong.total))
    less, more = weak.slack.get(piece.name, (none, none))
    for n in piece.minus:
        ends = strong.slack.get(n, (none, none))
        less, more = less + ends[1], more + ends[0]
    return (less + _unclaimed(strong), more) if piece.lacking else (less, more)


def _source(
    strong: Parts,
    weak: Parts,
    name: str,
    pieces: list[_Piece],
    members: frozenset[str],
    settles: str,
) -> Source:
    """What a piece, or the remainder, rests on."""
    theirs = [weak.sources[piece.name] for piece in pieces]
    # A merged class is E because it is merged: by itself a law is C.
    grades = ["C" if source.members else source.grade for source in theirs]
    if any(piece.minus for piece in pieces) or not any(
        members & piece.members for piece in pieces
    ):
        grades.append("B")
    texts = dict.fromkeys(source.evidence for source in theirs)
    ordered = tuple(c for c in COMPONENTS if c in members)
    return Source(
        "E" if len(members) > 1 else max(grades),
        f"{'; '.join(texts)}; within the sum that is stated by {strong.sources[name].evidence}",
        ordered if len(members) > 1 else (),
        settles,
    )


# ---------------------------------------------------------------------- leaves
def _with_leaves(strong: Parts, weak: Parts, against: tuple[Disagreement, ...]) -> Parts:
    """With the leaves of the weaker account in components of which the stronger has none; the last
    leaf of each takes what the two differ by."""
    have = {leaf.partition(".")[0] for leaf in strong.leaves}
    denied = {member for each in against for member in each.members}
    leaves, sources = dict(strong.leaves), dict(strong.leaf_sources)
    for component in dict.fromkeys(leaf.partition(".")[0] for leaf in weak.leaves):
        alone = all(
            component in parts.parts and not parts.sources[component].members
            for parts in (strong, weak)
        )
        if component in have or component in denied or not alone:
            continue
        names = [leaf for leaf in weak.leaves if leaf.partition(".")[0] == component]
        differs = strong.parts[component] - weak.parts[component]
        for leaf in names:
            leaves[leaf] = weak.leaves[leaf] + (differs if leaf == names[-1] else 0)
            sources[leaf] = weak.leaf_sources[leaf]
    if len(leaves) == len(strong.leaves):
        return strong
    borrowed = frozenset(leaves) - frozenset(strong.leaves)
    return replace(strong, leaves=leaves, leaf_sources=sources, borrowed=borrowed)


# ---------------------------------------------------------------------- part of the requests
def _for_its_own(strong: Parts, weak: Parts) -> Parts | None:
    """``weak`` with what ``strong`` says of the requests that it knows, in the weaker's classes;
    None where a class of the stronger lies in none of these."""
    assert strong.row is not None and weak.row is not None
    homes = {}
    for name in strong.parts:
        members = set(members_of(strong, name))
        fitting = [n for n in weak.parts if members <= set(members_of(weak, n))]
        if not fitting:
            return None
        homes[name] = fitting[0]
    order = np.argsort(strong.row, kind="stable")
    known = np.flatnonzero(np.isin(weak.row, strong.row))
    at = order[np.searchsorted(strong.row[order], weak.row[known])]

    def mixed(theirs: Mapping[str, Column], ours: Mapping[str, Column]) -> dict[str, Column]:
        """Columns of the weaker, with the stronger's in the rows that it knows."""
        out = {}
        for key in dict.fromkeys((*theirs, *(homes[n] for n in ours if n in homes))):
            column = theirs.get(key, np.zeros(len(weak.total), dtype=np.int64)).copy()
            own = [ours[name][at] for name, home in homes.items() if home == key and name in ours]
            column[..., known] = sum(own, np.zeros(len(known), dtype=np.int64))
            out[key] = column
        return out

    ends = [
        mixed(
            {n: each[end] for n, each in weak.slack.items()},
            {n: each[end] for n, each in strong.slack.items()},
        )
        for end in (0, 1)
    ]
    leaves = {n: weak.leaves[n].copy() for n in weak.leaves if n in strong.leaves}
    for leaf, column in leaves.items():
        column[known] = strong.leaves[leaf][at]
    parts = mixed(weak.parts, strong.parts)
    parts[_REST] = weak.total - sum(column for n, column in parts.items() if n != _REST)
    drawn = {n: strong.parts[n] for n in strong.parts if homes[n] in weak.draws}
    return replace(
        weak,
        parts=in_time_order(parts),
        within={
            each: in_time_order(mixed(weak.inside(each), strong.inside(each)))
            for each in _INTERVALS
        },
        draws=mixed(weak.draws, drawn),
        slack={n: (ends[0][n], ends[1][n]) for n in ends[0]},
        sources=_with_words(strong, weak, homes, len(known)),
        leaves=leaves,
        leaf_sources={leaf: weak.leaf_sources[leaf] for leaf in leaves},
    )


def _with_words(strong: Parts, weak: Parts, homes: Mapping[str, str], n: int) -> dict[str, Source]:
    """The weaker's sources, each with what it rests on where the stronger knows the request."""
    sources = dict(weak.sources)
    for key, source in weak.sources.items():
        texts = dict.fromkeys(
            strong.sources[name].evidence for name, home in homes.items() if home == key
        )
        if texts and key not in ("client", _REST):
            words = f"; for {n} of {len(weak.total)} requests: {'; '.join(texts)}"
            sources[key] = replace(source, evidence=source.evidence + words)
    return sources
