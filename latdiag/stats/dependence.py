"""How much the values of one run are worth: the variance of a sum of dependent terms.

Requests that are close in time share a queue, and the gaps of one request share a batch. An
interval that treats them as independent is far too narrow: at a lag-1 correlation of 0.9 a
nominal 95 % interval covers 40 % of the time.

One rule serves both. Each row (a request; with one value or with many gaps) contributes a sum of
centred terms, which takes care of the dependence within the row; the rows in time order form a
series whose autocovariances up to the end of their initial positive, monotone sequence (Geyer,
Practical Markov chain Monte Carlo, Statistical Science 7, 1992) take care of the rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latdiag.stats.distributions import normal_quantile, t_quantile

#: Longer series are summed into this many consecutive terms first: the variance of the total is
#: the same, what is lost is its precision (1 % here), and a lag costs microseconds.
SERIES_TERMS = 16_384
#: 95 % quantile of the standard normal.
_CHANCE = 1.645


@dataclass(frozen=True, slots=True)
class Spread:
    """Variance of a sum: ``freedom`` degrees of freedom (0: unknown, the variance is infinite);
    ``serial``: the series shows dependence in time."""

    variance: float
    freedom: int
    serial: bool


def sum_variance(terms: NDArray[np.float64]) -> Spread:
    """How far the sum of ``terms`` (in time order, centred on 0) may be off.

    Never less than for independent terms. One term says nothing of how terms differ.
    """
    if terms.size < 2:
        return Spread(math.inf, 0, False)
    if terms.size > SERIES_TERMS:
        width = -(-terms.size // SERIES_TERMS)
        terms = np.add.reduceat(terms, np.arange(0, terms.size, width))
    freedom = int(terms.size) - 1
    alone = inner(terms, terms)
    unbiased = terms.size / freedom
    if not _shows_dependence(terms, alone):
        return Spread(alone * unbiased, freedom, False)
    total, lag = _initial_sequence(terms, alone)
    # The terms are centred on their own mean, which takes variance / size out of every
    # autocovariance; over 2 * lag + 1 of them that adds up.
    kept = 1.0 - (2 * lag + 1) / terms.size
    return Spread(max(alone, total) * unbiased / kept, freedom, True)


def _shows_dependence(terms: NDArray[np.float64], alone: float) -> bool:
    """Whether the first autocorrelation, or the sum of the first sqrt(size), is beyond chance.

    One-sided at 5 % each. Without this the noise of the estimate would cost independent values a
    tenth of their worth, and a sample that just reaches its bound would be refused.
    """
    size = int(terms.size)
    if alone == 0.0:
        return False
    lags = range(1, math.isqrt(size) + 1)
    found = [inner(terms[k:], terms[: size - k]) / alone for k in lags]
    return found[0] > _CHANCE / math.sqrt(size) or sum(found) > _CHANCE * math.sqrt(
        len(found) / size
    )


def _initial_sequence(terms: NDArray[np.float64], alone: float) -> tuple[float, int]:
    """Sum of all autocovariances (times size), and the last lag that entered it."""
    total, before, lag = -alone, float("inf"), 0
    while lag + 1 < terms.size // 3:
        even = inner(terms[lag:], terms[: terms.size - lag])
        odd = inner(terms[lag + 1 :], terms[: terms.size - lag - 1])
        pair = min(even + odd, before)
        if pair <= 0.0:
            break
        total += 2.0 * pair
        before = pair
        lag += 2
    return (total, lag - 1) if lag else (alone, 0)


def inner(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Sum of products. Not ``a @ b``: BLAS would start a thread on every core for that."""
    return float(np.einsum("i,i->", a, b))


def row_sums(flat: NDArray[Any], sizes: NDArray[Any] | None) -> NDArray[np.float64]:
    """Sum of ``flat`` for each row of ``sizes`` values (all > 0); as it is where each has one."""
    if sizes is None or sizes.size == flat.size:
        return flat
    starts = np.zeros(sizes.size, dtype=np.int64)
    np.cumsum(sizes[:-1], out=starts[1:])
    return np.add.reduceat(flat, starts)


def worth(share: float, n: int, terms: NDArray[np.float64]) -> int:
    """How many independent values tell ``share`` as well as these ``n`` do: 1 to n.

    ``terms``: for each row in time order, its count of hits minus ``share`` times its values.
    A variance that is estimated from few rows is widened as Student's t is against the normal.
    """
    spread = sum_variance(terms)
    if spread.freedom == 0:
        return 1
    if spread.variance == 0.0 or (terms.size == n and not spread.serial):
        return n
    widened = spread.variance * (t_quantile(spread.freedom, 0.975) / normal_quantile(0.975)) ** 2
    return max(1, min(n, int(n * (n * share * (1.0 - share) / widened))))
