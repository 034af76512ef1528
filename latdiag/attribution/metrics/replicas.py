"""What each server counted, whosever requests it was; and how claims out of metrics are told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from latdiag.attribution.evidence import MetricClaim, ReplicaMetrics, SeriesLeftOut, TailTime
from latdiag.attribution.metrics.claims import Claim, aggregates
from latdiag.attribution.metrics.deltas import Deltas, Left
from latdiag.attribution.metrics.traffic import Own, matching, totals, traffic
from latdiag.model.caveat import Caveat
from latdiag.model.caveats import caveat
from latdiag.model.units import ms, seconds
from latdiag.stacks.signal import Signal

#: Of servers and what they lack more are counted, not listed.
LISTED = 200


def replicas(
    found: Sequence[Deltas], signals: Sequence[Signal], ranks: Iterable[str]
) -> tuple[ReplicaMetrics, ...]:
    """Each server's own sums over all windows: of all that it finished, whosever that was."""
    names = {row.replica for each in found for row in each.rows}
    names |= {one.replica for each in found for one in each.left}
    entries = []
    for name in sorted(names)[:LISTED]:
        alone = [
            Deltas(tuple(row for row in each.rows if row.replica == name), ()) for each in found
        ]
        left = [one for each in found for one in each.left if one.replica == name]
        whole = [one.why for one in left if not one.name]
        entry = _replica(name, [each for each in alone if each.rows], signals, ranks)
        why = whole[0] if whole else None
        entries.append(replace(entry, left_out=why, series_left_out=len(left) - len(whole)))
    return tuple(entries)


def _replica(
    name: str, found: Sequence[Deltas], signals: Sequence[Signal], ranks: Iterable[str]
) -> ReplicaMetrics:
    claims: dict[tuple[object, ...], list[Claim]] = {}
    finished, begun, ended, lasted = 0, 0, 0, 0
    for each in found:
        sums = totals(each, signals, ranks)
        n = max(traffic(each, signals, sums, Own(0)).finished.values(), default=0)
        running = [
            row
            for signal in signals
            if signal.name.rpartition(".")[2] in ("running", "waiting")
            for row in matching(each.rows, signal)
        ]
        finished += n
        begun += round(sum(max(0.0, row.first) for row in running))
        ended += round(sum(max(0.0, row.total) for row in running))
        lasted += each.rows[0].end_ns - each.rows[0].begin_ns
        said = aggregates(each, signals, Own(n), ranks)
        for claim in said.claims if n else ():
            text = claim.evidence.replace(said.traffic.text, f"all {n} requests that it finished")
            own = replace(claim, evidence=text)
            claims.setdefault((claim.components, claim.leaf, claim.signal), []).append(own)
    return ReplicaMetrics(
        replica=name,
        role=found[0].rows[0].role or "unified" if found else None,
        seconds=seconds(lasted),
        finished=finished,
        in_flight=(begun, ended),
        claims=tuple(stated(summed(each, finished)) for each in claims.values()),
    )


def summed(claims: Sequence[Claim], n: int) -> Claim:
    sums = [claim.sum_ns for claim in claims]
    known = [value for value in sums if value is not None]
    return replace(
        claims[0],
        replicas=tuple(sorted({name for claim in claims for name in claim.replicas})),
        n=n,
        sum_ns=sum(known) if len(known) == len(sums) else None,
        lo_ns=sum(claim.lo_ns for claim in claims),
        hi_ns=sum(claim.hi_ns for claim in claims),
        grade=max(claim.grade for claim in claims),
    )


def stated(claim: Claim, tail: TailTime | None = None) -> MetricClaim:
    """A claim in means of its requests."""
    n = max(1, claim.n)
    return MetricClaim(
        of=tuple(claim.components),
        leaf=claim.leaf or None,
        role=claim.role,
        n=claim.n,
        mean_ms=None if claim.sum_ns is None else ms(claim.sum_ns / n),
        lo_ms=ms(claim.lo_ns / n),
        hi_ms=ms(claim.hi_ns / n),
        grade=claim.grade,
        evidence=claim.evidence,
        tail=tail,
    )


def series_left_out(left: Sequence[Left]) -> tuple[SeriesLeftOut, ...]:
    return tuple(SeriesLeftOut(one.replica, one.name or None, one.why) for one in left[:LISTED])


def gaps(left: Sequence[Left]) -> list[Caveat]:
    if not left:
        return []
    return [caveat("LD419", n=len(left), replica=left[0].replica, why=left[0].why)]
