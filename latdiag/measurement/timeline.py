"""What charts of a run show: times over time and by length, gaps between chunks, streams at once.

Memory does not grow with the tokens: gaps are counted in buckets of time and size, and only the
longest are kept. Requests keep a few numbers each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latdiag.measurement import measure
from latdiag.measurement.gap_counts import GapCounts
from latdiag.measurement.silences import LongGaps, Silence, silences_of
from latdiag.measurement.stages import DESIGNED
from latdiag.measurement.streams import Streams, pieces, read_streams
from latdiag.model.records import Outcome
from latdiag.model.units import NS_PER_MS, NS_PER_S

if TYPE_CHECKING:
    from latdiag.store.batch import Batch

#: Points of a line over time, of a distribution, and requests of a cloud of points.
STEPS, POINTS, CLOUD = 240, 200, 1_500
#: A step of time holds at least so many requests, where there are enough of them.
_A_STEP = 8
#: Groups of input lengths.
_GROUPS = 8
_LEVELS = (0.5, 0.95)


@dataclass(frozen=True, slots=True)
class Line:
    """Quantiles over time, ms; ``at``: the middle of each step, s of the run. None: nothing
    was there to measure."""

    at: tuple[float, ...] = ()
    p50: tuple[float | None, ...] = ()
    p95: tuple[float | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Distribution:
    """The share ``at`` of ``n`` values that is at most ``value`` ms."""

    n: int
    value: tuple[float, ...]
    at: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Lengths:
    """Requests by input length: of groups of alike size the lengths, how many, and the quantiles
    of TTFT, ms. ``isl``, ``ttft``: of requests drawn from all."""

    groups: tuple[tuple[int, int, int, float, float], ...] = ()
    isl: tuple[int, ...] = ()
    ttft: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Timeline:
    """Of the ``n`` requests of the workload that one clock stamped, of ``requests`` in all.

    ``streaming``, ``waiting``: requests at the instants ``at`` (s of the run) after and before
    their first token. ``silences``: pauses of all streams at once. ``request_id``: by the place of
    the row in reading order.
    """

    requests: int
    n: int
    ttft: Line
    icl: Line
    at: tuple[float, ...]
    streaming: tuple[int, ...]
    waiting: tuple[int, ...]
    silences: tuple[Silence, ...]
    distributions: dict[str, Distribution]
    lengths: Lengths
    one_token: bool
    request_id: NDArray[np.object_] = field(repr=False, compare=False)


_COLUMNS = ("sent", "first", "end", "ttft", "timed", "e2e", "whole", "isl", "key", "workload")


class Reader:
    """Takes the rows of a run as they go by."""

    columns = tuple(dict.fromkeys((*measure.COLUMNS, "stage", "request_id")))

    def __init__(self) -> None:
        self._pieces: list[dict[str, NDArray[Any]]] = []
        self._ids: list[NDArray[np.object_]] = []
        self._keys: dict[tuple[int, str], int] = {}
        self._rows = 0
        self._gaps: dict[int, tuple[GapCounts, LongGaps]] = {}
        self._one_token = True
        #: by clock and run: when its first request was due
        self._origin: dict[int, int] = {}

    def add(self, batch: Batch) -> None:
        for piece in pieces(batch):
            self._add(piece, read_streams(piece))

    def _add(self, batch: Batch, streams: Streams) -> None:
        times, ok = measure.of_requests(batch, streams), batch.texts["outcome"] == Outcome.OK.value
        sent, done, due = batch.ints["sent_ns"], batch.ints["done_ns"], batch.ints["due_ns"]
        workload = ~np.isin(batch.texts["stage"], DESIGNED) & sent.valid
        isl, wanted = batch.ints["isl"], batch.ints["isl_wanted"]
        end = np.maximum.reduce(
            [sent.values, streams.last, np.where(done.valid, done.values, sent.values)]
        )
        begin = np.where(due.valid, np.minimum(due.values, sent.values), sent.values)
        key = self._keys_of(batch)
        for each in set(key[sent.valid].tolist()):
            since = int(begin[(key == each) & sent.valid].min())
            self._origin[each] = min(since, self._origin.get(each, since))
        self._pieces.append(
            {
                "sent": sent.values,
                "first": streams.first,
                "end": end,
                "ttft": times["ttft"].values,
                "timed": times["ttft"].valid & ok,
                "e2e": times["e2e"].values,
                "whole": times["e2e"].valid & ok,
                "isl": np.where(isl.valid, isl.values, np.where(wanted.valid, wanted.values, 0)),
                "key": key,
                "workload": workload,
            }
        )
        self._ids.append(batch.texts["request_id"])
        self._one_token &= streams.itl.values is streams.icl.values
        self._add_gaps(batch, streams, workload, key)

    def _keys_of(self, batch: Batch) -> NDArray[np.int64]:
        """A number for each clock of each run: instants of two are never set side by side."""
        clocks = batch.texts["clock_id"]
        found = np.zeros(batch.n, dtype=np.int64)
        for clock in set(clocks.tolist()):
            name = (batch.run, str(clock))
            found[clocks == clock] = self._keys.setdefault(name, len(self._keys))
        return found

    def _add_gaps(
        self,
        batch: Batch,
        streams: Streams,
        workload: NDArray[np.bool_],
        key: NDArray[np.int64],
    ) -> None:
        stamps, offsets, _, exact = streams.arrivals
        sizes = np.diff(offsets)
        sound = np.repeat(workload & ~batch.bools["clock_step"], sizes)
        of = np.repeat(key, sizes)
        row = np.repeat(self._rows + np.arange(batch.n), sizes)
        self._rows += batch.n
        kept = exact[1:] & exact[:-1] & sound[1:] & (row[1:] == row[:-1])
        gaps, at, of, row = np.diff(stamps)[kept], stamps[1:][kept], of[1:][kept], row[1:][kept]
        for each in set(key.tolist()):
            mine = of == each
            counts, longest = self._gaps.setdefault(each, (GapCounts(), LongGaps()))
            whole = bool(mine.all())
            taken = (gaps, at, row) if whole else (gaps[mine], at[mine], row[mine])
            counts.add(taken[0], taken[1])
            longest.add(*taken)

    def result(self) -> Timeline:
        """Of all rows so far; of several clocks, the one with the most requests."""
        rows = {
            name: np.concatenate([piece.pop(name) for piece in self._pieces])
            if self._pieces
            else np.zeros(0, dtype=np.int64)
            for name in _COLUMNS
        }
        ids = np.concatenate(self._ids) if self._ids else np.zeros(0, dtype=object)
        ours = rows["workload"].astype(bool)
        total = int(ours.sum())
        key = 0
        if total:
            keys, counts = np.unique(rows["key"][ours], return_counts=True)
            key = int(keys[counts.argmax()])
            ours &= rows["key"] == key
        mine = {name: column[ours] for name, column in rows.items()}
        origin = self._origin.get(key, 0)
        gaps, longest = self._gaps.get(key, (GapCounts(), LongGaps()))
        timed, whole = mine["timed"].astype(bool), mine["whole"].astype(bool)
        at, streaming, waiting = _at_once(mine, origin)
        found = {
            "ttft": _distribution(mine["ttft"][timed]),
            "icl": Distribution(*gaps.distribution(POINTS)),
            "e2e": _distribution(mine["e2e"][whole]),
        }
        return Timeline(
            requests=total,
            n=len(mine["sent"]),
            ttft=_line(mine["sent"][timed], mine["ttft"][timed], origin),
            icl=Line(*gaps.over_time(origin, STEPS)),
            at=at,
            streaming=streaming,
            waiting=waiting,
            silences=silences_of(longest, mine["first"], mine["end"], gaps.median(), origin),
            distributions={name: each for name, each in found.items() if each.n},
            lengths=_lengths(mine["isl"][timed], mine["ttft"][timed]),
            one_token=self._one_token,
            request_id=ids,
        )


def _line(at: NDArray[np.int64], values: NDArray[np.int64], origin: int) -> Line:
    """Each request where they are few, else the quantiles of each step of time."""
    n = len(at)
    if not n:
        return Line()
    order = np.argsort(at, kind="stable")
    at, values = at[order], values[order]
    if n <= STEPS:
        each = tuple((values / NS_PER_MS).tolist())
        return Line(tuple(_seconds(at, origin)), each, (None,) * n)
    steps = min(STEPS, n // _A_STEP)
    span = int(at[-1] - at[0]) + 1
    width = span / steps
    step = np.minimum(((at - at[0]) / width).astype(np.int64), steps - 1)
    ranked = values[np.lexsort((values, step))]
    bounds = np.searchsorted(step, np.arange(steps + 1))
    sizes = np.diff(bounds)
    since = int(at[0]) - origin
    middles = tuple(((since + (np.arange(steps) + 0.5) * width) / NS_PER_S).tolist())
    lines: list[tuple[float | None, ...]] = []
    for q in _LEVELS:
        found = ranked[np.minimum(bounds[:-1] + _rank(sizes, q), n - 1)] / NS_PER_MS
        lines.append(
            tuple(v if size else None for v, size in zip(found.tolist(), sizes, strict=True))
        )
    return Line(middles, *lines)


def _rank(sizes: NDArray[np.int64], q: float) -> NDArray[np.int64]:
    """The 0-based place of the q-quantile among so many ranked values."""
    found: NDArray[np.int64] = np.maximum(np.ceil(sizes * q - 1e-9).astype(np.int64) - 1, 0)
    return found


def _seconds(at: NDArray[np.int64], origin: int) -> list[float]:
    found: list[float] = ((at - origin) / NS_PER_S).tolist()
    return found


def _distribution(values: NDArray[np.int64]) -> Distribution:
    """Its steps at most ``POINTS`` times, as close to the largest as to the others."""
    ranked = np.sort(values)
    n = len(ranked)
    if not n:
        return Distribution(0, (), ())
    even = np.linspace(0, n - 1, POINTS // 2)
    # Half of the points lie in the slowest tenth, which is looked at.
    slow = np.linspace(0.9 * (n - 1), n - 1, POINTS // 2)
    places = np.unique(np.rint(np.concatenate((even, slow))).astype(np.int64))
    shares = (places + 1) / n
    return Distribution(n, tuple((ranked[places] / NS_PER_MS).tolist()), tuple(shares.tolist()))


def _at_once(
    rows: dict[str, NDArray[Any]], origin: int
) -> tuple[tuple[float, ...], tuple[int, ...], tuple[int, ...]]:
    """(Instants in s, requests that stream then, requests that wait for their first token)."""
    sent, first, end = rows["sent"], rows["first"], rows["end"]
    if not len(sent):
        return (), (), ()
    begun = np.where((first > 0) & (first >= sent), first, end)
    end = np.maximum(end, begun)
    since, until = int(sent.min()), int(end.max())
    if until <= since:
        return (), (), ()
    at = since + np.linspace(0, until - since, 2 * STEPS + 1).astype(np.int64)[1::2]
    counts = [np.searchsorted(np.sort(each), at, side="right") for each in (sent, begun, end)]
    streaming, waiting = counts[1] - counts[2], counts[0] - counts[1]
    return tuple(_seconds(at, origin)), tuple(streaming.tolist()), tuple(waiting.tolist())


def _lengths(isl: NDArray[np.int64], ttft: NDArray[np.int64]) -> Lengths:
    known = isl > 0
    isl, ttft = isl[known], ttft[known]
    n = len(isl)
    if n < 2:
        return Lengths()
    order = np.lexsort((ttft, isl))
    ranked = isl[order]
    # Equal lengths stay together: a group begins where the length changes.
    edges = np.searchsorted(ranked, ranked[np.linspace(0, n - 1, _GROUPS + 1).astype(int)[1:-1]])
    bounds = [0, *sorted({int(each) for each in edges} - {0}), n]
    groups = []
    for lo, hi in pairwise(bounds):
        values = np.sort(ttft[order[lo:hi]]) / NS_PER_MS
        places = [int(_rank(np.array([hi - lo]), q)[0]) for q in _LEVELS]
        p50, p95 = (float(values[place]) for place in places)
        groups.append((int(ranked[lo]), int(ranked[hi - 1]), hi - lo, p50, p95))
    drawn: Sequence[int] | NDArray[np.int64] = np.arange(n)
    if n > CLOUD:
        drawn = np.sort(np.random.default_rng(n).choice(n, CLOUD, replace=False))
    points = (ttft[drawn] / NS_PER_MS).tolist()
    return Lengths(tuple(groups), tuple(isl[drawn].tolist()), tuple(points))
