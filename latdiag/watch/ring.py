"""Spans of requests that are not complete yet, and the ledger of what became of every span.

A trace is settled when nothing came of it for a while: its spans leave together, for what one
server says of a request is read beside what the others say. Bounded in spans and in bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latdiag.model.units import NS_PER_S
from latdiag.store.columns import Column, arrow_batch
from latdiag.watch.usual import Usual

#: Nothing came of a trace for so long: it is complete. Exporters send every 5 s (OpenTelemetry's
#: BatchSpanProcessor), so a request's servers speak within that of each other.
SETTLE_NS = 10 * NS_PER_S
#: A trace that goes on and on is taken apart all the same.
LONGEST_NS = 600 * NS_PER_S
#: Where a part of it is missing that is usual, it is waited for as long as a long answer takes.
PATIENCE_NS = 180 * NS_PER_S
MOST_SPANS, MOST_BYTES = 400_000, 256 << 20
#: Traces that were settled and are remembered, to tell a late span from the first of a trace.
REMEMBERED = 100_000
_COLUMNS = (
    *("kind", "foreign_name", "trace_id", "span_id", "parent_span_id"),
    *("start_ns", "end_ns", "replica", "labels"),
)


@dataclass(slots=True)
class Tally:
    """What became of spans: ``received == attributed + open + sum(dropped)`` at any time."""

    received: int = 0
    attributed: int = 0
    open: int = 0
    dropped: dict[str, int] = field(default_factory=dict)

    def drop(self, reason: str, spans: int) -> None:
        if spans:
            self.dropped[reason] = self.dropped.get(reason, 0) + spans

    @property
    def exact(self) -> bool:
        return self.received == self.attributed + self.open + sum(self.dropped.values())


@dataclass(slots=True)
class _Open:
    number: int
    first_ns: int
    last_ns: int
    names: int = 0


@dataclass(frozen=True, slots=True)
class Settled:
    """Spans of complete traces. ``batches``: arrow record batches; ``last_ns``: when each trace
    had its last span, by trace id; ``spans``: how many."""

    batches: tuple[Any, ...] = ()
    last_ns: Mapping[str, int] = field(default_factory=dict)
    spans: int = 0

    def joined(self, other: Settled) -> Settled:
        return Settled(
            (*self.batches, *other.batches),
            {**self.last_ns, **other.last_ns},
            self.spans + other.spans,
        )


class Ring:
    """Open traces. Instants are those of this machine's clock, as the caller counts them."""

    def __init__(
        self,
        tally: Tally,
        settle_ns: int = SETTLE_NS,
        most_spans: int = MOST_SPANS,
        most_bytes: int = MOST_BYTES,
        known: Callable[[str], bool] = bool,
    ) -> None:
        """``known``: whether the name of a span means something to a stack."""
        self.tally = tally
        self._usual = Usual(known)
        self.bytes = 0
        self._settle_ns = settle_ns
        self._most_spans, self._most_bytes = most_spans, most_bytes
        self._open: dict[str, _Open] = {}
        self._gone: OrderedDict[str, int] = OrderedDict()
        self._pieces: list[tuple[Any, NDArray[np.int64]]] = []
        self._next = 0

    @property
    def traces(self) -> int:
        return len(self._open)

    def add(self, columns: dict[str, Column], now_ns: int) -> None:
        """Take spans as ``SpanRows.take`` gives them."""
        traces = columns["trace_id"]
        numbers = np.empty(len(traces), dtype=np.int64)
        room = self._most_spans - self.tally.open
        full = room <= 0 or self.bytes >= self._most_bytes
        opened, gone, usual = self._open, self._gone, self._usual
        for at, (trace, name) in enumerate(zip(traces, columns["foreign_name"], strict=True)):
            one = opened.get(trace)
            if one is None:
                if trace in gone:
                    gone[trace] = usual.late(gone[trace], usual.bit(name))
                    numbers[at] = -1
                    continue
                if full or at >= room:
                    numbers[at] = -2
                    continue
                one = opened[trace] = _Open(self._next, now_ns, now_ns)
                self._next += 1
            elif at >= room + self._most_spans // 10:
                numbers[at] = -2  # even spans of a trace that is open are bounded
                continue
            one.last_ns = now_ns
            one.names |= usual.bit(name)
            numbers[at] = one.number
        tally = self.tally
        tally.received += len(traces)
        tally.drop("late", int((numbers == -1).sum()))
        tally.drop("full", int((numbers == -2).sum()))
        good = numbers >= 0
        taken = int(good.sum())
        if not taken:
            return
        batch = arrow_batch("evidence", columns).select(list(_COLUMNS))
        if taken < len(traces):
            batch, numbers = _filtered(batch, good), numbers[good]
        tally.open += taken
        self.bytes += batch.nbytes
        self._pieces.append((batch, numbers))

    def settled(self, now_ns: int, everything: bool = False) -> Settled:
        """The spans of traces that are complete by now, which leave the ring. They are still
        ``open`` in the tally until ``Tally`` is told what became of them."""
        done = {
            trace: one
            for trace, one in self._open.items()
            if everything or self._is_complete(one, now_ns)
        }
        if not done:
            return Settled()
        leaving = np.array([one.number for one in done.values()], dtype=np.int64)
        leaving.sort()
        batches, kept = [], []
        spans = 0
        for batch, numbers in self._pieces:
            place = np.searchsorted(leaving, numbers)
            out = leaving[np.minimum(place, len(leaving) - 1)] == numbers
            count = int(out.sum())
            spans += count
            if count == 0:
                kept.append((batch, numbers))
            elif count == len(numbers):
                batches.append(batch)
            else:
                batches.append(_filtered(batch, out))
                kept.append((_filtered(batch, ~out), numbers[~out]))
        self._pieces = kept
        self.bytes = sum(batch.nbytes for batch, _ in kept)
        for trace, one in done.items():
            del self._open[trace]
            self._gone[trace] = one.names
            self._usual.complete(one.names)
        while len(self._gone) > REMEMBERED:
            self._gone.popitem(last=False)
        return Settled(tuple(batches), {t: one.last_ns for t, one in done.items()}, spans)

    def _is_complete(self, one: _Open, now_ns: int) -> bool:
        if now_ns - one.first_ns >= LONGEST_NS:
            return True
        quiet = now_ns - one.last_ns
        if quiet < self._settle_ns:
            return False
        return quiet >= PATIENCE_NS or not self._usual.lacks(one.names)


def _filtered(batch: Any, chosen: NDArray[np.bool_]) -> Any:
    import pyarrow as pa

    return batch.filter(pa.array(chosen))
