"""Where the time went: the split of TTFT, the breakdowns with their leaves, the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from latdiag.model.components import COMPONENTS
from latdiag.model.units import figure, quantity
from latdiag.report.page import Page, Span

if TYPE_CHECKING:
    from latdiag.diagnosis.result import Breakdown, Result, Share, SplitPart, Verdict

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
    "B": "from the server's metrics or documentation",
    "C": "identified by a probe",
    "D": "only a physical bound",
    "E": "cannot be separated",
}
_BAR, _WIDE_BAR = 22, 39
#: Colour of the one coloured word.
_STYLES = {"healthy": "bold green", "insufficient": "bold", "ambiguous": "bold"}


def split(page: Page, result: Result) -> None:
    """TTFT as client, network and server, with what the evidence leaves open.

    Means alone: those of parts add up to that of TTFT, and medians do not.
    """
    found = result.ttft_split
    if found is None:
        return
    page.gap()
    title = f"TTFT as the client can prove it, {found.n} requests"
    page.line(f"{title:<51}{'median within':<18}{'mean':>10}")
    parts = {"client": found.client, "network": found.network, "server": found.server}
    whole = sum(part.mean_ms for part in parts.values() if part is not None)
    for name, part in parts.items():
        if part is None:
            reason = page.word(found.reason or "not measured", 160)
            page.paragraph(f"unknown ({reason})", f"  {name:<9}")
        else:
            _part(page, name, part, whole)


def _part(page: Page, name: str, part: SplitPart, whole: float) -> None:
    bar = page.bar(part.mean_ms / whole if whole else 0.0, _WIDE_BAR)
    bounds = _ms_bounds(part.lo, part.hi) if part.p50_ms is not None else ""
    mean = quantity(part.mean_ms, "ms")
    page.line(f"  {name:<9}{bar:<{_WIDE_BAR}} {bounds:<17}{mean:>10}")


def breakdowns(page: Page, result: Result) -> None:
    """Each population's breakdown, then what the grades in them mean."""
    grades: set[str] = set()
    for population, found in result.breakdowns.items():
        grades |= _breakdown(page, population, found, result.leaves.get(population) or {})
    if grades:
        legend = "; ".join(f"{grade} {GRADES[grade]}" for grade in sorted(grades & set(GRADES)))
        page.paragraph(legend, "  grade: ", "    ")


def _breakdown(
    page: Page, population: str, found: Breakdown, leaves: Mapping[str, Share]
) -> set[str]:
    """One title and one row a component, each leaf below its own; the grades that occur."""
    page.gap()
    who = POPULATIONS.get(population) or page.word(population, 30)
    what = INTERVALS.get(found.interval) or page.word(found.interval, 30)
    title = f"Where the time of {who} went, {what}"
    if found.n:
        total = quantity(found.total_ns / found.n / 1e6, "ms")
        title += f" ({requests(found)}, {total} each)"
    page.paragraph(title, "", "  ")
    if found.insufficient:
        # Figures of so few requests would be read as if they meant something.
        page.paragraph(page.word(found.insufficient, 300), "  insufficient: ", "    ")
        return set()
    grades = set()
    for name in COMPONENTS:
        if name in found.unknown:
            page.line(f"  {name:<14}unknown")
        if name not in found.shares:
            continue
        share = found.shares[name]
        _component(page, name, share, found.n)
        grades.add(page.word(share.grade, 1))
        fine = {leaf: e for leaf, e in leaves.items() if leaf.partition(".")[0] == name}
        if [e.sum_ns for e in fine.values()] != [share.sum_ns]:  # the same, once more
            grades |= _leaves(page, fine)
    return grades


def requests(found: Breakdown) -> str:
    """``36 requests in 2 segments``; a single segment goes without saying."""
    apart = f" in {found.segments} segments" if found.segments > 1 else ""
    return f"{found.n} requests{apart}"


def _component(page: Page, name: str, share: Share, n: int) -> None:
    """``queue  1 522 ms  80 % [76, 83]  A  ####``; merged members on a line of their own."""
    label = "+".join(page.word(member, 20) for member in share.members) or name
    if len(label) > 14:
        page.paragraph(label.replace("+", " + "), "  ", "    ")
        label = ""
    time = quantity(share.sum_ns / n / 1e6, "ms") if n else ""
    page.line(f"  {label:<14}{time:>11}{_shown(page, share)}")


def _leaves(page: Page, leaves: Mapping[str, Share]) -> set[str]:
    """``decode.batch  12 %``: the leaves of one component, and their grades."""
    for name, share in leaves.items():
        page.line(f"    {page.word(name, 22):<23}{_shown(page, share)}")
    return {page.word(share.grade, 1) for share in leaves.values()}


def _shown(page: Page, share: Share) -> str:
    """Share, interval, grade and bar: what every row ends with."""
    value = "unknown" if share.share is None else f"{percent(share.share)} %"
    bounds = share_bounds(share)
    grade = page.word(share.grade or "?", 1)
    return f"{value:>8} {bounds:<14}{grade:<2} {page.bar(share.share or 0.0, _BAR)}"


def percent_bounds(lo: float | None, hi: float | None) -> str:
    """``[42, 95]`` in percent; nothing where there is no interval."""
    return "" if lo is None or hi is None else f"[{percent(lo)}, {percent(hi)}]"


def share_bounds(share: Share) -> str:
    """The interval of a share; it does not reach below zero where the share does not."""
    lo = share.lo
    if lo is not None and (share.share or 0.0) >= 0.0:
        lo = max(0.0, lo)
    return percent_bounds(lo, share.hi)


def _ms_bounds(lo: float, hi: float) -> str:
    bounds = figure(lo, "ms"), figure(hi, "ms")
    # Nothing open at three digits: an interval of no width would only look like one.
    return "" if bounds[0] == bounds[1] else f"[{bounds[0]}, {bounds[1]}]"


def percent(share: float) -> str:
    """Whole percent; what rounds to nothing has no sign."""
    return f"{round(100 * share) or 0}"


def verdict(page: Page, result: Result) -> None:
    """The one sentence, and the one next step."""
    found = result.verdict
    if found is None:
        return
    page.gap()
    bottleneck = found.kind == "bottleneck"
    word = _subject(page, result, found) if bottleneck else page.word(found.kind, 30)
    style = _STYLES.get(found.kind, "bold yellow")
    page.headed(Span(f"{word.upper().replace('_', ' ')}:", style), page.word(found.sentence, 500))
    for limit in result.limits:
        page.paragraph(page.word(limit.sentence, 500), "Limit: ", "  ")
    if found.next:
        page.paragraph(page.word(found.next, 500), "Next: ", "  ")
    if found.sure:
        page.paragraph(page.word(found.sure, 500), "To be sure: ", "  ")


def _subject(page: Page, result: Result, found: Verdict) -> str:
    """The dominant component; of a merged class every member, for any of them may be it."""
    name = found.dominant or "unknown"
    chosen = result.breakdown(found.population)
    share = chosen.shares.get(name) if chosen is not None else None
    members = (share.members if share is not None else ()) or (name,)
    return "+".join(page.word(member, 20) for member in members)
