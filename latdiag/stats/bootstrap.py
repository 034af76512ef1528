"""What a statistic of one side would have been, had other requests come: blocks drawn anew.

A statistic enters as its influence terms: one per row in time order, adding up to nothing, so
that their sum over rows drawn anew is how far the statistic moves (Hampel, JASA 69, 1974). For a
mean that is exact, for a ratio and for the mean of a tail it is its linear part; a quantile moves
along the empirical quantile function, by how many more rows lie beyond it (Woodruff, JASA 47,
1952).

Blocks are whole pieces (runs, segments) where there are enough of them, because what changes
from run to run shows only there. Else they are consecutive rows of one piece, as many as the
autocorrelation asks for. Short series make blocks look too much alike: each deviate is widened
to the variance that ``dependence`` finds in the same terms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from latdiag.stats.dependence import Spread, inner, sum_variance
from latdiag.stats.distributions import normal_quantile, t_quantile
from latdiag.stats.estimate import LEVEL, sample_bound

#: Times that rows are drawn anew.
TIMES = 2000
#: So many pieces stand for themselves: fewer have no spread worth the name.
LEAST_PIECES = 4
#: More blocks say nothing more: the variance has so many degrees of freedom then.
_MOST_BLOCKS = 256
#: Of a search for the block length: an autocorrelation counts beyond so many deviations, and the
#: series is taken for independent after so many that do not (Politis and White, 2004).
_BEYOND = 2.0
_AT_ONCE = 16
_LEAST_QUIET = 5


@dataclass(frozen=True, slots=True)
class Deviates:
    """How far a statistic moves, ``TIMES`` times over, in its own unit.

    ``variance`` and ``freedom``: of those moves, and the degrees of freedom behind it. ``worth``:
    the share of the rows that independent rows would need to know as much, 0 to 1. ``whole``: the
    blocks were whole pieces. ``refused``: why no interval may be made of them.
    """

    moves: NDArray[np.float64]
    variance: float
    freedom: float
    worth: float
    whole: bool
    blocks: str
    refused: str | None = None

    def n_effective(self, n: int) -> int:
        """What ``n`` values of these rows are worth: 1 to n, 0 of none."""
        return max(min(n, 1), min(n, int(n * self.worth * (1 + 1e-9))))


def deviates(
    terms: NDArray[np.float64], pieces: NDArray[np.int64], random: np.random.Generator
) -> Deviates:
    """Draw blocks of ``terms`` (n, adding up to 0) anew. ``pieces`` (n): which run or segment each
    row is of, in time order within it; rows of one piece stand together."""
    n = int(terms.size)
    borders = np.flatnonzero(np.diff(pieces)) + 1
    starts = np.concatenate(([0], borders)).astype(np.int64)
    if n < 2:
        few = f"{n} rows have no interval"
        return Deviates(np.zeros(TIMES), math.inf, 0.0, 1.0, False, "none", few)
    alone = inner(terms, terms) * n / (n - 1)
    whole = len(starts) >= LEAST_PIECES
    if whole:
        sums = np.add.reduceat(terms, starts)
        moves = _whole(sums, random)
        spread = _spread_of(sums)
        words = f"{len(starts)} whole runs or segments"
    else:
        length = max(block_length(terms), -(-n // _MOST_BLOCKS))
        moves = _within(terms, starts, length, random)
        spread = sum_variance(terms)
        words = f"blocks of {length} rows"
    variance = spread.variance
    drawn = float(moves.var())
    if drawn > 0.0 and variance > drawn:
        moves = moves * math.sqrt(variance / drawn)
    variance = max(variance, drawn)
    worth = min(1.0, alone / variance) if variance > 0.0 else 1.0
    freedom = float(spread.freedom if whole else min(spread.freedom, int(n * worth) - 1))
    return Deviates(
        moves, variance, freedom, worth, whole, words, _refused(spread, n, worth, whole)
    )


def also(of: Deviates, moves: NDArray[np.float64]) -> Deviates:
    """The same with ``moves`` of another origin on top, independent of the rows."""
    more = moves - moves.mean()
    return replace(of, moves=of.moves + more, variance=of.variance + float(more.var()))


def widening(one: Deviates, other: Deviates) -> float:
    """Student's t over the normal, for variances from few blocks (Welch, Biometrika 34, 1947)."""
    whole = one.variance + other.variance
    if whole == 0.0:
        return 1.0
    parts = sum(side.variance**2 / max(side.freedom, 1.0) for side in (one, other))
    return t_quantile(whole**2 / parts, (1 + LEVEL) / 2) / normal_quantile((1 + LEVEL) / 2)


