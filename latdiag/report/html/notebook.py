"""The first screen where somebody else has the page: a notebook's output, or an image.

A notebook has its own colours and may drop style sheets: text takes the notebook's colour, and
drawings bear theirs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup

from latdiag.diagnosis.face import Drawing
from latdiag.model.document import document
from latdiag.report.html import screen
from latdiag.report.html.charts import WIDTH
from latdiag.report.html.figures import Figures
from latdiag.report.html.render import fragment
from latdiag.report.html.svg import element, height_of, text

if TYPE_CHECKING:
    from latdiag.diagnosis.result import Result

_GAP = 24


def html(result: Result) -> str:
    """The answer, the drawings and the latencies in brief."""
    return fragment("notebook.html", screen.context(result, Figures(document(result))))


def drawing(result: Result) -> Drawing:
    """The drawings of the first screen, side by side below the answer's first words."""
    given = screen.context(result, Figures(document(result)))
    answer, shares = given["answer"], given["shares"]
    assert isinstance(answer, dict) and isinstance(shares, list)
    parts = [svg for _, svg in shares]
    parts += [each for each in (given["waterfalls"], given["strip"]) if isinstance(each, Markup)]
    width = max(1, len(parts)) * (WIDTH + _GAP) - _GAP
    height = 26 + max((height_of(each) for each in parts), default=0.0)
    placed = [
        element("g", each, transform=f"translate({place * (WIDTH + _GAP)} 26)")
        for place, each in enumerate(_sized(part) for part in parts)
    ]
    head = text(0, 13, f"{answer['head']}: {answer['sentence']}"[: width // 7], font_weight=600)
    whole = element(
        "svg", head, *placed, xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width} {height:.0f}", width=width, height=round(height), role="img",
        aria_label=f"{answer['head']}: {answer['sentence']}", font_size=12,
        font_family="system-ui, sans-serif",
    )  # fmt: skip
    return Drawing(str(whole))


def _sized(svg: Markup) -> Markup:
    """A drawing inside another needs its size: it would else fill it."""
    size = Markup('<svg width="{}" height="{:.0f}" ').format(WIDTH, height_of(svg))
    return Markup(str(svg).replace("<svg ", str(size), 1))
