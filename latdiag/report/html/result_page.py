"""The page of one diagnosis: its first screen, then everything behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from latdiag.model.components import in_time_order
from latdiag.model.document import document
from latdiag.model.terms import AUDIT_RULES
from latdiag.model.units import GLUE, figure, quantity
from latdiag.report import answer
from latdiag.report.html import plots, screen
from latdiag.report.html.charts import label
from latdiag.report.html.figures import Figures
from latdiag.report.html.render import page
from latdiag.report.numbers import LABELS
from latdiag.report.where import GRADES, INTERVALS, POPULATIONS

if TYPE_CHECKING:
    from latdiag.diagnosis.result import Breakdown, Result, Share
    from latdiag.measurement.timeline import Timeline

_COLUMNS = ("p50", "p90", "p95", "p99", "mean")
_TITLES = {rule.name: rule.title for rule in AUDIT_RULES}
#: Metrics with a drawing of their distribution, and the names that ``Timeline`` has for them.
_DRAWN = (("ttft", "TTFT"), ("icl", "Gaps between chunks (ICL)"), ("e2e", "End to end"))


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a page comes from. ``command``: that made the run; ``again``: that makes the page."""

    command: str
    created: str
    again: str


def result_page(result: Result, timeline: Timeline, origin: Origin) -> str:
    """The file."""
    figures = Figures(document(result))
    series = _series(result, timeline)
    given: dict[str, object] = {
        **screen.context(result, figures, timeline.request_id),
        "metrics": list(_metrics(result, figures)),
        "totals": list(_totals(result, figures)),
        "refused": list(_refused(result)),
        "slos": list(_slos(result, figures)),
        "failures": _failures(result, figures),
        "timing": _timing(timeline),
        "charts": [_chart(name, one, timeline, result) for name, one in series.items()],
        "silences": _silences(timeline),
        "distributions": list(_distributions(timeline, figures)),
        "lengths": _lengths(timeline),
        "evidence": list(_evidence(result, figures)),
        "grades": list(GRADES.items()),
        "servers": list(_servers(result, figures)),
        "audit": list(_audit(result, figures)),
        "validity": _validity(result),
        "caveats": result.caveats,
        "origin": list(_origin(result, origin, figures)),
    }
    given["contents"] = list(_contents(given))
    return page("result.html", given, series or None)


