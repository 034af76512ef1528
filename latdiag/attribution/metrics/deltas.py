"""What counters and histograms of servers say of a window: differences between two scrapes.

The instants between which a difference holds are those of the scrapes, per replica; nothing is
interpolated and no rate is formed. A series that was reset in the window says nothing of it: it
is left out, with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latdiag.store.evidence import Said

KINDS = ("counter", "gauge", "histogram")
#: The columns of the table ``evidence`` that are read here.
COLUMNS = (
    *("kind", "replica", "role", "foreign_name", "foreign_value", "labels", "value"),
    *("window_start_ns", "bucket_le", "bucket_count"),
)
PROCESS_START = "process_start_time_seconds"
#: A process start that is read twice, through a float, differs by less than this (seconds).
_SAME_START_S = 1.0
#: A sum of doubles that falls by less than this share has only been rounded.
_ROUNDED = 1e-9

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """One series at one scrape, as exposed. ``edge``: what caused the scrape. Of a histogram
    ``value`` is the sum, ``counts`` are cumulative and ``bounds`` end with +Inf."""

    replica: str
    role: str
    name: str
    kind: str
    labels: Labels
    at_ns: int
    edge: str
    value: float
    bounds: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Delta:
    """What one series gained between two scrapes of its replica.

    ``total``: of a counter what it counted, of a histogram the sum of what it observed, in the
    unit of the family; ``n``: of a histogram how many observations, else 0. ``counts``:
    cumulative, of the observations of the window alone. Of a gauge ``total`` is its value at the
    end and ``first`` the one at the beginning.
    """

    replica: str
    role: str
    name: str
    kind: str
    labels: Labels
    begin_ns: int
    end_ns: int
    total: float
    n: int = 0
    bounds: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    first: float = 0.0

    @property
    def mean(self) -> float | None:
        """The mean of what a histogram observed; None without an observation."""
        return self.total / self.n if self.n else None


@dataclass(frozen=True, slots=True)
class Left:
    """What says nothing of the window, and why; ``name`` is empty for the whole replica."""

    replica: str
    name: str
    labels: Labels
    why: str


@dataclass(frozen=True, slots=True)
class Deltas:
    """All series of all replicas over one window. ``whole``: replicas that lack nothing."""

    rows: tuple[Delta, ...]
    left: tuple[Left, ...]

    @property
    def replicas(self) -> tuple[str, ...]:
        """The replicas with at least one difference, sorted."""
        return tuple(sorted({row.replica for row in self.rows}))

    @property
    def whole(self) -> bool:
        return not self.left


def samples(columns: Mapping[str, Sequence[Any]]) -> list[Sample]:
    """The samples in columns of the table ``evidence`` (as ``columns_of`` of a scrape makes
    them); rows of other kinds are passed over."""
    n = len(columns.get("kind", ()))
    none: Sequence[Any] = [None] * n
    rows = zip(*(columns.get(name, none) for name in COLUMNS), strict=True)
    return [
        Sample(
            replica or "",
            role or "",
            name or "",
            kind,
            tuple(sorted((labels or {}).items())),
            int(at_ns or 0),
            edge or "",
            float(value),
            tuple(bounds if bounds is not None else ()),
            tuple(counts if counts is not None else ()),
        )
        for kind, replica, role, name, edge, labels, value, at_ns, bounds, counts in rows
        if kind in KINDS
        and value is not None
        and math.isfinite(value)
        and (kind != "histogram" or _is_histogram(bounds, counts))
    ]


def _is_histogram(bounds: Sequence[float] | None, counts: Sequence[int] | None) -> bool:
    """Whether buckets are cumulative and closed: a run is read like anything from outside."""
    return bool(
        bounds
        and counts
        and len(bounds) == len(counts)
        and bounds[-1] == math.inf
        and counts[0] >= 0
        and all(a < b for a, b in pairwise(bounds))
        and all(a <= b for a, b in pairwise(counts))
    )


class Reader:
    """Takes the samples of families that stacks know as a run's evidence goes by. There are few,
    and each is looked at alone."""

    kinds = KINDS
    columns = COLUMNS

    def __init__(self, families: Container[str]) -> None:
        self._families = families
        self.samples: list[Sample] = []

    def wanted(self, name: str) -> bool:
        return name in self._families

    def add(self, said: Said) -> None:
        self.samples += samples(_lists_of(said))


def _lists_of(said: Said) -> dict[str, list[Any]]:
    """One batch as plain columns."""
    texts, lists = said.columns.texts, said.columns.lists
    columns: dict[str, list[Any]] = {name: texts[name].tolist() for name in texts}
    columns["value"] = said.floats["value"].tolist()
    columns["window_start_ns"] = said.columns.ints["window_start_ns"].values.tolist()
    for name in ("bucket_le", "bucket_count"):
        ends = lists[name].offsets.tolist()
        items = lists[name].values.tolist()
        columns[name] = [items[a:b] for a, b in pairwise(ends)]
    labels = said.labels
    ends = labels.offsets.tolist()
    names = [labels.names[code] for code in labels.codes.tolist()]
    values = labels.values.tolist()
    columns["labels"] = [
        dict(zip(names[a:b], values[a:b], strict=True)) for a, b in pairwise(ends)
    ]
    return columns


def deltas(rows: Iterable[Sample], begin: str = "begin", end: str = "end") -> Deltas:
    """What every series gained from the scrape ``begin`` to the scrape ``end``.

    Per replica the last scrape of the edge ``end`` counts, and the last one of ``begin`` before
    it; scrapes in between show resets that both edges hide. A series that is not there at the
    beginning began at 0 in between (exporters make them when they are first used).
    """
    by_replica: dict[str, list[Sample]] = {}
    for row in rows:
        by_replica.setdefault(row.replica, []).append(row)
    found: list[Delta] = []
    left: list[Left] = []
    for replica, mine in sorted(by_replica.items()):
        window = _window(mine, begin, end)
        if isinstance(window, str):
            left.append(Left(replica, "", (), window))
            continue
        differences, lost = _differences(replica, mine, *window)
        found += differences
        left += lost
    return Deltas(tuple(found), tuple(left))


def _window(rows: list[Sample], begin: str, end: str) -> tuple[int, int] | str:
    """The instants of the two scrapes of a replica, or why there are none."""
    ends = {row.at_ns for row in rows if row.edge == end}
    if not ends:
        return f"it was not scraped at the end of the window ({end})"
    end_ns = max(ends)
    begins = {row.at_ns for row in rows if row.edge == begin and row.at_ns < end_ns}
    if not begins:
        return f"it was not scraped at the start of the window ({begin})"
    return max(begins), end_ns


def _differences(
    replica: str, rows: list[Sample], begin_ns: int, end_ns: int
) -> tuple[list[Delta], list[Left]]:
    """The differences of one replica, and what has none."""
    series: dict[tuple[str, Labels], list[Sample]] = {}
    for row in sorted(rows, key=lambda one: one.at_ns):
        if begin_ns <= row.at_ns <= end_ns:
            series.setdefault((row.name, row.labels), []).append(row)
    starts = [held for (name, _), held in series.items() if name == PROCESS_START]
    if any(_restarted(held) for held in starts):
        return [], [Left(replica, "", (), "its process restarted during the window")]
    found: list[Delta] = []
    left: list[Left] = []
    reset = ""
    for (name, labels), held in series.items():
        if name == PROCESS_START:
            continue
        outcome = _difference(held, begin_ns, end_ns)
        if isinstance(outcome, Delta):
            found.append(outcome)
        else:
            left.append(Left(replica, name, labels, outcome))
            reset = reset or (name if outcome == _FELL else "")
    if reset and not starts:
        # Without a start time one reset may stand for all: the others can have grown past their
        # old values since.
        why = f"{reset} fell, so its process may have restarted"
        return [], [Left(replica, "", (), why)]
    return found, left


def _restarted(held: list[Sample]) -> bool:
    return any(abs(b.value - a.value) > _SAME_START_S for a, b in pairwise(held))


_FELL = "its count fell during the window: it was reset"


def _difference(held: list[Sample], begin_ns: int, end_ns: int) -> Delta | str:
    """What a series gained over its samples in time order, or why that cannot be said."""
    last = held[-1]
    if last.at_ns != end_ns:
        return "it is missing at the end"
    first = held[0] if held[0].at_ns == begin_ns else None
    if any((a.kind, a.bounds) != (b.kind, b.bounds) for a, b in pairwise(held)):
        return "its type or its buckets changed"
    common = (last.replica, last.role, last.name, last.kind, last.labels, begin_ns, end_ns)
    before = first.value if first else 0.0
    if last.kind == "gauge":
        return Delta(*common, last.value, first=before)
    fell = any(b.value < a.value - _ROUNDED * abs(a.value) for a, b in pairwise(held))
    if last.kind == "counter":
        return _FELL if fell else Delta(*common, max(0.0, last.value - before))
    if any(min(_gained(a, b)) < 0 for a, b in pairwise(held)):
        return _FELL
    if fell:
        return "its sum fell but its count did not: it recorded negative values"
    gained = _gained(first, last) if first else last.counts
    if any(later < earlier for earlier, later in pairwise(gained)):
        return "its buckets were not all read at the same time"
    total = max(0.0, last.value - before)
    return Delta(*common, total, gained[-1], last.bounds, tuple(gained))


def _gained(before: Sample, after: Sample) -> tuple[int, ...]:
    return tuple(b - a for a, b in zip(before.counts, after.counts, strict=True))


def _lower(bounds: Sequence[float], place: int) -> float:
    """Lower edge of a bucket of durations: the first begins at 0."""
    return bounds[place - 1] if place else min(0.0, bounds[0])


def sum_bounds(
    bounds: Sequence[float], counts: Sequence[int], total: float, chosen: int
) -> tuple[float, float]:
    """Between what the sum of ``chosen`` of a histogram's observations lies, whichever they are.

    ``total`` is the sum of all. Each observation lies in its bucket, so the sum of any ``chosen``
    is at least that of the lower edges of the lowest, at most that of the upper edges of the
    highest; and what the others must have at least is not theirs.
    """
    n = counts[-1] if counts else 0
    if chosen >= n:
        return total, total
    inside = [counts[0] if counts else 0, *(b - a for a, b in pairwise(counts))]
    lows = [_lower(bounds, i) for i in range(len(bounds))]
    at_least = _partial(lows, inside, chosen)
    rest_least = _partial(lows, inside, n - chosen)
    uppers = list(bounds)[::-1]
    at_most = _partial(uppers, inside[::-1], chosen)
    rest_most = _partial(uppers, inside[::-1], n - chosen)
    low = max(at_least, total - rest_most, 0.0)
    high = min(at_most, total - rest_least, total)
    return min(low, high), max(low, high)


def _partial(edges: Sequence[float], inside: Sequence[int], chosen: int) -> float:
    """Sum of the edges of the first ``chosen`` observations in this order of buckets."""
    total, wanted = 0.0, chosen
    for edge, count in zip(edges, inside, strict=True):
        taken = min(count, wanted)
        if taken:
            total += edge * taken
            wanted -= taken
        if not wanted:
            break
    return total
