"""What a longer probe would decide that this one leaves open."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import ceil

from latdiag.attribution.parts import Parts
from latdiag.diagnosis.breakdown import TAIL_ROWS, breakdown, leads
from latdiag.diagnosis.common_classes import pooled, unified
from latdiag.diagnosis.header import known, number, section
from latdiag.diagnosis.result import Result
from latdiag.diagnosis.verdict import clearly
from latdiag.measurement.stages import Limits
from latdiag.probe.budget import BUDGETS, MAX_TOKENS
from latdiag.probe.cost import cost
from latdiag.probe.offered import most_requests

#: The percentile beside the median on the page, and whose lack is told.
_HIGH = "p95"
_MINUTE_S = 60


def would_decide(parts: Parts, times: int) -> bool:
    """Whether a part would lead beyond doubt if there were so many times as many requests, all as
    these: not where laws and bounds leave it open, which more requests do not move."""
    more = _repeated(parts, times)
    whole = breakdown(more, "client_e2e", "mean")
    if whole is None:
        return False
    first = max(whole.shares, key=lambda name: whole.shares[name].sum_ns)
    return clearly(first, leads(more, first, "mean"), whole.shares[first])


def _repeated(parts: Parts, times: int) -> Parts:
    return pooled([parts] * times, unified([parts]))


def longer(result: Result, header: Mapping[str, object]) -> str:
    """What the next larger budget would state besides; empty where that is nothing, or where there
    is none (``header``: of the run)."""
    plan = section(header, "plan")
    larger = _larger(known(plan, "budget", str))
    if larger is None or not result.valid or result.parts is None or not result.parts.total.size:
        return ""
    limits = _limits(larger, section(plan, "limits"))
    n = min(_requests(result, limits), 30 * len(result.parts.total))
    words = list(_decided(result, result.parts, n))
    if not words:
        return ""
    minutes = max(1, round(cost(limits).seconds / _MINUTE_S))
    listed = " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
    return (
        f"--budget {larger} (about {_round(n):,} requests of the workload, {minutes} min) would"
        f" also state {listed}."
    )


def _larger(budget: str | None) -> str | None:
    names = list(BUDGETS)
    place = names.index(budget) + 1 if budget in names else len(names)
    return names[place] if place < len(names) else None


def _limits(budget: str, asked: Mapping[str, object]) -> Limits:
    rate, slots = number(asked, "rate"), known(asked, "concurrency", int)
    return Limits(budget, MAX_TOKENS[budget], None, 0, rate=rate, concurrency=slots)


def _requests(result: Result, limits: Limits) -> int:
    """Of the workload, at the pace at which this one went."""
    load = result.load
    if load is None or not load.duration_s:
        return 0
    budget = BUDGETS[limits.budget]
    tokens = (load.isl_mean or 1.0) + (load.osl_mean or 1.0)
    in_time = load.requests / load.duration_s * budget.load_s
    return int(min(in_time, most_requests(limits, budget), limits.max_tokens / 2 / tokens))


def _decided(result: Result, parts: Parts, n: int) -> Iterator[str]:
    """What ``n`` requests would state that these do not, each in words."""
    times = ceil(n / len(parts.total))
    if times < 2:
        return
    ttft = result.metrics.get("ttft")
    high = ttft.statistics.get(_HIGH) if ttft is not None else None
    if high is not None and high.value is None and high.needs is not None and n >= high.needs:
        yield _HIGH
    tail = result.breakdowns.get("p95_tail")
    if tail is not None and tail.n < TAIL_ROWS <= n // 20:
        then = breakdown(_repeated(parts, times), "client_e2e", "p95_tail")
        if then is not None and then.insufficient is None:
            yield "where the time of the slowest 5 % goes"
    verdict = result.verdict
    if verdict is not None and verdict.kind == "ambiguous" and would_decide(parts, times):
        yield "which part is the largest, if they are like these"


def _round(n: int) -> int:
    """To two digits: it depends on how fast the server will be."""
    digits = len(str(n)) - 2
    return round(n, -digits) if digits > 0 else n
