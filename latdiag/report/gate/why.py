"""Why a verdict is what it is: looks, what decided each check, and the components."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from latdiag.model.errors import UsageFault
from latdiag.model.text import shown
from latdiag.model.units import show_ms
from latdiag.report.gate import words
from latdiag.report.page import Page

if TYPE_CHECKING:
    from latdiag.gate.document import Measured
    from latdiag.gate.result import Outcome, Verdict

_ROW = 10


def explained(measured: Measured, verdict: Verdict, component: str | None) -> dict[str, Any]:
    """As an object for programs. ``component``: whose differences pair by pair are wanted (ms a
    request). UsageFault for one that is not there."""
    plan = measured.plan
    found: dict[str, Any] = {
        "schema": 1,
        "kind": "gate-explain",
        "verdict": verdict.verdict,
        "says": words.sentence(verdict),
        "looks": [
            {"pairs": each.pairs, "level": each.level, "made": each.pairs <= verdict.stop.measured}
            for each in plan.looks
        ],
        "spent": verdict.stop.spent,
        "checks": [
            {"name": each.name, "verdict": each.verdict, "why": " ".join(_why(each, verdict))}
            for each in verdict.shown
        ],
        "voids": [each.text for each in verdict.reasons],
        "twins": words.checks(verdict),
    }
    return found if component is None else found | {"component": _of(measured, component)}


def _why(outcome: Outcome, verdict: Verdict) -> Iterator[str]:
    base, candidate = (words.level_of(outcome, each) for each in (outcome.base, outcome.candidate))
    yield f"{base} -> {candidate}, {words.change(outcome, outcome.effect)}"
    yield f"by {outcome.pairs} pairs;"
    allowed = 0.0 if outcome.statistic == "exceed2x" else outcome.min_effect
    limit, tolerance = (words.limit(outcome, each) for each in (allowed, outcome.tolerance))
    floor = f" (or {show_ms(outcome.floor_ns)} ms)" if outcome.statistic != "exceed2x" else ""
    if outcome.verdict == "REGRESSED":
        how = "the bets after every pair" if verdict.stop.why == "broken" else "the look"
        yield f"{how} proved more than {words.change(outcome, outcome.worse_than)},"
        yield f"and {limit}{floor} is allowed."
    elif outcome.verdict == "IMPROVED":
        yield f"proved to be below {words.change(outcome, outcome.better_than)}."
    elif outcome.verdict == "OK":
        yield f"proved to be less than {words.change(outcome, outcome.safe_below)},"
        yield f"and up to {tolerance}{floor} is tolerated."
    else:
        yield f"neither more than the allowed {limit}{floor} nor less than the tolerated"
        yield f"{tolerance} is proved."
        if outcome.more_pairs:
            yield f"About {words.more_pairs(outcome.more_pairs)} would decide."


def _of(measured: Measured, component: str) -> dict[str, Any]:
    parts = measured.blocks.parts
    named = [name for name in parts if component in (name, *name.split(" + "))]
    if not named:
        raise UsageFault(
            f"there is no component {shown(component, 60)!r} in it",
            f"there are {', '.join(shown(name, 80) for name in parts)}",
        )
    part, twins = parts[named[0]], measured.blocks.alike
    apart = part.candidate_ns - part.base_ns
    return {
        "name": named[0],
        "ms_by_pair": [
            round(float(ns) / int(n) / 1e6, 4) if n else None
            for ns, n in zip(apart, twins, strict=True)
        ],
    }


def explained_page(found: Mapping[str, Any], ascii_only: bool) -> Page:
    """The same for people."""
    page = Page(ascii_only)
    page.paragraph(page.word(f"{found['verdict']}: {found['says']}", 2_000), "")
    page.gap()
    for check in found["checks"]:
        page.paragraph(page.word(f"{check['name']} {check['verdict']}: {check['why']}", 600), "")
    page.gap()
    made = ", ".join(
        f"{each['pairs']} pairs (level {100 * each['level']:.2g} %{', made' * each['made']})"
        for each in found["looks"]
    )
    page.paragraph(page.word(f"Looks: {made}; {100 * found['spent']:.2g} % spent.", 600), "")
    page.paragraph(page.word(f"Twins: {found['twins']}.", 400), "")
    for text in found["voids"]:
        page.paragraph(page.word(f"Void: {text}.", 400), "")
    if "component" in found:
        page.gap()
        _pairs(page, found["component"])
    return page


def _pairs(page: Page, component: Mapping[str, Any]) -> None:
    values = component["ms_by_pair"]
    known = [each for each in values if each is not None]
    more = sum(each > 0 for each in known)
    name = page.word(component["name"], 80)
    page.paragraph(f"{name}, ms a request more than in the base, by pair ({more} of", "")
    page.line(f"{len(known)} pairs took longer):")
    for start in range(0, len(values), _ROW):
        row = values[start : start + _ROW]
        page.line(" ".join(f"{'-' if each is None else f'{each:+.2f}':>7}" for each in row))
