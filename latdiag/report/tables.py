"""A result as tables for other programs and for people elsewhere: CSV, and Markdown for a pull
request. The verdict, the numbers that a page shows, and the breakdown; all else is in ``--json``.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from latdiag.model.text import shown
from latdiag.model.units import figure, ms, quantity
from latdiag.report.stages import leader, load_of

if TYPE_CHECKING:
    from latdiag.diagnosis.result import Breakdown, Result, Share, StageResult, Verdict
    from latdiag.measurement.measurement import MetricResult
    from latdiag.stats.estimate import Estimate

#: The metrics of a table, in its order; a table of a pull request has no more rows.
_METRICS = {
    "ttft": "TTFT",
    "tpot": "TPOT",
    "itl": "ITL",
    "e2e": "E2E",
    "output_throughput": "output throughput",
    "request_rate": "request rate",
    "goodput": "goodput",
    "slo_attainment": "SLO attainment",
    "errors": "failed requests",
}
_STATISTICS = ("p50", "p90", "p95", "p99", "mean")
_POPULATIONS = {"mean": "all requests", "p95_tail": "slowest 5 %"}
#: Components below this share of the time go into one row.
_LEAST = 0.01
#: What Markdown or HTML would take for more than a character.
_MARKS = re.compile(r"([\\`*_\[\]<>#|~&$]|^[-+])")
_HEADER = (
    *("kind", "name", "statistic", "value", "lo", "hi", "unit", "n", "grade", "evidence"),
    "stage",
)
#: Rows of a table of stages.
_STAGES = 10
_OF_STAGE = (("ttft", "p50"), ("ttft", "p95"), ("tpot", "p50"), ("e2e", "p50"))


def csv_of(result: Result) -> str:
    """A row for each number: metrics and shares (of 1), with interval, unit and n. A cell is empty
    where nothing is stated; ``stage`` is empty where the number is of all requests."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(_HEADER)
    rows.writerows(_verdict_row(result.verdict, ""))
    rows.writerow(("valid", "", "", int(result.valid), *[""] * 7))
    rows.writerows(_rows_of(result.metrics, result.breakdowns, ""))
    for stage in result.stages:
        name = _cell(stage.name)
        rows.writerows(_verdict_row(stage.verdict, name))
        rows.writerow(("load", "concurrency", "", _number(stage.concurrency), *[""] * 6, name))
        rows.writerow(("load", "rate", "", _number(stage.offered_rate), *[""] * 6, name))
        rows.writerow(("load", "failed", "", sum(stage.failed.values()), *[""] * 6, name))
        rows.writerows(_rows_of(stage.metrics, stage.breakdowns, name))
    return out.getvalue()


def _verdict_row(verdict: Verdict | None, stage: str) -> Iterator[Sequence[object]]:
    if verdict is not None:
        kind, sure = shown(verdict.kind, 60), shown(verdict.confidence, 60)
        named = shown(verdict.dominant or "", 60)
        yield ("verdict", named, kind, *[""] * 5, sure, _cell(verdict.sentence), stage)


def _rows_of(
    metrics: Mapping[str, MetricResult], breakdowns: Mapping[str, Breakdown], stage: str
) -> Iterator[Sequence[object]]:
    for name, statistic, estimate, unit in _estimates(metrics):
        values = [_scaled(raw, unit) for raw in (estimate.value, estimate.lo, estimate.hi)]
        why = _cell(estimate.refused or "")
        yield ("metric", name, statistic, *values, unit, estimate.n, "", why, stage)
    for population, found in breakdowns.items():
        for name, share in found.shares.items():
            numbers = [_number(each) for each in (share.share, share.lo, share.hi)]
            told = (found.n, share.grade, _cell(share.evidence))
            label = "+".join(share.members or (name,))
            yield ("share", label, population, *numbers, "1", *told, stage)


def markdown_of(result: Result) -> str:
    """A verdict, at most ten rows of metrics and the breakdown, as GitHub and GitLab show it."""
    return "\n".join(_markdown(result)) + "\n"


def _markdown(result: Result) -> Iterator[str]:
    verdict = result.verdict
    if not result.valid:
        why = "; ".join(each.text for each in result.invalid_because)
        yield f"**INVALID**: {_plain(why, 400)}"
    elif verdict is not None:
        own = verdict.kind == "overloaded"
        named = (verdict.kind if own else verdict.dominant or verdict.kind).upper()
        yield f"**{_plain(named, 60)}** ({_plain(verdict.confidence, 60)}):"
        yield f"{_plain(verdict.sentence, 600)}"
        yield ""
        yield f"{_plain(verdict.next, 400)}"
    yield ""
    yield _about(result)
    rows = list(_metric_rows(result))
    if rows:
        yield from _table(("", *_STATISTICS, "n"), rows)
    yield from _stage_table(result.stages)
    mean, tail = result.breakdowns.get("mean"), result.breakdowns.get("p95_tail")
    if mean is not None:
        yield from _breakdown_table(mean, tail)


