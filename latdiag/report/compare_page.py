"""A comparison for people: 79 columns, what differs first, a bar to every interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from latdiag.model.units import figure
from latdiag.report import head, notes
from latdiag.report.page import Page, Span
from latdiag.report.where import GRADES, POPULATIONS, percent

if TYPE_CHECKING:
    from latdiag.diagnosis.compare import Comparison, Side
    from latdiag.diagnosis.comparison import (
        Amount,
        Component,
        ComponentDifference,
        PopulationDifference,
        WholeDifference,
    )
    from latdiag.diagnosis.difference import Difference
    from latdiag.diagnosis.metric_comparison import MetricDifference

LABELS = {
    "ttft": "TTFT", "ttft_from_due": "TTFT (due)", "ttft_wire": "TTFT (wire)",
    "ttft_answer": "TTFT answer", "tpot": "TPOT", "itl": "ITL", "icl": "ICL", "e2e": "E2E",
    "response_time": "Response", "schedule_lag": "Sched. lag", "output_throughput": "Output tok/s",
    "request_rate": "Requests/s",
}  # fmt: skip
_LABEL, _SIDE, _APART, _BAR = 17, 13, 17, 16
_WHAT = 17


def compose(comparison: Comparison, ascii_only: bool, bars: bool) -> Page:
    """The comparison as lines of at most 79 columns."""
    page, differences = Page(ascii_only), comparison.differences
    head.invalid(page, comparison.broken)
    _side(page, "A", comparison.a)
    _side(page, "B", comparison.b)
    _differs(page, comparison)
    explained = not comparison.same_run
    _metrics(page, differences.metrics, bars, explained)
    for population in differences.populations:
        _components(page, population, bars, explained)
    if differences.populations:
        _legend(page, differences.populations)
    page.gap()
    page.paragraph(page.word(comparison.sentence, 600), "", "  ")
    for text in comparison.notes:
        page.paragraph(page.word(text, 400), "", "  ")
    if comparison.caveats:
        page.gap()
        notes.in_full(page, comparison.caveats)
    page.gap()
    for path in comparison.runs:
        page.whole(page.word(path, 4096), "Read ")
    return page


# ---------------------------------------------------------------------- the two sides
def _side(page: Page, name: str, side: Side) -> None:
    """``A  runs/x.run: 240 requests, 3 failed, valid; caveats LD204 LD402``."""
    for place, path in enumerate(side.runs):
        page.whole(page.word(path, 4096), f"{name}  " if not place else "   ")
    valid = "valid" if side.valid else "INVALID"
    codes = sorted({page.word(each.code, 8) for each in side.caveats})
    caveats = f"; caveats {', '.join(codes)} (latdiag explain)" if codes else "; no caveats"
    text = f"{side.requests} requests, {side.failed} failed; {valid}{caveats}"
    page.paragraph(text, "   ", "   ")


def _differs(page: Page, comparison: Comparison) -> None:
    page.gap()
    if comparison.same_run:
        page.headed(Span("THE SAME RUN:", "bold yellow"), "A and B hold the same requests.")
    if not comparison.differs:
        page.line("Nothing that the two runs store differs.")
    else:
        page.line(f"{'What differs':<{_WHAT}}  {'A':<29} B")
    for fact in comparison.differs:
        mark = "!" if fact.unlike else " "
        what = page.fit(page.word(fact.what, 30), _WHAT)
        one, other = words(page, fact.a), words(page, fact.b)
        if len(one) <= 29 and len(other) <= 29:
            page.line(f"{mark} {what:<{_WHAT}}{one:<30}{other}")
        else:
            page.line(f"{mark} {what}")
            page.paragraph(one, "    A  ", "       ")
            page.paragraph(other, "    B  ", "       ")
    if any(fact.unlike for fact in comparison.differs):
        page.line("! not the same workload")
    same = [f"{page.word(k, 30)} {words(page, v)}" for k, v in comparison.alike.items()]
    if same:
        page.paragraph("; ".join(same), "The same: ", "  ")


def words(page: Page, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return " / ".join(page.word(each, 120) for each in value) or "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "none" if value is None else page.word(value, 200)


# ---------------------------------------------------------------------- metrics
def _metrics(page: Page, metrics: Sequence[MetricDifference], bars: bool, explained: bool) -> None:
    """A value line and a line of n and interval for each statistic; then what is not stated."""
    page.gap()
    _heading(page, "ms", "n (effective)")
    missing: dict[str, list[str]] = {}
    for each in metrics:
        label = LABELS.get(each.metric) or page.word(each.metric, 16)
        row = f"{label} {each.statistic}".rstrip()
        below = [_count(side.n, side.n_effective) for side in (each.a, each.b)]
        _row(page, row, each.values, each.difference, below, _reach([each.difference]), bars)
        if explained and (why := each.difference.lacking):
            missing.setdefault(page.word(why, 240), []).append(row)
    for why, rows in missing.items():
        page.paragraph(f"{', '.join(rows)}: {why}", "", "  ")


def _heading(page: Page, unit: str, below: str) -> None:
    page.line(f"{unit:<{_LABEL}}{'A':>{_SIDE}}{'B':>{_SIDE}}{'B - A':>{_APART}}")
    page.line(f"{'':<{_LABEL}}{below:>{_SIDE}}{'':>{_SIDE}}{'95 % interval':>{_APART}}")


def _row(
    page: Page,
    label: str,
    values: Sequence[float | None],
    apart: Difference,
    below: Sequence[str],
    reach: float,
    bars: bool,
) -> None:
    """Two lines: A, B, difference and bar; below them n or shares, and the interval."""
    sides = "".join(f"{number(value):>{_SIDE}}" for value in values)
    bar = f" {_interval_bar(page, apart, reach)}" if bars else ""
    label = page.fit(label, _LABEL - 1)
    page.line(f"{label:<{_LABEL}}{sides}{signed(apart.value):>{_APART}}{bar}")
    under = "".join(f"{text:>{_SIDE}}" for text in below)
    if (under + _bounds(apart)).strip():
        page.line(f"{'':<{_LABEL}}{under} {_bounds(apart):>{_APART - 1}}")


def number(value: float | None) -> str:
    return "-" if value is None else figure(value, "ms")


def signed(value: float | None) -> str:
    """With its sign; 0 has none."""
    if value is None:
        return "-"
    text = figure(value, "ms")
    return f"+{text}" if value > 0 else text


def _bounds(apart: Difference) -> str:
    if apart.lo is None or apart.hi is None:
        return ""
    return f"[{signed(apart.lo)}, {signed(apart.hi)}]"


def _count(n: int, worth: int) -> str:
    """n, and what it is worth where that is less: ``20.7k (1.2k)``."""
    return _short(n) if worth == n else f"{_short(n)} ({_short(worth)})"


def _short(n: float) -> str:
    """A count in at most five characters."""
    if n < 10_000:
        return f"{n:.0f}"
    return f"{n / 1e3:.0f}k" if n < 999_500 else f"{n / 1e6:.1f}M"


# ---------------------------------------------------------------------- components
def _components(page: Page, found: PopulationDifference, bars: bool, explained: bool) -> None:
    """One population: the whole, then every class in time order, with its shares."""
    page.gap()
    whole = found.whole
    who = POPULATIONS.get(found.population) or page.word(found.population, 30)
    counts = f"A {_requests(whole.a.amount)}, B {_requests(whole.b.amount)}"
    page.paragraph(f"Where the time of {who} went, ms a request (n: {counts})", "", "  ")
    if whole.difference.refused:
        page.paragraph(page.word(whole.difference.refused, 300), "  insufficient: ", "    ")
        return
    _heading(page, "ms", "share, grade")
    apart = [whole.difference, *(each.difference for each in found.classes)]
    reach = _reach(apart)
    _row(page, "end to end", _times(whole), whole.difference, ["", ""], reach, bars)
    for each in found.classes:
        label = "+".join(each.members)
        if len(label) >= _LABEL:
            page.paragraph(label.replace("+", " + "), "", "  ")
            label = ""
        below = [_share(page, each.a), _share(page, each.b)]
        _row(page, label, _times(each), each.difference, below, reach, bars)
    missing: dict[str, list[str]] = {}
    for name, between in zip(["total", *(c.name for c in found.classes)], apart, strict=True):
        if explained and (why := between.lacking):
            missing.setdefault(page.word(why, 240), []).append(name)
    for why, names in missing.items():
        page.paragraph(f"{', '.join(names)}: {why}", "  ", "    ")


def _requests(amount: Amount) -> str:
    return _count(amount.n, amount.n_effective)


def _times(found: WholeDifference | ComponentDifference) -> tuple[float, float]:
    return found.a.amount.ms, found.b.amount.ms


def _share(page: Page, side: Component) -> str:
    """``41 % A``: share and grade."""
    text = "unknown" if side.share is None else f"{percent(side.share)} %"
    return f"{text} {page.word(side.grade, 1)}"


def _legend(page: Page, populations: Sequence[PopulationDifference]) -> None:
    classes = [each for found in populations for each in found.classes]
    grades = {side.grade for each in classes for side in (each.a, each.b)}
    text = "; ".join(f"{grade} {GRADES[grade]}" for grade in sorted(grades & set(GRADES)))
    if text:
        page.paragraph(text, "  grade: ", "    ")


# ---------------------------------------------------------------------- bars
def _reach(differences: Sequence[Difference]) -> float:
    """The farthest from 0 that any of these goes."""
    ends = [
        abs(end)
        for each in differences
        if each.value is not None and each.lo is not None and each.hi is not None
        for end in (each.value, each.lo, each.hi)
    ]
    return max(ends, default=0.0)


def _interval_bar(page: Page, apart: Difference, reach: float) -> str:
    """The interval on a line with 0 in its middle; nothing without an interval."""
    if apart.value is None or apart.lo is None or apart.hi is None or reach <= 0.0:
        return ""
    half = _BAR // 2

    def place(value: float) -> int:
        return half + round(value / reach * (half - 1))

    marks = [" "] * (_BAR + 1)
    line, dot, axis = ("-", "o", "|") if page.ascii_only else ("─", "●", "│")
    for at in range(place(apart.lo), place(apart.hi) + 1):
        marks[at] = line
    marks[half] = axis
    marks[place(apart.value)] = dot
    return "".join(marks)
