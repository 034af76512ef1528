"""Where the time went: the split of TTFT, the breakdowns, the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from latdiag.model.components import COMPONENTS
from latdiag.report.page import Page, Span, figure, quantity

_PARTS = ("client", "network", "server")
_POPULATIONS = {"mean": "all requests", "p95_tail": "the slowest 5 %"}
_INTERVALS = {
    "client_e2e": "end to end",
    "client_ttft": "until the first token",
    "decode": "from the first token to the last",
    "server": "inside the server",
}
_GRADES = {
    "A": "measured per request",
    "B": "from the server's aggregates",
    "C": "identified by a probe",
    "D": "a physical bound",
    "E": "cannot be told apart",
}
_BAR = 22
#: Colour of the one coloured word.
_STYLES = {"healthy": "bold green", "insufficient": "bold", "ambiguous": "bold"}


def split(page: Page, result: Mapping[str, Any]) -> None:
    """TTFT as client, network and server, with what the evidence leaves open."""
    found = (result.get("split") or {}).get("ttft")
    if not found:
        return
    page.gap()
    title = f"TTFT as this client can prove it, {found.get('n', 0)} requests"
    page.line(f"{title:<50}{'p50':>9}{'p95':>10}")
    whole = sum((found.get(part) or {}).get("p50_ms") or 0.0 for part in _PARTS)
    for part in _PARTS:
        _part(page, part, found.get(part), whole, found.get("reason"))


def _part(
    page: Page, name: str, part: Mapping[str, Any] | None, whole: float, reason: object
) -> None:
    if part is None or part.get("p50_ms") is None:
        page.paragraph(f"unknown ({page.word(reason or 'not measured', 160)})", f"  {name:<9}")
        return
    bar = page.bar(part["p50_ms"] / whole if whole else 0.0, _BAR)
    bounds = _bounds(part.get("lo"), part.get("hi"), "ms")
    p95 = part.get("p95_ms")
    tail = "unknown" if p95 is None else quantity(p95, "ms")
    page.line(
        f"  {name:<9}{bar:<{_BAR}} {bounds:<15}{quantity(part['p50_ms'], 'ms'):>10}{tail:>10}"
    )


def breakdowns(page: Page, result: Mapping[str, Any]) -> None:
    """Each population's breakdown, then what the grades in them mean."""
    grades: set[str] = set()
    for population, found in (result.get("breakdown") or {}).items():
        if found:
            grades |= _breakdown(page, population, found)
    if grades:
        legend = "; ".join(f"{grade} {_GRADES[grade]}" for grade in sorted(grades & set(_GRADES)))
        page.paragraph(legend, "  grade: ", "    ")


def _breakdown(page: Page, population: str, found: Mapping[str, Any]) -> set[str]:
    """One title and one row a component; the grades that occur."""
    page.gap()
    n = found.get("n")
    interval = found.get("interval", "")
    who = _POPULATIONS.get(population) or page.word(population, 30)
    what = _INTERVALS.get(interval) or page.word(interval, 30)
    title = f"Where the time of {who} went, {what}"
    if n:
        total = quantity(found.get("total_ns", 0) / n / 1e6, "ms")
        title += f" ({n} requests, {total} each)"
    page.paragraph(title, "", "  ")
    grades = set()
    for name in COMPONENTS:
        if name not in found:
            continue
        entry = found[name]
        if entry is None:
            page.line(f"  {name:<14}unknown")
            continue
        _entry(page, name, entry, n)
        grades.add(page.word(entry.get("grade") or "", 1))
    return grades


def _entry(page: Page, name: str, entry: Mapping[str, Any], n: int | None) -> None:
    """``queue  1 522 ms  80 % [76, 83]  A  ####``; merged members on a line of their own."""
    members = [page.word(member, 20) for member in entry.get("members") or ()]
    label = "+".join(members) or name
    if len(label) > 14:
        page.paragraph(label.replace("+", " + "), "  ", "    ")
        label = ""
    time = quantity(entry["sum_ns"] / n / 1e6, "ms") if n else ""
    share = entry.get("share")
    percent = "unknown" if share is None else f"{_percent(share)} %"
    bounds = _bounds(entry.get("lo"), entry.get("hi"), "share")
    grade = page.word(entry.get("grade") or "?", 1)
    bar = page.bar(share or 0.0, _BAR)
    page.line(f"  {label:<14}{time:>11}{percent:>8} {bounds:<14}{grade:<2} {bar}")


def _bounds(lo: float | None, hi: float | None, unit: str) -> str:
    if lo is None or hi is None:
        return ""
    if unit == "share":
        return f"[{_percent(lo)}, {_percent(hi)}]"
    bounds = figure(lo, unit), figure(hi, unit)
    # Nothing open at three digits: an interval of no width would only look like one.
    return "" if bounds[0] == bounds[1] else f"[{bounds[0]}, {bounds[1]}]"


def _percent(share: float) -> str:
    """Whole percent; what rounds to nothing has no sign."""
    return f"{round(100 * share) or 0}"


def verdict(page: Page, result: Mapping[str, Any]) -> None:
    """The one sentence, and the one next step."""
    found = result.get("verdict")
    if not found:
        return
    page.gap()
    kind = found.get("kind") or "insufficient"
    word = _subject(page, result, found) if kind == "bottleneck" else page.word(kind, 30)
    word = word.upper().replace("_", " ")
    style = _STYLES.get(kind, "bold yellow")
    confidence = page.word(found.get("confidence") or "insufficient", 20)
    sentence = page.word(found.get("sentence") or "", 500)
    page.headed(Span(word, style), f"({confidence}). {sentence}")
    if found.get("next"):
        page.paragraph(page.word(found["next"], 500), "Next: ", "  ")


def _subject(page: Page, result: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """The dominant component; of a merged class every member, for any of them may be it."""
    name = found.get("dominant") or "unknown"
    population = (result.get("breakdown") or {}).get(found.get("population")) or {}
    members = (population.get(name) or {}).get("members") or [name]
    return "+".join(page.word(member, 20) for member in members)
