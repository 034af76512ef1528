"""What happens to a world while it is probed, and what an answer says of that.

A world states exactly what changes in it, when, and by how much (``Happening``). It is *there* to
be named where the requests themselves bear it: enough of them on both sides, and by enough.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from latdiag.measurement.stages import WORKLOAD, PathStage, Stage

if TYPE_CHECKING:
    from .client import Row

#: Requests of the workload on each side of a change; by how much it changes what they take.
FEWEST, CLEAR = 8, 1.35
#: How far a stated instant may be off, of the time over which the workload is sent, and at least.
NEAR, NEAR_S = 0.15, 2.0
#: How far a stated factor, or a capacity, may be off.
FACTOR, CAPACITY = 0.25, 0.10
#: More is asked than this times the capacity: overloaded; less than the other: not.
OVER, UNDER = 1.2, 1.0
S = 1_000_000_000


@dataclass(slots=True)
class Turn:
    """When something changes: at this share of a segment of the workload. ``at``, ``until``: ns,
    set once that segment begins; the far future before."""

    segment: int
    share: float
    lasts: float = 0.0
    at: int = 1 << 62
    until: int = 1 << 62

    def opened(self, stage: Stage | PathStage, now: int) -> None:
        if isinstance(stage, Stage) and stage.name == WORKLOAD and stage.segment == self.segment:
            sent = stage.shots[-1].at_ns
            self.at = now + round(self.share * sent)
            if self.lasts:
                self.until = self.at + round(self.lasts * sent)


@dataclass(slots=True)
class Happening:
    """``kind``: overload, cold_start, step, drift or spell. ``turn``: when; None: over the whole
    run. ``of``: what changes: speed, places or others. ``speed``: a factor of all durations, by
    the instant; ``capacity``: requests/s."""

    kind: str
    turn: Turn | None = None
    of: str = "speed"
    speed: Callable[[int], float] = lambda now: 1.0
    capacity: float = 0.0

    @property
    def factor(self) -> float:
        """From before the turn to after it."""
        assert self.turn is not None
        return self.speed(self.turn.at) / self.speed(self.turn.at - 1)


@dataclass(frozen=True, slots=True)
class Named:
    """What an answer names: seconds from the first request of the run."""

    kind: str
    since: float = 0.0
    until: float = 0.0
    since_lo: float = 0.0
    factor: float = 1.0
    value: float = 0.0


@dataclass(frozen=True, slots=True)
class Noticed:
    """``there``: happenings that the requests bear; of these ``named``, and ``right`` in kind,
    time and size. ``false``: names of what did not happen."""

    there: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    right: tuple[str, ...] = ()
    false: tuple[str, ...] = ()


def named_in(result: Mapping[str, Any]) -> list[Named]:
    """From the JSON of a result."""
    course = result.get("course") or {}
    found = []
    if more := course.get("overload"):
        found.append(Named("overload", value=more["served_rate"]))
    for each in course.get("changes") or ():
        found.append(
            Named(each["kind"], each["from_s"], each["until_s"], each["from_lo_s"], each["factor"])
        )
    return found


def noticed(
    said: Sequence[Named], happened: Sequence[Happening], rows: Sequence[Row], run: Sequence[Row]
) -> Noticed:
    """``rows``: of the workload; ``run``: all of them."""
    there = [each for each in happened if _is_there(each, rows, run)]
    origin = min((row.begin for row in run), default=0)
    named, right, explained = [], [], set()
    span = (max(row.begin for row in rows) - min(row.begin for row in rows)) / S if rows else 0.0
    for each in happened:
        near = [n for n in said if _same(n, each, rows, origin, span)]
        explained |= {id(n) for n in near}
        if each in there and near:
            named.append(each.kind)
            if any(n.kind == each.kind and _sized(n, each) for n in near):
                right.append(each.kind)
    false = tuple(n.kind for n in said if id(n) not in explained)
    return Noticed(tuple(e.kind for e in there), tuple(named), tuple(right), false)


def _is_there(each: Happening, rows: Sequence[Row], run: Sequence[Row]) -> bool:
    served = [row for row in rows if row.ok]
    if each.kind == "overload":
        return len(served) >= 2 * FEWEST and offered(rows) > OVER * each.capacity
    if each.turn is None:
        # Of the probe's own stages too.
        speeds = np.array([each.speed(row.begin) for row in run])
        return bool(np.quantile(speeds, 0.9) / np.quantile(speeds, 0.1) >= CLEAR)
    inside = [row for row in served if each.turn.at <= row.begin < each.turn.until]
    outside = [row for row in served if not each.turn.at <= row.begin < each.turn.until]
    if min(len(inside), len(outside)) < FEWEST:
        return False
    if each.of == "speed":
        return max(each.factor, 1 / each.factor) >= CLEAR
    costs = [_cost(group) for group in (inside, outside)]
    return max(costs) / min(costs) >= CLEAR


def _cost(rows: Sequence[Row]) -> float:
    """Time over that of the same requests alone, in truth."""
    truths = [row.truth() for row in rows]
    return sum(t.total for t in truths) / max(sum(t.alone for t in truths), 1)


def _same(said: Named, each: Happening, rows: Sequence[Row], origin: int, span: float) -> bool:
    """Whether an answer may mean it."""
    if (said.kind == "overload") != (each.kind == "overload"):
        return False
    if each.kind == "overload":
        return offered(rows) > UNDER * each.capacity
    if each.turn is None:
        return each.of != "speed" or said.kind != "spell"
    near = max(NEAR_S, NEAR * span)
    at = (each.turn.at - origin) / S
    ends = [at] if each.turn.until >= 1 << 61 else [at, (each.turn.until - origin) / S]
    stated = [said.since_lo, said.since, said.until]
    return any(abs(one - other) <= near for one in ends for other in stated)


def _sized(said: Named, each: Happening) -> bool:
    if each.kind == "overload":
        return abs(said.value / each.capacity - 1) <= CAPACITY
    if each.of != "speed" or each.turn is None:
        return True
    return bool(abs(np.log(said.factor / each.factor)) <= np.log(1 + FACTOR))


def offered(rows: Sequence[Row]) -> float:
    """Requests/s that were due, over the segments."""
    spans: dict[str, list[int]] = {}
    for row in rows:
        spans.setdefault(row.scenario, []).append(row.begin)
    took = sum(max(each) - min(each) for each in spans.values())
    return sum(len(each) - 1 for each in spans.values()) * S / max(took, 1)


@dataclass(slots=True)
class Course:
    """Of a world: what happens to it."""

    happenings: list[Happening] = field(default_factory=list)

    def opened(self, stage: Stage | PathStage, now: int) -> None:
        for each in self.happenings:
            if each.turn is not None:
                each.turn.opened(stage, now)
