"""One figure over time, and whether its last minutes differ from what was before.

The figure is a ratio of sums in each half minute. Its last minutes are compared with the time
before by a t statistic whose variance is that between half minutes, with what depends on the load
taken out by a regression on the requests that run at once, and made wider by their correlation
(an AR(1) process: Priestley, Spectral Analysis and Time Series, 1981, section 5.3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from latdiag.stats.distributions import t_quantile

#: Half minutes that are looked at as one, at the end.
RECENT = (4, 5, 6, 8)
#: Half minutes before them that are needed.
LEAST = 16
#: Requests in the last minutes that are needed.
LEAST_N = 60
#: One false alarm in so many looks; half of it on each side.
ALARM = 2e-8
#: A change of a figure by less than this is not told.
LEAST_SHARE = 0.1
#: A change has lasted where so many of its bins are beyond nine of ten before it.
_MOSTLY = 0.6


@dataclass(frozen=True, slots=True)
class Course:
    """A figure in successive half minutes. ``value``: NaN where there is none; ``weight``: what it
    is a mean of; ``load``: requests that were served at once, on average."""

    number: NDArray[np.int64]
    value: NDArray[np.float64]
    weight: NDArray[np.float64]
    load: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Step:
    """``z``: the statistic over its limit, signed: beyond 1 it is no noise. ``by_load``: how much
    of the difference the load may explain; ``load_ratio``: how many run at once, against before;
    ``load_z``: that difference over four standard errors; ``at_top``: as many as at any time;
    ``since``: number of the first bin of the change; ``sized``: with sizes taken out."""

    before: float
    after: float
    z: float
    by_load: float
    load_ratio: float
    since: int
    at_top: bool = False
    load_z: float = 0.0
    sized: bool = False

    @property
    def delta(self) -> float:
        return self.after - self.before


@dataclass(slots=True)
class Regime:
    """Since when a figure is what it is. ``away``: bins of changes that have ended."""

    since: int = 0
    away: list[tuple[int, int]] = field(default_factory=list)

    def holds(self, number: NDArray[np.int64]) -> NDArray[np.bool_]:
        return (number >= self.since) & self.is_home(number)

    def is_home(self, number: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether bins are of no change that has ended."""
        good = np.ones(len(number), dtype=bool)
        for begin, end in self.away:
            good &= (number < begin) | (number >= end)
        return good


def step_of(course: Course, regime: Regime) -> Step | None:
    """The clearest difference between the last minutes and the time before; None where there is
    too little of either."""
    good = np.isfinite(course.value) & (course.weight > 0)
    best: Step | None = None
    last = int(course.number[-1]) if len(course.number) else 0
    for length in RECENT:
        # Bins of a change that has ended are neither the time before nor what is now.
        late = good & (course.number > last - length) & regime.is_home(course.number)
        early = good & (course.number <= last - length - 1) & regime.holds(course.number)
        if late.sum() < min(RECENT) or early.sum() < LEAST or _n(course, late) < LEAST_N:
            continue
        found = _compared(course, early, late)
        if found is not None and (best is None or abs(found.z) > abs(best.z)):
            best = found
    return best


def sized(course: Course, size: NDArray[np.float64], regime: Regime) -> Course | None:
    """The figure as it would be with requests of one size, by a regression on it over the time
    before; None where nobody states sizes."""
    last = int(course.number[-1])
    good = np.isfinite(course.value) & (course.weight > 0) & np.isfinite(size)
    early = good & (course.number <= last - max(RECENT) - 1) & regime.holds(course.number)
    if early.sum() < LEAST or good.sum() < (course.weight > 0).sum():
        return None
    w = course.weight[early]
    slope, error, _ = _slope(course.value[early], w, size[early])
    if slope <= 2 * error:
        return None
    centre = float((w * size[early]).sum() / w.sum())
    value = course.value - slope * (np.where(good, size, centre) - centre)
    return replace(course, value=value)


def follows_load(step: Step) -> bool:
    """Whether a queue moved as it does when servers have more, or less, to do: more requests run
    beside it while it grows, or as many as ever do."""
    more = step.load_z > 0.5 or step.at_top if step.delta > 0 else step.load_z < -0.5
    return more or (abs(step.load_ratio - 1) > 0.05 and (step.load_ratio - 1) * step.delta > 0)


