"""Two sides, each of one run or several: how far their metrics and components lie apart.

Pure statistics: nothing here knows what a run is or how it is shown. Every difference is
``b - a``. Sums are exact: the mean of a side is the ratio of two integers, and what the
components differ in adds up to what the whole differs in, as rationals; the nanoseconds that are
shown (``rounded_ns``) are apportioned so that they add up as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.parts import Parts, chosen_rows
from latdiag.diagnosis.breakdown import TAIL_ROWS, breakdown
from latdiag.diagnosis.common_classes import pooled, unified
from latdiag.diagnosis.difference import RunRows, Side, bounded, refused, stated, why_none
from latdiag.diagnosis.metric_comparison import compare_metric
from latdiag.model.units import ms
from latdiag.stats import bootstrap
from latdiag.stats.bootstrap import Deviates

__all__ = ["POPULATIONS", "RunRows", "Side", "apportioned", "compare"]

POPULATIONS = ("mean", "p95_tail")
_SAME = "the same run is on both sides: they differ in nothing by construction"


def compare(a: Side, b: Side, metrics: Sequence[str], seed: int) -> dict[str, Any]:
    """``metrics`` and ``components`` as they stand in ``--json`` below ``compared``."""
    shared = _SAME if set(a.identities) & set(b.identities) else None
    return {
        "metrics": {name: compare_metric(name, a, b, seed, shared) for name in metrics},
        "components": {
            p: found for p in POPULATIONS if (found := compare_parts(p, a, b, seed, shared))
        },
    }


def compare_parts(
    population: str, a: Side, b: Side, seed: int, shared: str | None
) -> dict[str, Any]:
    """Every class of time that both sides can state, and their sum; {} where a side has none."""
    classes = unified([run.parts for side in (a, b) for run in side.runs])
    sides = [pooled([run.parts for run in side.runs], classes) for side in (a, b)]
    entries = [breakdown(parts, "client_e2e", population) for parts in sides]
    if entries[0] is None or entries[1] is None:
        return {}
    both = [
        _Population(parts, entry, population, side.random(seed))
        for parts, entry, side in zip(sides, entries, (a, b), strict=True)
        if entry is not None
    ]
    names = ["total", *(members[0] for members in classes)]
    why = why_none({s: each.insufficient for s, each in zip("AB", both, strict=True)})
    found: dict[str, Any] = {"interval": "client_e2e"}
    exact = [both[1].mean(name) - both[0].mean(name) for name in names]
    rounded = [round(exact[0]), *apportioned(exact[1:])]
    for name, value, whole in zip(names, exact, rounded, strict=True):
        if population != "mean" and any(each.n < TAIL_ROWS for each in both):
            apart = refused("ms", (why or "").removeprefix("no interval; "))
        else:
            apart = _class_apart(name, ms(float(value)), both, why, shared)
        found[name] = {"a": both[0].side(name), "b": both[1].side(name)}
        found[name]["difference"] = apart | {"rounded_ns": whole}
    for members in classes:
        if len(members) > 1:
            found[members[0]]["members"] = list(members)
    return found


class _Population:
    """The rows of one side that a breakdown is of."""

    def __init__(
        self,
        parts: Parts,
        entry: Mapping[str, Any],
        population: str,
        random: np.random.Generator,
    ) -> None:
        self._parts, self._entry, self._random = parts, entry, random
        self._moved: dict[str, Deviates] = {}
        self.insufficient: str | None = entry["insufficient"]
        self._rows = chosen_rows(parts.total, population)
        self._near = _near(parts.total, len(self._rows))
        segment = parts.segment
        self._pieces = segment if segment is not None else np.zeros(len(parts.total), dtype=int)

    @property
    def n(self) -> int:
        return len(self._rows)

    def sum_ns(self, name: str) -> int:
        return int(self._entry["total_ns"] if name == "total" else self._entry[name]["sum_ns"])

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

    def side(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = {
            "sum_ns": self.sum_ns(name),
            "n": self.n,
            "n_effective": self.rows(name).n_effective(self.n),
            "ms": ms(float(self.mean(name))),
        }
        if name == "total":
            return found | {"segments": self._parts.segments, "left_out": self._parts.left_out}
        entry = self._entry[name]
        return found | {key: entry[key] for key in ("share", "grade", "evidence")}


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
) -> dict[str, Any]:
    """What one class differs in, ms a request; ``why``: neither side's rows bear an interval."""
    if shared or why:
        return stated(value, "ms", method=why or f"no interval; {shared}")
    moved = [each.deviates(name) for each in both]
    words = why_none({s: each.refused for s, each in zip("AB", moved, strict=True)})
    if words:
        return stated(value, "ms", method=words)
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
