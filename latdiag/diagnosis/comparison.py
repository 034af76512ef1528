"""Two sides, each of one run or several: how far their metrics and components lie apart.

Pure statistics: nothing here knows what a run is or how it is shown. Every difference is
``b - a``. Sums are exact: the mean of a side is the ratio of two integers, and what the
components differ in adds up to what the whole differs in, as rationals; the nanoseconds that are
shown (``rounded_ns``) are apportioned so that they add up as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.parts import Parts, chosen_rows
from latdiag.diagnosis.breakdown import TAIL_ROWS, breakdown
from latdiag.diagnosis.common_classes import pooled, unified
from latdiag.diagnosis.difference import Difference, SideRows, bounded, no_interval, refused
from latdiag.diagnosis.metric_comparison import MetricDifference, compare_metric
from latdiag.diagnosis.result import Breakdown
from latdiag.model.units import ms
from latdiag.stats import bootstrap
from latdiag.stats.bootstrap import Deviates

POPULATIONS = ("mean", "p95_tail")
_SAME = "both sides are the same run: every difference is 0 by construction"


@dataclass(frozen=True, slots=True)
class Amount:
    """Time of one side: exactly ``sum_ns`` over ``n`` requests, which are worth ``n_effective``
    independent ones."""

    sum_ns: int
    n: int
    n_effective: int

    @property
    def ms(self) -> float:
        """Milliseconds a request."""
        return ms(float(Fraction(self.sum_ns, self.n)))

    def to_json(self) -> dict[str, object]:
        """As it stands in ``--json``."""
        counts = {"sum_ns": self.sum_ns, "n": self.n, "n_effective": self.n_effective}
        return counts | {"ms": self.ms}


@dataclass(frozen=True, slots=True)
class Whole:
    """The time of one side from end to end. ``left_out``: requests without a partition."""

    amount: Amount
    segments: int
    left_out: int

    def to_json(self) -> dict[str, object]:
        """As it stands in ``--json``."""
        return self.amount.to_json() | {"segments": self.segments, "left_out": self.left_out}


@dataclass(frozen=True, slots=True)
class Component:
    """The time of one side in one class of components."""

    amount: Amount
    share: float | None
    grade: str
    evidence: str

    def to_json(self) -> dict[str, object]:
        """As it stands in ``--json``."""
        found = self.amount.to_json() | {"share": self.share}
        return found | {"grade": self.grade, "evidence": self.evidence}


@dataclass(frozen=True, slots=True)
class WholeDifference:
    """What two sides differ in from end to end; ``rounded_ns`` a request."""

    a: Whole
    b: Whole
    difference: Difference
    rounded_ns: int

    def to_json(self) -> dict[str, object]:
        """As it stands in ``--json``."""
        apart = self.difference.to_json() | {"rounded_ns": self.rounded_ns}
        return {"a": self.a.to_json(), "b": self.b.to_json(), "difference": apart}


@dataclass(frozen=True, slots=True)
class ComponentDifference:
    """What two sides differ in in one class: ``members``, which at least one cannot tell apart.
    ``rounded_ns`` a request; over all classes they add up to that of the whole."""

    members: tuple[str, ...]
    a: Component
    b: Component
    difference: Difference
    rounded_ns: int

    @property
    def name(self) -> str:
        """What the class goes by: its first member."""
        return self.members[0]

    def to_json(self) -> dict[str, object]:
        """As it stands in ``--json``."""
        apart = self.difference.to_json() | {"rounded_ns": self.rounded_ns}
        found: dict[str, object] = {"a": self.a.to_json(), "b": self.b.to_json()}
        found["difference"] = apart
        return found if len(self.members) == 1 else found | {"members": list(self.members)}


@dataclass(frozen=True, slots=True)
class PopulationDifference:
    """The requests of one population: the whole, and every class in time order."""

    population: str
    interval: str
    whole: WholeDifference
    classes: tuple[ComponentDifference, ...]

    def to_json(self) -> dict[str, object]:
        """As it stands in ``--json``."""
        found: dict[str, object] = {"interval": self.interval, "total": self.whole.to_json()}
        return found | {each.name: each.to_json() for each in self.classes}


@dataclass(frozen=True, slots=True)
class Differences:
    """All that two sides differ in; a population that one of them lacks is left out."""

    metrics: tuple[MetricDifference, ...]
    populations: tuple[PopulationDifference, ...]

    def of(self, population: str) -> PopulationDifference | None:
        """The population of this name."""
        return next((p for p in self.populations if p.population == population), None)

    def __iter__(self) -> Iterator[Difference]:
        yield from (each.difference for each in self.metrics)
        for found in self.populations:
            yield found.whole.difference
            yield from (each.difference for each in found.classes)

    def to_json(self) -> dict[str, object]:
        """``metrics`` and ``components`` as they stand in ``--json`` below ``compared``."""
        metrics: dict[str, dict[str, object]] = {}
        for each in self.metrics:
            entry = each.to_json()
            found = {each.statistic: entry} if each.statistic else entry
            metrics[each.metric] = metrics.get(each.metric, {}) | found
        components = {each.population: each.to_json() for each in self.populations}
        return {"metrics": metrics, "components": components}


def compare(a: SideRows, b: SideRows, metrics: Sequence[str], seed: int) -> Differences:
    """How far ``metrics`` and components lie apart. ``seed``: of the draws of the intervals."""
    shared = _SAME if set(a.identities) & set(b.identities) else None
    found = [compare_parts(population, a, b, seed, shared) for population in POPULATIONS]
    return Differences(
        tuple(one for name in metrics for one in compare_metric(name, a, b, seed, shared)),
        tuple(each for each in found if each is not None),
    )


def compare_parts(
    population: str, a: SideRows, b: SideRows, seed: int, shared: str | None
) -> PopulationDifference | None:
    """Every class of time that both sides can state, and their sum; None where a side has none."""
    classes = unified([run.parts for side in (a, b) for run in side.runs])
    sides = [pooled([run.parts for run in side.runs], classes) for side in (a, b)]
    entries = [breakdown(parts, "client_e2e", population) for parts in sides]
    if entries[0] is None or entries[1] is None:
        return None
    one, other = both = [
        _Population(parts, entry, population, side.random(seed))
        for parts, entry, side in zip(sides, entries, (a, b), strict=True)
        if entry is not None
    ]
    names = ["total", *(members[0] for members in classes)]
    why = no_interval({s: each.insufficient for s, each in zip("AB", both, strict=True)})
    exact = [other.mean(name) - one.mean(name) for name in names]
    rounded = [round(exact[0]), *apportioned(exact[1:])]
    apart = []
    for name, value in zip(names, exact, strict=True):
        if population != "mean" and any(each.n < TAIL_ROWS for each in both):
            apart.append(refused("ms", (why or "").removeprefix("no interval; ")))
        else:
            apart.append(_class_apart(name, ms(float(value)), both, why, shared))
    return PopulationDifference(
        population,
        "client_e2e",
        WholeDifference(one.whole(), other.whole(), apart[0], rounded[0]),
        tuple(
            ComponentDifference(m, one.component(m[0]), other.component(m[0]), between, whole_ns)
            for m, between, whole_ns in zip(classes, apart[1:], rounded[1:], strict=True)
        ),
    )


class _Population:
    """The rows of one side that a breakdown is of."""

    def __init__(
        self,
        parts: Parts,
        entry: Breakdown,
        population: str,
        random: np.random.Generator,
    ) -> None:
        self._parts, self._entry, self._random = parts, entry, random
        self._moved: dict[str, Deviates] = {}
        self.insufficient: str | None = entry.insufficient
        self._rows = chosen_rows(parts.total, population)
        self._near = _near(parts.total, len(self._rows))
        segment = parts.segment
        self._pieces = segment if segment is not None else np.zeros(len(parts.total), dtype=int)

    @property
    def n(self) -> int:
        return len(self._rows)

    def sum_ns(self, name: str) -> int:
        return self._entry.total_ns if name == "total" else self._entry.shares[name].sum_ns

    def mean(self, name: str) -> Fraction:
        """Nanoseconds a request, exactly."""
        return Fraction(self.sum_ns(name), self.n)

    def _column(self, name: str) -> NDArray[np.int64]:
        return self._parts.total if name == "total" else self._parts.parts[name]

    def terms(self, name: str) -> NDArray[np.float64]:
        """Influence of each row on the mean of the population.

        Of a tail, with the threshold itself moving: (x - c) of a row inside, less (m - c) times
        the population's share for every row, where c is the mean at the threshold and m inside.
        """
        column = self._column(name)
        if self.n == len(column):
            centred: NDArray[np.float64] = (column - column.mean()) / self.n
            return centred
        inside = np.zeros(len(column), dtype=bool)
        inside[self._rows] = True
        at = float(column[self._near].mean())
        level = float(column[self._rows].mean()) - at
        found: NDArray[np.float64] = np.where(inside, column - at, 0.0) / self.n
        return found - level / len(column)

    def rows(self, name: str) -> Deviates:
        """How far the mean moves with other requests."""
        if name not in self._moved:
            self._moved[name] = bootstrap.deviates(self.terms(name), self._pieces, self._random)
        return self._moved[name]

    def deviates(self, name: str) -> Deviates:
        """How far the mean moves with other requests, and with laws fitted to other designs."""
        draws = self._parts.draws.get(name)
        if draws is None:
            return self.rows(name)
        laws = draws[:, self._rows].mean(axis=1)
        return bootstrap.also(self.rows(name), self._random.choice(laws, bootstrap.TIMES))

    def slack(self, name: str) -> tuple[float, float]:
        """(less, more) ns a request that the evidence leaves open."""
        if name not in self._parts.slack:
            return 0.0, 0.0
        less, more = self._parts.slack[name]
        return float(less[self._rows].mean()), float(more[self._rows].mean())

    def whole(self) -> Whole:
        return Whole(self._amount("total"), self._parts.segments, self._parts.left_out)

    def component(self, name: str) -> Component:
        share = self._entry.shares[name]
        return Component(self._amount(name), share.share, share.grade, share.evidence)

    def _amount(self, name: str) -> Amount:
        return Amount(self.sum_ns(name), self.n, self.rows(name).n_effective(self.n))


def _near(total: NDArray[np.int64], chosen: int) -> NDArray[np.int64]:
    """As many rows as were chosen, half on either side of the threshold of the slowest."""
    ranked = np.argsort(total, kind="stable")
    least = max(0, len(total) - chosen - max(1, chosen // 2))
    return ranked[least : max(least + 1, len(total) - chosen // 2)]


def _class_apart(
    name: str,
    value: float,
    both: Sequence[_Population],
    why: str | None,
    shared: str | None,
) -> Difference:
    """What one class differs in, ms a request; ``why``: neither side's rows bear an interval."""
    if shared or why:
        return Difference(value, "ms", why or f"no interval; {shared}")
    moved = [each.deviates(name) for each in both]
    words = no_interval({s: each.refused for s, each in zip("AB", moved, strict=True)})
    if words:
        return Difference(value, "ms", words)
    wide = bootstrap.widening(*moved)
    lo, hi = bootstrap.apart(moved[0].moves * wide, moved[1].moves * wide)
    (less_a, more_a), (less_b, more_b) = (each.slack(name) for each in both)
    # What the evidence of a side leaves open may be there, or not.
    bounds = ms(lo - (less_b + more_a)), ms(hi + (more_b + less_a))
    return bounded(value, bounds, "ms", *moved)


def apportioned(exact: Sequence[Fraction]) -> list[int]:
    """Whole numbers that add up to the rounded sum of ``exact``, none more than 1 from its own.

    Those with the largest remainders are rounded up. The negatives give the negatives.
    """
    total = sum(exact, Fraction(0))
    leading = total or next((each for each in exact if each), Fraction(0))
    if leading < 0:
        return [-each for each in apportioned([-each for each in exact])]
    floors = [each.__floor__() for each in exact]
    up = round(total) - sum(floors)
    order = sorted(range(len(exact)), key=lambda i: (floors[i] - exact[i], i))
    return [floor + (place in order[:up]) for place, floor in enumerate(floors)]
