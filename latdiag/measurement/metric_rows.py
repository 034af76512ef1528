"""The values of each metric of one run, row after row in time order: what is compared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from latdiag.measurement import measure
from latdiag.measurement.stages import DESIGNED, WORKLOAD
from latdiag.measurement.streams import pieces
from latdiag.model.metrics import METRICS
from latdiag.stats.estimate import Estimate
from latdiag.stats.sample import EXACT_LIMIT, Sample

if TYPE_CHECKING:
    from latdiag.store.batch import Batch

#: What ``Reader`` reads; ask the store for these.
COLUMNS = tuple(dict.fromkeys((*measure.COLUMNS, "stage", "scenario")))
#: Metrics that are a total over the time of a run: there is no row to draw anew.
TOTALS = ("output_throughput", "request_rate")
#: All that can be compared.
COMPARABLE = (*(m.name for m in METRICS if m.per != "run"), *TOTALS)


@dataclass(frozen=True, slots=True)
class MetricRows:
    """``values`` (int64 ns) of rows in time order, ``sizes`` of them to a row; None: one each.

    ``left_out``: values that were not kept as they are, because there were too many.
    """

    values: NDArray[np.int64]
    sizes: NDArray[np.int64] | None
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Length:
    """Tokens of the rows that state them: how many rows, their mean, and its standard error."""

    n: int
    mean: float
    error: float


@dataclass(frozen=True, slots=True)
class Rows:
    """A run's workload, without warm-up and designed stages.

    ``metrics``: by name, the rows of each independent segment. ``total``: (sum, seconds) behind
    each of ``TOTALS``. ``stated``: the statistics of a metric where its rows were not kept.
    ``rate``: requests sent per second within segments by a schedule, and how many gaps between
    requests that rests on; (0, 0) in closed loop. ``open_loop``: most were due at an instant;
    None without rows. ``sending``: (clock, scenario, requests, first and last instant), which no
    other run has.
    """

    metrics: dict[str, tuple[MetricRows, ...]]
    total: dict[str, tuple[int, float]]
    stated: dict[str, dict[str, Estimate]]
    isl: Length
    osl: Length
    rate: tuple[float, int]
    open_loop: bool | None
    sending: tuple[tuple[str, str, int, int, int], ...]
    requests: int
    failed: int


class Reader:
    """Takes the rows of a run as they go by; any split of them gives the same."""

    columns = COLUMNS

    def __init__(self) -> None:
        self._tally = measure.Tally(quantiles=(0.95,))
        self._segments: dict[str, measure.Tally] = {}
        self._lengths: dict[str, list[NDArray[np.int64]]] = {"isl": [], "osl": []}
        #: by clock and scenario: requests, first and last instant of sending
        self._sending: dict[tuple[str, str], tuple[int, int, int]] = {}
        self._due = 0

    def add(self, batch: Batch) -> None:
        aside = np.isin(batch.texts["stage"], DESIGNED)
        batch = batch.select(~aside) if aside.any() else batch
        if not batch.n:
            return
        self._note(batch)
        for piece in pieces(batch):
            self._tally.add(piece)
        for name, part in _segments(batch):
            segment = self._segments.setdefault(name, measure.Tally(quantiles=(0.95,)))
            segment.add(part)

    def _note(self, batch: Batch) -> None:
        """What goes by besides the metrics."""
        for name, into in self._lengths.items():
            column = batch.ints[name]
            into.append(column.values[column.valid])
        self._due += int(batch.ints["due_ns"].valid.sum())
        sent = batch.ints["sent_ns"]
        keys = list(zip(batch.texts["clock_id"], batch.texts["scenario"], strict=True))
        for key in set(keys):
            here = sent.valid & [one == key for one in keys]
            instants = sent.values[here]
            if len(instants):
                place = (str(key[0]), str(key[1] or ""))
                n, first, last = self._sending.get(place, (0, int(instants[0]), int(instants[0])))
                self._sending[place] = (
                    n + len(instants),
                    min(first, int(instants.min())),
                    max(last, int(instants.max())),
                )

    def rows(self) -> Rows:
        """All of the rows so far."""
        found = self._tally.result()
        counts, seconds = found.counts, found.span_ns / 1e9
        apart = [self._segments[name] for name in sorted(self._segments)] or [self._tally]
        return Rows(
            metrics={
                m.name: tuple(_rows(each.samples[m.name]) for each in apart)
                for m in METRICS
                if m.per != "run"
            },
            total={
                "output_throughput": (counts.output_tokens_ok, seconds),
                "request_rate": (counts.ok, seconds),
            },
            stated={name: dict(of) for name, of in found.statistics.items()},
            isl=self._length("isl"),
            osl=self._length("osl"),
            rate=self._rate(),
            open_loop=2 * self._due > counts.requests if counts.requests else None,
            sending=tuple(sorted((*key, *of) for key, of in self._sending.items())),
            requests=counts.requests,
            failed=sum(counts.failed.values()),
        )

    def _length(self, name: str) -> Length:
        found = np.concatenate([*self._lengths[name], np.zeros(0, dtype=np.int64)])
        n = len(found)
        error = float(found.std(ddof=1)) / n**0.5 if n > 1 else 0.0
        return Length(n, float(found.mean()) if n else 0.0, error)

    def _rate(self) -> tuple[float, int]:
        if not self._due:
            return 0.0, 0
        spans = [(n - 1, last - first) for n, first, last in self._sending.values() if n > 1]
        gaps, ns = sum(n for n, _ in spans), sum(span for _, span in spans)
        return (gaps * 1e9 / ns, gaps) if ns > 0 else (0.0, 0)


def read_rows(batches: Iterable[Batch]) -> Rows:
    """Read all batches (columns ``COLUMNS``) once."""
    reader = Reader()
    for batch in batches:
        reader.add(batch)
    return reader.rows()


def _segments(batch: Batch) -> Iterator[tuple[str, Batch]]:
    """The rows of a probe's workload, segment by segment: the queue of one is gone before the
    next begins. A load has none."""
    ours = batch.texts["stage"] == WORKLOAD
    for name in sorted({str(each) for each in batch.texts["scenario"][ours]}):
        yield name, batch.select(ours & (batch.texts["scenario"].astype(str) == name))


def _rows(sample: Sample) -> MetricRows:
    """In time order; equal instants are told apart by the values, not by who wrote them."""
    if not sample.n or sample.n > EXACT_LIMIT:
        nothing = np.zeros(0, dtype=np.int64)
        return MetricRows(nothing, None, sample.n)
    values, sizes, order = sample.exact()
    if sizes is None:
        return MetricRows(values[np.lexsort((values, order))], None)
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1])).astype(np.int64)
    places = np.lexsort((np.add.reduceat(values, starts), sizes, order))
    sizes = sizes[places].astype(np.int64)
    ends = np.cumsum(sizes)
    inside = np.arange(int(ends[-1])) + np.repeat(starts[places] - (ends - sizes), sizes)
    return MetricRows(values[inside], sizes)
