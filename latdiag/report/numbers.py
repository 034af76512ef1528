"""The middle of a report: metrics with their intervals, what was refused, objectives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from latdiag.model.units import figure, quantity
from latdiag.report.page import Page

#: Short names for the table; others are shown as they are called.
_LABELS = {
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


def metrics(page: Page, result: Mapping[str, Any]) -> None:
    """A table of what has several statistics, lines for what has one, notes for what has none."""
    entries: Mapping[str, Any] = result.get("metrics") or {}
    entries = {name: m for name, m in entries.items() if _belongs(name, result)}
    tabled = {name: m for name, m in entries.items() if m and _stated(m)}
    page.gap()
    if tabled:
        head = "".join(f"{name:>{_COLUMN_WIDTH}}" for name in _COLUMNS)
        page.line(f"{'ms':<{_LABEL_WIDTH}}{head}{'n (eff)':>{_N_WIDTH}}")
    shown: dict[str, Mapping[str, Any]] = {}
    for name, metric in tabled.items():
        if any(_same(rows, metric) for rows in shown.values()):
            continue  # an answer without reasoning, chunks of one token
        shown[name] = metric
        _rows(page, name, metric)
    single = {name: m for name, m in entries.items() if m and _is_estimate(m)}
    width = max((len(_label(page, name)) for name in single), default=0) + 2
    for name, estimate in single.items():
        if estimate.get("value") is not None:
            page.line(f"{_label(page, name):<{width}}{with_interval(page, estimate)}")
    _notes(page, entries, shown)
    _series(page, result)


def objectives(page: Page, result: Mapping[str, Any]) -> None:
    """Each stated SLO: met, missed or not to be told."""
    for entry in result.get("slo") or ():
        met = entry.get("met")
        word = "unknown" if met is None else "met" if met else "MISSED"
        reading = entry.get("reading")
        if isinstance(reading, Mapping) and reading.get("value") is not None:
            why = with_interval(page, reading)
        else:
            why = page.word(entry.get("reason") or (reading or {}).get("refused") or "", 160)
        page.paragraph(f"SLO {page.word(entry.get('slo', ''), 60)}: {word}  {why}", "", "  ")


def with_interval(page: Page, estimate: Mapping[str, Any]) -> str:
    """``512 tok/s [500, 525]``; without an interval, the value alone."""
    unit = page.word(estimate.get("unit") or "", 12)
    text = quantity(estimate["value"], unit)
    if estimate.get("lo") is None or estimate.get("hi") is None:
        return text
    return f"{text} [{figure(estimate['lo'], unit)}, {figure(estimate['hi'], unit)}]"


def _belongs(name: str, result: Mapping[str, Any]) -> bool:
    """Whether people want to see it here; programs find everything in ``--json``.

    Due times are an open loop's, goodput needs an objective; TTFT from the wire is TTFT without
    the client's part, which the split shows.
    """
    load = result.get("load") or {}
    if name in ("ttft_from_due", "response_time", "schedule_lag"):
        return load.get("arrivals") != "closed"
    if name in ("goodput", "slo_attainment"):
        return bool(result.get("slo"))
    return name != "ttft_wire"


def _is_estimate(metric: Mapping[str, Any]) -> bool:
    return "value" in metric


def _stated(metric: Mapping[str, Any]) -> bool:
    """Whether the table has anything to show for this metric."""
    return not _is_estimate(metric) and any(
        (metric.get(column) or {}).get("value") is not None for column in _COLUMNS
    )


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(one.get(column) == other.get(column) for column in _COLUMNS)


def _label(page: Page, name: str) -> str:
    return _LABELS.get(name) or page.word(name, 30)


def _rows(page: Page, name: str, metric: Mapping[str, Any]) -> None:
    """Two lines: the values, and the interval below each."""
    found = [metric.get(column) or {} for column in _COLUMNS]
    stated = [one for one in found if one.get("value") is not None]
    # 100 s and more would not fit their columns in ms.
    seconds = max(abs(one.get("hi") or one["value"]) for one in stated) >= 99_999.5
    label = _label(page, name) + (" s" if seconds else "")
    scale = 1000 if seconds else 1
    values = "".join(f"{_value(one, scale):>{_COLUMN_WIDTH}}" for one in found)
    bounds = "".join(f"{_bounds(one, scale):>{_COLUMN_WIDTH}}" for one in found)
    n = stated[0].get("n")
    worth = min((w for one in stated if (w := one.get("n_effective")) is not None), default=None)
    count = "" if n is None else _count(n)
    page.line(f"{page.fit(label, _LABEL_WIDTH):<{_LABEL_WIDTH}}{values}{count:>{_N_WIDTH}}")
    effective = "" if worth is None or worth == n else f"({_count(worth)})"
    page.line(f"{'':<{_LABEL_WIDTH}}{bounds}{effective:>{_N_WIDTH}}")


def _value(estimate: Mapping[str, Any], scale: float) -> str:
    value = estimate.get("value")
    return "-" if value is None else _tight(value / scale)


def _bounds(estimate: Mapping[str, Any], scale: float) -> str:
    """``205-219``; with a sign in it the hyphen would mislead, so ``-1..3`` then."""
    lo, hi = estimate.get("lo"), estimate.get("hi")
    if estimate.get("value") is None or lo is None or hi is None:
        return ""
    return f"{_tight(lo / scale)}{'..' if lo < 0 else '-'}{_tight(hi / scale)}"


def _tight(value: float) -> str:
    """Three significant digits in at most five characters, six from 100 000 on."""
    return figure(value, "ms").replace(" ", "")


def _count(n: float) -> str:
    """A count in at most five characters."""
    if n < 100_000:
        return f"{n:.0f}"
    if n < 999_500:
        return f"{n / 1e3:.0f}k"
    return f"{n / 1e6:.1f}M" if n < 99.95e6 else f"{n / 1e6:.0f}M"


def _notes(page: Page, entries: Mapping[str, Any], shown: Mapping[str, Any]) -> None:
    """Why something is not stated, each reason once with all that it holds for."""
    why: dict[str, list[str]] = {}
    for name, metric in entries.items():
        for reason in _reasons(page, metric or {"refused": "not measured"}):
            labels = why.setdefault(reason, [])
            if _label(page, name) not in labels:
                labels.append(_label(page, name))
    for reason, labels in why.items():
        page.paragraph(f"{', '.join(labels)}: {reason}", "not stated: ", "  ")
    bare = [_label(page, n) for n, m in shown.items() if any(_bare(e) for e in m.values())]
    if bare:
        text = f"{', '.join(bare)}: values depend on each other, too few count (eff)"
        page.paragraph(text, "no interval: ", "  ")
    left: dict[str, list[str]] = {}
    for name, metric in entries.items():
        counts = (metric or {}).get("left_out") or {}
        said = ", ".join(
            f"{count} {page.word(what, 60)}" for what, count in counts.items() if count
        )
        if said:
            left.setdefault(said, []).append(_label(page, name))
    for said, labels in left.items():
        page.paragraph(f"{', '.join(labels)}: {said}", "left out: ", "  ")


def _bare(estimate: object) -> bool:
    """A value whose interval its own dependence forbids."""
    return (
        isinstance(estimate, Mapping)
        and estimate.get("value") is not None
        and estimate.get("needs") is not None
    )


def _reasons(page: Page, metric: Mapping[str, Any]) -> Iterator[str]:
    """The reasons for which statistics of one metric are refused; too few samples in one line."""
    if metric.get("refused"):
        yield page.word(metric["refused"], 240)
        return
    if _is_estimate(metric):
        return
    few: dict[int, list[str]] = {}
    for statistic, estimate in metric.items():
        if not isinstance(estimate, Mapping) or not estimate.get("refused"):
            continue
        n, needs = estimate.get("n"), estimate.get("needs")
        if n is not None and needs is not None and n < needs:
            few.setdefault(n, []).append(f"{page.word(statistic, 12)} needs {needs}")
            continue
        reason = page.word(estimate["refused"], 240)
        # The name of the percentile belongs to it, and most reasons begin with it.
        named = reason.startswith(f"{statistic} ") or statistic not in _COLUMNS
        yield reason if named else f"{statistic}: {reason}"
    for n, needs in few.items():
        yield f"{', '.join(needs)} samples, there are {n}"


def _series(page: Page, result: Mapping[str, Any]) -> None:
    """How TTFT and throughput went over the run, where one would rather look."""
    series = (result.get("load") or {}).get("series") or {}
    for key, label, unit in (
        ("ttft_p50_ms", "TTFT p50", "ms"),
        ("output_tok_s", "Output", "tok/s"),
    ):
        values = [value for value in series.get(key) or () if value is not None]
        if len(values) < 3:
            continue
        line = page.sparkline(series[key], 36)
        span = f"{figure(min(values), unit)} to {quantity(max(values), unit)}"
        page.line(f"{label:<{_LABEL_WIDTH}}|{line}|  {span} over time")
