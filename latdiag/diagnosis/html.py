"""A few lines of HTML, as notebooks show them; every text is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from latdiag.diagnosis.shares import Breakdown
from latdiag.model.components import in_time_order
from latdiag.model.text import shown

_POPULATIONS = {"mean": "all requests", "p95_tail": "slowest 5 %"}


def paragraph(text: str, bold: str = "") -> str:
    """``text`` after ``bold``."""
    head = f"<b>{_safe(bold)}</b> " if bold else ""
    return f"<p>{head}{_safe(text)}</p>"


def share_table(breakdowns: Mapping[str, Breakdown]) -> list[str]:
    """One table: a row for each component, a column for each population; nothing without any."""
    labels = {
        name: " + ".join(share.members or (name,))
        for breakdown in breakdowns.values()
        for name, share in breakdown.shares.items()
    }
    rows = [
        [label, *(_percent(each, name) for each in breakdowns.values())]
        for name, label in in_time_order(labels).items()
    ]
    head = ["share of the time", *(_POPULATIONS.get(name, name) for name in breakdowns)]
    return [table(head, rows)] if rows else []


def _percent(found: Breakdown, name: str) -> str:
    """``41 % (35 to 47)``; nothing where it is not stated."""
    share = found.shares.get(name)
    if share is None or share.share is None or found.insufficient:
        return ""
    text = f"{100 * share.share:.0f} %"
    if share.lo is None or share.hi is None:
        return text
    return f"{text} ({100 * share.lo:.0f} to {100 * share.hi:.0f})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Texts in the first column, figures in the others."""
    lines = [_row("th", head), *(_row("td", row) for row in rows)]
    return f"<table>{''.join(lines)}</table>"


def _row(tag: str, cells: Sequence[str]) -> str:
    sides = ["left", *["right"] * (len(cells) - 1)]
    return "".join(
        [
            "<tr>",
            *(
                f'<{tag} style="text-align:{side}">{_safe(cell)}</{tag}>'
                for side, cell in zip(sides, cells, strict=True)
            ),
            "</tr>",
        ]
    )


def _safe(text: str) -> str:
    return escape(shown(text, 600))
