"""Paired values against flips of their signs: the randomisation that a paired measurement did.

Whole pairs are flipped, all tests of a pair at once, so the draws carry how the tests depend on
each other. Scores are whole numbers (ranks, counts, nanoseconds), so their sums are exact: the
same seed gives the same p on every machine, in whatever order a library adds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
#: How a test weighs its pairs: by the rank of what they differ in (one wild pair counts as one),
#: or by the difference itself (counts, and times that must add up).
Kind = Literal["rank", "mean"]
#: Flips at a time: with 2,000 pairs a chunk is 16 MB.
_CHUNK = 1_000


def flipped_sums(
    scores: Floats, places: NDArray[np.int64], of: int, flips: int, seed: int
) -> Floats:
    """Sums of ``scores`` (pairs, tests) under ``flips`` random sign changes of whole pairs.

    ``places``: of each row its pair's number among the ``of`` that the plan has, so that a pair
    has the same signs at every look. The bits are those of PCG64 itself, which numpy keeps stable
    across versions. (flips, tests)
    """
    words = -(-of // 64)
    source = np.random.PCG64(seed)
    sums = np.empty((flips, scores.shape[1]))
    for start in range(0, flips, _CHUNK):
        size = min(_CHUNK, flips - start)
        raw = source.random_raw(size * words).astype("<u8").view(np.uint8).reshape(size, -1)
        bits = np.unpackbits(raw, axis=1, bitorder="little")[:, places]
        # Sum of s * score with s = 2 * bit - 1.
        sums[start : start + size] = 2.0 * (bits.astype(float) @ scores) - scores.sum(axis=0)
    return sums


def scores_of(values: Floats, kind: Kind) -> Floats:
    """Signed scores of one test's ``values`` (pairs); a pair without one (NaN) weighs nothing.

    Ranks are doubled (ties share the mean of theirs) and zeros have none, as Wilcoxon has it.
    """
    known = np.where(np.isnan(values), 0.0, values)
    if kind == "mean":
        return known
    scores = np.zeros(len(values))
    there = known != 0.0
    sizes = np.abs(known[there])
    ordered = np.sort(sizes)
    doubled = (
        np.searchsorted(ordered, sizes, "left") + np.searchsorted(ordered, sizes, "right") + 1
    )
    scores[there] = np.sign(known[there]) * doubled
    return scores


@dataclass(frozen=True, slots=True)
class Null:
    """What tests came to (tests), and what they come to under flips (flips, tests); both divided
    by their standard deviation under flips."""

    statistics: Floats
    draws: Floats

    def p(self, family: NDArray[np.bool_]) -> Floats:
        """One-sided p of every test, adjusted by the largest statistic of ``family`` (mask).

        Westfall and Young, Resampling-Based Multiple Testing, 1993, single step; with one added
        to both counts, so that it is exact for random flips (Phipson and Smyth, 2010).
        """
        largest = np.sort(self.draws[:, family].max(axis=1))
        above = len(largest) - np.searchsorted(largest, self.statistics, "left")
        return np.asarray((1 + above) / (1 + len(largest)))

    def critical(self, level: float, family: NDArray[np.bool_]) -> float:
        """What the largest statistic of ``family`` exceeds with a chance of at most ``level``.

        Below 1/(1 + flips) draws say nothing: there a stated tail stands in for them.
        """
        largest = self.draws[:, family].max(axis=1)
        return float(_exceeded(largest[:, None], level, int(family.sum()))[0])

    def critical_each(self, level: float) -> Floats:
        """The same of every test by itself (tests)."""
        return _exceeded(self.draws, level, 1)


def _exceeded(draws: Floats, level: float, tests: int) -> Floats:
    """Of each column of ``draws``; ``tests`` went into one column."""
    place = len(draws) - math.floor(level * (1 + len(draws)) + 1e-9)
    if place == len(draws):
        return np.full(draws.shape[1], tail_critical(level, tests))
    return np.asarray(np.partition(draws, place, axis=0)[place])


def tail_critical(level: float, tests: int) -> float:
    """The stated tail: Hoeffding's bound exp(-c²/2) on P(statistic >= c) of a sum with random
    signs (JASA 58, 1963, theorem 2), over ``tests`` by Bonferroni, of any number of pairs.
    """
    return math.sqrt(2.0 * math.log(tests / level))


def null_of(scores: Floats, places: NDArray[np.int64], of: int, flips: int, seed: int) -> Null:
    """The statistics of ``scores`` (pairs, tests) and of their flips; see ``flipped_sums``."""
    size = np.sqrt(np.square(scores).sum(axis=0))
    size[size == 0.0] = 1.0  # all are zero: the statistic is 0, and never more than a draw
    return Null(scores.sum(axis=0) / size, flipped_sums(scores, places, of, flips, seed) / size)


def middle(values: Floats, kind: Kind) -> float:
    """The effect: Hodges and Lehmann's median of pairwise means, or the mean. NaN of none."""
    known = values[~np.isnan(values)]
    if not len(known):
        return math.nan
    return float(known.mean() if kind == "mean" else np.median(_pairwise_means(known)))


def lower_bound(values: Floats, kind: Kind, critical: float) -> float:
    """The smallest effect that the test does not refute if it rejects above ``critical``.

    The test inverted: for ranks an order statistic of the pairwise means (Lehmann,
    Nonparametrics, 1975, section 4.3); for means the root of (sum of v - m)² = c² sum of (v - m)².
    -inf where so few pairs refute nothing.
    """
    known = values[~np.isnan(values)]
    n = len(known)
    if kind == "mean":
        if n <= critical**2:
            return -math.inf
        rest = float(np.square(known - known.mean()).sum())
        return float(known.mean()) - critical * math.sqrt(rest / (n * (n - critical**2)))
    size = math.sqrt(n * (n + 1) * (2 * n + 1) / 6)
    place = math.ceil((n * (n + 1) / 2 - critical * size) / 2 - 1e-9)
    if place < 1:
        return -math.inf
    means = _pairwise_means(known)
    return float(np.partition(means, place - 1)[place - 1])


def upper_bound(values: Floats, kind: Kind, critical: float) -> float:
    """The largest effect that the test does not refute; see ``lower_bound``."""
    return -lower_bound(-values, kind, critical)


def _pairwise_means(values: Floats) -> Floats:
    first, second = np.triu_indices(len(values))
    return np.asarray((values[first] + values[second]) / 2)


def two_sided_p(differences: NDArray[np.int64] | Floats, flips: int, seed: int) -> float:
    """p of whole-numbered ``differences`` (pairs) that are as likely on one side as the other."""
    scores = np.asarray(differences, dtype=float)[:, None]
    places = np.arange(len(scores), dtype=np.int64)
    draws = np.abs(flipped_sums(scores, places, max(1, len(scores)), flips, seed)[:, 0])
    return float((1 + int((draws >= abs(scores.sum())).sum())) / (1 + flips))