def _n(course: Course, rows: NDArray[np.bool_]) -> float:
    return float(course.weight[rows].sum())


def _compared(course: Course, early: NDArray[np.bool_], late: NDArray[np.bool_]) -> Step | None:
    v, w, x = course.value, course.weight, course.load
    wb, wr = float(w[early].sum()), float(w[late].sum())
    before = float((w[early] * v[early]).sum()) / wb
    after = float((w[late] * v[late]).sum()) / wr
    xb, xr = float(x[early].mean()), float(x[late].mean())
    slope, slope_error, left = _slope(v[early], w[early], x[early])
    n = int(early.sum())
    variance = float((w[early] * left**2).sum()) / max(1, n - 2)
    correlated = _inflation(left * np.sqrt(w[early]))
    spread = variance * correlated * (1 / wr + 1 / wb)
    # What the load explains is not known better than its slope is.
    spread += (slope_error * (xr - xb)) ** 2 * correlated
    if spread <= 0 or before < 0:
        return None
    freedom = max(4.0, (n - 2) / correlated)
    limit = t_quantile(freedom, 1 - ALARM / 2)
    explained = slope * (xr - xb)
    beyond = after - before - explained
    z = beyond / math.sqrt(spread) / limit
    most = abs(explained) + 3 * slope_error * math.sqrt(correlated) * abs(xr - xb)
    since = _since(course, late, before, after)
    at_top = xr >= 0.95 * float(np.quantile(x[early], 0.95))
    dx = x[early] - xb
    error = float(dx.std(ddof=1)) * math.sqrt((1 / int(late.sum()) + 1 / n) * _inflation(dx))
    # Beyond four standard errors: this only explains what is beyond chance already.
    load_z = (xr - xb) / (4 * error) if error > 0 else 0.0
    ratio = xr / xb if xb > 0 else 1.0
    return Step(before, after, z, most, ratio, since, at_top, load_z)


def _slope(
    v: NDArray[np.float64], w: NDArray[np.float64], x: NDArray[np.float64]
) -> tuple[float, float, NDArray[np.float64]]:
    """(How much the figure rises with the load, its standard error, what is left of each)."""
    whole = w.sum()
    dx, dv = x - (w * x).sum() / whole, v - (w * v).sum() / whole
    square = float((w * dx * dx).sum())
    if square <= 0:
        return 0.0, 0.0, dv
    slope = float((w * dx * dv).sum()) / square
    left = dv - slope * dx
    error = math.sqrt(float((w * left**2).sum()) / max(1, len(v) - 2) / square)
    return slope, error, left


def _inflation(left: NDArray[np.float64]) -> float:
    """By how much a mean's variance exceeds that of independent values, at least 1."""
    power = float((left * left).sum())
    if power <= 0 or len(left) < 4:
        return 1.0
    # The estimate from n values is low by about (1 + 4 r) / n (Priestley, section 5.3.1).
    r = float((left[1:] * left[:-1]).sum()) / power
    r = min(0.9, max(0.0, r + (1 + 4 * r) / len(left)))
    return (1 + r) / (1 - r)


def _since(course: Course, late: NDArray[np.bool_], before: float, after: float) -> int:
    """The first of the bins up to the end that are nearer to what is now than to what was."""
    middle = (before + after) / 2
    rising = after > before
    last = int(course.number[-1])
    first = int(course.number[late][0])
    for number in range(first - 4, last + 1):
        rows = np.isfinite(course.value) & (course.number >= number)
        now = course.value[rows & (course.number < number + 2)]
        if len(now) and bool((now > middle).all() if rising else (now < middle).all()):
            return number
    return first


def lasted(course: Course, since: int, up: bool, least: int) -> bool:
    """Whether most bins from ``since`` on, at least ``least``, are beyond what was before."""
    good = np.isfinite(course.value)
    early = course.value[good & (course.number < since)]
    late = course.value[good & (course.number >= since)]
    if len(early) < LEAST or len(late) < least:
        return False
    low, high = np.quantile(early, (0.1, 0.9))
    return float(((late > high) if up else (late < low)).mean()) >= _MOSTLY
