"""End-to-end latency through a gateway, by the same workload at the server behind it.

Each request of the workload has a twin, of the same lengths at the same moment of a segment of its
own, which went to the server itself. What the server takes of the twin is the server's, as the
laws of the stages at that server divide it; what the request took beyond that, and beyond its own
client and first hop, is in front: the gateway, with the network behind it. One twin says little
of one request, since each met other traffic; the sums over all hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.combine import members_of
from latdiag.attribution.leaves import MASK
from latdiag.attribution.ledger import Claim, Ledger, Move, Origin, client_claims, mask_of
from latdiag.attribution.parts import Parts
from latdiag.attribution.rows import selected
from latdiag.attribution.settle import Whole, settle
from latdiag.measurement.frame import Frame
from latdiag.measurement.observations import Observations
from latdiag.measurement.stages import BEHIND, WORKLOAD
from latdiag.model.components import COMPONENTS

#: What a twin has of its own: the request went another way.
_WAY = ("client", "network")
_REST = "unattributed"
#: Of so many of the streams that run at once behind the gateway, as many have to run through it.
_AS_MANY = 0.8
_NO_TAIL = "the slowest requests through the target have no equals among those behind it"
_DIFFERENCE = "the same workload through the target, less at the server behind it"
_HELD = "; through it fewer streams ran at once, so requests may have waited there and not behind"

Column = NDArray[Any]


def behind_view(seen: Observations) -> Observations:
    """The stages at the server behind the target as a probe of that server."""
    rows = np.flatnonzero(seen.stage != WORKLOAD)
    view = seen.select(rows)
    return replace(view, stage=np.where(view.stage == BEHIND, WORKLOAD, view.stage))


def is_behind(frame: Frame) -> bool:
    """Whether a run's workload was also sent to a server behind its target."""
    return bool((frame.stage == BEHIND).any())


def explain(frame: Frame, server: Parts) -> Parts | None:
    """Parts of the workload's requests. ``server``: those of their twins behind the target, rows
    of the same ``frame``. None where no request has a twin that could be taken apart."""
    rows = frame.answered()
    assert server.row is not None
    place = {row: at for at, row in enumerate(server.row.tolist())}
    twins = _twins(frame)
    at = [place.get(twins.get(row, -1), -1) for row in rows.row.tolist()]
    known = np.flatnonzero(np.array(at, dtype=np.int64) >= 0)
    if not len(known):
        return None
    left_out = rows.n - len(known)
    rows = rows.select(known)
    theirs = selected(server, np.array(at, dtype=np.int64)[known])
    held = _peak(rows.first, rows.last) < _AS_MANY * _peak_of(frame, server)
    return _parts(rows, theirs, left_out, held)


def _twins(frame: Frame) -> dict[int, int]:
    """The row behind of each row through: the same in order of its segment. A segment's requests
    are alike on both ways, in lengths and in the moments at which they are due."""
    found: dict[int, int] = {}
    for segment in sorted(set(frame.scenario[frame.stage == BEHIND].astype(str).tolist())):
        mine = frame.scenario.astype(str) == segment
        through, direct = (
            np.flatnonzero(mine & (frame.stage == stage)) for stage in (WORKLOAD, BEHIND)
        )
        through, direct = (
            each[np.lexsort((frame.request_id[each].astype(str), frame.begin[each]))]
            for each in (through, direct)
        )
        pairs = zip(frame.row[through].tolist(), frame.row[direct].tolist(), strict=False)
        found.update(pairs)
    return found


def _peak_of(frame: Frame, server: Parts) -> int:
    assert server.row is not None
    rows = np.flatnonzero(np.isin(frame.row, server.row))
    return _peak(frame.first[rows], frame.last[rows])


def _peak(first: NDArray[np.int64], last: NDArray[np.int64]) -> int:
    """Streams that ran at once at most."""
    at = np.concatenate([first, last])
    step = np.concatenate([np.ones(len(first)), -np.ones(len(last))])
    order = np.lexsort((step, at))
    return int(np.cumsum(step[order]).max(initial=0))


# ---------------------------------------------------------------------- into parts
@dataclass(frozen=True, slots=True)
class _Class:
    """A class of the server's parts under its name here. ``early``, ``late``, ``after``: ns of
    each row until the first token, until the last, and from there on."""

    name: str
    key: str
    members: tuple[str, ...]
    early: NDArray[np.int64]
    late: NDArray[np.int64]
    after: NDArray[np.int64]

    @property
    def inside(self) -> NDArray[np.int64]:
        return self.early + self.late


def _classes(theirs: Parts) -> list[_Class]:
    """What the server had of each twin, but for the twin's own way."""
    early, late = theirs.inside("client_ttft"), theirs.inside("decode")
    none = np.zeros(len(theirs.total), dtype=np.int64)
    found = []
    for name, whole in theirs.parts.items():
        if name in (*_WAY, _REST):
            continue
        named = members_of(theirs, name)
        # In front is what is before this server; what it has before itself is told with it.
        members = tuple(n for n in named if n not in ("gateway", *_WAY)) or ("gateway",)
        a, b = early.get(name, none), late.get(name, none)
        found.append(_Class(name, members[0], members, a, b, whole - a - b))
    return found


