"""The verdict on one screen: the verdict first, then what it rests on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from latdiag.report.gate import words
from latdiag.report.page import Block, Page, Span, screen

if TYPE_CHECKING:
    from latdiag.gate.result import Verdict

#: A longer name would leave too little room for the figures beside it.
_LONGEST_NAME = 24
_STYLES = {"REGRESSED": "bold red", "INVALID": "bold red", "INCONCLUSIVE": "bold yellow"}


def gate_page(verdict: Verdict, ascii_only: bool) -> Page:
    """At most 24 lines of 79 columns. What finds no room is counted, and stands in gate.json."""
    judged = verdict.verdict != "INVALID"
    checks = [words.row(each, judged) for each in verdict.shown]
    table = [("", "base", "candidate", "change", "proved", "")]
    table += [(r.label, r.base, r.candidate, r.change, r.decided, r.short) for r in checks]
    parts = []
    if verdict.requests:
        parts = [("ms a request", "base", "candidate", "change", "")]
        parts += [
            (c.name, *words.component_cells(c, verdict.requests)) for c in verdict.components
        ]
    blocks = [
        Block(lambda page, room: _head(page, room, verdict), 2, 0),
        Block(lambda page, room: _table(page, room, table), 3, 1, apart=True),
        Block(lambda page, room: _table(page, room, parts), 2, 2, apart=True),
        Block(lambda page, room: _foot(page, room, verdict), 1, 3, apart=True),
    ]
    return screen([each for each in blocks if each.rank != 2 or parts], ascii_only)


def _head(page: Page, room: int, verdict: Verdict) -> None:
    style = _STYLES.get(verdict.verdict, "bold green")
    said = page.word(words.sentence(verdict), 1_000)
    page.clipped(Span(verdict.verdict, style), said, min(room, 5))
    if (why := words.cause(verdict)) and len(page.lines) < room:
        page.paragraph(page.word(why, 150), "  ")


def _table(page: Page, room: int, lines: Sequence[tuple[str, ...]]) -> None:
    """Columns as wide as they need; the first and the last one to the left."""
    cells = [[page.word(cell, 40) for cell in line] for line in _apart(lines)]
    rows = [line for line in cells if any(line[1:])]
    widths = [max(len(line[at]) for line in rows) for at in range(len(cells[0]))]
    texts = []
    for line in cells:
        aligned = [
            text.ljust(width) if at in (0, len(widths) - 1) or at == 4 else text.rjust(width)
            for at, (text, width) in enumerate(zip(line, widths, strict=True))
        ]
        texts.append("  ".join(aligned).rstrip())
    kept = texts if len(texts) <= room else texts[: room - 1]
    for text in kept:
        page.line(text)
    if len(kept) < len(texts):
        page.line(f"and {len(texts) - len(kept)} more in gate.json")


def _apart(lines: Sequence[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    """A long name stands in a line of its own."""
    for name, *rest in lines:
        if len(name) > _LONGEST_NAME:
            yield name, *("" for _ in rest)
            yield "", *rest
        else:
            yield name, *rest


def _foot(page: Page, room: int, verdict: Verdict) -> None:
    for head, text in (("Method:", words.method(verdict)), ("Twins:", words.checks(verdict))):
        if len(page.lines) < room:
            page.clipped(Span(head), page.word(text, 400), min(2, room - len(page.lines)))