def _contents(given: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for key, place, name in (
        ("metrics", "latencies", "Latencies"),
        ("failures", "latencies", "Failed requests"),
        ("charts", "over-time", "Over time"),
        ("distributions", "distributions", "Distributions"),
        ("lengths", "by-length", "By input length"),
        ("evidence", "evidence", "Evidence"),
        ("audit", "validity", "Validity"),
        ("answer", "notes", "Notes"),
        ("answer", "origin", "Origin"),
    ):
        if given[key] and not (key == "failures" and given["metrics"]):
            yield place, name


# ---------------------------------------------------------------------- latencies
def _metrics(result: Result, figures: Figures) -> Iterator[Sequence[object]]:
    for name, metric in result.metrics.items():
        if not any(one.value is not None for one in metric.statistics.values()):
            continue
        cells = [
            screen.estimate(figures, name, each) if each in metric.statistics else Markup("")
            for each in _COLUMNS
        ]
        title = f"{LABELS.get(name, name)}, {metric.unit}"
        yield (title, *cells, _n(figures, ("metrics", name, _stated(metric.statistics))))


def _stated(statistics: Mapping[str, object]) -> str:
    return next(iter(statistics))


def _n(figures: Figures, place: Sequence[object]) -> Markup:
    n, worth = figures.value(*place, "n"), figures.value(*place, "n_effective")
    text = figures.count(*place, "n")
    if n == worth or worth is None:
        return text
    return Markup("{} ({})").format(text, figures.count(*place, "n_effective"))


def _totals(result: Result, figures: Figures) -> Iterator[Sequence[object]]:
    for name, metric in result.metrics.items():
        if metric.total is not None and metric.total.value is not None:
            place = ("metrics", name)
            value = figures.number(*place, "value", unit=metric.unit)
            ends = figures.span((*place, "lo"), (*place, "hi"), metric.unit)
            yield LABELS.get(name, name), Markup("{} {}").format(value, ends), _n(figures, place)


def _refused(result: Result) -> Iterator[str]:
    why: dict[str, list[str]] = {}
    for name, metric in result.metrics.items():
        reason = metric.refused or (metric.total.refused if metric.total is not None else None)
        if reason:
            why.setdefault(reason, []).append(LABELS.get(name, name))
    yield from (f"Not stated: {', '.join(names)}: {reason}" for reason, names in why.items())


def _slos(result: Result, figures: Figures) -> Iterator[Sequence[object]]:
    for place, judged in enumerate(result.slo):
        word = "unknown" if judged.met is None else "met" if judged.met else "MISSED"
        value = figures.number("slo", place, "reading", "value", unit=judged.slo.metric.unit)
        yield judged.slo.text, word, value, judged.reason or judged.reading.refused or ""


def _failures(result: Result, figures: Figures) -> list[Sequence[object]]:
    return [
        (each.outcome, figures.count("errors", place, "count"),
         figures.as_text(str(each.status), "errors", place, "status")
         if each.status is not None else "", each.example or "")
        for place, each in enumerate(result.errors)
    ]  # fmt: skip


# ---------------------------------------------------------------------- charts
def _timing(timeline: Timeline) -> str:
    if timeline.n < timeline.requests:
        return (
            f"Of the {_grouped(timeline.n)} requests that one clock stamped, of"
            f" {_grouped(timeline.requests)} in all: instants of several runs or clocks share no"
            " axis."
        )
    return "Seconds count from the run's first request."


def _series(result: Result, timeline: Timeline) -> dict[str, dict[str, object]]:
    """What the page's script draws, by chart; the static drawings are of the same numbers."""
    gaps = "Gaps between chunks (one token each: ITL)" if timeline.one_token else (
        "Gaps between chunks (ICL)")  # fmt: skip
    bands = [[each.from_s, each.until_s, 0.3] for each in timeline.silences]
    changes = [[lo, hi, 0.12] for lo, hi in _changes(result)]
    found: dict[str, dict[str, object]] = {}
    for name, title, one in (
        ("ttft", "TTFT", timeline.ttft),
        ("icl", gaps, timeline.icl),
    ):
        if len(one.at) > 1:
            single = not any(value is not None for value in one.p95)
            names, values = (["each request"], [one.p50]) if single else (
                ["median", "p95"], [one.p50, one.p95])  # fmt: skip
            found[name] = _one(title, "ms", one.at, names, values, bands + changes, single)
    if max((*timeline.streaming, *timeline.waiting), default=0) > 0:
        found["streams"] = _one(
            "Requests at once", "requests", timeline.at,
            ["streaming", "waiting for a first token"],
            [timeline.streaming, timeline.waiting], bands, False,
        )  # fmt: skip
    return found


def _one(
    title: str,
    unit: str,
    at: Sequence[float],
    names: Sequence[str],
    values: Sequence[Sequence[float | None]],
    bands: Sequence[Sequence[float]],
    points: bool,
) -> dict[str, object]:
    return {
        "title": title,
        "unit": unit,
        "at": [round(each, 4) for each in at],
        "lines": list(names),
        "values": [[_short(each) for each in line] for line in values],
        "bands": [[round(each, 4) for each in band] for band in bands],
        "points": points,
    }


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


def _changes(result: Result) -> list[tuple[float, float]]:
    """Between which instants something changed for good, and spells."""
    changes = result.course.changes if result.course is not None else ()
    return [
        (each.from_s, each.until_s) if each.kind == "spell" else (each.from_lo_s, each.from_hi_s)
        for each in changes
    ]


def _chart(
    name: str, one: Mapping[str, object], timeline: Timeline, result: Result
) -> dict[str, object]:
    at, names, values = (one[key] for key in ("at", "lines", "values"))
    assert isinstance(at, list) and isinstance(names, list) and isinstance(values, list)
    lines = dict(zip(names, values, strict=True))
    said = ""
    if name == "icl" and result.bursts is not None:
        said = "Chunks come in bursts; see the notes."
    elif timeline.silences and name != "ttft":
        said = f"Shaded: {len(timeline.silences)} silences of all streams."
    changes = _changes(result) if name != "streams" else ()
    svg = plots.over_time(
        str(one["title"]), str(one["unit"]), at, lines, timeline.silences, changes,
        points=bool(one["points"]),
    )  # fmt: skip
    return {
        "id": name, "title": one["title"], "legend": plots.legend(names), "said": said, "svg": svg,
    }  # fmt: skip


def _silences(timeline: Timeline) -> list[Sequence[str]]:
    return [
        (f"{each.from_s:.3f}", f"{each.until_s:.3f}",
         figure(1000 * (each.until_s - each.from_s), "ms"), str(each.streams))
        for each in timeline.silences
    ]  # fmt: skip


def _distributions(timeline: Timeline, figures: Figures) -> Iterator[tuple[str, Markup]]:
    for name, title in _DRAWN:
        found = timeline.distributions.get(name)
        if found is not None and found.n > 1:
            yield (
                f"{title}, n = {_grouped(found.n)}",
                plots.distribution(title, found, figures, name),
            )


def _lengths(timeline: Timeline) -> dict[str, object] | None:
    found = timeline.lengths
    if not found.groups:
        return None
    drawn, n = len(found.isl), sum(group[2] for group in found.groups)
    said = f"A point for each of {_grouped(drawn)} requests"
    if drawn < n:
        said += f", drawn by chance from {_grouped(n)}"
    rows = [
        (f"{_grouped(lo)} to {_grouped(hi)}" if hi > lo else _grouped(lo), _grouped(n),
         figure(p50, "ms"), figure(p95, "ms"))
        for lo, hi, n, p50, p95 in found.groups
    ]  # fmt: skip
    return {
        "said": f"{said}; bars are medians of groups of like length.",
        "svg": plots.by_length(found),
        "rows": rows,
    }


def _grouped(n: int) -> str:
    return f"{n:,}".replace(",", GLUE)


# ---------------------------------------------------------------------- evidence
def _evidence(result: Result, figures: Figures) -> Iterator[tuple[str, list[Sequence[object]]]]:
    for population, found in result.breakdowns.items():
        yield _title(population, found), list(_shares(("breakdown", population), found, figures))
    for interval, populations in result.by.items():
        for population, found in populations.items():
            place = ("by", interval, population)
            yield _title(population, found), list(_shares(place, found, figures))


def _title(population: str, found: Breakdown) -> str:
    who = POPULATIONS.get(population, population)
    what = INTERVALS.get(found.interval, found.interval)
    title = f"The time of {who}, {what}"
    return f"{title}; insufficient: {found.insufficient}" if found.insufficient else title


def _shares(
    place: Sequence[object], found: Breakdown, figures: Figures
) -> Iterator[Sequence[object]]:
    for name in found.unknown:
        yield name, "", "unknown", "", "", "no client was there"
    for name, share in in_time_order(found.shares).items():
        yield _share(name, share, found.n, (*place, name), figures)


def _share(
    name: str, share: Share, n: int, place: Sequence[object], figures: Figures
) -> Sequence[object]:
    mean = figures.as_text(quantity(share.sum_ns / n / 1e6, "ms"), *place, "sum_ns")
    percent = figures.number(*place, "share", unit="share")
    ends = figures.span((*place, "lo"), (*place, "hi"), "share")
    return label(name, share), mean, percent, ends, share.grade, share.evidence


def _servers(result: Result, figures: Figures) -> Iterator[Markup]:
    if result.evidence is not None:
        for place, each in enumerate(result.evidence.senders[:20]):
            spans, requests = (
                figures.count("evidence", "senders", place, key) for key in ("spans", "requests")
            )
            who = f"{each.stack or 'unknown stack'} ({', '.join(each.roles)}) {each.sender}"
            yield Markup("{}: {} spans of {} requests").format(who, spans, requests)
    if result.replies is not None:
        for place, time in enumerate(result.replies.times[:20]):
            median = figures.number("replies", "times", place, "median_ms", unit="ms")
            yield Markup("replies of {}: {}, median {}").format(time.stack, time.field, median)


# ---------------------------------------------------------------------- validity and origin
def _validity(result: Result) -> str:
    if answer.is_of_servers(result):
        return "No request of this client is in the run: servers were listened to."
    if result.valid:
        return "No rule of the self-audit that was measured is broken."
    return "INVALID: " + "; ".join(each.text for each in result.invalid_because)


def _audit(result: Result, figures: Figures) -> Iterator[Sequence[object]]:
    for place, each in enumerate(result.self_audit.readings if result.self_audit else ()):
        at = ("self_audit", "readings", place)
        reading: object = figures.number(*at, "reading", unit=each.unit)
        if each.reading is None:
            reading = each.reason or "not measured"
        limit = figures.number(*at, "limit", unit=each.unit) if each.limit is not None else ""
        judged = each.limit is not None and each.reading is not None
        kept = "BROKEN" if each.broken else "yes" if judged else ""
        yield _TITLES.get(each.rule) or each.title or each.rule, reading, limit, kept


def _origin(result: Result, origin: Origin, figures: Figures) -> Iterator[tuple[str, object]]:
    yield "command", origin.command or "not recorded"
    yield "run", ", ".join(result.runs or (result.run or "not saved",))
    if origin.created:
        yield "made", origin.created
    if result.load is not None and result.load.seed is not None:
        yield "seed", figures.as_text(str(result.load.seed), "load", "seed")
    yield "again", origin.again
