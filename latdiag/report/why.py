"""Every claim on one component, those that lost too: what ``diagnose --why`` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latdiag.report.page import Page
from latdiag.report.where import GRADES, INTERVALS, POPULATIONS, percent, percent_bounds, requests

if TYPE_CHECKING:
    from latdiag.diagnosis.result import Breakdown, Claim
    from latdiag.diagnosis.why import Why


def claims(page: Page, why: Why) -> None:
    """Per population the claim that is used, then those that lost, and on what each rests."""
    component = page.word(why.component, 20)
    if not why.result.valid:
        page.paragraph("INVALID: the client broke a rule of its self-audit.", "", "  ")
    if not why.claims:
        page.paragraph(
            f"{component}: no evidence in this run measures it; its time, if any, is inside the"
            " other components.",
            "",
            "  ",
        )
        return
    page.line(f"{component}: all claims on it")
    for population, about in why.result.breakdowns.items():
        mine = [claim for claim in why.claims if claim.population == population]
        if mine:
            _population(page, population, about)
        for claim in sorted(mine, key=lambda claim: not claim.used):
            _claim(page, claim, about.insufficient is not None)
    grades = sorted({claim.grade for claim in why.claims} & set(GRADES))
    page.gap()
    page.paragraph("; ".join(f"{grade} {GRADES[grade]}" for grade in grades), "grade: ", "  ")


def _population(page: Page, population: str, about: Breakdown) -> None:
    page.gap()
    who = POPULATIONS.get(population) or page.word(population, 30)
    what = INTERVALS.get(about.interval) or page.word(about.interval, 30)
    page.paragraph(f"Of the time of {who}, {what} ({requests(about)}):", "", "  ")
    if about.insufficient:
        page.paragraph(page.word(about.insufficient, 300), "  insufficient: ", "    ")


def _claim(page: Page, claim: Claim, insufficient: bool) -> None:
    """``used  68 % [42, 95]  C  queue``, and below it why."""
    members = " + ".join(page.word(member, 20) for member in claim.of)
    figures = "insufficient"
    if not insufficient:
        share = "unknown" if claim.share is None else f"{percent(claim.share)} %"
        figures = f"{share:>7} {percent_bounds(claim.lo, claim.hi)}"
    word = "used" if claim.used else "lost"
    grade = page.word(claim.grade, 1)
    page.paragraph(members, f"  {word:<5}{figures:<20}{grade}  ", " " * 30)
    text = page.word(claim.evidence or "no evidence was stated", 300)
    if claim.why:
        text += f"; {page.word(claim.why, 200)}"
    page.paragraph(text, " " * 7)
