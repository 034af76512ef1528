"""Caveats on a page: which change what a screen says, how many there are, all of them in full."""

from __future__ import annotations

from collections.abc import Sequence

from latdiag.diagnosis.result import Result
from latdiag.model.caveat import Caveat
from latdiag.model.units import NS_PER_MS
from latdiag.report.page import Page, Span

#: These change the verdict or a figure by more than its interval says, whatever their facts:
#: a run that is not the one that was asked for, a mixture, sources that exclude each other, times
#: that are not those of what they are called after, evidence that was asked for and did not come.
_WEIGHTY = frozenset(
    {"LD110", "LD114", "LD117", "LD118", "LD121", "LD123", "LD126", "LD127", "LD415", "LD417",
     "LD420", "LD424", "LD429", "LD430", "LD433"}
)  # fmt: skip
#: What stamps in user space may be late by, as LD201 says.
_USER_STAMPS_NS = 5 * NS_PER_MS
#: Notes on a screen; lines of each.
_SHOWN, _LINES = 2, 3


def weighty(result: Result) -> list[Caveat]:
    """The notes that belong on the screen."""
    return [
        each
        for each in result.caveats
        if each.code in _WEIGHTY
        or _late(result, each.code)
        or _missed(result, each.code)
        or (each.code == "LD125" and result.slo)
    ]


def _missed(result: Result, code: str) -> bool:
    """Whether scrapes failed and no metrics came, though they were asked for."""
    return code == "LD425" and result.collected is not None and not result.collected.samples


def _late(result: Result, code: str) -> bool:
    """Whether stamps in user space may be late by more than the interval of the median TTFT, or
    made the figures invalid."""
    if code == "LD201" and any(broken.rule == "loop_lag" for broken in result.invalid_because):
        return True
    metric = result.metrics.get("ttft")
    found = metric.statistics.get("p50") if code == "LD201" and metric is not None else None
    if found is None or found.lo is None or found.hi is None:
        return False
    return (found.hi - found.lo) / 2 < _USER_STAMPS_NS


def short(page: Page, room: int, found: Sequence[Caveat]) -> None:
    """The first of them, in a line or two each."""
    for each in found[:_SHOWN]:
        if room <= 0:
            return
        before = len(page.lines)
        text = page.word(each.text, 400)
        page.clipped(Span(f"Note {page.word(each.code, 8)}:"), text, min(room, _LINES))
        room -= len(page.lines) - before


def in_full(page: Page, found: Sequence[Caveat]) -> None:
    """One paragraph a caveat: its code, what it says, what to do about it."""
    for each in found:
        text = f"{page.word(each.text, 900)} {page.word(each.remedy, 900)}"
        page.paragraph(text.strip(), f"{page.word(each.code, 8)} ", " " * 6)
    if not found:
        page.line("There are no notes on this result.")
