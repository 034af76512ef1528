"""A result as tables for other programs and for people elsewhere: CSV, and Markdown for a pull
request. The verdict, the numbers that a page shows, and the breakdown; all else is in ``--json``.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from latdiag.model.text import shown
from latdiag.model.units import figure, ms, quantity

if TYPE_CHECKING:
    from latdiag.diagnosis.result import Breakdown, Result, Share
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
_HEADER = ("kind", "name", "statistic", "value", "lo", "hi", "unit", "n", "grade", "evidence")


def csv_of(result: Result) -> str:
    """A row for each number: metrics and shares (of 1), with interval, unit and n. A cell is empty
    where nothing is stated."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(_HEADER)
    verdict = result.verdict
    if verdict is not None:
        kind, sure = shown(verdict.kind, 60), shown(verdict.confidence, 60)
        named = shown(verdict.dominant or "", 60)
        rows.writerow(("verdict", named, kind, "", "", "", "", "", sure, _cell(verdict.sentence)))
    rows.writerow(("valid", "", "", int(result.valid), "", "", "", "", "", ""))
    for name, statistic, estimate, unit in _estimates(result):
        values = [_scaled(raw, unit) for raw in (estimate.value, estimate.lo, estimate.hi)]
        why = _cell(estimate.refused or "")
        rows.writerow(("metric", name, statistic, *values, unit, estimate.n, "", why))
    for population, found in result.breakdowns.items():
        for name, share in found.shares.items():
            numbers = [_number(each) for each in (share.share, share.lo, share.hi)]
            told = (found.n, share.grade, _cell(share.evidence))
            label = "+".join(share.members or (name,))
            rows.writerow(("share", label, population, *numbers, "1", *told))
    return out.getvalue()


def markdown_of(result: Result) -> str:
    """A verdict, at most ten rows of metrics and the breakdown, as GitHub and GitLab show it."""
    return "\n".join(_markdown(result)) + "\n"


def _markdown(result: Result) -> Iterator[str]:
    verdict = result.verdict
    if not result.valid:
        why = "; ".join(each.text for each in result.invalid_because)
        yield f"**INVALID**: {_plain(why, 400)}"
    elif verdict is not None:
        named = (verdict.dominant or verdict.kind).upper()
        yield f"**{_plain(named, 60)}** ({_plain(verdict.confidence, 60)}):"
        yield f"{_plain(verdict.sentence, 600)}"
        yield ""
        yield f"{_plain(verdict.next, 400)}"
    yield ""
    yield _about(result)
    rows = list(_metric_rows(result))
    if rows:
        yield from _table(("", *_STATISTICS, "n"), rows)
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


def _estimates(result: Result) -> Iterator[tuple[str, str, Estimate, str]]:
    for name, metric in result.metrics.items():
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
