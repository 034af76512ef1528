"""How far the metrics of two sides lie apart: the mean and the 95th percentile, and totals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latdiag.diagnosis.breakdown import TAIL_ROWS
from latdiag.diagnosis.difference import Difference, SideRows, bounded, no_interval, refused
from latdiag.measurement.metric_rows import TOTALS, MetricRows
from latdiag.model.metrics import metric
from latdiag.model.units import ms
from latdiag.stats import bootstrap
from latdiag.stats.bootstrap import LEAST_PIECES, Deviates
from latdiag.stats.dependence import row_sums
from latdiag.stats.estimate import Estimate, mean, quantile, refusal, sample_bound

_Q = 0.95


@dataclass(frozen=True, slots=True)
class MetricDifference:
    """One ``statistic`` (mean, p95; empty: a total) of one metric. ``a`` and ``b`` in raw units,
    the difference in ``unit``."""

    metric: str
    statistic: str
    unit: str
    a: Estimate
    b: Estimate
    difference: Difference

    @property
    def values(self) -> tuple[float | None, float | None]:
        """Of A and B, in ``unit``."""
        return self._shown(self.a.value), self._shown(self.b.value)

    def _shown(self, raw: float | None) -> float | None:
        return ms(raw) if raw is not None and self.unit == "ms" else raw

    def to_json(self) -> dict[str, object]:
        """As it stands in ``--json``."""
        return {
            "a": self.a.to_json(self.unit),
            "b": self.b.to_json(self.unit),
            "difference": self.difference.to_json(),
        }


def compare_metric(
    name: str, a: SideRows, b: SideRows, seed: int, shared: str | None
) -> tuple[MetricDifference, ...]:
    """Mean and p95 of a metric of rows; the one number of a total."""
    if name in TOTALS:
        return (_total(name, a, b, seed, shared),)
    return (
        _statistic(name, "mean", a, b, seed, shared),
        _statistic(name, "p95", a, b, seed, shared),
    )


@dataclass(frozen=True, slots=True)
class _Held:
    """One metric of one side: its rows with the piece that each is of, or why there are none."""

    values: NDArray[np.int64]
    sizes: NDArray[np.int64] | None
    pieces: NDArray[np.int64]
    too_many: bool

    def estimate(self, statistic: str) -> Estimate:
        if statistic == "mean":
            return mean(self.values, self.sizes)
        return quantile(self.values, _Q, self.sizes)

    def terms(self, statistic: str, value: float) -> NDArray[np.float64]:
        """Influence of each row on the mean, or on the share beyond the percentile."""
        if statistic == "mean":
            # Not the rounded mean: the terms must add up to nothing.
            each = self.values - self.values.mean()
        else:
            beyond = self.values > value
            beyond = beyond if beyond.any() else self.values >= value
            each = beyond - beyond.mean()
        terms: NDArray[np.float64] = row_sums(each, self.sizes) / len(self.values)
        return terms


def _held(side: SideRows, name: str) -> _Held:
    found: list[MetricRows] = [p for run in side.runs for p in run.rows.metrics[name]]
    sized = any(piece.sizes is not None for piece in found)
    ones = [p.sizes if p.sizes is not None else np.ones(len(p.values), int) for p in found]
    number = [np.full(len(sizes), place) for place, sizes in enumerate(ones)]
    return _Held(
        np.concatenate([piece.values for piece in found]),
        np.concatenate(ones) if sized else None,
        np.concatenate(number),
        any(piece.left_out for piece in found),
    )


def _statistic(
    name: str, statistic: str, a: SideRows, b: SideRows, seed: int, shared: str | None
) -> MetricDifference:
    """One statistic of a metric of rows: both sides, and what lies between them."""
    held = _held(a, name), _held(b, name)
    one, other = sides = [
        _stated(side, name, statistic) if one.too_many else _of_rows(side, one, name, statistic)
        for side, one in zip((a, b), held, strict=True)
    ]
    apart = _apart(held, sides, (a.random(seed), b.random(seed)), statistic, shared)
    return MetricDifference(name, statistic, "ms", one, other, apart)


def _of_rows(side: SideRows, held: _Held, name: str, statistic: str) -> Estimate:
    """The estimate of a side's rows; without any, the reason that its run gives."""
    if len(held.values):
        return held.estimate(statistic)
    stated = side.runs[0].rows.stated[name][statistic]
    return stated if stated.refused else refusal("no samples")


