"""The requests of a run one by one: a page of 24 lines shows the slowest of them; and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from latdiag.model.units import show_ms
from latdiag.report.page import Page

if TYPE_CHECKING:
    import pandas as pd

#: Requests of a page, besides which there are a head, a legend and a hint.
LINES = 10


def slowest(table: pd.DataFrame, n: int | None) -> pd.DataFrame:
    """The ``n`` requests with the longest end-to-end time, longest first; those whose end is not
    known come last. None: all, by when they began."""
    if n is None:
        return table
    return table.sort_values("e2e_ms", ascending=False, na_position="last", kind="stable").head(n)


def page(table: pd.DataFrame, chosen: pd.DataFrame, ascii_only: bool, hint: bool) -> Page:
    """``chosen`` of ``table``, and where most of each one's time went."""
    out = Page(ascii_only)
    failed = int((table["outcome"] != "ok").sum())
    counts = f"{len(table):,} requests" + (f", {failed:,} failed" if failed else "")
    out.line(f"{counts}; the slowest {len(chosen):,} of them, times in ms")
    if not len(table):
        return out
    out.gap()
    heads = ("start (UTC)", "request", "ISL", "OSL", "TTFT", "TPOT", "E2E")
    out.line(_columns(*heads), "  largest part")
    parts = list(table.attrs["grades"])
    names = {part: _short(part) for part in parts}
    largest = set()
    for row in chosen.to_dict("records"):
        last = _most(row, parts, names) if row["outcome"] == "ok" else out.word(row["outcome"], 20)
        out.line(_request(out, row), "  ", last)
        largest.add(last.partition(" ")[0])
    merged = {short: part for part, short in names.items() if short in largest and "+" in short}
    told = [f"{short} is {_members(part)}" for short, part in merged.items()]
    if told or hint:
        out.gap()
    for text in told:
        out.paragraph(text, "", "  ")
    if hint:
        out.paragraph("All requests with all columns: --csv or --json.", "", "  ")
    return out


def _request(out: Page, row: dict[str, object]) -> str:
    known = {name: value for name, value in row.items() if value == value and value is not None}
    start = f"{row['start']:%H:%M:%S.%f}"[:12] if str(row["start"]) != "NaT" else "-"
    return _columns(
        start,
        out.word(row["request_id"] or "-", 80)[:_ID],
        *(_whole(row[name]) for name in ("isl", "osl")),
        *(show_ms(float(str(known[n])) * 1e6) if n in known else "-" for n in _TIMES),
    )


#: Of an id: enough to look for it.
_ID = 12
_TIMES = ("ttft_ms", "tpot_ms", "e2e_ms")


def _columns(start: str, name: str, *figures: str) -> str:
    widths = (6, 6, 8, 7, 8)
    cells = (f"{text[:width]:>{width}}" for text, width in zip(figures, widths, strict=True))
    return f"{start:<12} {name:<{_ID}}{''.join(cells)}"


def _whole(value: object) -> str:
    text = str(value)
    return text if text.isdigit() else "-"


def _most(row: dict[str, object], parts: list[str], names: dict[str, str]) -> str:
    """``queue 62 %``: the largest part of a request's time."""
    known = {part: float(str(row[part])) for part in parts if row[part] == row[part]}
    whole = sum(known.values())
    if whole <= 0:
        return "-"
    most = max(known, key=lambda part: known[part])
    return f"{names[most]} {100 * known[most] / whole:.0f} %"


def _short(part: str) -> str:
    """``queue+3`` for a class of four components."""
    members = part.removesuffix("_ms").split("+")
    return members[0] if len(members) == 1 else f"{members[0]}+{len(members) - 1}"


def _members(part: str) -> str:
    return " + ".join(part.removesuffix("_ms").split("+"))


# ---------------------------------------------------------------------- for programs
def json_pieces(table: pd.DataFrame, runs: list[str]) -> Iterator[str]:
    """The document that ``--json`` prints, a request a line."""
    from latdiag.export.tables import json_rows

    head = {"schema": 1, "verb": "requests", "run": runs[0], "runs": runs}
    yield json.dumps(head | {"grades": table.attrs["grades"]})[:-1]
    yield ', "requests": ['
    between = "\n"
    for row in json_rows(table):
        yield between + row
        between = ",\n"
    yield "\n]}"
