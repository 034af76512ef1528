"""The requests of a run one by one, as a page of 24 lines shows the slowest of them, as CSV and as
JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

from latdiag.model.text import shown
from latdiag.model.units import show_ms
from latdiag.report.page import Page

if TYPE_CHECKING:
    import pandas as pd

#: Requests of a page, besides which there are a head, a legend and a hint.
LINES = 10
#: What a spreadsheet would take for a formula.
_FORMULA = ("=", "+", "-", "@")
_TEXTS = (*("request_id", "response_id", "trace_id", "span_id", "scenario", "outcome", "error"),)
_LIMIT = 1000
#: Rows that are Python's objects at a time.
_AT_ONCE = 10_000


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
def write_csv(table: pd.DataFrame, file: TextIO) -> None:
    """A line for each request, empty where nothing is known; ``start`` as ISO 8601. No text is
    more than a text, for a terminal or a spreadsheet."""
    plain = table.assign(
        start=_starts(table),
        **{name: [_text(value) for value in table[name]] for name in _TEXTS},
    )
    plain.to_csv(file, index=False, lineterminator="\n")


def _text(value: object) -> str | None:
    if value is None:
        return None
    text = str(value)
    if not (text.isascii() and text.isprintable() and len(text) <= _LIMIT):
        text = shown(text, _LIMIT)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _starts(table: pd.DataFrame) -> list[str | None]:
    import numpy as np

    instants = table["start"].to_numpy(dtype="datetime64[ns]")
    texts = np.datetime_as_string(instants, unit="ns").tolist()
    return [None if text == "NaT" else f"{text}Z" for text in texts]


def json_pieces(table: pd.DataFrame, runs: list[str]) -> Iterator[str]:
    """The document that ``--json`` prints, a request a line."""
    head = {"schema": 1, "verb": "requests", "run": runs[0], "runs": runs}
    yield json.dumps(head | {"grades": table.attrs["grades"]})[:-1]
    yield ', "requests": ['
    between = "\n"
    for first in range(0, len(table), _AT_ONCE):
        rows = table.iloc[first : first + _AT_ONCE]
        for row in rows.assign(start=_starts(rows)).to_dict("records"):
            kept = {name: None if value != value else value for name, value in row.items()}
            yield between + json.dumps(kept, allow_nan=False, default=_absent)
            between = ",\n"
    yield "\n]}"


def _absent(_value: object) -> None:
    """pandas has a value of its own for a whole number that is not known."""
