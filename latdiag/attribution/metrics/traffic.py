"""The sums of signals over a window, and whose requests they are of.

How many requests a server finished is the count of its histogram with the widest ``covers``
(that is observed once a request, at its end); where there is none, a counter whose name ends in
``.requests``. Such a counter of chosen labels alone counts what the histogram does not tell apart:
the requests that succeeded. Gauges whose names end in ``.running`` and ``.waiting`` say what is in
flight.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from latdiag.attribution.leaves import components, visible
from latdiag.attribution.metrics.deltas import Delta, Deltas, Labels
from latdiag.model.units import UNIT_NS
from latdiag.stacks.catalogue import selector
from latdiag.stacks.signal import Signal


@dataclass(frozen=True, slots=True)
class Own:
    """The client's side of a window. ``n``: requests whose last byte came in it; ``in_flight``:
    those on their way at its beginning or its end."""

    n: int
    in_flight: int = 0


@dataclass(frozen=True, slots=True)
class Traffic:
    """Whose requests the servers counted. ``verdict``: ``own`` (a share may be claimed),
    ``others`` (own shares are only bounded), ``contradictory`` (fewer than were sent) or
    ``uncounted``. ``finished``: by role. ``bias``: requests in flight at the edges over requests,
    by which a sum may be wrong."""

    verdict: str
    finished: Mapping[str, int]
    in_flight: int
    bias: float
    text: str


@dataclass(frozen=True, slots=True)
class Total:
    """A signal's sum over a window, all replicas of a role together.

    ``sum_ns`` lies in ``lo_ns .. hi_ns`` for what ranks and parallel observations leave open;
    ``buckets``: (bounds, cumulative counts) in the family's unit where all replicas agree on the
    bounds, and (), () otherwise.
    """

    signal: Signal
    role: str
    replicas: tuple[str, ...]
    n: int
    sum_ns: float
    lo_ns: float
    hi_ns: float
    buckets: tuple[tuple[float, ...], tuple[int, ...]] = ((), ())


def totals(deltas: Deltas, signals: Sequence[Signal], ranks: Iterable[str] = ()) -> list[Total]:
    """The sum of every counter and histogram signal, in the order of ``signals``; one per role
    that the signal is of."""
    known = frozenset(ranks)
    found: list[Total] = []
    for signal in signals:
        by_role: dict[str, list[Delta]] = {}
        for row in matching(deltas.rows, signal):
            by_role.setdefault(row.role or "unified", []).append(row)
        for role, rows in sorted(by_role.items()):
            if signal.kind in ("counter", "histogram"):
                found.append(_total(signal, role, rows, known))
    return found


def matching(rows: Iterable[Delta], signal: Signal) -> list[Delta]:
    """The differences that a signal of a metric kind names: family, labels and role."""
    if signal.kind not in ("counter", "histogram", "gauge"):
        return []
    family, wanted = selector(signal.foreign)
    return [
        row
        for row in rows
        if row.name == family
        and row.kind == signal.kind
        and wanted.items() <= dict(row.labels).items()
        and (not signal.roles or (row.role or "unified") in signal.roles)
    ]


def _total(signal: Signal, role: str, rows: list[Delta], ranks: frozenset[str]) -> Total:
    """Replicas and engines are added; of the ranks of one engine the largest counts."""
    engines: dict[tuple[str, Labels], list[Delta]] = {}
    for row in rows:
        rest = tuple(pair for pair in row.labels if pair[0] not in ranks)
        engines.setdefault((row.replica, rest), []).append(row)
    chosen = [max(group, key=lambda row: row.total) for group in engines.values()]
    lows = [min(row.total for row in group) for group in engines.values()]
    scale = UNIT_NS.get(signal.unit, 1)
    bounds = {row.bounds for row in chosen}
    buckets: tuple[tuple[float, ...], tuple[int, ...]] = ((), ())
    if len(bounds) == 1 and (shared := bounds.pop()):
        counts = zip(*(row.counts for row in chosen), strict=True)
        buckets = (shared, tuple(sum(column) for column in counts))
    return Total(
        signal,
        role,
        tuple(sorted({row.replica for row in chosen})),
        sum(row.n for row in chosen),
        scale * sum(row.total for row in chosen),
        scale * sum(lows),
        scale * sum(row.total for row in chosen),
        buckets,
    )


def traffic(deltas: Deltas, signals: Sequence[Signal], found: list[Total], own: Own) -> Traffic:
    """Compares what the servers finished with what the client saw finish."""
    finished = _finished(found)
    gauges = [one for one in signals if one.name.rpartition(".")[2] in ("running", "waiting")]
    rows = [row for signal in gauges for row in matching(deltas.rows, signal)]
    by_role: dict[str, float] = {}
    for row in rows:
        role = row.role or "unified"
        by_role[role] = by_role.get(role, 0.0) + max(0.0, row.first) + max(0.0, row.total)
    in_flight = max([own.in_flight, *(int(n) for n in by_role.values())])
    if not finished or not any(finished.values()):
        text = "no server says how many requests it finished"
        return Traffic("uncounted", finished, in_flight, 1.0, text)
    fewest, most = min(finished.values()), max(finished.values())
    # What was under way at the beginning would have been counted too: then nothing was, whatever
    # a gauge says that was last set while something ran.
    drained = fewest == most == own.n and not own.in_flight
    bias = 0.0 if drained else min(1.0, in_flight / max(1, fewest))
    roles = sorted(finished.items())
    counted = ", ".join(f"{n} ({role})" if role != "unified" else f"{n}" for role, n in roles)
    if fewest < own.n - in_flight:
        text = (
            f"the scraped servers finished {counted} requests, but this client {own.n}: other"
            " servers must have served the rest, so these sums are not used"
        )
        return Traffic("contradictory", finished, in_flight, bias, text)
    if most > own.n + in_flight:
        text = (
            f"the servers finished {counted} requests, of which {own.n} are this client's: the"
            " time of those has only bounds"
        )
        return Traffic("others", finished, in_flight, bias, text)
    text = f"the servers finished {counted} requests, this client {own.n}"
    return Traffic("own", finished, in_flight, bias, text)


def _finished(found: list[Total]) -> dict[str, int]:
    """How many requests the servers of each role finished, as far as a signal says."""
    widest: dict[str, Total] = {}
    for one in found:
        if one.signal.kind == "histogram" and len(components(visible(one.signal.covers))) > 1:
            held = widest.setdefault(one.role, one)
            if len(one.signal.covers) > len(held.signal.covers):
                widest[one.role] = one
    counted = {role: one.n for role, one in widest.items()}
    for one in found:
        if one.signal.kind == "counter" and one.signal.name.endswith(".requests"):
            chosen = bool(selector(one.signal.foreign)[1]) and _stack(widest, one) == _stack_of(
                one
            )
            n = round(one.sum_ns)
            counted[one.role] = n if chosen else counted.get(one.role, n)
    return counted


def _stack(widest: Mapping[str, Total], one: Total) -> str:
    """The stack of the histogram that counts for this one's role."""
    return _stack_of(widest[one.role]) if one.role in widest else _stack_of(one)


def _stack_of(one: Total) -> str:
    return one.signal.name.partition(".")[0]
