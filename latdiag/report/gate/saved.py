"""Verdicts on saved runs, as pages: absolute limits, and a run against earlier ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from latdiag.model.units import GLUE, quantity, show_ms
from latdiag.report.page import Page, Span

if TYPE_CHECKING:
    from latdiag.gate.baseline.history import Expected, History
    from latdiag.gate.limits import Limit, Limits

_STYLES = {
    "KEPT": "bold green",
    "OK": "bold green",
    "IMPROVED": "bold green",
    "INCONCLUSIVE": "bold yellow",
}
_BAD = "bold red"


def limits_page(result: Limits, ascii_only: bool) -> Page:
    """A limit a line, with the bound that decided it."""
    page = Page(ascii_only)
    page.headed(_head(result.verdict), page.word(_limits_sentence(result), 1_000))
    page.gap()
    rows: list[tuple[str, ...]] = [("limit", "measured", "decided by", "", "requests")]
    rows += [_limit_row(each) for each in result.limits]
    _table(page, rows)
    for each in result.limits:
        if each.why is not None:
            page.paragraph(page.word(f"{each.limit}: {each.why}.", 300), "", "  ")
    return page


def history_page(parts: Sequence[History], ascii_only: bool) -> Page:
    """Each set of earlier runs, with the interval of one more of them."""
    page = Page(ascii_only)
    for part in parts:
        page.gap()
        page.headed(_head(part.verdict), page.word(_history_sentence(part), 600))
        if not part.needed:
            page.gap()
            rows: list[tuple[str, ...]] = [
                ("", "usual", "this run", "95 % of runs", "change", "proved", "")
            ]
            rows += [_expected_row(each) for each in part.checks]
            _table(page, rows)
    return page


def _head(word: str) -> Span:
    return Span(f"{word}:", _STYLES.get(word, _BAD))


def _limits_sentence(result: Limits) -> str:
    if result.reasons:
        return "No verdict: " + "; ".join(result.reasons) + "."
    words = [each.verdict for each in result.limits]
    of = len(words)
    if result.verdict == "KEPT":
        return (
            f"The whole 95 % interval keeps {'the limit' if of == 1 else f'each of {of} limits'}."
        )
    if result.verdict == "BROKEN":
        return f"The whole 95 % interval lies beyond {words.count('BROKEN')} of {of} limits."
    return f"{words.count('INCONCLUSIVE')} of {of} limits are not decided by these requests."


def _limit_row(each: Limit) -> tuple[str, ...]:
    bound = "-" if each.bound is None else _quantity(each.bound, each.unit)
    value = "-" if each.value is None else _quantity(each.value, each.unit)
    return each.limit, value, bound, each.verdict, f"{each.n:,}"


def _quantity(value: float, unit: str) -> str:
    if unit == "ms":
        return f"{show_ms(value)} ms"
    return quantity(value, unit).replace(GLUE, " ")


def _history_sentence(part: History) -> str:
    if part.needed:
        return (
            f"{part.against}: {part.runs} runs of this kind are recorded,"
            f" {part.runs + part.needed} are needed."
        )
    red = [each for each in part.checks if each.verdict == "REGRESSED"]
    if red:
        names = ", ".join(each.name for each in red)
        return f"slower than {part.against} ({part.runs}) in {names}."
    if part.verdict == "INCONCLUSIVE":
        return f"against {part.against} ({part.runs}), one run is not enough to tell."
    faster = ", faster in some" if part.verdict == "IMPROVED" else ""
    return f"no slower than {part.against} ({part.runs}) by the tolerance{faster}."


def _expected_row(each: Expected) -> tuple[str, ...]:
    between = "-"
    if each.lo_ns is not None and each.hi_ns is not None:
        between = f"{show_ms(each.lo_ns)} to {show_ms(each.hi_ns)}"
    return (
        each.name,
        "-" if each.usual_ns is None else f"{show_ms(each.usual_ns)} ms",
        f"{show_ms(each.run_ns)} ms",
        between,
        _share(each.effect),
        *_proved(each),
    )


def _proved(each: Expected) -> Iterator[str]:
    yield {
        "REGRESSED": f">= {_share(each.worse_than)}",
        "OK": f"<= {_share(each.safe_below)}",
        "IMPROVED": "",
    }.get(each.verdict, "-")
    yield each.verdict


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:+.1f} %"


def _table(page: Page, rows: Sequence[tuple[str, ...]]) -> None:
    """Columns as wide as they need; the first one to the left."""
    cells = [[page.word(cell, 40) for cell in row] for row in rows]
    widths = [max(len(row[at]) for row in cells) for at in range(len(cells[0]))]
    for row in cells:
        first, *rest = (
            text.rjust(width) if at else text.ljust(width)
            for at, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        page.line("  ".join((first, *rest)).rstrip())
