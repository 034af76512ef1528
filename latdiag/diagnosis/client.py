"""What the client itself knows of a run: what was sent, how TTFT splits, its own faults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from latdiag.diagnosis.caveats import censored_share
from latdiag.diagnosis.header import arrivals_of, known, number, section
from latdiag.diagnosis.held_back import refusals
from latdiag.diagnosis.result import (
    InvalidBecause,
    Load,
    OutcomeCount,
    SelfAudit,
    Series,
    SplitPart,
    TtftSplit,
)
from latdiag.measurement.validity import (
    Facts,
    Reading,
    facts_of_writers,
    lag_effect,
    unlimited_readings,
)
from latdiag.model.units import ms
from latdiag.stats.estimate import quantiles, rank

if TYPE_CHECKING:
    from latdiag.measurement.digest import Digest

#: Points of a line over time.
_STEPS = 24


def facts_of(found: Digest, writers: Sequence[Mapping[str, object]]) -> Facts:
    """What the rules of the self-audit read."""
    counts = found.measurement.counts
    statistics = found.measurement.statistics
    sent, due = statistics["ttft"], statistics["ttft_from_due"]
    lag, limit = lag_effect([(sent[name], due[name]) for name in sent if name in due])
    return replace(
        facts_of_writers(writers),
        lag_ns=lag if len(found.lags) else None,
        closed=not len(found.lags) and counts.requests > 0,
        lag_limit_ns=limit,
        first_censored_share=_first_censored(found),
        # Of a stream in bursts no interval is stated, whatever the client did.
        censored_share=None if refusals(found.bursts) else censored_share(found),
        clock_step_share=counts.clock_step / counts.requests if counts.requests else None,
        user_stamps=counts.stamp_source.get("user", 0) > 0,
    )


def _first_censored(found: Digest) -> float | None:
    """Share of the first tokens whose own instant was overwritten before it was read."""
    left_out = found.measurement.counts.left_out.get("ttft", {})
    stamped = found.measurement.reading("ttft", "mean").n
    censored = left_out.get("censored", 0)
    return censored / (stamped + censored) if stamped + censored else None


def refused(readings: Sequence[Reading]) -> dict[str, str]:
    """The metrics that a broken rule refuses, and why."""
    return {name: each.sentence() for each in readings if each.broken for name in each.refuses}


def invalid_because(readings: Sequence[Reading]) -> tuple[InvalidBecause, ...]:
    """The rules that were broken and say that nothing can be trusted."""
    return tuple(
        InvalidBecause(each.rule, each.sentence(), each.reading, each.limit, each.unit)
        for each in readings
        if each.broken and not each.refuses
    )


def self_audit(
    found: Digest,
    readings: Sequence[Reading],
    header: Mapping[str, object],
    writers: Sequence[Mapping[str, object]],
) -> SelfAudit:
    sources, client = found.measurement.counts.stamp_source, section(header, "client")
    source = "user" if sources.get("user") else "kernel" if sources.get("kernel") else None
    return SelfAudit(
        priority=known(client, "priority", str),
        stamp_source=source,
        stamp_reason=known(client, "stamp_reason", str),
        readings=(*readings, *unlimited_readings(writers)),
    )


# ---------------------------------------------------------------------- what was run
def load_of(found: Digest, headers: Sequence[Mapping[str, object]]) -> Load:
    """``headers``: run.json of every run; of a plan only what all of them have in common."""
    counts = found.measurement.counts
    first, *others = (section(header, "plan") for header in headers)
    plan = {key: value for key, value in first.items() if all(o.get(key) == value for o in others)}
    span_s = found.measurement.span_ns / 1e9
    isl, osl = counts.isl, counts.osl
    sources = sorted(counts.token_source, key=lambda name: -counts.token_source[name])
    return Load(
        requests=counts.requests,
        ok=counts.ok,
        failed=dict(counts.failed),
        offered_rate=number(plan, "rate"),
        sent_rate=found.sent_rate if plan.get("rate") else None,
        warmup=found.warmups,
        duration_s=span_s or None,
        concurrency=known(plan, "concurrency", int),
        arrivals=arrivals_of(plan),
        isl=number(plan, "isl"),
        osl=number(plan, "osl"),
        prompts=known(plan, "prompts", int),
        isl_mean=isl.got / isl.rows if isl.rows else None,
        osl_mean=osl.got / osl.rows if osl.rows else None,
        connections=known(plan, "connections", str),
        workers=known(plan, "workers", int),
        seed=known(plan, "seed", int),
        token_source=sources[0] if sources else None,
        series=_series(found),
    )


def _series(found: Digest) -> Series | None:
    """Median TTFT over time, in as many steps as hold some ten requests each."""
    sent, ttft = found.sent, found.split["ttft"]
    steps = min(_STEPS, len(sent) // 10)
    if steps < 3:
        return None
    since, span = int(sent.min()), int(sent.max() - sent.min()) + 1
    place = (sent - since) * steps // span
    medians = (
        ms(float(np.median(ttft[place == step]))) if (place == step).any() else None
        for step in range(steps)
    )
    return Series(span / steps / 1e9, tuple(medians))


def outcomes_of(found: Digest) -> tuple[OutcomeCount, ...]:
    """What failed, the most frequent first."""
    failures = sorted(found.failures.items(), key=lambda item: -item[1].count)
    return tuple(OutcomeCount(name, f.count, f.status, f.example) for name, f in failures)


# ---------------------------------------------------------------------- TTFT
def split_of(found: Digest) -> TtftSplit:
    split, n = found.split, len(found.split["ttft"])
    if not n:
        user = found.measurement.counts.stamp_source.get("user")
        reason = "no kernel stamps" if user else "no first token with an exact stamp"
        return TtftSplit(0, 0, reason=reason)
    open_lo = split["network"] - split["network_lo"]
    open_hi = split["network_hi"] - split["network"]
    return TtftSplit(
        n=n,
        bounded=found.bounded,
        client=_part(split["client"], split["client"], split["client"]),
        network=_part(split["network"], split["network_lo"], split["network_hi"]),
        server=_part(split["server"], split["server"] - open_hi, split["server"] + open_lo),
    )


def _part(values: NDArray[np.int64], lo: NDArray[np.int64], hi: NDArray[np.int64]) -> SplitPart:
    # By the rule of every percentile: an order statistic, or none where too few lie beyond it.
    p50, p95 = (found.value for found in quantiles(values, (0.5, 0.95)))
    return SplitPart(
        p50_ms=ms(p50) if p50 is not None else None,
        p95_ms=ms(p95) if p95 is not None else None,
        mean_ms=ms(float(values.mean())),
        lo=ms(_middle(lo)),
        hi=ms(_middle(hi)),
    )


def _middle(values: NDArray[np.int64]) -> float:
    """The median by the rule of ``quantiles``, so that it lies between bounds as they do."""
    return float(np.sort(values)[rank(len(values), 0.5) - 1])
