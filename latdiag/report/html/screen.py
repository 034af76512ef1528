"""The first screen of a result: the answer, where the time goes, single requests, its grounds.

It needs the result alone, so a notebook shows the same one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, TypeAlias

from markupsafe import Markup

from latdiag.diagnosis.examples import examples_of
from latdiag.model.text import shown
from latdiag.model.units import GLUE
from latdiag.report import answer, notes, servers
from latdiag.report.html import charts, plots
from latdiag.report.html.figures import Figures
from latdiag.report.html.svg import FAINT, drawing, text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from latdiag.diagnosis.result import Breakdown, Result

#: Ids of requests: a list, or an array.
Names: TypeAlias = "Sequence[object] | NDArray[np.object_]"
#: Metrics of the screen.
_BRIEF = (("ttft", "TTFT"), ("tpot", "TPOT"), ("itl", "ITL"), ("e2e", "E2E"))
_POPULATIONS = ("mean", "p95_tail")
_TONES = {"bold green": "good", "bold red": "bad"}


def of_answer(found: answer.Answer) -> dict[str, str]:
    """An answer as a template takes it."""
    return {
        "head": found.head,
        "tone": _TONES.get(found.style, "unsure"),
        "sentence": found.sentence,
        "following": found.following,
        "sure": found.sure,
    }


def context(result: Result, figures: Figures, names: Names = ()) -> dict[str, object]:
    """What the template ``screen.html`` shows. ``names``: ids of requests by their place in
    reading order; none where they were not read."""
    return {
        "answer": of_answer(answer.answer_of(result)),
        "about": _about(result, figures),
        "weighty": list(_weighty(result)),
        "shares": [(title, svg) for title, svg in _shares(result)],
        "waterfalls": _waterfalls(result, names),
        "strip": _strip(result),
        "brief": list(_brief(result, figures)),
        "trust": list(_trust(result, figures)),
    }


def _about(result: Result, figures: Figures) -> dict[str, object]:
    target = result.target
    where = (target.url or ", ".join(target.captures)) if target is not None else ""
    what = [target.model] if target is not None and target.model else []
    for stack in result.stacks:
        what.append(f"{stack.name} {stack.version}" if stack.version else stack.name)
    servers_alone = answer.is_of_servers(result)
    return {
        "target": where or ("Servers" if servers_alone else "unknown target"),
        "what": ", ".join(filter(None, what)),
        "counts": Markup(", ").join(
            _received(result, figures) if servers_alone else _counts(result, figures)
        ),
        "state": _state(result, servers_alone),
    }


def _state(result: Result, servers_alone: bool) -> tuple[str, str]:
    """(Its class, the words of the badge)."""
    if not result.valid:
        return "bad", "INVALID"
    # Where nobody of ours measured, there is nothing of ours to be valid.
    return ("", "the servers' own times") if servers_alone else ("good", "valid measurement")


def _received(result: Result, figures: Figures) -> Iterator[Markup]:
    """Where no request was ours: what came instead."""
    where = "collected" if result.collected is not None else "imported"
    spans = figures.count(where, "accepted" if result.collected is not None else "spans")
    yield Markup("{} spans").format(spans)
    yield Markup("{} samples of metrics").format(figures.count(where, "samples"))


def _counts(result: Result, figures: Figures) -> Iterator[Markup]:
    load = result.load
    if load is None:
        return
    yield Markup("{} requests").format(figures.count("load", "requests"))
    if load.duration_s is not None:
        yield Markup("{} s").format(figures.number("load", "duration_s"))
    if load.concurrency is not None:
        yield Markup("{} at a time").format(figures.count("load", "concurrency"))
    if load.offered_rate is not None:
        yield Markup("{}/s offered").format(figures.number("load", "offered_rate"))
    for outcome in load.failed:
        yield Markup("{} {}").format(figures.count("load", "failed", outcome), outcome[:40])
    if not load.failed and load.requests:
        yield Markup("none failed")


def _weighty(result: Result) -> Iterator[tuple[str, str]]:
    for limit in result.limits:
        yield "Limit:", limit.sentence
    for judged in result.slo:
        word = "unknown" if judged.met is None else "met" if judged.met else "MISSED"
        yield f"SLO {judged.slo.text}:", word
    for each in notes.weighty(result)[:2]:
        yield f"Note {each.code}:", each.text


def _shares(result: Result) -> Iterator[tuple[str, Markup]]:
    """A drawing for each population; one line on the slowest where they are too few."""
    mean, tail = (result.breakdowns.get(name) for name in _POPULATIONS)
    if mean is None or not mean.n:
        return
    foot = f"Slowest 5 %: not stated; {tail.insufficient}" if tail and tail.insufficient else ""
    if mean.insufficient:
        yield "Where the time goes", _insufficient(mean)
        return
    yield "Where the time goes", charts.breakdown("mean", mean, foot)
    if tail is not None and tail.n and not foot:
        yield "Where the time of the slowest 5 % goes", charts.breakdown("p95_tail", tail)


def _insufficient(found: Breakdown) -> Markup:
    lines = wrap(f"not stated: {found.insufficient}", 62)[:4]
    title = "Where the time goes"
    head = text(0, 12, title, font_weight=600)
    said = [
        text(0, 34 + 17 * place, each, class_="faint", fill=FAINT)
        for place, each in enumerate(lines)
    ]
    return drawing(charts.WIDTH, 40 + 17 * len(lines), f"{title}: {' '.join(lines)}", head, *said)


def _waterfalls(result: Result, names: Names) -> Markup | None:
    found = examples_of(result.parts) if result.breakdowns else ()
    if not found:
        return None
    of_servers = result.parts is not None and result.parts.interval == "server"
    since = "the server took it" if of_servers else "it was due"
    return charts.waterfalls(found, [_id(names, each.row) for each in found], since)


def _id(names: Names, row: int | None) -> str | None:
    name = names[row] if row is not None and row < len(names) else None
    return shown(name, 64) if name is not None else None


def _strip(result: Result) -> Markup | None:
    series = result.load.series if result.load is not None else None
    known = [v for v in series.ttft_p50_ms if v is not None] if series is not None else []
    return plots.strip(series) if series is not None and len(known) > 1 else None


def _brief(result: Result, figures: Figures) -> Iterator[Sequence[object]]:
    for name, label in _BRIEF:
        metric = result.metrics.get(name)
        if metric is None or not metric.statistics:
            continue
        cells = [
            estimate(figures, name, each) if each in metric.statistics else Markup("")
            for each in ("p50", "p95")
        ]
        if any(one.value is not None for one in metric.statistics.values()):
            yield (label, *cells, figures.count("metrics", name, "p50", "n"))


def estimate(figures: Figures, metric: str, statistic: str) -> Markup:
    """``118 [117, 123]``, or what it needs."""
    place = ("metrics", metric, statistic)
    if figures.value(*place, "value") is None:
        needs = figures.value(*place, "needs")
        if needs is None:
            return Markup('<span class="none">not stated</span>')
        n = figures.as_text(f"{needs:,.0f}".replace(",", GLUE), *place, "needs")
        return Markup('<span class="none">needs n = {}</span>').format(n)
    unit = str(figures.at(*place, "unit") or "")
    value = figures.number(*place, "value", unit=unit, bare=True)
    ends = figures.span((*place, "lo"), (*place, "hi"), unit)
    return Markup("{} {}").format(value, ends) if ends else value


def _trust(result: Result, figures: Figures) -> Iterator[str | Markup]:
    audit = result.self_audit
    if audit is not None and audit.stamp_source:
        why = f" ({audit.stamp_reason})" if audit.stamp_reason else ""
        yield f"{audit.stamp_source} time stamps{why}"
    rules = [each for each in (audit.readings if audit else ()) if each.limit is not None]
    judged = [each for each in rules if each.reading is not None]
    if broken := [each.title or each.rule for each in rules if each.broken]:
        yield f"rules of the self-audit broken: {', '.join(broken)}"
    elif judged:
        all_ = "each rule" if len(judged) == len(rules) else "each measured rule"
        yield f"the client kept {all_} of its self-audit"
    if result.evidence is not None:
        told, requests = (figures.count("evidence", each) for each in ("told", "requests"))
        yield Markup("spans of {} of {} requests in the breakdown").format(told, requests)
    if result.replies is not None:
        yield Markup("{} of {} replies state times").format(
            figures.count("replies", "stated"), figures.count("replies", "requests")
        )
    state = result.aggregates.state if result.aggregates is not None else None
    if state is not None and (said := servers.fullest(state)):
        yield f"engines: {said}"
    mean = result.breakdown("mean")
    if mean is not None and mean.left_out:
        yield Markup("requests that could not be taken apart: {}").format(
            figures.count("breakdown", "mean", "left_out")
        )
    n = len(result.caveats)
    yield f"{n} note{'s' * (n != 1)} below" if n else "no notes"
