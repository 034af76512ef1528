"""The page of a gate's verdict: what was decided, what decided it, where the time went."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from latdiag.model.units import ms, show_ms
from latdiag.report.gate import words
from latdiag.report.html.charts import WIDTH
from latdiag.report.html.figures import Figures, attributes
from latdiag.report.html.render import page
from latdiag.report.html.svg import (
    FAINT,
    INK,
    Scale,
    below,
    box,
    drawing,
    element,
    fill_of,
    line,
    text,
)

if TYPE_CHECKING:
    from latdiag.gate.document import Measured
    from latdiag.gate.result import Component, Outcome, Verdict

_TONES = {"OK": "good", "IMPROVED": "good", "REGRESSED": "bad", "INVALID": "bad"}
_COLOURS = {"REGRESSED": "#b42318", "IMPROVED": "#116329", "OK": "#116329"}
_ROW = 34


def gate_page(measured: Measured, verdict: Verdict, document: object, again: str) -> str:
    """The file. ``document``: gate.json, in which every number of the page has its place."""
    figures = Figures(document)
    judged = verdict.verdict != "INVALID"
    shown = [
        (place, each) for place, each in enumerate(verdict.outcomes) if each.level != "off"
    ]  # fmt: skip
    given = {
        "answer": {
            "head": words.headline(verdict),
            "tone": _TONES.get(verdict.verdict, "unsure"),
            "sentence": words.sentence(verdict),
            "following": "",
            "sure": "",
        },
        "cause": words.cause(verdict),
        "valid": judged,
        "pairs": Markup("{} valid of {} measured pairs").format(
            figures.count("result", "stop", "valid"), figures.count("result", "stop", "measured")
        ),
        "effects": _effects(shown, figures) if judged else None,
        "parts_drawn": _parts(verdict, figures) if verdict.requests else None,
        "checks": [_check(each, place, judged, figures) for place, each in shown],
        "components": list(_components(verdict, figures)) if verdict.requests else [],
        "evidence": verdict.evidence,
        "reasons": [each.text for each in verdict.reasons],
        "method": words.method(verdict),
        "twins": words.checks(verdict),
        "arms": _arms(measured),
        "origin": [("again", again), ("command", "latdiag gate replay gate.json")],
    }
    return page("gate.html", given)


def _arms(measured: Measured) -> list[Sequence[str]]:
    base, candidate = measured.arms.base, measured.arms.candidate
    return [
        (name, base.get(name, "not stated"), candidate.get(name, "not stated"))
        for name in dict.fromkeys((*base, *candidate))
    ]


# ---------------------------------------------------------------------- checks
def _check(outcome: Outcome, place: int, judged: bool, figures: Figures) -> Sequence[object]:
    row, at = words.row(outcome, judged), ("result", "outcomes", place)
    cells = (
        _told(figures, at, "base", row.base),
        _told(figures, at, "candidate", row.candidate),
        _told(figures, at, "effect", row.change),
    )
    decided = f"{row.decided} ({row.held})" if row.held else row.decided
    return (row.label, *cells, decided, row.verdict)


def _told(figures: Figures, at: Sequence[object], key: str, shown: str) -> object:
    return figures.as_text(shown, *at, key) if figures.value(*at, key) is not None else shown


def _effects(shown: Sequence[tuple[int, Outcome]], figures: Figures) -> Markup | None:
    """A row for each check: its change as a dot, its 95 % interval, and what is tolerated."""
    ratios = [(place, each) for place, each in shown if each.effect is not None]
    if not ratios:
        return None
    ends = [
        abs(100 * end)
        for _, each in ratios
        for end in (each.lo, each.hi, each.effect, each.tolerance)
        if end is not None and math.isfinite(end)
    ]
    reach = min(max(ends, default=1.0) * 1.05, 1_000.0)
    x = Scale(-reach, reach, 4.0, float(WIDTH - 4))
    bottom = 24.0 + _ROW * len(ratios)
    drawn = [
        text(0, 12, "Change of each check, %", font_weight=600),
        line(x(0), 20, x(0), bottom),
    ]
    for row, (place, each) in enumerate(ratios):
        drawn += _effect(each, ("result", "outcomes", place), 24.0 + _ROW * row, x, figures)
    said = "; ".join(
        f"{words.label(each)} {words.change(each, each.effect)}, {each.verdict.lower()}"
        for _, each in ratios
    )
    return drawing(
        WIDTH, bottom + 30, f"Change of each check: {said}", *drawn,
        below(x, bottom, "% slower; shaded: tolerated"),
    )  # fmt: skip


def _effect(
    each: Outcome, at: Sequence[object], y: float, x: Scale, figures: Figures
) -> list[Markup]:
    value, path = attributes(figures.at(*at, "effect"), (*at, "effect"))
    change = element(
        "tspan", words.change(each, each.effect), data_value=value, data_path=path,
        font_weight=600,
    )  # fmt: skip
    colour = _COLOURS.get(each.verdict, "#8a5a00")
    look = {"fill": colour, "class_": f"v-{each.verdict.lower()}"}
    tolerated = 100 * each.tolerance
    drawn = [
        text(0, y + 11, words.label(each), font_size=11.5),
        text(WIDTH, y + 11, change, text_anchor="end", font_size=11.5),
        box(x(0.0), y + 17, x(tolerated) - x(0.0), 10, fill=FAINT,
            fill_opacity=0.2),
    ]  # fmt: skip
    if each.lo is not None and each.hi is not None:
        drawn.append(
            line(x(100 * each.lo), y + 22, x(100 * each.hi), y + 22, stroke=INK,
                 class_="ink-line", stroke_width=2)
        )  # fmt: skip
    effect = 100 * (each.effect or 0.0)
    drawn.append(element("circle", cx=x(effect), cy=y + 22, r=4.5, **look))
    return drawn


# ---------------------------------------------------------------------- components
def _components(verdict: Verdict, figures: Figures) -> Iterator[Sequence[object]]:
    for place, each in enumerate(verdict.components):
        at = ("result", "components", place)
        base, candidate, apart, interval = words.component_cells(each, verdict.requests)
        name = Markup("<b>{}</b>").format(each.name) if each.name == verdict.cause else each.name
        yield (
            name,
            figures.as_text(base, *at, "base_ns"),
            figures.as_text(candidate, *at, "candidate_ns"),
            apart,
            interval,
        )


def _parts(verdict: Verdict, figures: Figures) -> Markup:
    """Both arms of each component, ms a request."""
    n = verdict.requests
    longest = max((max(each.base_ns, each.candidate_ns) for each in verdict.components), default=0)
    scale = Scale(0.0, max(ms(longest / n), 1e-6), 62.0, 330.0)
    kept = [
        (place, each) for place, each in enumerate(verdict.components)
        if max(each.base_ns, each.candidate_ns) >= 0.005 * longest or each.name == verdict.cause
    ]  # fmt: skip
    drawn = [text(0, 12, "Where the time of a request goes, ms", font_weight=600)]
    for row, (place, each) in enumerate(kept):
        drawn += _part(each, place, 20.0 + 42 * row, scale, n, each.name == verdict.cause, figures)
    said = "; ".join(
        f"{each.name} base {show_ms(each.base_ns / n)} ms, candidate"
        f" {show_ms(each.candidate_ns / n)} ms"
        for _, each in kept
    )
    return drawing(WIDTH, 24 + 42 * len(kept), f"Where the time goes: {said}", *drawn)


def _part(
    each: Component, place: int, y: float, scale: Scale, n: int, cause: bool, figures: Figures
) -> list[Markup]:
    members = tuple(each.name.replace(" ", "").split("+"))
    apart = words.component_cells(each, n)[2]
    drawn = [
        text(0, y + 11, each.name, font_size=11.5, font_weight=700 if cause else None),
        text(WIDTH, y + 11, f"{apart} ms" + (" (the cause)" if cause else ""),
             text_anchor="end", font_size=11.5, font_weight=700 if cause else None),
    ]  # fmt: skip
    for name, key, ns, at, opacity in (
        ("base", "base_ns", each.base_ns, y + 14, 0.5),
        ("candidate", "candidate_ns", each.candidate_ns, y + 26, 1.0),
    ):
        value, path = attributes(figures.at("result", "components", place, key),
                                 ("result", "components", place, key))  # fmt: skip
        number = element("tspan", show_ms(ns / n), data_value=value, data_path=path)
        width = scale(ms(max(ns, 0) / n)) - scale.start
        drawn += [
            text(0, at + 9, name, font_size=10, fill=FAINT, class_="faint"),
            box(62, at + 1, width, 9, fill_opacity=opacity, **fill_of(members)),
            text(WIDTH, at + 9, number, text_anchor="end", font_size=10.5),
        ]
    return drawn
