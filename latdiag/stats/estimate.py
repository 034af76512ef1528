"""One number with what it is worth, and the three kinds there are: quantile, mean, share.

Quantiles have distribution-free intervals: two order statistics whose ranks are binomial
quantiles (David and Nagaraja, Order Statistics, 3rd ed., section 7.1), taken for as many values
as the dependent ones are worth (see ``dependence``). Measured coverage is in the tests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latdiag.model.units import ms, percentile_name
from latdiag.stats.dependence import row_sums, sum_variance, worth
from latdiag.stats.distributions import binomial_share, normal_quantile, t_quantile

LEVEL = 0.95
#: A quantile is refused unless a sample shows, at this confidence, more than one value beyond it.
REFUSAL_CONFIDENCE = 0.99


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value in raw units (nanoseconds, tokens/s, a share) with a 95 % interval.

    ``n_effective``: how many independent values the ``n`` are worth; at most n. ``refused``: why
    there is no value, and ``needs``: with how many independent values there would be one. A value
    without lo and hi says in ``method`` why it has none.
    """

    value: float | None
    lo: float | None
    hi: float | None
    n: int
    n_effective: int
    method: str
    refused: str | None = None
    needs: int | None = None

    def to_json(self, unit: str) -> dict[str, object]:
        """As it is printed in ``unit``: nanoseconds as ``ms``, everything else as it is."""

        def shown(raw: float | None) -> float | None:
            return ms(raw) if raw is not None and unit == "ms" else raw

        document: dict[str, object] = {
            "value": shown(self.value),
            "lo": shown(self.lo),
            "hi": shown(self.hi),
            "unit": unit,
            "n": self.n,
            "n_effective": self.n_effective,
            "method": self.method,
        }
        for key, why in (("refused", self.refused), ("needs", self.needs)):
            if why is not None:
                document[key] = why
        return document


def refusal(reason: str, n: int = 0, n_effective: int = 0, needs: int | None = None) -> Estimate:
    """An estimate that states nothing but why."""
    return Estimate(None, None, None, n, n_effective, "none", reason, needs)


