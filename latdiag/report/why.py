"""Every claim on one component, those that lost too: what ``diagnose --why`` shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from latdiag.report.json import SCHEMA_VERSION
from latdiag.report.page import Page
from latdiag.report.where import GRADES, INTERVALS, POPULATIONS, percent, percent_bounds, requests


def claims_on(result: Mapping[str, Any], component: str) -> dict[str, Any]:
    """The claims of a result on ``component``, with what each population holds."""
    populations = {
        name: {
            key: entry.get(key)
            for key in ("interval", "n", "segments", "total_ns", "insufficient")
        }
        for name, entry in (result.get("breakdown") or {}).items()
    }
    return {
        "schema": SCHEMA_VERSION,
        "verb": result["verb"],
        "run": result["run"],
        "runs": result.get("runs") or [result["run"]],
        "valid": result["valid"],
        "invalid_because": result["invalid_because"],
        "component": component,
        "populations": populations,
        "claims": list((result.get("claims") or {}).get(component) or ()),
    }


def claims(page: Page, document: Mapping[str, Any]) -> None:
    """Per population the claim that is used, then those that lost, and on what each rests."""
    component = page.word(document["component"], 20)
    if not document["valid"]:
        page.paragraph("INVALID: the client broke a rule of its self-audit.", "", "  ")
    said = document["claims"]
    if not said:
        page.paragraph(
            f"{component}: no evidence of this run speaks of it; its time, if there is any, is"
            " inside the other components.",
            "",
            "  ",
        )
        return
    page.line(f"{component}: every claim on it")
    for population, about in document["populations"].items():
        mine = [claim for claim in said if claim.get("population") == population]
        if mine:
            _population(page, population, about)
        for claim in sorted(mine, key=lambda claim: not claim["used"]):
            _claim(page, claim, bool(about.get("insufficient")))
    grades = sorted({str(claim["grade"]) for claim in said} & set(GRADES))
    page.gap()
    page.paragraph("; ".join(f"{grade} {GRADES[grade]}" for grade in grades), "grade: ", "  ")


def _population(page: Page, population: str, about: Mapping[str, Any]) -> None:
    page.gap()
    who = POPULATIONS.get(population) or page.word(population, 30)
    interval = about.get("interval") or ""
    what = INTERVALS.get(interval) or page.word(interval, 30)
    page.paragraph(f"Of the time of {who}, {what} ({requests(about)}):", "", "  ")
    if about.get("insufficient"):
        page.paragraph(page.word(about["insufficient"], 300), "  insufficient: ", "    ")


def _claim(page: Page, claim: Mapping[str, Any], insufficient: bool) -> None:
    """``used  68 % [42, 95]  C  queue``, and below it why."""
    members = " + ".join(page.word(member, 20) for member in claim["of"])
    share = claim.get("share")
    figures = "insufficient"
    if not insufficient:
        bounds = percent_bounds(claim.get("lo"), claim.get("hi"))
        figures = f"{'unknown' if share is None else f'{percent(share)} %':>7} {bounds}"
    word = "used" if claim["used"] else "lost"
    grade = page.word(claim["grade"], 1)
    page.paragraph(members, f"  {word:<5}{figures:<20}{grade}  ", " " * 30)
    text = page.word(claim.get("evidence") or "no evidence was named", 300)
    if claim.get("why"):
        text += f"; {page.word(claim['why'], 200)}"
    page.paragraph(text, " " * 7)
