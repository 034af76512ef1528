"""What is known of a gateway's time from below: it splits a class, or shows that one is wrong.

A gateway that states its own work, or when the server behind it began to answer, states the least
that it took, and not what else it took. Where that is most of a class that nothing else divides,
the gateway leads the class, and is told apart as that and more. Where it is more than other
evidence leaves it, its time was given to others: all that lies before the first token is one
class then, but for what is stated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.combine import Disagreement, members_of
from latdiag.attribution.ledger import OVER_SHARE
from latdiag.attribution.parts import Parts, Source
from latdiag.attribution.rows import of_the_same_rows
from latdiag.model.components import COMPONENTS, in_time_order

_GATEWAY, _REST = "gateway", "unattributed"
#: What the client's own stamps state stays as it is.
_OWN = ("client", "network", _REST)
#: From this share of its class on the gateway leads it.
_LEADS = 0.5
_TWO_SIDED = 1.96

Column = NDArray[Any]


class Bounded(NamedTuple):
    """``used``: whether the bound changed ``parts``; ``against``: where they exclude it."""

    parts: Parts
    used: bool = False
    against: tuple[Disagreement, ...] = ()


def bounded(parts: Parts, least: Parts) -> Bounded:
    """``parts`` where the gateway took the ``gateway`` of ``least`` or more."""
    both = of_the_same_rows(parts, least)
    if both is None:
        return Bounded(parts)
    ours, theirs = both
    ns, source = theirs.parts[_GATEWAY], theirs.sources[_GATEWAY]
    home = next((n for n in ours.parts if n != _REST and _GATEWAY in members_of(ours, n)), None)
    stated, known = int(ns.sum()), 0 if home is None else int(ours.parts[home].sum())
    room = round(_room(ours, home))
    if stated > known + room:
        members = members_of(ours, home) if home is not None else (_GATEWAY,)
        against = Disagreement(members, stated, known, room, len(ours.total))
        merged, key = _merged(ours, home)
        if stated > int(merged.parts[key].sum()):
            return Bounded(parts)  # more than there is: it states something else
        return Bounded(_split(merged, key, ns, source), True, (against,))
    if home is None or home == _GATEWAY == members_of(ours, home)[-1]:
        return Bounded(parts)
    if stated < _LEADS * known:
        return Bounded(parts)
    return Bounded(_split(ours, home, ns, source), True)


def _room(parts: Parts, name: str | None) -> float:
    """ns that a class may have more, by its own doubts."""
    room = OVER_SHARE * float(parts.total.sum())
    if name is None:
        return room
    if name in parts.slack:
        room += float(parts.slack[name][1].sum())
    if name in parts.draws:
        room += _TWO_SIDED * float(parts.draws[name].sum(axis=1).std())
    return room


def _merged(parts: Parts, home: str | None) -> tuple[Parts, str]:
    """All classes with time before the first token as one, and its name."""
    early = parts.inside("client_ttft")
    before = [n for n in early if n not in _OWN and early[n].any()]
    names = [n for n in parts.parts if n == home or n in before]
    found = {member for name in names for member in members_of(parts, name)} | {_GATEWAY}
    members = tuple(name for name in COMPONENTS if name in found)
    key = members[0]

    def together(columns: Mapping[str, Column]) -> dict[str, Column]:
        mine = [columns[name] for name in names if name in columns]
        rest = {name: column for name, column in columns.items() if name not in names}
        return rest | ({key: sum(mine[1:], mine[0])} if mine else {})

    columns = together(parts.parts)
    columns.setdefault(key, np.zeros(len(parts.total), dtype=np.int64))
    draws = {name: parts.draws.get(name, parts.parts[name]) for name in names}
    drawn = any(name in parts.draws for name in names)
    others = {name: column for name, column in parts.draws.items() if name not in names}
    less = sum((parts.slack[n][0] for n in names if n in parts.slack), np.zeros(len(parts.total)))
    more = sum((parts.slack[n][1] for n in names if n in parts.slack), np.zeros(len(parts.total)))
    words = "; ".join(dict.fromkeys(parts.sources[name].evidence for name in names))
    sources = {n: s for n, s in parts.sources.items() if n not in names}
    sources = {n: replace(s, settles=key) if s.settles in names else s for n, s in sources.items()}
    after = next((n for n in columns if n not in (*_OWN, key)), None)
    sources[key] = Source("E", words or "nothing", members, after)
    merged = replace(
        parts,
        parts=in_time_order(columns),
        within={each: in_time_order(together(parts.inside(each))) for each in _INTERVALS},
        draws=others | ({key: _total(draws)} if drawn else {}),
        slack={n: s for n, s in parts.slack.items() if n not in names} | {key: (less, more)},
        sources=sources,
        leaves={n: c for n, c in parts.leaves.items() if n.partition(".")[0] not in names},
    )
    return merged, key


_INTERVALS = ("client_ttft", "decode")


def _total(columns: Mapping[str, Column]) -> Column:
    first, *others = columns.values()
    return np.asarray(sum(others, first), dtype=float)


def _split(parts: Parts, name: str, ns: NDArray[np.int64], source: Source) -> Parts:
    """The gateway's least, and what is left of its class, all of which may be the gateway's."""
    members = members_of(parts, name)
    rest: Sequence[str] = tuple(each for each in members if each != _GATEWAY)
    key = rest[0]
    columns = dict(parts.parts)
    whole = columns.pop(name)
    columns |= {_GATEWAY: ns, key: whole - ns}
    within = {}
    for each in _INTERVALS:
        inside = dict(parts.inside(each))
        mine = inside.pop(name, None)
        if each == "client_ttft":
            inside |= {_GATEWAY: ns, key: (0 if mine is None else mine) - ns}
        elif mine is not None:
            inside[key] = mine
        within[each] = in_time_order(inside)
    draws = dict(parts.draws)
    if (drawn := draws.pop(name, None)) is not None:
        draws[key] = drawn - ns
    open_ = np.maximum(whole - ns, 0).astype(float)
    slack = dict(parts.slack)
    less, more = slack.pop(name, (np.zeros(len(ns)), np.zeros(len(ns))))
    slack |= {_GATEWAY: (np.zeros(len(ns)), open_), key: (open_ + less, more)}
    sources = {n: s for n, s in parts.sources.items() if n != name}
    old = parts.sources[name]
    sources = {n: replace(s, settles=key) if s.settles == name else s for n, s in sources.items()}
    sources[_GATEWAY] = replace(source, settles=key)
    words = f"{old.evidence}; less what the gateway states, which may have more of it"
    sources[key] = Source("E", words, tuple(rest) if len(rest) > 1 else (), _GATEWAY)
    return replace(
        parts,
        parts=in_time_order(columns),
        within=within,
        draws=draws,
        slack=slack,
        sources=sources,
        most={**parts.most, _GATEWAY: whole, key: whole},
    )
