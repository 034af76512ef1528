"""A result for people: 79 columns, no boxes, colour on one word.

There are three views of it: one screen, all figures that ``--json`` holds, and the notes. In full
the order is: is it valid, what was run, the metrics, where the time went, what a probe learned,
the verdict, how the client itself did, what to be careful about, where the run is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from latdiag.report import (
    head,
    notes,
    numbers,
    screen,
    stages,
    where,
)
from latdiag.report.answer import is_of_servers
from latdiag.report.collected_page import received
from latdiag.report.imported_page import imported
from latdiag.report.learned import learned
from latdiag.report.page import WIDTH, Page
from latdiag.report.servers import servers
from latdiag.report.why import claims

if TYPE_CHECKING:
    from rich.console import Console

    from latdiag.diagnosis.compare import Comparison
    from latdiag.diagnosis.result import Result
    from latdiag.diagnosis.why import Why

#: Between the rules that were broken and the caveats.
_SECTIONS = (
    head.what_was_run,
    received,
    imported,
    numbers.metrics,
    stages.in_full,
    numbers.objectives,
    where.split,
    where.breakdowns,
    learned,
    where.verdict,
    servers,
    head.self_audit,
)
#: What says nothing where no request of ours was sent.
_OF_A_CLIENT = (
    numbers.metrics,
    stages.in_full,
    numbers.objectives,
    where.split,
    head.self_audit,
)


def stdout_console() -> Console:
    """stdout as rich sees it: no colour with NO_COLOR or where it is no terminal."""
    from rich.console import Console

    class Plain(Console):
        """rich would turn a closed pipe into exit code 1; the command line knows a better one."""

        def on_broken_pipe(self) -> None:
            raise  # the BrokenPipeError that is being handled

    # The width is the page's own: rich would print nothing at all with COLUMNS=0.
    return Plain(highlight=False, markup=False, emoji=False, width=WIDTH)


def compose(result: Result, ascii_only: bool, view: str = "screen") -> Page:
    """The result as lines of at most 79 columns. ``view``: screen, full or notes."""
    if view == "screen":
        return screen.compose(result, ascii_only)
    page = Page(ascii_only)
    if view == "notes":
        notes.in_full(page, result.caveats)
        return page
    # Where only servers were listened to, there is no client to speak of.
    silent = is_of_servers(result)
    head.invalid(page, result.invalid_because)
    for section in _SECTIONS:
        if not (silent and section in _OF_A_CLIENT):
            section(page, result)
    if result.caveats:
        page.gap()
        notes.in_full(page, result.caveats)
    head.saved(page, result)
    return page


def render(result: Result, console: Console, view: str = "screen") -> None:
    """Print ``result`` to ``console``; in ASCII unless it is a terminal that takes UTF-8."""
    show(compose(result, ascii_only(console), view), console)


def render_comparison(comparison: Comparison, console: Console, view: str = "screen") -> None:
    """Print a comparison, as ``render`` does; bars only where a terminal shows them."""
    from latdiag.report import compare_page, compare_screen  # a diagnosis compares nothing

    plain = ascii_only(console)
    if view == "full":
        page = compare_page.compose(comparison, plain, console.is_terminal)
    elif view == "notes":
        page = Page(plain)
        compare_screen.in_full(page, comparison)
    else:
        page = compare_screen.compose(comparison, plain)
    show(page, console)


def render_claims(why: Why, console: Console) -> None:
    """Print the claims on one component, as ``render`` does."""
    page = Page(ascii_only(console))
    claims(page, why)
    show(page, console)


def ascii_only(console: Console) -> bool:
    """Whether the console is no terminal that takes UTF-8."""
    utf8 = console.encoding.lower().replace("-", "").startswith("utf8")
    return not (console.is_terminal and utf8)


def show(page: Page, console: Console) -> None:
    """Print a page: it has its width, whatever COLUMNS says (0, and rich prints nothing)."""
    console.width = max(console.width, page.width)
    from rich.text import Text

    for line in page.lines:
        # Text objects are never parsed for markup; soft_wrap leaves the width to the page.
        text = Text.assemble(*((span.text, span.style) for span in line))
        console.print(text, soft_wrap=True)
