"""A result for people: 79 columns, no boxes, colour on one word. It shows what ``--json`` holds.

Order: is it valid, what was run, the metrics, where the time went, what a probe learned, the
verdict, how the client itself did, what to be careful about, where the run is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from latdiag.report import head, numbers, where
from latdiag.report.learned import learned
from latdiag.report.page import WIDTH, Page
from latdiag.report.servers import servers
from latdiag.report.why import claims

if TYPE_CHECKING:
    from rich.console import Console

    from latdiag.diagnosis.result import Result
    from latdiag.diagnosis.why import Why

#: Between the rules that were broken and the caveats.
_SECTIONS = (
    head.what_was_run,
    numbers.metrics,
    numbers.objectives,
    where.split,
    where.breakdowns,
    learned,
    where.verdict,
    servers,
    head.self_audit,
)
#: What says nothing where no request of ours was sent.
_OF_A_CLIENT = (numbers.metrics, numbers.objectives, where.split, head.self_audit)


def stdout_console() -> Console:
    """stdout as rich sees it: no colour with NO_COLOR or where it is no terminal."""
    from rich.console import Console

    class Plain(Console):
        """rich would turn a closed pipe into exit code 1; the command line knows a better one."""

        def on_broken_pipe(self) -> None:
            raise  # the BrokenPipeError that is being handled

    # The width is the page's own: rich would print nothing at all with COLUMNS=0.
    return Plain(highlight=False, markup=False, emoji=False, width=WIDTH)


def compose(result: Result, ascii_only: bool) -> Page:
    """The report as lines of at most 79 columns."""
    page = Page(ascii_only)
    # Where only servers were listened to, there is no client to speak of.
    heard = result.evidence is not None or result.collected is not None
    silent = heard and (result.load is None or not result.load.requests)
    head.invalid(page, result.invalid_because)
    for section in _SECTIONS:
        if not (silent and section in _OF_A_CLIENT):
            section(page, result)
    head.caveats(page, result.caveats)
    head.saved(page, result)
    return page


def render(result: Result, console: Console) -> None:
    """Print ``result`` to ``console``; in ASCII unless it is a terminal that takes UTF-8."""
    _print(compose(result, _ascii_only(console)), console)


def render_claims(why: Why, console: Console) -> None:
    """Print the claims on one component, as ``render`` does."""
    page = Page(_ascii_only(console))
    claims(page, why)
    _print(page, console)


def _ascii_only(console: Console) -> bool:
    utf8 = console.encoding.lower().replace("-", "").startswith("utf8")
    return not (console.is_terminal and utf8)


def _print(page: Page, console: Console) -> None:
    from rich.text import Text

    for line in page.lines:
        # Text objects are never parsed for markup; soft_wrap leaves the width to the page.
        text = Text.assemble(*((span.text, span.style) for span in line))
        console.print(text, soft_wrap=True)
