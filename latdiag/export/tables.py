"""The table of requests as rows for other programs: CSV, a line of JSON for each, Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

import numpy as np

from latdiag.model.text import shown

if TYPE_CHECKING:
    import pandas as pd

#: What a spreadsheet would take for a formula.
_FORMULA = ("=", "+", "-", "@")
_TEXTS = (*("request_id", "response_id", "trace_id", "span_id", "scenario", "outcome", "error"),)
_LIMIT = 1000
#: Rows that are Python's objects at a time.
_AT_ONCE = 10_000


def write_csv(table: pd.DataFrame, file: TextIO) -> None:
    """A line for each request, empty where nothing is known; ``start`` as ISO 8601. No text is
    more than a text, for a terminal or a spreadsheet."""
    plain = table.assign(
        start=starts_of(table),
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


def starts_of(table: pd.DataFrame) -> list[str | None]:
    instants = table["start"].to_numpy(dtype="datetime64[ns]")
    texts = np.datetime_as_string(instants, unit="ns").tolist()
    return [None if text == "NaT" else f"{text}Z" for text in texts]


def json_rows(table: pd.DataFrame) -> Iterator[str]:
    """An object for each request, null where nothing is known."""
    for first in range(0, len(table), _AT_ONCE):
        rows = table.iloc[first : first + _AT_ONCE]
        for row in rows.assign(start=starts_of(rows)).to_dict("records"):
            kept = {name: None if value != value else value for name, value in row.items()}
            yield json.dumps(kept, allow_nan=False, default=_absent)


def _absent(_value: object) -> None:
    """pandas has a value of its own for a whole number that is not known."""


def write_jsonl(table: pd.DataFrame, file: TextIO) -> None:
    """As ``json_rows``, a line each."""
    file.writelines(f"{row}\n" for row in json_rows(table))


def write_parquet(table: pd.DataFrame, path: str) -> None:
    """The types of the table: ``start`` is a timestamp in UTC, whole numbers stay whole. The
    grades of the components are in the metadata, as JSON under ``latdiag.grades``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    # An index, and attributes of pandas, are no columns of ours.
    rows = pa.Table.from_pandas(table.reset_index(drop=True), preserve_index=False)
    grades = json.dumps(table.attrs["grades"]).encode()
    pq.write_table(rows.replace_schema_metadata({"latdiag.grades": grades}), path)
