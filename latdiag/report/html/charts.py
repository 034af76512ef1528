"""The drawings of the first screen: where the time goes, and single requests taken apart."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

from markupsafe import Markup

from latdiag.export.phases import phases
from latdiag.model.components import in_time_order
from latdiag.model.units import GLUE, NS_PER_MS, ms, quantity
from latdiag.report.html.figures import attributes
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
from latdiag.report.where import GRADES

if TYPE_CHECKING:
    from latdiag.diagnosis.examples import Example
    from latdiag.diagnosis.result import Breakdown, Share

WIDTH = 400
_ROW = 31
#: A part below this share of the time has no row of its own.
_SMALL = 0.005
_TITLES = {"mean": "All requests", "p95_tail": "Slowest 5 %"}


def _number(value: float, keys: Sequence[object], shown: str) -> Markup:
    """A number in a drawing, with its place in the document."""
    raw, path = attributes(value, keys)
    return element("tspan", shown, data_value=raw, data_path=path)


def breakdown(population: str, found: Breakdown, foot: str = "") -> Markup:
    """One bar that is the whole, then a row for each part: its share as a bar, its interval as a
    whisker. ``foot``: a line below."""
    place = ("breakdown", population)
    kept, small = _rows(found)
    feet = ([f"under 0.5 %: {', '.join(small)}"] if small else []) + wrap(foot, 66)
    height = 46 + _ROW * len(kept) + 16 * len(feet)
    title = _TITLES.get(population, population)
    inside = [text(0, 12, _title(title, found, place), font_weight=600)]
    inside += _stack(found)
    scale = Scale(0.0, 1.0, 0.0, float(WIDTH))
    at = 46.0
    for name, share in in_time_order(found.shares).items():
        if name in kept:
            inside += _part(name, share, found, (*place, name), at, scale)
            at += _ROW
    for line_ in feet:
        inside.append(text(0, at + 9, line_, fill=FAINT, class_="faint", font_size=10.5))
        at += 16
    said = "; ".join(_said(name, found.shares[name]) for name in kept)
    return drawing(WIDTH, height, f"{title}, shares of the time: {said}", *inside)


def _rows(found: Breakdown) -> tuple[list[str], list[str]]:
    """(Names of the parts with a row, labels of the others)."""
    shares = in_time_order(found.shares)
    kept = [name for name, each in shares.items() if abs(each.share or 0.0) >= _SMALL]
    others = [label(name, shares[name]) for name in shares if name not in kept]
    return kept, [each for each in others if not each.startswith("unattributed")]


def label(name: str, share: Share) -> str:
    return " + ".join(share.members or (name,))


def _said(name: str, share: Share) -> str:
    value = "not known" if share.share is None else f"{100 * share.share:.0f} %"
    return f"{label(name, share)} {value}, {GRADES.get(share.grade, 'unknown')}"


def _title(title: str, found: Breakdown, place: Sequence[object]) -> Markup:
    n = _number(found.n, (*place, "n"), f"{found.n:,}".replace(",", GLUE))
    each = quantity(ms(found.total_ns / found.n), "ms")
    total = _number(found.total_ns, (*place, "total_ns"), each)
    return Markup("{}: {}, mean of {}").format(title, total, n)


def _stack(found: Breakdown) -> list[Markup]:
    """The whole as one bar."""
    positive = sum(max(each.share or 0.0, 0.0) for each in found.shares.values()) or 1.0
    at, parts = 0.0, []
    for name, each in in_time_order(found.shares).items():
        width = max(each.share or 0.0, 0.0) / positive * WIDTH
        if width > 0:
            title = element("title", _said(name, each))
            parts.append(box(at, 20, width, 16, inside=title, **fill_of(each.members or (name,))))
            at += width
    return parts


def _part(
    name: str,
    share: Share,
    found: Breakdown,
    place: Sequence[object],
    y: float,
    scale: Scale,
) -> list[Markup]:
    """A row: name and bar, whisker, and the figures at the right."""
    value = max(share.share or 0.0, 0.0)
    title = element("title", f"{_said(name, share)}: {share.evidence}")
    drawn = [
        text(0, y + 10, label(name, share), font_size=11.5),
        box(0, y + 15, scale(value), 8, inside=title,
            **fill_of(share.members or (name,))),
    ]  # fmt: skip
    if share.lo is not None and share.hi is not None:
        drawn += whisker(scale(max(share.lo, 0.0)), scale(min(share.hi, 1.0)), y + 19)
    mean = quantity(ms(share.sum_ns / found.n), "ms")
    drawn += [
        text(WIDTH - 112, y + 10, _number(share.sum_ns, (*place, "sum_ns"), mean),
             text_anchor="end", font_size=11.5),
        text(WIDTH, y + 10, _percent(share, place), text_anchor="end", font_size=11.5),
    ]  # fmt: skip
    return drawn


def _percent(share: Share, place: Sequence[object]) -> Markup:
    """``80 % [76, 83] A``."""
    if share.share is None:
        return Markup("unknown")
    parts = [_number(share.share, (*place, "share"), f"{_whole(share.share)}{GLUE}%")]
    if share.lo is not None and share.hi is not None:
        lo = _number(share.lo, (*place, "lo"), _whole(share.lo))
        hi = _number(share.hi, (*place, "hi"), _whole(share.hi))
        parts.append(Markup(" [{}, {}]").format(lo, hi))
    return Markup("").join((*parts, Markup(" ") + element("tspan", share.grade, font_weight=600)))


def _whole(share: float) -> str:
    value = 100 * share
    text_ = f"{value:.0f}" if abs(value) >= 0.995 or value == 0 else f"{value:.1f}"
    return "0" if text_ in ("-0", "-0.0", "0.0") else text_


def whisker(lo: float, hi: float, y: float) -> list[Markup]:
    """An interval."""
    ink = {"stroke": INK, "class_": "ink-line"}
    return [
        line(lo, y, hi, y, **ink),
        line(lo, y - 4, lo, y + 4, **ink),
        line(hi, y - 4, hi, y + 4, **ink),
    ]


# ---------------------------------------------------------------------- single requests
_ONE = 58


def waterfalls(examples: Sequence[Example], names: Sequence[str | None], since: str) -> Markup:
    """A bar for each request on one axis of time, its parts in their order, its first token
    marked. ``names``: the id of each request, None where it is not known.
    ``since``: what the times count from."""
    longest = max((each.total_ns for each in examples), default=0)
    scale = Scale(0.0, max(longest / NS_PER_MS, 1e-6), 4.0, float(WIDTH - 4))
    inside = [text(0, 12, "Single requests, taken apart", font_weight=600)]
    for place, (each, name) in enumerate(zip(examples, names, strict=True)):
        inside += _request(each, name, 22.0 + _ONE * place, scale)
    bottom = 22.0 + _ONE * len(examples) + 2
    inside.append(below(scale, bottom, f"ms since {since}; ▾ first token"))
    said = "; ".join(
        f"{each.what} {quantity(ms(each.total_ns), 'ms')}: {_longest(each)}" for each in examples
    )
    return drawing(WIDTH, bottom + 30, f"Single requests taken apart. {said}", *inside)


def _longest(each: Example) -> str:
    """The parts that take most, in words."""
    parts = sorted(each.parts, key=lambda part: -part[1])[:2]
    return ", ".join(f"{' + '.join(m)} {quantity(ms(ns), 'ms')}" for m, ns in parts if ns > 0)


def _request(each: Example, name: str | None, y: float, scale: Scale) -> list[Markup]:
    total = element(
        "tspan",
        quantity(ms(each.total_ns), "ms"),
        data_ns=each.total_ns,
        data_request=name,
        data_part="total" if name else None,
    )
    title = text(0, y + 11, Markup("{}: {}").format(each.what, total), font_size=11)
    drawn = [title]
    if name:
        drawn.append(
            text(WIDTH, y + 11, name[:36], text_anchor="end", fill=FAINT, class_="faint mono",
                 font_size=9)
        )  # fmt: skip
    end = 0.0
    for phase in phases(each.total_ns, [ns for _, ns in each.parts]):
        members, ns = each.parts[phase.place]
        x1, x2 = scale(phase.start_us / 1e3), scale((phase.end_us + 1) / 1e3)
        words = " + ".join(members)
        drawn.append(
            box(x1, y + 16, x2 - x1, 13, data_ns=ns, data_request=name,
                data_part="+".join(members) if name else None,
                inside=element("title", f"{words} {quantity(ms(ns), 'ms')}"), **fill_of(members))
        )  # fmt: skip
        if x1 >= end and x2 - x1 >= 5.6 * len(words):
            drawn.append(text(x1 + 1, y + 40, words, fill=FAINT, class_="faint", font_size=10))
            end = x1 + 5.6 * len(words) + 6
    if 0 < each.ttft_ns < each.total_ns:
        drawn.append(
            text(scale(ms(each.ttft_ns)), y + 18, "▾", text_anchor="middle", font_size=12)
        )
    return drawn
