"""Sums of requests over half minutes: what is kept of them, whatever their number.

Of each bin: exact sums by component for all requests, for each model, for each replica of a model,
each route and each tenant; counts over fixed buckets of time; and a random sample of rows, for
what sums cannot say (intervals, the slowest requests).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.parts import Source
from latdiag.model.components import COMPONENTS
from latdiag.model.units import NS_PER_S
from latdiag.watch.requests import Requests

BIN_NS = 30 * NS_PER_S
#: Bins that are kept: an hour, and the one that is still filled.
BINS = 121
SAMPLE = 500
_N = len(COMPONENTS)
#: Bounds of counts over time: 0.1 ms to 1,000 s, 8 % apart.
EDGES = np.geomspace(1e5, 1e12, 211).astype(np.int64)
#: (dimension, model or value, replica): ("all", "", ""), ("model", "m", ""), ...
Key = tuple[str, str, str]
ALL: Key = ("all", "", "")


@dataclass(slots=True)
class Cell:
    """Sums over requests. By component: ``whole`` ns, ``early`` ns until the first token,
    ``counts`` requests that have any say of it, ``timed`` those with a first token. ``steps``:
    output tokens after the first of requests that state them, ``stream`` their ns by component.
    ``prompt``: tokens, of ``prompts`` requests. ``e2e``, ``ttft``, ``tpot``: counts by ``EDGES``.
    """

    n: int = 0
    whole: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_N, np.int64))
    early: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_N, np.int64))
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_N, np.int64))
    timed: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_N, np.int64))
    steps: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_N, np.int64))
    stream: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_N, np.int64))
    prompt: int = 0
    prompts: int = 0
    e2e: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(EDGES) + 1, np.int64))
    ttft: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(EDGES) + 1, np.int64))
    tpot: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(EDGES) + 1, np.int64))

    def add(self, other: Cell) -> None:
        for name in ("n", "prompt", "prompts"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in _ARRAYS:
            getattr(self, name).__iadd__(getattr(other, name))


_ARRAYS = ("whole", "early", "counts", "timed", "steps", "stream", "e2e", "ttft", "tpot")


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows drawn at random: ``whole`` and ``early`` (rows, components), the rest one a row."""

    draw: NDArray[np.float64]
    at_ns: NDArray[np.int64]
    total: NDArray[np.int64]
    ttft: NDArray[np.int64]
    whole: NDArray[np.int64]
    early: NDArray[np.int64]

    @classmethod
    def joined(cls, several: Iterable[Sample], most: int) -> Sample:
        """At most ``most`` of their rows, each as likely as any other."""
        pieces = list(several)
        columns = {
            name: np.concatenate([getattr(one, name) for one in pieces])
            for name in ("draw", "at_ns", "total", "ttft", "whole", "early")
        }
        draw = columns["draw"]
        if len(draw) > most:
            keep = np.argpartition(draw, most)[:most]
            columns = {name: column[keep] for name, column in columns.items()}
        return cls(**columns)


@dataclass(slots=True)
class Bin:
    """``seen``: requests, ``left`` those that could not be taken apart, by reason. ``merged``:
    components that were told together. ``weight``: how many requests a row of ``sample`` stands
    for, by its place in time, is ``cells[ALL].n / len(sample)``."""

    number: int
    seen: int = 0
    left: dict[str, int] = field(default_factory=dict)
    cells: dict[Key, Cell] = field(default_factory=dict)
    merged: set[tuple[str, ...]] = field(default_factory=set)
    sample: Sample | None = None