@cache
def sample_bound(q: float) -> int:
    """Smallest n at which at most one value beyond the q-quantile is a 1 % chance or less.

    P(Binomial(n, min(q, 1 - q)) <= 1) <= 0.01: 662 for p99, 64 for p90. The early-stopping bound
    of MLPerf for one value over the limit.
    """
    if not 0.0 < q < 1.0:
        raise ValueError(f"a quantile lies between 0 and 1, not at {q}")
    tail = min(q, 1.0 - q)

    def enough(n: int) -> bool:
        return (1 - tail) ** n + n * tail * (1 - tail) ** (n - 1) <= 1 - REFUSAL_CONFIDENCE

    high = 2
    while not enough(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def rank(n: int, q: float) -> int:
    """1-based rank of the q-quantile among n values: the smallest with rank / n >= q."""
    # Rounded first: 0.07 * 100 is 7.000000000000001 in floating point.
    return min(n, max(1, math.ceil(round(n * q, 6))))


def interval_ranks(n: int, n_effective: int, q: float) -> tuple[int, int]:
    """1-based ranks among n sorted values of the two ends of the interval of the q-quantile.

    Needs n_effective >= sample_bound(q): both ends are then order statistics of the sample.
    """
    low = _binomial_quantile((1 - LEVEL) / 2, n_effective, q)
    high = _binomial_quantile((1 + LEVEL) / 2, n_effective, q) + 1
    scale = n / n_effective
    return math.floor((low - 1) * scale) + 1, min(n, math.ceil(high * scale))


def _binomial_quantile(level: float, n: int, p: float) -> int:
    """Smallest k with P(Binomial(n, p) <= k) >= level."""
    low, high = 0, n
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if binomial_share(middle, n, p) >= level else (middle + 1, high)
    return low


def refused(q: float, n: int) -> Estimate | None:
    """The refusal of a quantile for too few values, or None."""
    bound = sample_bound(q)
    if n >= bound:
        return None
    text = f"{percentile_name(q)} needs at least {bound} samples, there are {n}"
    return refusal(text, n, needs=bound)


def without_interval(value: float, q: float, n: int, n_effective: int) -> Estimate | None:
    """The quantile alone, where the values depend on each other so much that nothing bounds it.

    Its ends would have to be order statistics of ``n_effective`` independent values, and these
    do not reach so far out; None where they do.
    """
    bound = sample_bound(q)
    if n_effective >= bound:
        return None
    method = (
        f"no interval: {n} dependent values are worth {n_effective},"
        f" {percentile_name(q)} needs {bound}"
    )
    return Estimate(value, None, None, n, n_effective, method, needs=bound)


def quantile(
    values: NDArray[np.int64],
    q: float,
    sizes: NDArray[Any] | None = None,
    order: NDArray[np.int64] | None = None,
) -> Estimate:
    """The q-quantile of ``values`` (in any order).

    ``sizes``: consecutive values belong to one row in groups of these sizes (gaps of a request);
    without it each value is a row. ``order``: one key a row, its place in time (sent_ns);
    without it rows are in time order already.
    """
    return quantiles(values, (q,), sizes, order)[0]


def quantiles(
    values: NDArray[np.int64],
    wanted: Sequence[float],
    sizes: NDArray[Any] | None = None,
    order: NDArray[np.int64] | None = None,
) -> list[Estimate]:
    """As ``quantile`` for several q at the price of one sort."""
    if not values.size or min(map(sample_bound, wanted), default=0) > values.size:
        return [refused(q, values.size) or refusal("no samples") for q in wanted]
    places = _places(order)
    ranked = np.sort(values)
    return [_quantile(values, ranked, q, sizes, places) for q in wanted]


def _quantile(
    values: NDArray[np.int64],
    ranked: NDArray[np.int64],
    q: float,
    sizes: NDArray[Any] | None,
    places: NDArray[np.int64] | None,
) -> Estimate:
    n = int(values.size)
    if few := refused(q, n):
        return few
    value = ranked[rank(n, q) - 1]
    n_effective = _exceedance_worth(values, value, sizes, places)
    if alone := without_interval(float(value), q, n, n_effective):
        return alone
    low, high = interval_ranks(n, n_effective, q)
    lo, hi = float(ranked[low - 1]), float(ranked[high - 1])
    return Estimate(float(value), lo, hi, n, n_effective, "order statistics of exact values")


def _exceedance_worth(
    values: NDArray[np.int64],
    value: np.int64,
    sizes: NDArray[Any] | None,
    places: NDArray[np.int64] | None,
) -> int:
    """Effective n from who exceeds ``value``; from who reaches it where nobody exceeds it."""
    beyond = values > value
    if not beyond.any():
        beyond = values >= value
    share = float(np.count_nonzero(beyond)) / values.size
    return worth(share, int(values.size), _centred(beyond, share, sizes, places))


def _centred(
    values: NDArray[np.bool_] | NDArray[np.int64],
    center: float,
    sizes: NDArray[Any] | None,
    places: NDArray[np.int64] | None,
) -> NDArray[np.float64]:
    """Per row in time order: the sum of its values less ``center``."""
    terms = row_sums(np.subtract(values, center, dtype=np.float64), sizes)
    return terms if places is None else terms[places]


def _places(order: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
    """The permutation into time order; None where that is how the rows stand."""
    if order is None or bool((order[1:] >= order[:-1]).all()):
        return None
    # Stable, and fast on a few sorted stretches (parts of a run), which is what comes.
    return np.argsort(order, kind="stable")


def mean(
    values: NDArray[np.int64],
    sizes: NDArray[Any] | None = None,
    order: NDArray[np.int64] | None = None,
) -> Estimate:
    """The mean of ``values``, with Student's t on the variance that dependence leaves."""
    n = int(values.size)
    if not n:
        return refusal("no samples")
    center = float(values.mean())
    terms = _centred(values, center, sizes, _places(order))
    squares = float(values.var()) * n
    # The mean of what is never negative (a time, a count) is not either, whatever t says.
    least = 0.0 if int(values.min()) >= 0 else -math.inf
    return mean_estimate(center, n, squares, terms, "exact values", least)


def mean_estimate(
    center: float,
    n: int,
    squares: float,
    terms: NDArray[np.float64],
    source: str,
    least: float = 0.0,
) -> Estimate:
    """Mean ``center`` of n values with sum of squared deviations ``squares``; terms per row.
    ``least``: no value is, and no mean can be, less."""
    spread = sum_variance(terms)
    if spread.freedom == 0:
        return Estimate(center, None, None, n, 1, f"mean of {source}; one row has no interval")
    alone = squares / (n - 1) if n > 1 else 0.0
    variance = max(spread.variance / n**2, alone / n)
    n_effective = n if variance == 0.0 else max(1, min(n, int(alone / variance * (1 + 1e-9))))
    freedom = min(spread.freedom, n_effective - 1)
    if freedom < 1 or (spread.serial and n_effective < sample_bound(0.5)):
        # Below that the variance of a correlated series cannot be told from the series itself.
        method = (
            f"mean of {source}; worth {n_effective} independent values, too few for an interval"
        )
        return Estimate(center, None, None, n, n_effective, method)
    half = t_quantile(freedom, (1 + LEVEL) / 2) * math.sqrt(variance)
    method = f"mean of {source}, t with {freedom} degrees of freedom"
    return Estimate(center, max(least, center - half), center + half, n, n_effective, method)


def share(hits: NDArray[np.bool_], order: NDArray[np.int64] | None = None) -> Estimate:
    """The share of rows that are True, one row a request."""
    n = int(hits.size)
    if not n:
        return refusal("no samples")
    part = float(hits.mean())
    return share_estimate(part, n, worth(part, n, _centred(hits, part, None, _places(order))))


def share_estimate(part: float, n: int, n_effective: int) -> Estimate:
    """Wilson's score interval (JASA 22, 1927): it holds where the share is near 0 or 1."""
    z = normal_quantile((1 + LEVEL) / 2)
    weight = 1.0 + z * z / n_effective
    center = (part + z * z / (2 * n_effective)) / weight
    root = part * (1 - part) / n_effective + (z / (2 * n_effective)) ** 2
    half = z / weight * math.sqrt(root)
    lo, hi = max(0.0, center - half), min(1.0, center + half)
    # Rounding may leave an end a hair inside of a share of exactly 0 or 1.
    return Estimate(part, min(lo, part), max(hi, part), n, n_effective, "Wilson score interval")
