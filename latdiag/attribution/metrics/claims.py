"""Component means out of histogram differences: evidence of grade B.

Each family is a signal with ``covers``. One rule: narrow signals first; a signal has what is left
of its sum when all that its ``covers`` strictly contain is taken away. The sums are of requests
that finished between two scrapes, so they are those of one's own requests only if as many
finished as were sent: the key check of ``metrics.traffic``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from latdiag.attribution.leaves import bits, components, visible
from latdiag.attribution.metrics.deltas import Deltas, sum_bounds
from latdiag.attribution.metrics.traffic import (
    Own,
    Total,
    Traffic,
    totals,
    traffic,
)
from latdiag.attribution.nest import Length, nested, remaining, union
from latdiag.model.units import NS_PER_MS, NS_PER_S, UNIT_NS
from latdiag.stacks.signal import Signal, of

#: What may happen several times at once in one request; steps of an engine follow each other.
_AT_ONCE = of("interconnect")
#: A grade-A mean may differ so much without contradiction: it is of the same requests, but the
#: ends of the intervals are taken in different processes.
_AGREE, _AGREE_NS = 0.02, NS_PER_MS


@dataclass(frozen=True, slots=True)
class Claim:
    """Time of all ``n`` requests of a window that belongs to ``components`` (one, or several
    that could not be told apart). ``leaf``: the one of them that has it, empty for none in
    particular. ``sum_ns`` is None where only the bounds are known. ``grade``: B, or C where the
    signal is known from documents alone."""

    components: tuple[str, ...]
    leaf: str
    signal: str
    role: str
    replicas: tuple[str, ...]
    n: int
    sum_ns: int | None
    lo_ns: int
    hi_ns: int
    evidence: str
    grade: str = "B"


@dataclass(frozen=True, slots=True)
class Aggregates:
    """Claims of one window, whose traffic they are of, and sentences on what does not fit."""

    claims: tuple[Claim, ...]
    traffic: Traffic
    doubts: tuple[str, ...]


@dataclass(slots=True, eq=False)
class _Item:
    """A total on its way through the rule. ``leaves``: those that what is left of it may belong
    to; ``left``: what nothing narrower has taken."""

    total: Total
    leaves: int
    inner: list[_Item]
    left: float = 0.0
    lo: float = 0.0
    hi: float = 0.0


def aggregates(
    deltas: Deltas, signals: Sequence[Signal], own: Own, ranks: Iterable[str] = ()
) -> Aggregates:
    """Claims out of the differences of one window.

    ``signals``: of all stacks that are there; ``ranks``: labels that number the ranks of one
    server, which see the same requests. A replica without a role counts as ``unified``.
    """
    found = totals(deltas, signals, ranks)
    seen = traffic(deltas, signals, found, own)
    doubts = [
        f"{one.replica}: {one.name or 'all of it'} left out, {one.why}" for one in deltas.left
    ]
    if seen.verdict == "contradictory":
        return Aggregates((), seen, (*doubts, seen.text))
    timed = [one for one in found if one.signal.covers and one.signal.unit in UNIT_NS]
    items, more = _items([_of_own(one, seen, own) for one in timed])
    doubts += more
    for item in items:
        _take_inner(item, doubts, any(item in other.inner for other in items))
    claims = (_claim(item, seen, own) for item in items)
    return Aggregates(tuple(one for one in claims if one is not None), seen, tuple(doubts))


def _of_own(one: Total, seen: Traffic, own: Own) -> Total:
    """What is known of the client's own part of a sum, the edges' bias included."""
    finished = seen.finished.get(one.role, 0)
    lo, hi = one.lo_ns, one.hi_ns
    if finished and one.n > finished + seen.in_flight and one.signal.covers <= _AT_ONCE:
        # Several transfers a request: one after another at most, all at once at least.
        lo *= finished / one.n
    if seen.verdict == "own":
        lo, hi = lo * (1 - seen.bias), hi * (1 + seen.bias)
    else:
        scale = UNIT_NS[one.signal.unit]
        low, high = 0.0, one.sum_ns
        if seen.verdict == "others" and one.buckets[0] and finished:
            chosen = min(one.n, max(0, own.n - seen.in_flight))
            low = scale * sum_bounds(*one.buckets, one.sum_ns / scale, chosen)[0]
            chosen = min(one.n, own.n + seen.in_flight)
            high = scale * sum_bounds(*one.buckets, one.sum_ns / scale, chosen)[1]
        lo, hi = min(low, lo), high
    return Total(one.signal, one.role, one.replicas, one.n, one.sum_ns, lo, hi, one.buckets)


# ------------------------------------------------------------------ the rule
def _items(totals: Sequence[Total]) -> tuple[list[_Item], list[str]]:
    """Totals from narrow to wide, each knowing what is inside it; and why others are not used:
    they overlap with another of their server, and nothing narrower tells them apart.
    """
    lengths = [
        Length(
            visible(one.signal.covers),
            bits([one.signal.rest] if one.signal.rest in one.signal.covers else []),
            one.role,
            one.sum_ns,
        )
        for one in totals
    ]
    nesting = nested(lengths)
    items: dict[int, _Item] = {}
    for at, within in nesting.inside.items():
        inside = union(lengths[k].covers for k in within)
        leaves = remaining(lengths[at].covers, inside, lengths[at].rest)
        items[at] = _Item(totals[at], leaves, [items[k] for k in within])
    unused = [
        f"{totals[at].signal.foreign} is not used: it overlaps {totals[rival].signal.foreign}"
        for at, rival in nesting.crossed.items()
    ]
    return list(items.values()), unused


def _take_inner(item: _Item, doubts: list[str], held: bool) -> None:
    """What is left of an item's sum when everything inside it is taken away.

    Where that is less than nothing, what another server did beside its known phases gives way:
    it did that after the one that waited for it had gone on. Two servers may also wait for each
    other at one time; then the item that holds this one (``held``) has as much less.
    """
    total = item.total
    item.left = total.sum_ns - sum(one.left for one in item.inner)
    item.lo = total.lo_ns - sum(one.hi for one in item.inner)
    item.hi = total.hi_ns - sum(one.lo for one in item.inner)
    for one in item.inner:
        if item.left < 0 and one.inner and one.total.role != total.role:
            given = min(one.left, -item.left)
            item.left += given
            item.hi += given
            one.left -= given
            one.lo, one.hi = max(0.0, one.lo - given), max(one.left, one.hi - given)
    waits = held and any(one.total.role != total.role for one in item.inner)
    if item.hi < -_AGREE * total.sum_ns and not waits:
        doubts.append(
            f"{total.signal.foreign} is shorter than what it contains by"
            f" {-item.hi / NS_PER_S:.3f} s over {total.n} requests"
        )
    item.left, item.lo, item.hi = (max(0.0, value) for value in (item.left, item.lo, item.hi))


def _claim(item: _Item, seen: Traffic, own: Own) -> Claim | None:
    """The claim for what is left of an item; None where nothing says whose it is."""
    total = item.total
    names = tuple(sorted(components(item.leaves)))
    leaf = total.signal.rest if len(names) == 1 else ""
    if not names or not round(item.hi):
        return None
    known = seen.verdict == "own"
    servers = "1 server" if len(total.replicas) == 1 else f"{len(total.replicas)} servers"
    inner = ", ".join(dict.fromkeys(one.total.signal.foreign for one in item.inner))
    evidence = f"{total.signal.foreign}{f' less {inner}' if inner else ''}, {servers}, {seen.text}"
    return Claim(
        names,
        leaf,
        total.signal.name,
        total.role,
        total.replicas,
        seen.finished.get(total.role, total.n) if known else own.n,
        round(item.left) if known else None,
        round(item.lo),
        round(item.hi),
        evidence,
        "C" if total.signal.documented else "B",
    )


# ------------------------------------------------------------------ against per-request evidence
def contradictions(claims: Iterable[Claim], measured: Mapping[str, tuple[int, int]]) -> list[str]:
    """Sentences on components whose mean per request differs from the one measured request by
    request. ``measured``: (sum in ns, requests) by component."""
    by_component: dict[str, list[Claim]] = {}
    for claim in claims:
        if len(claim.components) == 1:
            by_component.setdefault(claim.components[0], []).append(claim)
    found = []
    for component, mine in by_component.items():
        total, n = measured.get(component, (0, 0))
        if not n:
            continue
        lo = sum(claim.lo_ns / max(1, claim.n) for claim in mine)
        hi = sum(claim.hi_ns / max(1, claim.n) for claim in mine)
        mean = total / n
        slack = max(_AGREE * mean, _AGREE_NS)
        if not lo - slack <= mean <= hi + slack:
            found.append(
                f"{component}: {mean / NS_PER_MS:.1f} ms a request by spans,"
                f" {lo / NS_PER_MS:.1f} to {hi / NS_PER_MS:.1f} ms by metrics"
            )
    return found