def apart(one: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95 % of ``other - one``, for equally many moves of two sides.

    By ranks that lie alike from both ends: with the sides swapped it is the negative, exactly.
    """
    moved = np.sort(other - one)
    cut = round((1 - LEVEL) / 2 * moved.size) - 1
    return float(moved[cut]), float(moved[moved.size - 1 - cut])


def along(
    values: NDArray[np.int64], q: float, moves: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Moves of the ``q``-quantile of ``values``, from moves of the share of values beyond it.

    None where more than one in a hundred would pass the largest value: nothing is known there.
    """
    levels = q + moves
    last = 1.0 - 1.0 / values.size
    if float((levels > last).mean()) > 0.01:
        return None
    found = np.quantile(values, np.concatenate(([q], np.clip(levels, 0.0, 1.0))))
    moved: NDArray[np.float64] = found[1:] - found[0]
    return moved


def block_length(terms: NDArray[np.float64]) -> int:
    """Rows to keep together: Politis and White (Econometric Reviews 23, 2004), with the constant
    for circular blocks of Patton, Politis and White (28, 2009)."""
    n = int(terms.size)
    power = inner(terms, terms)
    if n < 4 or power <= 0.0:
        return 1
    quiet = max(_LEAST_QUIET, math.ceil(math.sqrt(math.log10(n))))
    most = min(n - 1, math.ceil(math.sqrt(n)) + quiet)
    found = [inner(terms[k:], terms[: n - k]) / power for k in range(most + 1)]
    until = min(2 * _last_loud(found, quiet, n), most)
    if until == 0:
        return 1
    weights = [min(1.0, 2.0 * (1.0 - k / until)) for k in range(until + 1)]
    flat = 1.0 + 2.0 * sum(w * r for w, r in zip(weights[1:], found[1 : until + 1], strict=True))
    slope = 2.0 * sum(
        w * k * r for k, (w, r) in enumerate(zip(weights, found[: until + 1], strict=True))
    )
    if flat <= 0.0:
        return 1
    best = math.cbrt(n * 2.0 * slope**2 / (4.0 / 3.0 * flat**2))
    return max(1, min(round(best), math.ceil(3.0 * math.sqrt(n)), n // 3))


def _last_loud(found: list[float], quiet: int, n: int) -> int:
    """The lag after which ``quiet`` autocorrelations in a row are no more than chance."""
    bound = _BEYOND * math.sqrt(math.log10(n) / n)
    for lag in range(len(found) - 1):
        following = found[lag + 1 : lag + 1 + quiet]
        if all(abs(value) < bound for value in following):
            return lag
    return len(found) - 1


def _whole(sums: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """Sums over as many pieces as there are, drawn with replacement."""
    k = len(sums)
    counts = random.multinomial(k, [1.0 / k] * k, size=TIMES)
    moved: NDArray[np.float64] = np.einsum("tk,k->t", counts.astype(float), sums)
    return moved


def _spread_of(sums: NDArray[np.float64]) -> Spread:
    k = len(sums)
    return Spread(inner(sums, sums) * k / (k - 1), k - 1, False)


def _within(
    terms: NDArray[np.float64],
    starts: NDArray[np.int64],
    length: int,
    random: np.random.Generator,
) -> NDArray[np.float64]:
    """Sums over blocks of each piece, as many rows as it has; blocks run over its end to its
    beginning, so that every row is drawn equally often."""
    total = np.zeros(TIMES)
    for inside in np.split(terms, starts[1:]):
        n = inside.size
        size = min(length, n)
        sums = np.concatenate(([0.0], np.cumsum(inside)))
        wrapped = np.concatenate((sums, sums[-1] + sums[1 : size + 1]))
        blocks, rest = divmod(n, size)
        for some, width in ((blocks, size), (1, rest)):
            if not width:
                continue
            each = wrapped[width : width + n] - wrapped[:n]
            # In slices that stay in a processor's cache.
            for done in range(0, some, _AT_ONCE):
                at = random.integers(0, n, (TIMES, min(_AT_ONCE, some - done)))
                total += each[at].sum(axis=1)
    return total


def _refused(spread: Spread, n: int, worth: float, whole: bool) -> str | None:
    """Below some independent values the variance of a correlated series cannot be told from it."""
    effective, bound = int(n * worth * (1 + 1e-9)), sample_bound(0.5)
    if whole or not (spread.freedom < 1 or (spread.serial and effective < bound)):
        return None
    return f"{n} dependent values count as {max(1, effective)} independent; {bound} are needed"
