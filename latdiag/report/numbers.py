"""The middle of a report: metrics with their intervals, what was refused, objectives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from latdiag.model.units import figure, ms, quantity
from latdiag.report.page import Page

if TYPE_CHECKING:
    from latdiag.diagnosis.result import Result
    from latdiag.measurement.measurement import MetricResult
    from latdiag.stats.estimate import Estimate

#: Short names for the table; others are shown as they are called.
LABELS = {
    "ttft": "TTFT",
    "ttft_from_due": "TTFT (due)",
    "ttft_wire": "TTFT (wire)",
    "ttft_answer": "TTFT answer",
    "tpot": "TPOT",
    "itl": "ITL",
    "icl": "ICL",
    "e2e": "E2E",
    "response_time": "Response",
    "schedule_lag": "Sched. lag",
    "output_throughput": "Output throughput",
    "request_rate": "Request rate",
    "goodput": "Goodput",
    "slo_attainment": "SLO attainment",
    "errors": "Failed requests",
}
_COLUMNS = ("p50", "p90", "p95", "p99", "mean")
_LABEL_WIDTH, _COLUMN_WIDTH, _N_WIDTH = 11, 12, 8
#: Why values are left out, in words.
_LEFT_OUT = {
    "multi_token": "of several tokens",
    "tokens_unknown": "of an unknown number of tokens",
    "clock_step": "during a clock step",
}


def metrics(page: Page, result: Result) -> None:
    """A table of what has several statistics, lines for what has one, notes for what has none."""
    found = {name: m for name, m in result.metrics.items() if _belongs(name, result)}
    tabled = {name: m for name, m in found.items() if any(_column(m))}
    page.gap()
    if tabled:
        head = "".join(f"{name:>{_COLUMN_WIDTH}}" for name in _COLUMNS)
        page.line(f"{'ms':<{_LABEL_WIDTH}}{head}{'n (eff)':>{_N_WIDTH}}")
    shown: dict[str, MetricResult] = {}
    for name, metric in tabled.items():
        if any(_same(rows, metric) for rows in shown.values()):
            continue  # an answer without reasoning, chunks of one token
        shown[name] = metric
        _rows(page, name, metric)
    single = {name: m for name, m in found.items() if m.total is not None}
    width = max((len(_label(page, name)) for name in single), default=0) + 2
    for name, metric in single.items():
        if metric.total is not None and metric.total.value is not None:
            text = with_interval(page, metric.total, metric.unit)
            page.line(f"{_label(page, name):<{width}}{text}")
    _notes(page, found, shown)
    _series(page, result)


def objectives(page: Page, result: Result) -> None:
    """Each stated SLO: met, missed or not to be told."""
    for judged in result.slo:
        word = "unknown" if judged.met is None else "met" if judged.met else "MISSED"
        if judged.reading.value is not None:
            why = with_interval(page, judged.reading, judged.slo.metric.unit)
        else:
            why = page.word(judged.reason or judged.reading.refused or "", 160)
        page.paragraph(f"SLO {page.word(judged.slo.text, 60)}: {word}  {why}", "", "  ")


def with_interval(page: Page, estimate: Estimate, unit: str) -> str:
    """``512 tok/s [500, 525]``; without an interval, the value alone."""
    value, lo, hi = (_printed(raw, unit) for raw in (estimate.value, estimate.lo, estimate.hi))
    return interval(page, value or 0.0, lo, hi, unit)


def short_interval(estimate: Estimate, unit: str, scale: float = 1) -> str:
    """``118 [117, 123]``, without the unit, without spaces in numbers; where the values depend on
    each other so much that nothing bounds it, that is said."""
    value, lo, hi = (_printed(raw, unit) for raw in (estimate.value, estimate.lo, estimate.hi))
    text = tight((value or 0.0) / scale)
    if lo is None or hi is None:
        return f"{text} [no interval]" if _is_bare(estimate) else text
    return f"{text} [{tight(_above(lo, value, unit) / scale)}, {tight(hi / scale)}]"


def _above(lo: float, value: float | None, unit: str) -> float:
    """The lower end of an interval: no time is below zero, whatever its variance."""
    return max(0.0, lo) if unit == "ms" and (value or 0.0) >= 0.0 else lo


def interval(page: Page, value: float, lo: float | None, hi: float | None, unit: str) -> str:
    """The same of numbers that are in their unit."""
    unit = page.word(unit, 12)
    text = quantity(value, unit)
    if lo is None or hi is None:
        return text
    return f"{text} [{figure(_above(lo, value, unit), unit)}, {figure(hi, unit)}]"


def _printed(raw: float | None, unit: str) -> float | None:
    """From raw units (nanoseconds) to the one that is printed."""
    return ms(raw) if raw is not None and unit == "ms" else raw


def _belongs(name: str, result: Result) -> bool:
    """Whether people want to see it here; programs find everything in ``--json``.

    Due times are an open loop's, goodput needs an objective; TTFT from the wire is TTFT without
    the client's part, which the split shows.
    """
    if name in ("ttft_from_due", "response_time", "schedule_lag"):
        return result.load is None or result.load.arrivals != "closed"
    if name in ("goodput", "slo_attainment"):
        return bool(result.slo)
    return name != "ttft_wire"


def _column(metric: MetricResult) -> list[Estimate | None]:
    """What the table has of a metric: an estimate a column, None where none is stated."""
    found = (metric.statistics.get(column) for column in _COLUMNS)
    return [one if one is not None and one.value is not None else None for one in found]


def _same(one: MetricResult, other: MetricResult) -> bool:
    return all(one.statistics.get(c) == other.statistics.get(c) for c in _COLUMNS)


def _label(page: Page, name: str) -> str:
    return LABELS.get(name) or page.word(name, 30)


def _rows(page: Page, name: str, metric: MetricResult) -> None:
    """Two lines: the values, and the interval below each."""
    found = _column(metric)
    stated = [one for one in found if one is not None]
    # 100 s and more would not fit their columns in ms.
    ends = (_printed(one.hi or one.value, metric.unit) or 0.0 for one in stated)
    seconds = max(map(abs, ends)) >= 99_999.5
    label = _label(page, name) + (" s" if seconds else "")
    scale = 1000 if seconds else 1
    values = "".join(f"{_value(one, metric.unit, scale):>{_COLUMN_WIDTH}}" for one in found)
    bounds = "".join(f"{_bounds(one, metric.unit, scale):>{_COLUMN_WIDTH}}" for one in found)
    n = stated[0].n
    worth = min(one.n_effective for one in stated)
    page.line(f"{page.fit(label, _LABEL_WIDTH):<{_LABEL_WIDTH}}{values}{_count(n):>{_N_WIDTH}}")
    effective = "" if worth == n else f"({_count(worth)})"
    page.line(f"{'':<{_LABEL_WIDTH}}{bounds}{effective:>{_N_WIDTH}}")


def value_of(estimate: Estimate | None, unit: str) -> float | None:
    """The value in the unit that is printed; None where there is none."""
    return _printed(estimate.value, unit) if estimate is not None else None


def _value(estimate: Estimate | None, unit: str, scale: float) -> str:
    value = value_of(estimate, unit)
    return "-" if value is None else tight(value / scale)


def _bounds(estimate: Estimate | None, unit: str, scale: float) -> str:
    """``205-219``; with a sign in it the hyphen would mislead, so ``-1..3`` then."""
    if estimate is None:
        return ""
    lo, hi = _printed(estimate.lo, unit), _printed(estimate.hi, unit)
    if lo is None or hi is None:
        return ""
    lo = _above(lo, _printed(estimate.value, unit), unit)
    return f"{tight(lo / scale)}{'..' if lo < 0 else '-'}{tight(hi / scale)}"


def tight(value: float) -> str:
    """Three significant digits in at most five characters, six from 100 000 on."""
    return figure(value, "ms").replace(" ", "")


def _count(n: float) -> str:
    """A count in at most five characters."""
    if n < 100_000:
        return f"{n:.0f}"
    if n < 999_500:
        return f"{n / 1e3:.0f}k"
    return f"{n / 1e6:.1f}M" if n < 99.95e6 else f"{n / 1e6:.0f}M"


def _notes(
    page: Page, found: Mapping[str, MetricResult], shown: Mapping[str, MetricResult]
) -> None:
    """Why something is not stated, each reason once with all that it holds for."""
    why: dict[str, list[str]] = {}
    for name, metric in found.items():
        for reason in _reasons(page, metric):
            labels = why.setdefault(reason, [])
            if _label(page, name) not in labels:
                labels.append(_label(page, name))
    for reason, labels in why.items():
        page.paragraph(f"{', '.join(labels)}: {reason}", "not stated: ", "  ")
    bare = [_label(page, n) for n, m in shown.items() if any(map(_is_bare, m.statistics.values()))]
    if bare:
        text = f"{', '.join(bare)}: values depend on each other: too few effective samples"
        page.paragraph(text, "no interval: ", "  ")
    left: dict[str, list[str]] = {}
    for name, metric in found.items():
        counts = metric.left_out.items()
        said = ", ".join(
            f"{count} {_LEFT_OUT.get(what) or page.word(what, 60)}"
            for what, count in counts
            if count
        )
        if said:
            left.setdefault(said, []).append(_label(page, name))
    for said, labels in left.items():
        page.paragraph(f"{', '.join(labels)}: {said}", "left out: ", "  ")


def _is_bare(estimate: Estimate) -> bool:
    """A value whose interval its own dependence forbids."""
    return estimate.value is not None and estimate.needs is not None


def _reasons(page: Page, metric: MetricResult) -> Iterator[str]:
    """The reasons for which statistics of one metric are refused; too few samples in one line."""
    refused = metric.refused or (metric.total.refused if metric.total is not None else None)
    if refused:
        yield page.word(refused, 240)
        return
    few: dict[int, list[str]] = {}
    for statistic, estimate in metric.statistics.items():
        if not estimate.refused:
            continue
        if estimate.needs is not None and estimate.n < estimate.needs:
            text = f"{page.word(statistic, 12)} needs {estimate.needs}"
            few.setdefault(estimate.n, []).append(text)
            continue
        reason = page.word(estimate.refused, 240)
        # The name of the percentile belongs to it, and most reasons begin with it.
        named = reason.startswith(f"{statistic} ") or statistic not in _COLUMNS
        yield reason if named else f"{statistic}: {reason}"
    for n, needs in few.items():
        yield f"{', '.join(needs)} samples, there are {n}"


def _series(page: Page, result: Result) -> None:
    """How TTFT and throughput went over the run, where one would rather look."""
    series = result.load.series if result.load is not None else None
    if series is None:
        return
    for points, label, unit in (
        (series.ttft_p50_ms, "TTFT p50", "ms"),
        (series.output_tok_s, "Output", "tok/s"),
    ):
        values = [value for value in points if value is not None]
        if len(values) < 3:
            continue
        line = page.sparkline(points, 36)
        span = f"{figure(min(values), unit)} to {quantity(max(values), unit)}"
        page.line(f"{label:<{_LABEL_WIDTH}}|{line}|  {span} over time")
