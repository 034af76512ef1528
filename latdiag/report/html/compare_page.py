"""The page of runs side by side: each with the first, as ``latdiag compare`` compares two."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from latdiag.model.document import document
from latdiag.model.units import quantity
from latdiag.report.compare_page import LABELS
from latdiag.report.compare_screen import answer_of
from latdiag.report.html.comparison_chart import Row, chart
from latdiag.report.html.figures import Figures
from latdiag.report.html.render import page
from latdiag.report.html.screen import of_answer
from latdiag.report.where import GRADES, POPULATIONS

if TYPE_CHECKING:
    from latdiag.diagnosis.compare import Comparison, Side
    from latdiag.diagnosis.comparison import ComponentDifference, PopulationDifference

#: A class below this share of the time, and whose difference may be none, has no row.
_SMALL = 0.005
_SIDES = ("a", "b")


def compare_page(comparisons: Sequence[Comparison], again: str) -> str:
    """The file. Of several comparisons, A is the same run in each."""
    parts = [_one(each, place) for place, each in enumerate(comparisons)]
    runs = [*comparisons[0].a.runs, *(run for each in comparisons for run in each.b.runs)]
    given = {
        "comparisons": parts,
        "valid": all(each.valid for each in comparisons),
        "origin": [("runs", ", ".join(dict.fromkeys(runs))), ("again", again)],
        "grades": list(GRADES.items()),
    }
    return page("compare.html", given)


def _one(comparison: Comparison, place: int) -> dict[str, object]:
    """One comparison as the template takes it."""
    figures = Figures(document(comparison.result()))
    differences = comparison.differences
    return {
        "place": place,
        "answer": of_answer(answer_of(comparison)),
        "sides": [
            (name.upper(), ", ".join(side.runs), _counts(figures, name), side.valid)
            for name, side in zip(_SIDES, (comparison.a, comparison.b), strict=True)
        ],
        "charts": [_chart(each, figures) for each in differences.populations],
        "metrics": list(_metrics(comparison, figures)),
        "components": [
            (POPULATIONS.get(each.population, each.population), list(_components(each, figures)))
            for each in differences.populations
        ],
        "facts": [
            (fact.what, _words(fact.a), _words(fact.b), "yes" if fact.unlike else "")
            for fact in comparison.differs
        ],
        "alike": [f"{name} {_words(value)}" for name, value in comparison.alike.items()],
        "remarks": comparison.notes,
        "caveats": [*_of_both(comparison), *_of("A", comparison.a), *_of("B", comparison.b)],
    }


def _counts(figures: Figures, side: str) -> Markup:
    requests, failed = (figures.count("compared", side, each) for each in ("requests", "failed"))
    return Markup("{} requests, {} failed").format(requests, failed)


def _of_both(comparison: Comparison) -> Iterator[dict[str, str]]:
    for each in comparison.caveats:
        yield {"code": each.code, "text": each.text, "remedy": each.remedy}


def _of(name: str, side: Side) -> Iterator[dict[str, str]]:
    for each in side.caveats:
        yield {"code": f"{name}: {each.code}", "text": each.text, "remedy": each.remedy}


def _words(value: object) -> str:
    if isinstance(value, list | tuple):
        return " / ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "none" if value is None else str(value)


# ---------------------------------------------------------------------- figures
def _metrics(comparison: Comparison, figures: Figures) -> Iterator[Sequence[object]]:
    for each in comparison.differences.metrics:
        at = ("compared", "metrics", each.metric, *filter(None, (each.statistic,)))
        sides = [figures.number(*at, side, "value", unit=each.unit, bare=True) for side in _SIDES]
        counts = [figures.count(*at, side, "n") for side in _SIDES]
        label = f"{LABELS.get(each.metric, each.metric)} {each.statistic}".rstrip()
        if each.unit == "ms":
            label += ", ms"
        yield (label, *sides, *_difference(figures, (*at, "difference"), each.unit), *counts)


def _difference(figures: Figures, at: Sequence[object], unit: str) -> tuple[Markup, Markup]:
    """(B - A with its sign, its interval, or why there is none)."""
    value = _signed(figures, (*at, "value"), unit)
    lo, hi = ((*at, end) for end in ("lo", "hi"))
    if figures.value(*lo) is None or figures.value(*hi) is None:
        why = figures.at(*at, "refused") or figures.at(*at, "method") or ""
        return value, Markup('<span class="none">{}</span>').format(str(why)[:200])
    ends = Markup('<span class="interval">[{}, {}]</span>').format(
        _signed(figures, lo, unit), _signed(figures, hi, unit)
    )
    clear = figures.at(*at, "contains_zero") is False
    return Markup("<b>{}</b>").format(value) if clear else value, ends


def _signed(figures: Figures, at: Sequence[object], unit: str) -> Markup:
    value = figures.value(*at)
    if value is None:
        return figures.number(*at)
    sign = "+" if value > 0 else ""
    return figures.as_text(f"{sign}{quantity(value, unit)}", *at)


def _components(found: PopulationDifference, figures: Figures) -> Iterator[Sequence[object]]:
    place = ("compared", "components", found.population)
    yield _component("end to end", (*place, "total"), figures, ("", ""))
    for each in found.classes:
        grades = (each.a.grade, each.b.grade)
        yield _component(" + ".join(each.members), (*place, each.name), figures, grades)


def _component(
    label: str, at: Sequence[object], figures: Figures, grades: tuple[str, str]
) -> Sequence[object]:
    sides = [figures.number(*at, side, "ms", unit="ms", bare=True) for side in _SIDES]
    apart = _difference(figures, (*at, "difference"), "ms")
    return (label, *sides, *apart, " / ".join(filter(None, grades)))


def _chart(found: PopulationDifference, figures: Figures) -> Markup:
    """Bars of both sides for the whole and for each class that takes or changes something."""
    at = ("compared", "components", found.population)
    longest = max(found.whole.a.amount.ms, found.whole.b.amount.ms)
    rows = [Row("end to end", (), (*at, "total"))]
    rows += [
        Row(" + ".join(each.members), each.members, (*at, each.name))
        for each in found.classes
        if _worth(each, longest)
    ]
    who = POPULATIONS.get(found.population, found.population)
    return chart(f"Mean of {who}, ms a request", ("A", "B"), rows, figures)


def _worth(one: ComponentDifference, longest: float) -> bool:
    largest = max(one.a.amount.ms, one.b.amount.ms)
    return one.difference.contains_zero is False or largest >= _SMALL * longest
