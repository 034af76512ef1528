"""The 95 % intervals cover, also where samples depend; a naive n would not (measured below).

Each figure is over 300 simulated runs with known truth (over a fifth of them in the profile
``dev``). Where an interval may be refused, the runs whose printed interval misses the truth are
counted against all runs.
"""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import norm

from latdiag.stats import Estimate, mean, quantile, share
from latdiag.stats.histogram import BlockHistogram
from tests.profiles import repetitions

pytestmark = pytest.mark.repeated

ALL = 300
RUNS = repetitions(ALL)
#: What the share of so many runs may be off by chance, beyond that of all of them.
SLACK = 0.0 if RUNS >= ALL else 0.06
SCALE = 1e8  # 100 ms in ns


def ns(logs: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(logs) * SCALE, dtype=np.int64)


def series(rng: np.random.Generator, n: int, phi: float) -> np.ndarray:
    """Stationary AR(1) with unit variance."""
    noise = rng.normal(size=n) * np.sqrt(1 - phi**2)
    noise[0] /= np.sqrt(1 - phi**2)
    return np.asarray(lfilter([1.0], [1.0, -phi], noise))


def gaps(rng: np.random.Generator, requests: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Gaps of requests of 1 to 400 tokens; each request has a speed of its own."""
    sizes = rng.integers(1, 400, size=requests)
    level = np.repeat(rng.normal(size=requests) * spread, sizes)
    return ns(level + rng.normal(size=sizes.sum())), sizes


def covered(run: Callable[[np.random.Generator], Estimate], truth: float) -> tuple[float, float]:
    """Share of intervals that hold the truth, and share of runs whose interval misses it."""
    rng = np.random.default_rng(20_26)
    hit = missed = 0
    for _ in range(RUNS):
        found = run(rng)
        if found.lo is None or found.hi is None:
            continue
        inside = found.lo <= truth <= found.hi
        hit += inside
        missed += not inside
    return hit / max(hit + missed, 1), missed / RUNS


def quantile_truth(q: float, spread: float = 0.0) -> float:
    return float(SCALE * np.exp(norm.ppf(q) * np.sqrt(1 + spread**2)))


@pytest.mark.parametrize(("n", "q"), [(200, 0.5), (200, 0.95), (1000, 0.99), (5000, 0.99)])
def test_independent_quantiles(n: int, q: float) -> None:
    """Measured 0.96 to 0.98."""
    share_in, _ = covered(lambda rng: quantile(ns(rng.normal(size=n)), q), quantile_truth(q))
    assert share_in >= 0.92 - SLACK


@pytest.mark.parametrize(
    ("n", "phi", "q"),
    [(1000, 0.5, 0.95), (1000, 0.9, 0.5), (5000, 0.9, 0.95), (5000, 0.9, 0.99)],
)
def test_correlated_quantiles(n: int, phi: float, q: float) -> None:
    """Measured 0.95 to 0.96."""
    share_in, _ = covered(lambda rng: quantile(ns(series(rng, n, phi)), q), quantile_truth(q))
    assert share_in >= 0.90 - SLACK


@pytest.mark.parametrize(("n", "phi", "q"), [(1000, 0.97, 0.95), (200, 0.97, 0.5)])
def test_where_little_can_be_known_there_is_no_interval(n: int, phi: float, q: float) -> None:
    """A run of only a few correlation lengths: most get none, 3 and 8 % of runs are wrong."""
    _, wrong = covered(lambda rng: quantile(ns(series(rng, n, phi)), q), quantile_truth(q))
    assert wrong <= 0.10 + SLACK


@pytest.mark.parametrize(("n", "phi", "q"), [(1000, 0.9, 0.5), (5000, 0.9, 0.95)])
def test_a_naive_n_fails(n: int, phi: float, q: float) -> None:
    """The same values out of time order look independent; measured 0.43 and 0.55."""

    def naive(rng: np.random.Generator) -> Estimate:
        return quantile(rng.permutation(ns(series(rng, n, phi))), q)

    share_in, _ = covered(naive, quantile_truth(q))
    assert share_in <= 0.65 + SLACK


@pytest.mark.parametrize(
    ("requests", "spread", "q"),
    [(100, 0.3, 0.95), (100, 1.0, 0.5), (300, 1.0, 0.95), (300, 1.0, 0.99)],
)
def test_clustered_gaps(requests: int, spread: float, q: float) -> None:
    """Measured 0.95 to 0.98."""

    def run(rng: np.random.Generator) -> Estimate:
        values, sizes = gaps(rng, requests, spread)
        return quantile(values, q, sizes)

    share_in, _ = covered(run, quantile_truth(q, spread))
    assert share_in >= 0.90 - SLACK


def test_clustered_gaps_with_a_naive_n_fail() -> None:
    """Pooled gaps taken as independent; measured 0.17."""

    def naive(rng: np.random.Generator) -> Estimate:
        return quantile(rng.permutation(gaps(rng, 100, 1.0)[0]), 0.5)

    share_in, _ = covered(naive, quantile_truth(0.5, 1.0))
    assert share_in <= 0.4 + SLACK


def test_gaps_that_stall_together_across_requests() -> None:
    """All requests of a stretch of time are slow at once: clusters alone would not do."""

    def run(rng: np.random.Generator) -> Estimate:
        level = np.repeat(series(rng, 1000, 0.9) * 0.7, 20)
        return quantile(ns(level + rng.normal(size=20_000)), 0.95, np.full(1000, 20))

    share_in, _ = covered(run, quantile_truth(0.95, 0.7))
    assert share_in >= 0.90 - SLACK


@pytest.mark.parametrize(("n", "phi"), [(1000, 0.0), (1000, 0.5), (5000, 0.9)])
def test_means(n: int, phi: float) -> None:
    """Measured 0.94 to 0.95; permuted, the last one is at 0.4."""
    truth = SCALE * np.exp(0.5)
    share_in, _ = covered(lambda rng: mean(ns(series(rng, n, phi))), truth)
    assert share_in >= 0.90 - SLACK
    if phi == 0.9:
        naive, _ = covered(lambda rng: mean(rng.permutation(ns(series(rng, n, phi)))), truth)
        assert naive <= 0.65 + SLACK


def test_mean_of_clustered_gaps() -> None:
    def run(rng: np.random.Generator) -> Estimate:
        values, sizes = gaps(rng, 300, 0.5)
        return mean(values, sizes)

    share_in, _ = covered(run, SCALE * float(np.exp(0.5 * 1.25)))
    assert share_in >= 0.90 - SLACK


@pytest.mark.parametrize(("n", "phi"), [(1000, 0.0), (5000, 0.9)])
def test_shares(n: int, phi: float) -> None:
    limit = float(norm.ppf(0.97))
    share_in, _ = covered(lambda rng: share(series(rng, n, phi) > limit), 0.03)
    assert share_in >= 0.90 - SLACK


def test_the_histogram_covers_too() -> None:
    """Requests of 50 gaps, slow together for about 10 requests; blocks of >= 1000 gaps, merged.
    Measured 0.94 and 0.95, as for the exact values."""
    wanted = (0.5, 0.99)

    def run(rng: np.random.Generator) -> list[Estimate]:
        level = np.repeat(series(rng, 2000, 0.9) * 0.7, 50)
        held = BlockHistogram(first_block=1000)
        values = ns(level + rng.normal(size=100_000)) // 10_000  # fewer octaves, less to zero
        held.add(values, np.full(2000, 50))
        return [held.quantile(q) for q in wanted]

    rng = np.random.default_rng(20_26)
    runs = [run(rng) for _ in range(RUNS)]
    for place, q in enumerate(wanted):
        found = iter(runs)
        share_in, _ = covered(
            lambda _, f=found, at=place: next(f)[at], quantile_truth(q, 0.7) / 10_000
        )
        assert share_in >= 0.90 - SLACK, q
