"""The drawings below the first screen: lines over time, distributions, latency by length."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from latdiag.report.html.charts import whisker
from latdiag.report.html.figures import Figures
from latdiag.report.html.svg import Scale, below, beside, box, drawing, element, line, path

if TYPE_CHECKING:
    from latdiag.diagnosis.result import Series
    from latdiag.measurement.silences import Silence
    from latdiag.measurement.timeline import Distribution, Lengths

WIDTH, HEIGHT = 600, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 592, 22, 158
#: Colours of lines, by place; dashes tell them apart too.
_LINES = (("#0a78b8", "line-0", None), ("#d55e00", "line-1", "5 3"), ("#009e73", "line-2", "2 2"))


def over_time(
    title: str,
    unit: str,
    at: Sequence[float],
    lines: dict[str, Sequence[float | None]],
    silences: Sequence[Silence] = (),
    changes: Sequence[tuple[float, float]] = (),
    points: bool = False,
) -> Markup:
    """Lines over the seconds of the run. ``silences`` are shaded; ``changes``: between which
    instants something changed. ``points``: each value alone, not a line through them."""
    known = [v for each in lines.values() for v in each if v is not None]
    top = max(known, default=0.0) or 1.0
    x = Scale(min(at), max(at) if max(at) > min(at) else min(at) + 1, _LEFT, _RIGHT)
    y = Scale(0.0, top * 1.05, _BOTTOM, _TOP)
    marks = [_band(x, each.from_s, each.until_s, "silence") for each in silences]
    marks += [_band(x, lo, hi, "change") for lo, hi in changes]
    drawn = []
    for values, (colour, kind, dash) in zip(lines.values(), _LINES, strict=False):
        places = [(x(t), y(v)) if v is not None else None for t, v in zip(at, values, strict=True)]
        if points:
            drawn += [_dot(place, colour, kind) for place in places if place is not None]
        else:
            drawn.append(
                path(places, stroke=colour, class_=kind, stroke_width=1.5, stroke_dasharray=dash)
            )
    return drawing(
        WIDTH, HEIGHT, f"{title} over the run", *marks, beside(y, _LEFT, _RIGHT, unit), *drawn,
        below(x, _BOTTOM, "s of the run"),
    )  # fmt: skip


def _dot(point: tuple[float, float], colour: str, kind: str) -> Markup:
    return element("circle", cx=point[0], cy=point[1], r=2.0, fill=colour, class_=f"{kind} dot")


def _band(x: Scale, lo: float, hi: float, kind: str) -> Markup:
    start, end = sorted((x(lo), x(hi)))
    return box(start, _TOP, max(end - start, 1.5), _BOTTOM - _TOP, fill="#d55e00",
               fill_opacity=0.25 if kind == "silence" else 0.12, class_=kind)  # fmt: skip


def strip(series: Series) -> Markup:
    """The median TTFT over the run: steps of equal length, some two dozen."""
    points = list(enumerate(series.ttft_p50_ms))
    known = [value for _, value in points if value is not None]
    x = Scale(0.0, len(points) * series.step_s, 40.0, 396.0)
    y = Scale(0.0, (max(known, default=0.0) or 1.0) * 1.05, 112.0, 22.0)
    drawn: list[tuple[float, float] | None] = []
    for place, value in points:
        if value is None:
            drawn.append(None)
            continue
        ends = (x(place * series.step_s), x((place + 1) * series.step_s))
        drawn += [(ends[0], y(value)), (ends[1], y(value))]
    lo, hi = min(known, default=0.0), max(known, default=0.0)
    said = f"Median TTFT over the run: between {lo:.3g} and {hi:.3g} ms"
    return drawing(
        400, 142, said, beside(y, 40, 396, "ms"),
        path(drawn, stroke=_LINES[0][0], class_="line-0", stroke_width=1.5),
        below(x, 112, "s of the run"),
    )  # fmt: skip


def distribution(name: str, found: Distribution, figures: Figures, metric: str) -> Markup:
    """The share of values up to each, on a logarithmic axis, and the interval of each quantile
    that is stated."""
    positive = [value for value in found.value if value > 0] or [1.0]
    lo, hi = min(positive), max(positive)
    x = Scale(lo / 1.2, hi * 1.2, 46.0, 392.0, log=hi / lo > 20)
    y = Scale(0.0, 1.0, 168.0, 22.0)
    points: list[tuple[float, float] | None] = []
    last = 0.0
    for value, share in zip(found.value, found.at, strict=True):
        points += [(x(value), y(last)), (x(value), y(share))]
        last = share
    drawn = [path(points, stroke=_LINES[0][0], class_="line-0", stroke_width=1.5)]
    for statistic, share in (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)):
        ends = [figures.value("metrics", metric, statistic, key) for key in ("lo", "value", "hi")]
        if ends[1] is None:
            continue
        if ends[0] is not None and ends[2] is not None:
            drawn += whisker(x(max(ends[0], lo / 1.2)), x(ends[2]), y(share))
        drawn.append(element("circle", cx=x(ends[1]), cy=y(share), r=2.5, class_="ink-dot"))
    return drawing(
        400, 200, f"{name}: the share of {found.n} values up to each time", *drawn,
        beside(y, 46, 392, "share"), below(x, 168, "ms"),
    )  # fmt: skip


def by_length(found: Lengths) -> Markup:
    """A point for each request drawn, and the median of each group of lengths."""
    tallest = max((*found.ttft, *(group[4] for group in found.groups)), default=1.0) or 1.0
    longest = max((group[1] for group in found.groups), default=1)
    x = Scale(0.0, longest * 1.02, _LEFT, _RIGHT)
    y = Scale(0.0, tallest * 1.05, _BOTTOM, _TOP)
    cloud = "".join(
        f"M{x(n):.1f} {y(value):.1f}h.01" for n, value in zip(found.isl, found.ttft, strict=True)
    )
    drawn = [
        element("path", d=cloud, stroke=_LINES[0][0], class_="line-0 cloud", stroke_width=3,
                stroke_linecap="round", stroke_opacity=0.35, fill="none")
    ]  # fmt: skip
    for lo, hi, _, p50, _ in found.groups:
        drawn.append(
            line(x(lo), y(p50), max(x(hi), x(lo) + 3), y(p50), stroke=_LINES[1][0],
                 class_="line-1", stroke_width=3)
        )  # fmt: skip
    return drawing(
        WIDTH, HEIGHT, "TTFT by input length; figures in the table below",
        beside(y, _LEFT, _RIGHT, "ms"), *drawn, below(x, _BOTTOM, "tokens of input"),
    )  # fmt: skip


def legend(names: Iterable[str]) -> Markup:
    """What each line is."""
    swatches = [
        Markup('<span class="key">{}{}</span>').format(
            element(
                "svg",
                line(0, 5, 24, 5, stroke=colour, class_=kind, stroke_width=2,
                     stroke_dasharray=dash),
                viewBox="0 0 24 10", width=24, height=10, aria_hidden="true",
            ),
            name,
        )
        for name, (colour, kind, dash) in zip(names, _LINES, strict=False)
    ]  # fmt: skip
    return Markup(" ").join(swatches)
