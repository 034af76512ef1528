"""Why a verdict is what it is: looks, what decided each check, and the components."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from latdiag.gate.explain import JOINT
from latdiag.model.document import OPTIONAL, document
from latdiag.model.errors import UsageFault
from latdiag.model.text import shown
from latdiag.model.units import show_ms
from latdiag.report.gate import words
from latdiag.report.page import Page

if TYPE_CHECKING:
    from latdiag.gate.document import Measured
    from latdiag.gate.result import Outcome, Verdict

_ROW = 10


@dataclass(frozen=True, slots=True)
class LookMade:
    """``made``: whether it came to it."""

    pairs: int
    level: float
    made: bool


@dataclass(frozen=True, slots=True)
class CheckWhy:
    """What decided a check, or what would have had to be proved."""

    name: str
    verdict: str
    why: str


@dataclass(frozen=True, slots=True)
class PartByPair:
    """ms a request that the candidate took more than the base, pair by pair."""

    name: str
    ms_by_pair: list[float | None]


@dataclass(frozen=True, slots=True)
class Explained:
    """``voids``: why there is no verdict, a sentence each."""

    schema: int
    kind: str
    verdict: str
    says: str
    looks: list[LookMade]
    spent: float
    checks: list[CheckWhy]
    voids: list[str]
    twins: str
    component: PartByPair | None = field(default=None, metadata=OPTIONAL)


def explained(measured: Measured, verdict: Verdict, component: str | None) -> Explained:
    """``component``: whose differences pair by pair are wanted. UsageFault for none of it."""
    return Explained(
        schema=1,
        kind="gate-explain",
        verdict=verdict.verdict,
        says=words.sentence(verdict),
        looks=[
            LookMade(each.pairs, each.level, each.pairs <= verdict.stop.measured)
            for each in measured.plan.looks
        ],
        spent=verdict.stop.spent,
        checks=[
            CheckWhy(each.name, each.verdict, " ".join(_why(each, verdict)))
            for each in verdict.shown
        ],
        voids=[each.text for each in verdict.reasons],
        twins=words.checks(verdict),
        component=None if component is None else _of(measured, component),
    )


def explained_json(found: Explained) -> str:
    """For programs."""
    return json.dumps(document(found), allow_nan=False)


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


def _of(measured: Measured, component: str) -> PartByPair:
    parts = measured.blocks.parts
    named = [name for name in parts if component in (name, *name.split(JOINT))]
    if not named:
        raise UsageFault(
            f"there is no component {shown(component, 60)!r} in it",
            f"there are {', '.join(shown(name, 80) for name in parts)}",
        )
    part, twins = parts[named[0]], measured.blocks.alike
    apart = part.candidate_ns - part.base_ns
    by_pair = zip(apart.tolist(), twins.tolist(), strict=True)
    return PartByPair(named[0], [round(ns / n / 1e6, 4) if n else None for ns, n in by_pair])


def explained_page(found: Explained, ascii_only: bool) -> Page:
    """For people."""
    page = Page(ascii_only)
    page.paragraph(page.word(f"{found.verdict}: {found.says}", 2_000))
    page.gap()
    for check in found.checks:
        page.paragraph(page.word(f"{check.name} {check.verdict}: {check.why}", 600), "", "  ")
    page.gap()
    looks = ", ".join(
        f"{each.pairs} pairs (level {100 * each.level:.2g} %{', made' * each.made})"
        for each in found.looks
    )
    page.paragraph(page.word(f"Looks: {looks}; {100 * found.spent:.2g} % spent.", 600), "", "  ")
    page.paragraph(page.word(f"Twins: {found.twins}.", 400), "", "  ")
    for text in found.voids:
        page.paragraph(page.word(f"Void: {text}.", 400), "", "  ")
    if found.component is not None:
        page.gap()
        _pairs(page, found.component)
    return page


def _pairs(page: Page, component: PartByPair) -> None:
    values = component.ms_by_pair
    known = [each for each in values if each is not None]
    more = sum(each > 0 for each in known)
    page.paragraph(
        f"{page.word(component.name, 80)}: ms a request more than in the base, pair by pair"
        f" ({more} of {len(known)} pairs took longer)"
    )
    for start in range(0, len(values), _ROW):
        row = values[start : start + _ROW]
        page.line(" ".join(f"{'-' if each is None else f'{each:+.2f}':>7}" for each in row))
