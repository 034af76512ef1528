"""Bars of two sides below each other, with what they differ in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from latdiag.model.units import figure
from latdiag.report.html.charts import WIDTH, whisker
from latdiag.report.html.figures import Figures, attributes
from latdiag.report.html.svg import FAINT, Scale, box, drawing, element, fill_of, line, text

_ROW, _BARS = 46, 290


@dataclass(frozen=True, slots=True)
class Row:
    """``members``: of the part, none for the whole. ``at``: where ``a``, ``b`` (with ``ms``) and
    ``difference`` lie in the document."""

    label: str
    members: tuple[str, ...]
    at: tuple[object, ...]


def chart(title: str, sides: tuple[str, str], rows: Sequence[Row], figures: Figures) -> Markup:
    """Two bars a row; at its head the difference and its interval, bold where that excludes 0."""
    longest = max(
        (figures.value(*row.at, side, "ms") or 0.0 for row in rows for side in ("a", "b")),
        default=0.0,
    )
    scale = Scale(0.0, longest or 1.0, 14.0, float(_BARS))
    drawn = [text(0, 12, title, font_weight=600)]
    said = []
    for place, row in enumerate(rows):
        drawn += _row(row, sides, 22.0 + _ROW * place, scale, figures)
        said.append(f"{row.label} {_said(row, sides, figures)}")
    return drawing(WIDTH, 24 + _ROW * len(rows), f"{title}: {'; '.join(said)}", *drawn)


def _said(row: Row, sides: tuple[str, str], figures: Figures) -> str:
    values = (figures.value(*row.at, side, "ms") or 0.0 for side in ("a", "b"))
    return ", ".join(
        f"{name} {figure(value, 'ms')} ms" for name, value in zip(sides, values, strict=True)
    )


def _row(
    row: Row, sides: tuple[str, str], y: float, scale: Scale, figures: Figures
) -> list[Markup]:
    drawn = [
        text(0, y + 10, row.label, font_size=11.5),
        text(WIDTH, y + 10, _apart(row, figures), text_anchor="end", font_size=11.5),
    ]
    look = fill_of(row.members) if row.members else {"fill": FAINT, "class_": "whole"}
    for name, side, at in zip(sides, ("a", "b"), (y + 14, y + 27), strict=True):
        value = figures.value(*row.at, side, "ms") or 0.0
        faded = {"fill_opacity": 0.5} if side == "a" else {}
        drawn += [
            text(0, at + 9, name, font_size=10, fill=FAINT, class_="faint"),
            box(14, at + 1, scale(max(value, 0.0)) - 14, 10, **look, **faded),
            text(WIDTH, at + 9, _number(figures, (*row.at, side, "ms"), figure(value, "ms")),
                 text_anchor="end", font_size=10.5),
        ]  # fmt: skip
    base = figures.value(*row.at, "a", "ms") or 0.0
    lo, hi = (figures.value(*row.at, "difference", end) for end in ("lo", "hi"))
    if lo is not None and hi is not None:
        start, end = (scale(min(max(base + each, 0.0), 1.12 * scale.hi)) for each in (lo, hi))
        drawn += whisker(start, end, y + 33)
    drawn.append(line(14, y + 13, 14, y + 40))
    return drawn


def _apart(row: Row, figures: Figures) -> Markup:
    at = (*row.at, "difference")
    value, lo, hi = (figures.value(*at, key) for key in ("value", "lo", "hi"))
    if value is None:
        return Markup("not stated")
    clear = figures.at(*at, "contains_zero") is False
    shown = element(
        "tspan", _number(figures, (*at, "value"), f"{_signed(value)} ms"),
        font_weight=700 if clear else None,
    )  # fmt: skip
    if lo is None or hi is None:
        return shown + Markup(" no interval")
    ends = (_number(figures, (*at, key), _signed(end)) for key, end in (("lo", lo), ("hi", hi)))
    return shown + Markup(" [{}, {}]").format(*ends)


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else ''}{figure(value, 'ms')}"


def _number(figures: Figures, keys: Sequence[object], shown: str) -> Markup:
    value, path = attributes(figures.at(*keys), keys)
    return element("tspan", shown, data_value=value, data_path=path)
