"""Requests written down by hand, and batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from latdiag.measurement.measure import measure
from latdiag.measurement.measurement import Measurement
from latdiag.measurement.slo import parse_slos
from latdiag.model.records import Kind
from latdiag.store.batch import Batch, Ints, Lists

MS = 1_000_000
INT_COLUMNS = (
    "due_ns", "sent_ns", "wire_ns", "done_ns", "isl", "osl", "isl_wanted", "osl_wanted",
    "cached_tokens",
)  # fmt: skip
TEXT_COLUMNS = ("clock_id", "outcome", "token_source", "stamp_source")
LIST_COLUMNS = {
    "arrivals_ns": np.int64,
    "tokens": np.int32,
    "kinds": np.int8,
    "censored": np.bool_,
}


@dataclass
class Row:
    """One request as a person would write it down; None is null."""

    due_ns: int | None = None
    sent_ns: int | None = 0
    wire_ns: int | None = None
    done_ns: int | None = None
    isl: int | None = None
    osl: int | None = None
    isl_wanted: int | None = None
    osl_wanted: int | None = None
    cached_tokens: int | None = None
    clock_step: bool = False
    clock_id: str | None = "c"
    outcome: str | None = "ok"
    token_source: str | None = "ids"
    stamp_source: str | None = "kernel"
    arrivals_ns: list[int] | None = field(default_factory=list)
    tokens: list[int] | None = field(default_factory=list)
    kinds: list[int] | None = field(default_factory=list)
    censored: list[bool] | None = field(default_factory=list)


def answer(sent: int, *gaps: int, **more: Any) -> Row:
    """A clean request: a role event after 1 ms, then one token after each of ``gaps`` ms."""
    stamps = [sent + MS]
    for gap in gaps:
        stamps.append(stamps[-1] + gap * MS)
    n = len(gaps)
    row = Row(
        sent_ns=sent,
        done_ns=stamps[-1],
        osl=n,
        arrivals_ns=stamps,
        tokens=[0] + [1] * n,
        kinds=[int(Kind.ROLE)] + [int(Kind.ANSWER)] * n,
        censored=[False] * (n + 1),
    )
    for name, value in more.items():
        setattr(row, name, value)
    return row


def batch_of(rows: Sequence[Row]) -> Batch:
    n = len(rows)

    def ints(name: str) -> Ints:
        told = [getattr(row, name) for row in rows]
        values = np.array([0 if v is None else v for v in told], dtype=np.int64)
        return Ints(values, np.array([v is not None for v in told], dtype=np.bool_))

    def texts(name: str) -> Any:
        column = np.empty(n, dtype=object)
        column[:] = [getattr(row, name) for row in rows]
        return column

    def lists(name: str, kind: Any) -> Lists:
        told = [getattr(row, name) for row in rows]
        flat = [item for items in told for item in items or []]
        offsets = np.cumsum([0, *(len(items or []) for items in told)]).astype(np.int64)
        valid = np.array([items is not None for items in told], dtype=np.bool_)
        return Lists(np.array(flat, dtype=kind), offsets, valid)

    return Batch(
        n,
        {name: ints(name) for name in INT_COLUMNS},
        {"clock_step": np.array([row.clock_step for row in rows], dtype=np.bool_)},
        {name: texts(name) for name in TEXT_COLUMNS},
        {name: lists(name, kind) for name, kind in LIST_COLUMNS.items()},
    )


def measured(rows: Sequence[Row], *slos: str) -> Measurement:
    return measure([batch_of(rows)], parse_slos(slos))
