"""Drawings as text: elements, scales and axes. All text is escaped, all numbers are finite.

Shapes bear their colour as an attribute, so that a drawing is right where no style sheet is; a
page's style sheet overrides it by class, for the dark.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from latdiag.model.text import shown

#: By the first member of a part. Told apart by people who see few colours, and always named.
COLOURS = {
    "client": "#8a8f98",
    "network": "#56b4e9",
    "gateway": "#b79a00",
    "frontend": "#cc79a7",
    "queue": "#d55e00",
    "prefill": "#0a78b8",
    "interconnect": "#e69f00",
    "decode": "#009e73",
    "unattributed": "#b8bcc4",
}
#: Ink is that of the page around it.
INK, FAINT = "currentColor", "#6b7480"
_FAR = 1e7
_HEIGHT = re.compile(r'viewBox="0 0 \S+ ([\d.]+)"')


def element(tag: str, *inside: object, **attributes: object) -> Markup:
    """``<tag a="b">inside</tag>``; ``class_`` is the attribute class, ``stroke_width`` is
    stroke-width, and an attribute that is None is left out."""
    given = Markup("").join(
        Markup(' {}="{}"').format(name.rstrip("_").replace("_", "-"), _plain(value))
        for name, value in attributes.items()
        if value is not None
    )
    return Markup("<{0}{1}>{2}</{0}>").format(
        Markup(tag), given, Markup("").join(_text(each) for each in inside)
    )


def _plain(value: object) -> str:
    """Coordinates with two digits; none is so large that a drawing breaks."""
    if not isinstance(value, float):
        return str(value)
    if not math.isfinite(value):
        value = 0.0
    return f"{max(-_FAR, min(_FAR, value)):.2f}".rstrip("0").rstrip(".")


def _text(each: object) -> Markup:
    return each if isinstance(each, Markup) else Markup.escape(shown(each, 300))


def drawing(width: float, height: float, title: str, *inside: Markup, **more: object) -> Markup:
    """The whole; ``title`` is what a screen reader says of it."""
    return element(
        "svg",
        *inside,
        viewBox=f"0 0 {_plain(float(width))} {_plain(float(height))}",
        role="img",
        aria_label=shown(title, 600),
        font_size=12,
        **more,
    )


def height_of(svg: Markup) -> float:
    """Of what ``drawing`` made."""
    found = _HEIGHT.search(svg)
    return float(found[1]) if found else 0.0


def text(x: float, y: float, *inside: object, **attributes: object) -> Markup:
    """Text that begins at x (``text_anchor`` for others)."""
    given = {"fill": INK, "class_": "ink"} | attributes
    return element("text", *inside, x=float(x), y=float(y), **given)


def box(x: float, y: float, width: float, height: float, **attributes: object) -> Markup:
    return element(
        "rect", attributes.pop("inside", Markup("")),
        x=float(x), y=float(y), width=max(0.0, float(width)), height=float(height), **attributes,
    )  # fmt: skip


def line(x1: float, y1: float, x2: float, y2: float, **attributes: object) -> Markup:
    given = {"stroke": FAINT, "class_": "faint-line"} | attributes
    return element("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), **given)


def path(points: Iterable[tuple[float, float] | None], **attributes: object) -> Markup:
    """A line through the points; None lifts the pen."""
    steps: list[str] = []
    drawn = 0
    for point in (*points, None):
        if point is not None:
            steps.append(f"{'L' if drawn else 'M'}{_plain(point[0])} {_plain(point[1])}")
            drawn += 1
        else:
            # A point between two gaps is a dot: a line of no length would not be drawn.
            steps += ["h.01"] if drawn == 1 else []
            drawn = 0
    return element("path", d="".join(steps), fill="none", stroke_linecap="round", **attributes)


@dataclass(frozen=True, slots=True)
class Scale:
    """Where values stand on a drawing: ``lo`` at ``start``, ``hi`` at ``end``."""

    lo: float
    hi: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        lo, hi = self._of(self.lo), self._of(self.hi)
        share = (self._of(value) - lo) / (hi - lo) if hi > lo else 0.0
        return self.start + min(1.2, max(-0.2, share)) * (self.end - self.start)

    def _of(self, value: float) -> float:
        return math.log10(max(value, 1e-9)) if self.log else value

    @property
    def ticks(self) -> list[float]:
        """Round values between the ends: some four, or the powers of ten."""
        if self.log:
            first, last = math.ceil(self._of(self.lo)), math.floor(self._of(self.hi))
            return [10.0**power for power in range(first, last + 1)][:9]
        return ticks(self.lo, self.hi)


def ticks(lo: float, hi: float) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten, three to eight of them."""
    span = hi - lo
    if not (math.isfinite(span) and span > 0):
        return [lo] if math.isfinite(lo) else []
    power = 10.0 ** math.floor(math.log10(span / 3))
    step = max(power * each for each in (1, 2, 5) if power * each <= span / 3 * 1.001)
    first = math.ceil(lo / step - 1e-9)
    return [step * n for n in range(first, first + 12) if step * n <= hi + step * 1e-9]


def tick_text(value: float) -> str:
    """``0``, ``250``, ``1 500``, ``0.02``."""
    return f"{value:,.6g}".replace(",", " ") if abs(value) < 1e6 else f"{value:.3g}"


def below(scale: Scale, y: float, unit: str) -> Markup:
    """An axis of x, its unit at its end."""
    marks = [
        text(scale(each), y + 13, tick_text(each), text_anchor="middle", fill=FAINT,
             class_="faint tick", font_size=10)
        for each in scale.ticks
    ]  # fmt: skip
    name = text(
        scale.end, y + 25, unit, text_anchor="end", fill=FAINT, class_="faint", font_size=10
    )
    return Markup("").join((line(scale.start, y, scale.end, y), *marks, name))


def beside(scale: Scale, x: float, until: float, unit: str) -> Markup:
    """An axis of y with its grid, its unit above."""
    marks = [
        line(x, scale(each), until, scale(each), class_="grid", stroke="#d9dde3")
        + text(x - 4, scale(each) + 3.5, tick_text(each), text_anchor="end", fill=FAINT,
               class_="faint tick", font_size=10)
        for each in scale.ticks
    ]  # fmt: skip
    name = text(x - 4, scale.end - 7, unit, text_anchor="end", fill=FAINT, class_="faint",
                font_size=10)  # fmt: skip
    return Markup("").join((*marks, name))


def fill_of(members: Sequence[str]) -> dict[str, object]:
    """Colour and class of a part."""
    first = members[0] if members else "unattributed"
    return {"fill": COLOURS.get(first, COLOURS["unattributed"]), "class_": f"k-{_class(first)}"}


def _class(name: str) -> str:
    return name if name in COLOURS else "unattributed"
