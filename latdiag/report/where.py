"""Where the time went: the split of TTFT, the breakdowns with their leaves, the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from latdiag.model.components import COMPONENTS
from latdiag.model.units import figure, quantity
from latdiag.report.page import Page, Span

_PARTS = ("client", "network", "server")
#: How people call a population.
POPULATIONS = {"mean": "all requests", "p95_tail": "the slowest 5 %"}
INTERVALS = {
    "client_e2e": "end to end",
    "client_ttft": "until the first token",
    "decode": "from the first token to the last",
    "server": "inside the server",
}
GRADES = {
    "A": "measured per request",
    "B": "from the server's aggregates, or its documents",
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
    bounds = _ms_bounds(part.get("lo"), part.get("hi"))
    p95 = part.get("p95_ms")
    tail = "unknown" if p95 is None else quantity(p95, "ms")
    page.line(
        f"  {name:<9}{bar:<{_BAR}} {bounds:<15}{quantity(part['p50_ms'], 'ms'):>10}{tail:>10}"
    )


def breakdowns(page: Page, result: Mapping[str, Any]) -> None:
    """Each population's breakdown, then what the grades in them mean."""
    grades: set[str] = set()
    leaves = result.get("leaves") or {}
    for population, found in (result.get("breakdown") or {}).items():
        if found:
            grades |= _breakdown(page, population, found, leaves.get(population) or {})
    if grades:
        legend = "; ".join(f"{grade} {GRADES[grade]}" for grade in sorted(grades & set(GRADES)))
        page.paragraph(legend, "  grade: ", "    ")


def _breakdown(
    page: Page, population: str, found: Mapping[str, Any], leaves: Mapping[str, Any]
) -> set[str]:
    """One title and one row a component, each leaf below its own; the grades that occur."""
    page.gap()
    interval = found.get("interval", "")
    who = POPULATIONS.get(population) or page.word(population, 30)
    what = INTERVALS.get(interval) or page.word(interval, 30)
    title = f"Where the time of {who} went, {what}"
    n = found.get("n")
    if n:
        total = quantity(found.get("total_ns", 0) / n / 1e6, "ms")
        title += f" ({requests(found)}, {total} each)"
    page.paragraph(title, "", "  ")
    if found.get("insufficient"):
        # Figures of so few requests would be read as if they meant something.
        page.paragraph(page.word(found["insufficient"], 300), "  insufficient: ", "    ")
        return set()
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
        fine = {leaf: e for leaf, e in leaves.items() if leaf.partition(".")[0] == name}
        if [e.get("sum_ns") for e in fine.values()] != [entry["sum_ns"]]:  # the same, once more
            grades |= _leaves(page, fine)
    return grades


def requests(found: Mapping[str, Any]) -> str:
    """``36 requests in 2 segments``; a single segment goes without saying."""
    segments = found.get("segments") or 1
    apart = f" in {segments} segments" if segments > 1 else ""
    return f"{found.get('n') or 0} requests{apart}"


def _entry(page: Page, name: str, entry: Mapping[str, Any], n: int | None) -> None:
    """``queue  1 522 ms  80 % [76, 83]  A  ####``; merged members on a line of their own."""
    members = [page.word(member, 20) for member in entry.get("members") or ()]
    label = "+".join(members) or name
    if len(label) > 14:
        page.paragraph(label.replace("+", " + "), "  ", "    ")
        label = ""
    time = quantity(entry["sum_ns"] / n / 1e6, "ms") if n else ""
    page.line(f"  {label:<14}{time:>11}{_shown(page, entry)}")


def _leaves(page: Page, leaves: Mapping[str, Any]) -> set[str]:
    """``decode.batch  12 %``: the leaves of one component, and their grades."""
    grades = set()
    for name, entry in leaves.items():
        if not isinstance(entry, Mapping):
            continue
        page.line(f"    {page.word(name, 22):<23}{_shown(page, entry)}")
        grades.add(page.word(entry.get("grade") or "", 1))
    return grades


def _shown(page: Page, entry: Mapping[str, Any]) -> str:
    """Share, interval, grade and bar: what every row ends with."""
    share = entry.get("share")
    value = "unknown" if share is None else f"{percent(share)} %"
    bounds = percent_bounds(entry.get("lo"), entry.get("hi"))
    grade = page.word(entry.get("grade") or "?", 1)
    return f"{value:>8} {bounds:<14}{grade:<2} {page.bar(share or 0.0, _BAR)}"


def percent_bounds(lo: float | None, hi: float | None) -> str:
    """``[42, 95]`` in percent; nothing where there is no interval."""
    return "" if lo is None or hi is None else f"[{percent(lo)}, {percent(hi)}]"


def _ms_bounds(lo: float | None, hi: float | None) -> str:
    if lo is None or hi is None:
        return ""
    bounds = figure(lo, "ms"), figure(hi, "ms")
    # Nothing open at three digits: an interval of no width would only look like one.
    return "" if bounds[0] == bounds[1] else f"[{bounds[0]}, {bounds[1]}]"


def percent(share: float) -> str:
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
