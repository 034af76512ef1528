"""Which requests of a run are exported: those that match, the slowest, or a sample."""

from __future__ import annotations

import hashlib
import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from latdiag.model.errors import UsageFault
from latdiag.model.text import shown

if TYPE_CHECKING:
    import pandas as pd

#: More requests than this are sampled: what a Jaeger that keeps traces in memory holds by default.
AT_MOST = 100_000
_CONDITION = re.compile(r"\s*([A-Za-z0-9_+]+)\s*(<=|>=|!=|==|=|<|>)\s*(.*?)\s*")
_COMPARES = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """``where``: conditions on columns of the table of requests, all of which must hold.
    ``slowest``: only so many, by their end-to-end time. ``at_most``: more are sampled."""

    where: tuple[str, ...] = ()
    slowest: int | None = None
    at_most: int = AT_MOST


@dataclass(frozen=True, slots=True)
class Choice:
    """``rows``: places in the table, by when the requests began. ``of``: requests of the workload;
    ``matching``: those of them that were asked for, of which ``rows`` are all or a sample."""

    rows: NDArray[np.int64]
    of: int
    matching: int

    @property
    def sampled(self) -> bool:
        return len(self.rows) < self.matching


def choose(table: pd.DataFrame, wanted: Wanted) -> Choice:
    """UsageFault for a condition that the table cannot answer."""
    keep = np.ones(len(table), dtype=bool)
    for text in wanted.where:
        keep &= _holds(table, text)
    rows = np.flatnonzero(keep)
    if wanted.slowest is not None:
        e2e = table["e2e_ms"].to_numpy(dtype=float)[rows]
        longest = np.argsort(-np.where(np.isnan(e2e), -np.inf, e2e), kind="stable")
        rows = np.sort(rows[longest[: wanted.slowest]])
    matching = len(rows)
    if matching > wanted.at_most:
        rows = np.sort(rows[_drawn(table, rows)[: wanted.at_most]])
    return Choice(rows, len(table), matching)


def _drawn(table: pd.DataFrame, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """An order of ``rows`` that their ids alone decide: another export of the run draws the same
    requests, and no rhythm of the load can hide in it."""
    ids = table["request_id"].to_numpy()[rows]
    keys = [hashlib.blake2b(str(one).encode(), digest_size=8).digest() for one in ids]
    return np.argsort(np.array(keys, dtype="S8"), kind="stable")


def _holds(table: pd.DataFrame, text: str) -> NDArray[np.bool_]:
    """Where a condition is true; what is not known meets none."""
    found = _CONDITION.fullmatch(text)
    if not found:
        raise UsageFault(
            f"{shown(text, 60)!r} is not a condition", "write for example --where 'ttft_ms > 500'"
        )
    name, sign, value = found.groups()
    if name not in table.columns or name == "start":
        there = ", ".join(column for column in table.columns if column != "start")
        raise UsageFault(f"there is no column {shown(name, 60)!r}", f"choose from {there}")
    column = table[name]
    if column.dtype == object or str(column.dtype) in ("str", "string"):
        if sign not in ("=", "==", "!="):
            raise UsageFault(f"{name} is text, which is not {sign} anything", "use = or !=")
        return _texts(column, sign, value)
    try:
        number = float(value)
    except ValueError:
        raise UsageFault(
            f"{shown(value, 60)!r} is not a number, and {name} is one", "write a plain number"
        ) from None
    numbers = column.to_numpy(dtype=float, na_value=np.nan)
    holds: NDArray[np.bool_] = _COMPARES[sign](numbers, number) & ~np.isnan(numbers)
    return holds


def _texts(column: Sequence[object], sign: str, value: str) -> NDArray[np.bool_]:
    same = np.array([one == value for one in column], dtype=bool)
    known = np.array([isinstance(one, str) for one in column], dtype=bool)
    found: NDArray[np.bool_] = known & (same if sign != "!=" else ~same)
    return found
