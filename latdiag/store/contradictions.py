"""Rows that contradict themselves: they are left out and counted, never repaired.

A clock that was stepped between two samples, a damaged disk or another hand leaves instants in an
order that nothing has, or numbers that nothing counts. What such a row says of a latency is not
known. Rows that are marked as astride a step of the clock are known for it, and are read; whoever
computes leaves them out by that mark.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latdiag.store.arrays import valid_of, values_of
from latdiag.store.clock import STEP_NS
from latdiag.store.columns import column_array

#: A week: longer than a request or a window of metrics may take. With a bound on all rows together
#: no sum of nanoseconds leaves 64 bits.
_LONGEST_NS = 7 * 86_400 * 10**9
_ALL_NS = 2**61
_LATEST_NS = 2**62
_LARGEST = 2**40
#: Items that are compared at once.
_PIECE = 1 << 15
_INSTANTS = {
    "requests": (
        *("due_ns", "sent_ns", "dns_ns", "tcp_ns", "tls_ns", "written_ns", "wire_ns"),
        *("wire_last_ns", "acked_ns", "headers_ns", "done_ns"),
    ),
    "evidence": ("start_ns", "end_ns", "window_start_ns", "window_end_ns"),
}
#: (earlier, later, what a row is that has them the other way round).
_ORDER = (
    ("due_ns", "sent_ns", "sent before due"),
    ("sent_ns", "written_ns", "written before sent"),
    ("sent_ns", "wire_ns", "on the wire before sent"),
    ("sent_ns", "headers_ns", "answered before sent"),
    ("sent_ns", "done_ns", "ended before sent"),
    ("wire_ns", "wire_last_ns", "last byte on the wire before the first"),
    ("start_ns", "end_ns", "ended before begun"),
    ("window_start_ns", "window_end_ns", "window ended before begun"),
)
_DURATIONS = ("min_rtt_ns", "resent_ns", "retry_ns")
_COUNTS = (
    *("attempt", "isl", "osl", "isl_wanted", "osl_wanted", "cached_tokens", "retransmits"),
    *("out_of_order", "status"),
)


class Contradictions:
    """Judges the rows of a table as they go by; ``reasons`` counts those left out, by the first
    reason of each."""

    def __init__(self, table: str) -> None:
        self.reasons: Counter[str] = Counter()
        self._table = table
        self._all_ns = 0

    def without(self, batch: Any) -> Any:
        """The rows of a record batch that do not contradict themselves, by the columns it has."""
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        bad = np.zeros(batch.num_rows, dtype=np.bool_)
        extent = self._extent(columns, batch.num_rows)
        for reason, rows in self._faults(columns, extent):
            new = rows & ~bad
            if new.any():
                self.reasons[reason] += int(new.sum())
                bad |= new
        total = self._all_ns + np.cumsum(np.where(bad, 0, extent))
        if len(total):
            late = ~bad & (total > _ALL_NS)
            if late.any():
                self.reasons["more time than a run can take"] += int(late.sum())
                bad |= late
            self._all_ns = min(int(total[-1]), 2 * _ALL_NS)
        return batch.filter(column_array("sound", "bool", ~bad)) if bad.any() else batch

    def _faults(
        self, columns: dict[str, pa.Array], extent: NDArray[np.int64]
    ) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        n = len(extent)
        impossible = np.zeros(n, dtype=np.bool_)
        for name in _INSTANTS[self._table]:
            impossible |= _outside(columns, name, 0, _LATEST_NS, n)
        for name in _LISTS:
            impossible |= _list_outside(columns, name, 0, _LATEST_NS, n)
        yield "an instant that no clock shows", impossible
        number = np.zeros(n, dtype=np.bool_)
        for name in _DURATIONS:
            number |= _outside(columns, name, 0, _LONGEST_NS, n)
        for name in _COUNTS:
            number |= _outside(columns, name, 0, _LARGEST, n)
        for name in ("tokens", "bucket_count"):
            number |= _list_outside(columns, name, 0, _LATEST_NS, n)
        yield "a number that nothing counts", number
        # Differences are computed of what passed, or wraps and does not matter.
        yield "an interval of more than a week", extent > _LONGEST_NS
        stepped = _flag(columns, "clock_step", n)
        for earlier, later, reason in _ORDER:
            if earlier in columns and later in columns:
                yield reason, _after(columns[earlier], columns[later]) & ~stepped
        for name in _LISTS:
            if name in columns:
                yield "arrivals that go backwards", _backwards(columns[name]) & ~stepped
        if "sent_ns" in columns and "arrivals_ns" in columns:
            yield "arrived before sent", _early(columns) & ~stepped

    def _extent(self, columns: dict[str, pa.Array], n: int) -> NDArray[np.int64]:
        """From the first to the last instant of each row."""
        if self._table == "evidence":
            # The span of a server and the window of a scrape are of clocks of their own.
            pairs = (("start_ns", "end_ns"), ("window_start_ns", "window_end_ns"))
            one, other = (_between(columns, *pair, n) for pair in pairs)
            return one + other
        first = np.full(n, _LATEST_NS, dtype=np.int64)
        last = np.full(n, -1, dtype=np.int64)
        for name in _INSTANTS[self._table]:
            if name not in columns:
                continue
            values, valid = values_of(columns[name]), valid_of(columns[name])
            if name == "acked_ns":
                valid = valid & (values != 0)
            first = np.where(valid, np.minimum(first, values), first)
            last = np.where(valid, np.maximum(last, values), last)
        for name in _LISTS:
            if name in columns:
                begin, end, some = _ends(columns[name])
                first = np.where(some, np.minimum(first, begin), first)
                last = np.where(some, np.maximum(last, end), last)
        return np.where(last >= first, last - first, 0)


_LISTS = ("arrivals_ns", "arrivals_user_ns")


def _between(columns: dict[str, pa.Array], earlier: str, later: str, n: int) -> NDArray[np.int64]:
    if earlier not in columns or later not in columns:
        return np.zeros(n, dtype=np.int64)
    a, b = columns[earlier], columns[later]
    both = valid_of(a) & valid_of(b)
    return np.where(both, np.maximum(values_of(b) - values_of(a), 0), 0)


def _outside(
    columns: dict[str, pa.Array], name: str, least: int, most: int, n: int
) -> NDArray[np.bool_]:
    """The rows whose value is not in [least, most)."""
    if name not in columns:
        return np.zeros(n, dtype=np.bool_)
    values = values_of(columns[name])
    found: NDArray[np.bool_] = ((values < least) | (values >= most)) & valid_of(columns[name])
    return found


def _list_outside(
    columns: dict[str, pa.Array], name: str, least: int, most: int, n: int
) -> NDArray[np.bool_]:
    """The rows with an item that is not in [least, most)."""
    if name not in columns:
        return np.zeros(n, dtype=np.bool_)
    offsets, items = _flat(columns[name])
    # Nearly always all are inside, which the two ends say in a third of the time.
    if not len(items) or (int(items.min()) >= least and int(items.max()) < most):
        return np.zeros(n, dtype=np.bool_)
    return _any(offsets, (items < least) | (items > most - 1))


def _flag(columns: dict[str, pa.Array], name: str, n: int) -> NDArray[np.bool_]:
    if name not in columns:
        return np.zeros(n, dtype=np.bool_)
    found: NDArray[np.bool_] = values_of(columns[name]) & valid_of(columns[name])
    return found


def _after(earlier: Any, later: Any) -> NDArray[np.bool_]:
    """Where what should be the earlier is later by more than stamps of two clocks may differ."""
    both = valid_of(earlier) & valid_of(later)
    found: NDArray[np.bool_] = both & (values_of(earlier) - values_of(later) > STEP_NS)
    return found


def _backwards(column: Any) -> NDArray[np.bool_]:
    offsets, items = _flat(column)
    back = np.zeros(len(items), dtype=np.bool_)
    # By pieces that stay in a processor's cache.
    for at in range(1, len(items), _PIECE):
        end = min(at + _PIECE, len(items))
        back[at:end] = items[at - 1 : end - 1] - items[at:end] > STEP_NS
    starts = offsets[:-1]
    back[starts[starts < len(items)]] = False
    return _any(offsets, back)


def _early(columns: dict[str, pa.Array]) -> NDArray[np.bool_]:
    begin, _, some = _ends(columns["arrivals_ns"])
    sent = columns["sent_ns"]
    found: NDArray[np.bool_] = some & valid_of(sent) & (values_of(sent) - begin > STEP_NS)
    return found


def _flat(column: Any) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Offsets from 0 on, and the items that they cut."""
    offsets = values_of(column.offsets).astype(np.int64)
    if not len(offsets):
        return np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.int64)
    items = values_of(column.values.slice(offsets[0], offsets[-1] - offsets[0]))
    return offsets - offsets[0], items


def _ends(column: Any) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """The first and the last item of each row, and whether it has any."""
    offsets, items = _flat(column)
    some = np.diff(offsets) > 0
    if not len(items):
        none = np.zeros(len(some), dtype=np.int64)
        return none, none, some
    first = items[np.minimum(offsets[:-1], len(items) - 1)]
    return first, items[np.maximum(offsets[1:] - 1, 0)], some


def _any(offsets: NDArray[np.int64], marks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The rows with a mark on one of their items."""
    if not marks.any():
        return np.zeros(len(offsets) - 1, dtype=np.bool_)
    before = np.concatenate(([0], np.cumsum(marks)))
    found: NDArray[np.bool_] = before[offsets[1:]] > before[offsets[:-1]]
    return found
