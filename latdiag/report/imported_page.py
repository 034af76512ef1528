"""What ``import`` says of what it read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from latdiag.diagnosis import result
from latdiag.diagnosis.result import Result
from latdiag.model.text import shown
from latdiag.report.page import Page

if TYPE_CHECKING:
    from latdiag.ingest.importers.capture import Imported

#: Reasons and senders that people see; ``--json`` has all.
_LINES = 12


def result_of(read: Imported, path: str) -> Result:
    """The result of an import into the run at ``path``."""
    return Result(verb="import", run=path, imported=imported_of(read))


def imported_of(read: Imported) -> result.Imported:
    return result.Imported(
        requests=read.requests.total(),
        scenarios=_names(read.requests),
        spans=read.spans,
        senders=_names(read.senders),
        scrapes=read.scrapes,
        samples=read.samples,
        skipped=_names(read.skipped),
        left_out=_names(read.left_out),
        ignored=tuple(read.ignored),
    )


def _names(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts by what a terminal or a program may be shown of their names."""
    found: dict[str, int] = {}
    for name, n in counts.items():
        found[shown(name)] = found.get(shown(name), 0) + n
    return found


def imported(page: Page, result: Result) -> None:
    """What was read, and what was not; nothing where the result is of no import."""
    found = result.imported
    if found is None:
        return
    scenarios = {name or "(no scenario)": n for name, n in found.scenarios.items()}
    page.gap()
    for title, text in (
        ("requests", f"{found.requests:,}{_listed(scenarios)}"),
        ("spans", f"{found.spans:,}{_listed(found.senders)}"),
        ("scrapes", f"{found.scrapes:,}, with {found.samples:,} samples of known families"),
        *_kept_out("skipped", found.skipped, "{n:,} x {name}"),
        *_kept_out("left out", found.left_out, "{n:,} {name} of other scenarios"),
    ):
        page.paragraph(page.word(text, 2000), f"{title:<10}", " " * 10)
    if found.ignored:
        more = ", ..." if len(found.ignored) > _LINES else ""
        text = page.word(f"{', '.join(found.ignored[:_LINES])}{more}", 2000)
        page.paragraph(text, f"{'ignored':<10}", " " * 10)


def _kept_out(title: str, counts: Mapping[str, int], form: str) -> Iterator[tuple[str, str]]:
    """A line a reason, of the first dozen."""
    for name, n in list(counts.items())[:_LINES]:
        yield title, form.format(n=n, name=name)
    if len(counts) > _LINES:
        yield title, f"... and {len(counts) - _LINES} more reasons"


def _listed(counts: Mapping[str, int]) -> str:
    """`` : a 12, b 3`` of the first dozen."""
    if not counts:
        return ""
    first = [f"{name} {n:,}" for name, n in list(counts.items())[:_LINES]]
    more = [f"{len(counts) - _LINES} others"] if len(counts) > _LINES else []
    return ": " + ", ".join(first + more)