def _parts(rows: Frame, theirs: Parts, left_out: int, held: bool) -> Parts:
    classes = _classes(theirs)
    rest = theirs.parts.get(_REST, np.zeros(rows.n, dtype=np.int64))
    whole = Whole.of(rows)
    way = rows.client + rows.network
    early = whole.ttft - way - _sum((each.early for each in classes), rows.n)
    late = whole.stream - _sum((each.late for each in classes), rows.n)
    after = rows.done - rows.last - rest - _sum((each.after for each in classes), rows.n)
    drawn = _drawn(theirs, early + late)
    origin = Origin("C", _DIFFERENCE + (_HELD if held else ""))
    gateway = MASK["gateway"]
    claims = client_claims(rows)
    claims.append(Claim(gateway, early + late, (origin,), before=early, drawn=drawn))
    claims.append(Claim(gateway, after, (origin,), ended=True))
    merges: dict[str, tuple[str, ...]] = {}
    for each in classes:
        claims += _claims(each, theirs)
        if len(each.members) > 1:
            merges |= dict.fromkeys(each.members, each.members)
    ledger = Ledger(
        claims,
        remainder=Origin("A", "from the last token to the last byte that counts, as behind"),
        leaf_origin=Origin("C", "the laws learned at the server behind the target"),
        merges=merges,
        filled=frozenset({"client_ttft", "decode"}),
        moves=[
            Move("network", "gateway", (rows.network - rows.network_lo).astype(float)),
            Move("gateway", "network", (rows.network_hi - rows.network).astype(float)),
            *(_held(classes, theirs) if held else ()),
        ],
        settles=_settles(classes, theirs),
    )
    # On an idle server the gateway would take what it does.
    front = np.maximum(early + late + after, 0)
    alone = None if theirs.alone is None else theirs.alone + front
    parts = settle(whole, ledger, left_out, alone)
    keys = {each.name: each.key for each in classes}
    return replace(
        parts,
        slack=_with_slack(parts.slack, theirs.slack, keys),
        leaves=theirs.leaves,
        leaf_sources=theirs.leaf_sources,
        no_tail=_NO_TAIL,
    )


def _sum(columns: Iterable[NDArray[np.int64]], n: int) -> NDArray[np.int64]:
    total = np.zeros(n, dtype=np.int64)
    for column in columns:
        total += column
    return total


def _drawn(theirs: Parts, gateway: NDArray[np.int64]) -> NDArray[np.float64] | None:
    """What other draws of the laws would leave in front: they move time of the twin between its
    server and its own way."""
    draws = [theirs.draws[name] - theirs.parts[name] for name in _WAY if name in theirs.draws]
    return np.asarray(gateway + sum(draws), dtype=float) if draws else None


def _claims(each: _Class, theirs: Parts) -> list[Claim]:
    """One class of the server's, until the last token and after it."""
    source = theirs.sources[each.name]
    lone = len(each.members) == 1 and source.members
    origin = Origin("C" if lone else source.grade, f"at the server behind: {source.evidence}")
    mask = mask_of(each.members)
    draws = theirs.draws.get(each.name)
    drawn = None if draws is None else np.asarray(draws - each.after, dtype=float)
    claims = [Claim(mask, each.inside, (origin,), before=each.early, drawn=drawn)]
    if each.after.any():
        claims.append(Claim(mask, each.after, (origin,), ended=True))
    return claims


def _held(classes: list[_Class], theirs: Parts) -> list[Move]:
    """A gateway that lets few requests through spares the server the load that their twins met:
    what these took beyond their time alone may be in front instead."""
    if theirs.alone is None:
        return []
    crowded = np.maximum(theirs.total - theirs.alone, 0).astype(float)
    moves = []
    for name in ("queue", "prefill", "decode"):
        mine = [each for each in classes if name in each.members and each.key != "gateway"]
        for each in mine:
            most = np.maximum(each.inside, 0).astype(float)
            taken = np.minimum(crowded, most)
            crowded = crowded - taken
            moves.append(Move(each.key, "gateway", taken))
    return moves


def _settles(classes: list[_Class], theirs: Parts) -> dict[str, str]:
    """Where a difference comes out below nothing: the server's as there, the gateway's from the
    largest of the server's, and what that has not is more than the client waited for at all."""
    keys = {each.name: each.key for each in classes}
    found = {
        each.key: keys[other]
        for each in classes
        if (other := theirs.sources[each.name].settles) in keys and keys[other] != each.key
    }
    sums = {each.key: int(each.inside.sum()) for each in classes if each.key != "gateway"}
    if sums:
        largest = found["gateway"] = max(sums, key=lambda name: sums[name])
        found.setdefault(largest, "unattributed")
    return found


def _with_slack(
    own: Mapping[str, tuple[Column, Column]],
    theirs: Mapping[str, tuple[Column, Column]],
    keys: Mapping[str, str],
) -> dict[str, tuple[Column, Column]]:
    """What the laws of the server leave open, beside what the stamps of the requests do. What the
    twin's own way may have more, the difference has more as well."""
    slack = dict(own)
    for name, (less, more) in theirs.items():
        key = "gateway" if name in _WAY else keys.get(name)
        if key is None:
            continue
        a, b = slack.get(key, (0.0, 0.0))
        slack[key] = (a + less, b + more)
    return {name: slack[name] for name in COMPONENTS if name in slack}