def _stated(side: SideRows, name: str, statistic: str) -> Estimate:
    """Where the rows are too many to be kept: what the one pass over them found."""
    if len(side.runs) > 1:
        return refusal("several runs with more values than are kept")
    return side.runs[0].rows.stated[name][statistic]


def _apart(
    held: tuple[_Held, _Held],
    sides: Sequence[Estimate],
    random: tuple[np.random.Generator, np.random.Generator],
    statistic: str,
    shared: str | None,
) -> Difference:
    why = [f"{s}: {e.refused}" for s, e in zip("AB", sides, strict=True) if e.refused]
    if why:
        return refused("ms", "; ".join(why))
    one, other = sides
    assert one.value is not None and other.value is not None
    value = ms(other.value - one.value)
    if shared:
        return Difference(value, "ms", f"no interval; {shared}")
    if any(each.too_many for each in held):
        return Difference(value, "ms", "no interval; more values than are kept")
    moved = [
        bootstrap.deviates(each.terms(statistic, float(e.value or 0.0)), each.pieces, rng)
        for each, e, rng in zip(held, sides, random, strict=True)
    ]
    needs = 0 if statistic == "mean" else sample_bound(_Q)
    lacking = {s: _lacking(d, h, needs) for s, d, h in zip("AB", moved, held, strict=True)}
    if words := no_interval(lacking):
        return Difference(value, "ms", words)
    moves = _moves(moved, held, statistic)
    if moves is None:
        return Difference(value, "ms", "no interval; it would pass the largest value")
    lo, hi = bootstrap.apart(*moves)
    return bounded(value, (ms(lo), ms(hi)), "ms", *moved)


def _lacking(moved: Deviates, held: _Held, needs: int) -> str | None:
    """Why this side bears no interval; None where it does."""
    rows = len(held.pieces)
    if rows < TAIL_ROWS:
        return f"{rows} requests, {TAIL_ROWS} are needed"
    if moved.refused:
        return moved.refused
    effective = moved.n_effective(len(held.values))
    if effective < needs:
        return f"{len(held.values)} values count as {effective} independent; {needs} are needed"
    return None


def _moves(
    moved: Sequence[Deviates], held: Sequence[_Held], statistic: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Of the statistic itself, as wide as the few blocks behind it demand."""
    wide = bootstrap.widening(*moved)
    one, other = (each.moves * wide for each in moved)
    if statistic == "mean":
        return one, other
    first = bootstrap.along(held[0].values, _Q, one)
    second = bootstrap.along(held[1].values, _Q, other)
    return (first, second) if first is not None and second is not None else None


def _total(name: str, a: SideRows, b: SideRows, seed: int, shared: str | None) -> MetricDifference:
    """A total over the time of its run: only several runs tell how far that varies."""
    unit = metric(name).unit
    rates, moved = [], []
    for side in (a, b):
        pairs = [run.rows.total[name] for run in side.runs]
        amount, seconds = sum(n for n, _ in pairs), sum(s for _, s in pairs)
        if seconds <= 0:
            rates.append(refusal("the run has no duration"))
            continue
        rate = amount / seconds
        words = "total over the time of " + (f"{len(pairs)} runs" if len(pairs) > 1 else "the run")
        rates.append(Estimate(rate, None, None, len(pairs), len(pairs), words))
        terms = np.array([(n - rate * s) / seconds for n, s in pairs])
        moved.append(bootstrap.deviates(terms, np.arange(len(pairs)), side.random(seed)))
    one, other = rates
    runs = len(a.runs), len(b.runs)
    apart = _totals_apart((one.value, other.value), unit, moved, runs, shared)
    return MetricDifference(name, "", unit, one, other, apart)


def _totals_apart(
    rates: tuple[float | None, float | None],
    unit: str,
    moved: Sequence[Deviates],
    runs: tuple[int, int],
    shared: str | None,
) -> Difference:
    one, other = rates
    if one is None or other is None:
        return refused(unit, "a run has no duration")
    value = other - one
    few = {
        side: f"{n} run{'s' * (n > 1)}, {LEAST_PIECES} are needed" if n < LEAST_PIECES else None
        for side, n in zip("AB", runs, strict=True)
    }
    why = f"no interval; {shared}" if shared else no_interval(few)
    if why:
        return Difference(value, unit, why)
    wide = bootstrap.widening(*moved)
    bounds = bootstrap.apart(moved[0].moves * wide, moved[1].moves * wide)
    return bounded(value, bounds, unit, *moved)
