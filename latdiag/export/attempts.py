"""The chosen requests of a diagnosed run as columns, at the time of day at which they happened."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from latdiag.diagnosis.header import section, target_of
from latdiag.diagnosis.requests import (
    check_rows,
    label_of,
    members_of,
    read_workload,
    table_of,
)
from latdiag.diagnosis.several import diagnosed
from latdiag.export import links
from latdiag.export.choice import Choice, Wanted, choose
from latdiag.measurement.frame import IDS, Frame

if TYPE_CHECKING:
    import pandas as pd

    from latdiag.attribution.parts import Parts
    from latdiag.diagnosis.requests import Workload
    from latdiag.diagnosis.result import Result, Target
    from latdiag.store.batch import Batch, Ints
    from latdiag.store.run import Run

#: How requests of a frame are taken apart.
PartsOf = Callable[[Frame], "Parts | None"]
#: The latest end that OTLP and our own columns can both name, ns since 1970: in the year 2262.
_LAST_NS = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the requests' time. ``label``: its members, joined by +. ``ns``: one entry per
    request that could be taken apart; between ``lo`` and ``hi`` it lies by what is known of each
    request alone, None where that leaves no interval to state. ``bounded``: requests of which it
    is bounded only, not measured, whatever the grade of the part (an ACK that was delayed)."""

    label: str
    members: tuple[str, ...]
    grade: str
    evidence: str
    ns: NDArray[np.int64]
    lo: NDArray[np.int64] | None
    hi: NDArray[np.int64] | None
    bounded: NDArray[np.bool_]

    def grade_of(self, place: int) -> str:
        """Of one request."""
        return "D" if self.bounded[place] and self.grade == "A" else self.grade


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request. Times are ns; ``begin_ns``: since 1970. ``total_ns``: of its interval, from
    when it was due (or sent) to its end, ``lag_ns``: until it was sent, ``ttft_ns``: from then to
    the first token. ``parts``: its place in each ``Part``; None where it was not taken apart.
    None also stands for what is not known."""

    run: int
    request_id: str
    attempt: int
    scenario: str | None
    clock_id: str | None
    begin_ns: int
    total_ns: int
    lag_ns: int
    ttft_ns: int | None
    outcome: str
    status: int
    response_id: str | None
    trace_id: str | None
    span_id: str | None
    isl: int | None
    osl: int | None
    cached: int | None
    parts: int | None


@dataclass(frozen=True, slots=True)
class Origin:
    """A run that attempts are of. ``uid``: of this run and its copies alone. ``streams``: whether
    latdiag itself asked, which it always does for a stream."""

    uid: str
    target: Target
    streams: bool
    clock_half_ns: Mapping[str, int]


class Attempts:
    """``result``: of a run that was diagnosed. ``table``: a row for each chosen request, as
    ``latdiag requests`` lists them. ``choice``:
    which those are of all. ``unplaced``: chosen requests that no clock puts at a time of day since
    1970, or that were never sent; they are in the table alone. ``server_spans``: the span of a
    server in the trace that a request was sent in, by that trace."""

    def __init__(
        self, run: Run, wanted: Wanted, parts_of: PartsOf, result: Result | None = None
    ) -> None:
        self.result = result
        self.paths = run.paths
        more = _More()
        self._workload: Workload = read_workload(run, more)
        self._more = more
        parts = parts_of(self._workload.frame)
        whole = table_of(self._workload, parts)
        self.choice: Choice = choose(whole, wanted)
        self.table: pd.DataFrame = whole.iloc[self.choice.rows]
        self.table.attrs.update(whole.attrs)
        self.parts: list[Part] = []
        self._place: NDArray[np.int64] | None = None
        self._of_parts(parts)
        self.origins = [_origin(header, run.writers) for header in run.headers]
        rows = self._workload.at[self.choice.rows]
        begin, total = self._begin(rows), self._length(rows)
        placed = ~np.isnat(self._workload.start[rows]) & (begin > 0)
        placed[placed] &= total[placed] <= _LAST_NS - begin[placed]
        self._rows = rows[placed]
        self.unplaced = len(rows) - len(self._rows)
        self.server_spans = self._linked(run)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Attempt]:
        """The requests in the order of the table, those that are ``unplaced`` left out."""
        for first in range(0, len(self._rows), 10_000):
            yield from self._some(self._rows[first : first + 10_000])

    def _of_parts(self, parts: Parts | None) -> None:
        frame = self._workload.frame
        if parts is None or parts.row is None or parts.interval != "client_e2e":
            return
        check_rows(frame, parts)
        self._place = np.full(frame.n, -1, dtype=np.int64)
        self._place[parts.row] = np.arange(len(parts.row))
        self._total = parts.total
        for name, ns in parts.parts.items():
            source, members = parts.sources[name], members_of(parts, name)
            lo, hi = _interval(parts, name)
            bounded = parts.delayed if name == "network" else np.zeros(len(ns), dtype=bool)
            self.parts.append(
                Part(
                    *(label_of(parts, name), members, source.grade, source.evidence),
                    *(ns, lo, hi, bounded),
                )
            )

    def _linked(self, run: Run) -> dict[str, str]:
        frame = self._workload.frame.select(self._rows)
        ids = zip(frame.trace_id, frame.span_id, strict=True)
        reader = links.Reader({trace: span for trace, span in ids if links.is_trace(trace)})
        if len(self):
            run.read_evidence(reader)
        return reader.found

    def _begin(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """ns since 1970 at which each was due (or sent); without meaning where not placed."""
        start = self._workload.start[rows].astype(np.int64)
        begin: NDArray[np.int64] = start - self._workload.lag[rows]
        return begin

    def _places(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where each is among the requests that were taken apart; -1 where it is not."""
        return self._place[rows] if self._place is not None else np.full(len(rows), -1)

    def _length(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """ns from when each was due (or sent) to the last that is known of it."""
        frame, place = self._workload.frame.select(rows), self._places(rows)
        ended = np.where(frame.ended, frame.done, frame.sent)
        end = np.maximum.reduce([frame.sent, frame.last, frame.headers, ended])
        total: NDArray[np.int64] = end - frame.begin
        if self._place is not None and len(self._total):
            total = np.where(place >= 0, self._total[place], total)
        return total

    def _some(self, rows: NDArray[np.int64]) -> Iterator[Attempt]:
        frame, values = self._workload.frame.select(rows), self._workload.values
        begin, lag = self._begin(rows), self._workload.lag[rows]
        place, total = self._places(rows), self._length(rows)
        ttft = np.where(frame.sound, frame.first - frame.sent, -1)
        isl, osl = (
            np.where(values[name].known[rows], values[name].values[rows], -1)
            for name in ("isl", "osl")
        )
        attempt = values["attempt"].values[rows].tolist()
        columns = (
            *(self._more.run(rows).tolist(), frame.request_id, attempt, frame.scenario),
            *(frame.clock_id, begin.tolist(), total.tolist(), lag.tolist(), _known(ttft)),
            *(frame.outcome, frame.status.tolist(), *(getattr(frame, name) for name in IDS)),
            *(_known(isl), _known(osl), _known(self._more.cached(rows)), _known(place)),
        )
        yield from (Attempt(*row) for row in zip(*columns, strict=True))


def attempts_of(run: Run, wanted: Wanted) -> Attempts:
    """UsageFault for runs that cannot be read together, and for conditions that ask for what there
    is not."""
    result = diagnosed(run)
    return Attempts(run, wanted, lambda _frame: result.parts, result)


class _More:
    """Takes what a table of requests does not have."""

    columns = ("cached_tokens",)

    def __init__(self) -> None:
        self._runs: list[NDArray[np.int64]] = []
        self._cached: list[Ints] = []

    def add(self, batch: Batch) -> None:
        self._runs.append(np.full(batch.n, batch.run, dtype=np.int64))
        self._cached.append(batch.ints["cached_tokens"])

    def run(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.concatenate(self._runs)[rows]

    def cached(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """-1 where it is not known."""
        every = [np.where(one.valid, one.values, -1) for one in self._cached]
        found: NDArray[np.int64] = np.concatenate(every)[rows]
        return found


def _known(values: NDArray[np.int64]) -> list[int | None]:
    """None where a value is below zero."""
    return [value if value >= 0 else None for value in values.tolist()]


def _interval(
    parts: Parts, name: str
) -> tuple[NDArray[np.int64] | None, NDArray[np.int64] | None]:
    """Of each request: what the evidence leaves open, or 95 % of what other draws of it say. What
    servers measured per request is as it is."""
    ns = parts.parts[name]
    if name in parts.draws:
        lo, hi = np.quantile(parts.draws[name], (0.025, 0.975), axis=0)
        below, above = np.maximum(ns - lo, 0), np.maximum(hi - ns, 0)
    elif name in parts.slack:
        below, above = parts.slack[name]
    elif parts.sources[name].grade == "A":
        return ns, ns
    else:
        return None, None
    return ns - _ns(below), ns + _ns(above)


def _ns(slack: NDArray[np.float64]) -> NDArray[np.int64]:
    """Whole ns of what evidence leaves open; nothing is open for longer than 100 years."""
    most = 3.2e18
    whole: NDArray[np.int64] = np.rint(np.clip(np.nan_to_num(slack), 0, most)).astype(np.int64)
    return whole


def _origin(header: Mapping[str, object], writers: Sequence[Mapping[str, object]]) -> Origin:
    tool = section(header, "tool")
    uid = f"{header.get('created')}|{tool.get('verb')}|{header.get('command')}"
    half: dict[str, int] = {}
    for writer in writers:
        clock, samples = writer.get("clock_id"), writer.get("clock")
        if isinstance(clock, str) and isinstance(samples, list) and samples:
            width = max(int(sample[2]) for sample in samples)
            half[clock] = max(half.get(clock, 0), width // 2)
    return Origin(uid, target_of(header), tool.get("verb") in ("load", "probe"), half)