class Bins:
    """The last hour. ``sources``: what each component rested on last."""

    def __init__(self, seed: int = 0) -> None:
        self.bins: deque[Bin] = deque(maxlen=BINS)
        self.sources: dict[str, Source] = {}
        self._random = np.random.default_rng(seed)

    def at(self, number: int) -> Bin | None:
        """The bin of this number, made if it is new; None if it is too old."""
        if not self.bins or number > self.bins[-1].number:
            begin = self.bins[-1].number + 1 if self.bins else number
            for each in range(max(begin, number - BINS + 1), number + 1):
                self.bins.append(Bin(each))
        place = number - self.bins[0].number
        return self.bins[place] if place >= 0 else None

    def add(self, requests: Requests) -> None:
        """Sum up requests that were taken apart, labels and replicas folded already."""
        if requests.left:
            into = self.at(requests.left_ns // BIN_NS)
            for reason, n in requests.left.items():
                if into is not None:
                    into.seen += n
                    into.left[reason] = into.left.get(reason, 0) + n
        if not requests.n or requests.parts is None:
            return
        self.sources.update(requests.parts.sources)
        merged = {s.members for s in requests.parts.sources.values() if s.members}
        rows = rows_of(requests)
        numbers = requests.at_ns // BIN_NS
        for number in np.unique(numbers).tolist():
            into = self.at(number)
            if into is None:
                continue
            mine = np.flatnonzero(numbers == number)
            into.seen += len(mine)
            into.merged |= merged
            self._sum(into, rows, mine)
            sample = Sample(
                self._random.random(len(mine)),
                *(rows.at_ns[mine], rows.total[mine], rows.ttft[mine]),
                *(rows.whole[mine], rows.early[mine]),
            )
            before = [into.sample] if into.sample is not None else []
            into.sample = Sample.joined([*before, sample], SAMPLE)

    def _sum(self, into: Bin, rows: Rows, mine: NDArray[np.int64]) -> None:
        _add(into, ALL, rows, mine)
        models = rows.labels["model"][mine]
        for model, chosen in _groups(models):
            _add(into, ("model", model, ""), rows, mine[chosen])
            _add_replicas(into, model, rows, mine[chosen])
        for name in rows.labels.keys() - {"model"}:
            for value, chosen in _groups(rows.labels[name][mine]):
                if value:
                    _add(into, (name, value, ""), rows, mine[chosen])


@dataclass(frozen=True, slots=True)
class Rows:
    """Requests as matrices (rows, components), ns."""

    at_ns: NDArray[np.int64]
    total: NDArray[np.int64]
    ttft: NDArray[np.int64]
    timed: NDArray[np.bool_]
    whole: NDArray[np.int64]
    early: NDArray[np.int64]
    steps: NDArray[np.int64]
    prompt: NDArray[np.int64]
    by: Mapping[str, NDArray[np.object_]]
    labels: Mapping[str, NDArray[np.object_]]


def rows_of(requests: Requests) -> Rows:
    parts = requests.parts
    assert parts is not None
    whole, early = (np.zeros((requests.n, _N), np.int64) for _ in range(2))
    for at, name in enumerate(COMPONENTS):
        if name in parts.parts:
            whole[:, at] = parts.parts[name]
        inside = parts.within.get("client_ttft", {})
        if name in inside:
            early[:, at] = np.where(requests.timed, inside[name], 0)
    steps = np.where(requests.timed, np.maximum(requests.tokens - 1, 0), 0)
    return Rows(
        *(requests.at_ns, parts.total, parts.ttft, requests.timed, whole, early),
        *(steps, requests.prompt, requests.by, requests.labels),
    )


def _groups(values: NDArray[np.object_]) -> Iterable[tuple[str, NDArray[np.int64]]]:
    distinct, codes = np.unique(values.astype(str), return_inverse=True)
    for code, value in enumerate(distinct.tolist()):
        yield value, np.flatnonzero(codes == code)


def _add(into: Bin, key: Key, rows: Rows, mine: NDArray[np.int64]) -> None:
    cell = into.cells.setdefault(key, Cell())
    timed, stated = mine[rows.timed[mine]], mine[rows.steps[mine] > 0]
    cell.n += len(mine)
    cell.whole += rows.whole[mine].sum(axis=0)
    cell.counts += len(mine)
    cell.early += rows.early[timed].sum(axis=0)
    cell.timed += len(timed)
    cell.steps += int(rows.steps[stated].sum())
    cell.stream += (rows.whole[stated] - rows.early[stated]).sum(axis=0)
    told = mine[rows.prompt[mine] > 0]
    cell.prompt += int(rows.prompt[told].sum())
    cell.prompts += len(told)
    cell.e2e += counted(rows.total[mine])
    cell.ttft += counted(rows.ttft[timed])
    after = (rows.total[stated] - rows.ttft[stated]) // rows.steps[stated]
    cell.tpot += counted(after)


def _add_replicas(into: Bin, model: str, rows: Rows, mine: NDArray[np.int64]) -> None:
    """Each component counts for the replica that it was spent at."""
    for at, component in enumerate(COMPONENTS):
        if component not in rows.by:
            continue
        for replica, chosen in _groups(rows.by[component][mine]):
            if not replica:
                continue
            these = mine[chosen]
            cell = into.cells.setdefault(("replica", model, replica), Cell())
            timed, stated = these[rows.timed[these]], these[rows.steps[these] > 0]
            cell.n = max(cell.n, int(cell.counts[at]) + len(these))
            cell.whole[at] += rows.whole[these, at].sum()
            cell.counts[at] += len(these)
            cell.early[at] += rows.early[timed, at].sum()
            cell.timed[at] += len(timed)
            cell.steps[at] += rows.steps[stated].sum()
            cell.stream[at] += (rows.whole[stated, at] - rows.early[stated, at]).sum()


def counted(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many values lie below each of ``EDGES``, and beyond the last."""
    place = np.searchsorted(EDGES, values, side="left")
    return np.bincount(place, minlength=len(EDGES) + 1).astype(np.int64)


def quantile(counts: NDArray[np.int64], level: float) -> float | None:
    """ns; within 8 % of the true one. None where nothing was counted."""
    total = int(counts.sum())
    if not total:
        return None
    reached = np.cumsum(counts)
    place = int(np.searchsorted(reached, level * total, side="left"))
    place = min(place, len(EDGES) - 1)
    low = float(EDGES[place - 1]) if place else 0.0
    inside = level * total - (float(reached[place - 1]) if place else 0.0)
    return low + (float(EDGES[place]) - low) * min(1.0, inside / max(1, int(counts[place])))
