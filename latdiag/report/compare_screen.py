"""A comparison on one screen: its answer first, then what differs, metrics and components."""

from __future__ import annotations

from collections.abc import Sequence

from latdiag.diagnosis.compare import Comparison, Side
from latdiag.diagnosis.comparison import ComponentDifference
from latdiag.diagnosis.difference import Difference
from latdiag.diagnosis.verdict import invalid_words
from latdiag.report import notes
from latdiag.report.answer import Answer, of
from latdiag.report.compare_page import LABELS, number, signed, words
from latdiag.report.overview import ending
from latdiag.report.page import WIDTH, Block, Page, Span, cells, rows, screen

_LABEL, _SIDE, _APART, _BOUNDS = 26, 11, 12, 18
#: Facts that differ, and rows of metrics, that a screen shows.
_FACTS, _METRICS = 4, 5
#: Of a request's time; a class whose difference is smaller and may be 0 has no row.
_SMALL = 0.01


def compose(comparison: Comparison, ascii_only: bool) -> Page:
    """The screen of ``comparison``."""
    blocks = [*of(answer_of(comparison))]
    if comparison.caveats:
        found = comparison.caveats
        blocks.append(Block(lambda page, room: notes.short(page, room, found), 2, 2))
    blocks.append(Block(lambda page, room: _sides(page, comparison), 2, 3, apart=True))
    if comparison.differs:
        blocks.append(Block(lambda page, room: _facts(page, room, comparison), 2, 6, apart=True))
    blocks.append(Block(lambda page, room: _table(page, room, comparison), 4, 4, apart=True))
    blocks.append(Block(lambda page, room: page.line(_foot(comparison)), 1, 3, apart=True))
    return screen(blocks, ascii_only)


def answer_of(comparison: Comparison) -> Answer:
    sure = comparison.notes[0] if comparison.notes else ""
    if not comparison.valid:
        which = sorted({rule.text.partition(":")[0] for rule in comparison.broken})
        sentence, following = invalid_words(comparison.broken)
        return Answer("INVALID", "bold red", f"({' and '.join(which)}) {sentence}", following)
    head, _, rest = comparison.sentence.partition(": ")
    return Answer(head, "bold", rest, "", sure)


def _sides(page: Page, comparison: Comparison) -> None:
    for name, side in (("A", comparison.a), ("B", comparison.b)):
        page.line(_side(page, name, side))


def _side(page: Page, name: str, side: Side) -> str:
    """``A  before.run: 240 requests, 3 failed``."""
    more = f" and {len(side.runs) - 1} more" if len(side.runs) > 1 else ""
    text = f"{more}: {side.requests} requests, {side.failed} failed"
    return ending(page, f"{name}  ", side.runs[0], WIDTH - cells(text)) + text


def _facts(page: Page, room: int, comparison: Comparison) -> None:
    """What differs between the sides, a row each; ``!`` where the work is not the same."""
    width, lines = (WIDTH - 22) // 2, []
    for fact in comparison.differs:
        what = page.fit(page.word(fact.what, 30), 16)
        a, b = (page.fit(words(page, value), width) for value in (fact.a, fact.b))
        lines.append(f"{'! ' if fact.unlike else '  '}{what:<17}{a} | {b}")
    rows(page, min(room, _FACTS), lines, " facts")


def _table(page: Page, room: int, comparison: Comparison) -> None:
    """Metrics, then the components of all requests, in the order of time."""
    found = comparison.differences
    page.line(
        f"{'ms':<{_LABEL}}{'A':>{_SIDE}}{'B':>{_SIDE}}{'B - A':>{_APART}}"
        f"{'95 % interval':>{_BOUNDS}}"
    )
    stated = [each for each in found.metrics if each.difference.value is not None]
    texts = []
    for each in sorted(stated, key=lambda each: each.statistic != "mean")[:_METRICS]:
        label = LABELS.get(each.metric) or page.word(each.metric, 16)
        label = f"{label} {each.statistic}".rstrip()
        texts.append(_row(page, label, each.values, each.difference))
    mean = found.of("mean")
    if mean is not None and mean.whole.difference.refused is None:
        whole = max(mean.whole.a.amount.ms, mean.whole.b.amount.ms)
        for one in mean.classes:
            if _worth(one, whole):
                label = "+".join(one.members)
                values = (one.a.amount.ms, one.b.amount.ms)
                if len(label) >= _LABEL:
                    texts.append(page.fit(label.replace("+", " + "), WIDTH))
                    label = ""
                texts.append(_row(page, label, values, one.difference))
    rows(page, room - 1, texts, " rows")


def _worth(one: ComponentDifference, whole: float) -> bool:
    value = abs(one.difference.value or 0.0)
    return one.difference.contains_zero is False or value >= _SMALL * whole


def _row(page: Page, label: str, values: Sequence[float | None], apart: Difference) -> str:
    sides = "".join(f"{number(value):>{_SIDE}}" for value in values)
    bounds = ""
    if apart.lo is not None and apart.hi is not None:
        bounds = f"{signed(apart.lo)} to {signed(apart.hi)}"
    elif apart.value is not None:
        bounds = "unknown"
    label = page.fit(label, _LABEL - 1)
    return f"{label:<{_LABEL}}{sides}{signed(apart.value):>{_APART}}{bounds:>{_BOUNDS}}"


def _foot(comparison: Comparison) -> str:
    a, b = len(comparison.a.caveats), len(comparison.b.caveats)
    return f"Notes: {a} on A, {b} on B (--notes). All figures: --full."


def in_full(page: Page, comparison: Comparison) -> None:
    """Every note: on the comparison, then on each side."""
    if comparison.caveats:
        notes.in_full(page, comparison.caveats)
    for name, side in (("A", comparison.a), ("B", comparison.b)):
        page.gap()
        page.line(Span(f"On {name}:"))
        notes.in_full(page, side.caveats)