def _about(result: Result) -> str:
    target = result.target
    where = (target.url or ", ".join(target.captures)) if target is not None else ""
    model = (target.model if target is not None else None) or "unknown"
    text = f"{_plain(where or 'unknown target', 200)}, model {_plain(model, 80)}"
    if result.load is not None:
        failed = sum(result.load.failed.values())
        text += f": {result.load.requests:,} requests, {failed:,} failed"
    return text


def _metric_rows(result: Result) -> Iterator[Sequence[str]]:
    for name, label in _METRICS.items():
        metric = result.metrics.get(name)
        if metric is None:
            continue
        if metric.total is not None:
            if metric.total.value is not None:
                yield (
                    label,
                    *[""] * 4,
                    _with_ends(metric.total, metric.unit),
                    str(metric.total.n),
                )
            continue
        found = [metric.statistics.get(each) for each in _STATISTICS]
        stated = [one for one in found if one is not None and one.value is not None]
        if stated:
            cells = (_with_ends(one, metric.unit) if one is not None else "" for one in found)
            yield (label, *cells, f"{stated[0].n:,}")


def _stage_table(stages: Sequence[StageResult]) -> Iterator[str]:
    if not stages:
        return
    rows = []
    for stage in stages[:_STAGES]:
        found = [stage.metrics[name].statistics.get(what) for name, what in _OF_STAGE]
        figures = [_with_ends(one, "ms") if one is not None else "" for one in found]
        failed = sum(stage.failed.values())
        counts = (f"{stage.requests:,}", f"{failed:,}", load_of(stage))
        rows.append((_plain(stage.name, 80), *counts, *figures, leader(stage)))
    head = ("stage", "requests", "failed", "load", "TTFT p50", "TTFT p95", "TPOT p50", "E2E p50")
    yield from _table((*head, "largest part"), rows)
    if len(stages) > _STAGES:
        yield ""
        yield f"And {len(stages) - _STAGES} more stages."


def _breakdown_table(mean: Breakdown, tail: Breakdown | None) -> Iterator[str]:
    rows, small = [], []
    for name, share in mean.shares.items():
        label = " + ".join(share.members or (name,))
        if abs(share.share or 0.0) < _LEAST:
            small.append(label)
            continue
        mean_ms = quantity(ms(share.sum_ns / mean.n), "ms")
        slow = tail.shares.get(name) if tail is not None and tail.insufficient is None else None
        rows.append((label, _share(share), mean_ms, _share(slow) if slow else "", share.grade))
    yield from _table(
        ("where the time goes", "all requests", "mean", "slowest 5 %", "grade"), rows
    )
    if small:
        yield ""
        yield f"Under 1 %: {', '.join(small)}."


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield ""
    yield "| " + " | ".join(head) + " |"
    yield "| --- |" + " ---: |" * (len(head) - 1)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def _share(share: Share) -> str:
    if share.share is None:
        return ""
    text = f"{100 * share.share:.0f} %"
    if share.lo is None or share.hi is None:
        return text
    return f"{text} [{100 * share.lo:.0f}, {100 * share.hi:.0f}]"


def _with_ends(estimate: Estimate, unit: str) -> str:
    if estimate.value is None:
        return ""
    value, lo, hi = (_scaled(raw, unit) for raw in (estimate.value, estimate.lo, estimate.hi))
    text = quantity(float(value), unit)
    if lo == "" or hi == "":
        return text
    return f"{text} [{figure(float(lo), unit)}, {figure(float(hi), unit)}]"


def _estimates(
    metrics: Mapping[str, MetricResult],
) -> Iterator[tuple[str, str, Estimate, str]]:
    for name, metric in metrics.items():
        if metric.total is not None:
            yield name, "total", metric.total, metric.unit
        for statistic, estimate in metric.statistics.items():
            yield name, statistic, estimate, metric.unit


def _scaled(raw: float | None, unit: str) -> float | str:
    """From raw units (nanoseconds) to the printed one; an empty cell for nothing."""
    return "" if raw is None else _number(ms(raw) if unit == "ms" else raw)


def _number(value: float | None) -> float | str:
    return "" if value is None else float(f"{value:.9g}")


def _cell(text: str) -> str:
    """Text that a spreadsheet takes for text: none begins as a formula does."""
    clean = shown(text, 400)
    return f"'{clean}" if clean[:1] in "=+-@" and clean else clean


def _plain(text: str, limit: int) -> str:
    """Text that is text in Markdown too."""
    # Nobody is to be called by a model's name.
    return _MARKS.sub(r"\\\1", shown(text, limit)).replace("@", "&#64;")
