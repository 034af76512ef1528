"""Fits that wild values cannot bend, against truths that are known and a plain least squares."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import lsq_linear, minimize, nnls
from scipy.stats import theilslopes

from latdiag.stats.blocks import block_length, resampled_sums
from latdiag.stats.robust import (
    compiled_nnls,
    deviation,
    huber_mean,
    huber_nnls,
    huber_nnls_each,
    least_slope,
)
from tests.profiles import examples


def design(n: int, random: np.random.Generator) -> np.ndarray:
    """An intercept, a length and a square: columns of very unlike size."""
    lengths = random.integers(32, 4096, n).astype(float)
    return np.column_stack([np.ones(n), lengths, lengths**2 / 2])


TRUTH = np.array([2e6, 2.5e4, 3.0])


def test_exact_values_give_the_exact_law() -> None:
    features = design(20, np.random.default_rng(1))
    values = features @ TRUTH
    assert huber_nnls(features, values, 0.03 * values) == pytest.approx(TRUTH, rel=1e-6)


@examples(40)
@given(st.integers(0, 10_000))
def test_noise_moves_the_law_little_and_outliers_hardly_more(seed: int) -> None:
    """1 % of noise, and a fifth of the values 3 to 20 times too large: within 3 % everywhere."""
    random = np.random.default_rng(seed)
    lengths = np.tile(np.geomspace(32, 4096, 9), 5)
    features = np.column_stack([np.ones(45), lengths, lengths**2 / 2])
    clean = features @ TRUTH
    values = clean * random.normal(1.0, 0.01, 45)
    values[random.choice(45, 9, replace=False)] *= random.uniform(3.0, 20.0, 9)
    found = features @ huber_nnls(features, values, 0.03 * values)
    assert np.abs(found / clean - 1).max() < 0.03
    bent = features @ lsq_linear(features / clean[:, None], values / clean, (0, np.inf)).x
    assert np.abs(bent / clean - 1).max() > 0.5


@examples(25)
@given(st.integers(0, 10_000))
def test_it_minimises_hubers_loss(seed: int) -> None:
    """No better coefficients are found by a general optimiser from the ones it gives."""
    random = np.random.default_rng(seed)
    x = random.uniform(0, 10, 30)
    features = np.column_stack([np.ones(30), x])
    values = 3 + 2 * x + random.standard_t(2, 30)
    found = huber_nnls(features, values, np.ones(30))
    spread = deviation(values - features @ found)

    def loss(weights: np.ndarray) -> float:
        z = np.abs(values - features @ weights) / (1.345 * spread)
        return float(np.where(z < 1, z * z / 2, z - 0.5).sum())

    best = minimize(loss, found, bounds=[(0, None)] * 2, tol=1e-10).fun
    assert loss(found) <= best + 1e-3 * abs(best)


@given(st.lists(st.integers(0, 10**9), min_size=3, max_size=30), st.integers(0, 99))
def test_no_coefficient_is_ever_negative(values: list[int], seed: int) -> None:
    features = design(len(values), np.random.default_rng(seed))
    found = huber_nnls(features, np.array(values, dtype=float), np.ones(len(values)))
    assert (found >= 0).all() and np.isfinite(found).all()


def test_a_law_that_would_need_a_negative_part_does_without_it() -> None:
    x = np.arange(1.0, 11.0)
    found = huber_nnls(np.column_stack([np.ones(10), x]), 10 - x, np.ones(10))
    assert found[1] == 0.0 and 0 < found[0] < 10


def test_a_column_of_nothing_costs_nothing() -> None:
    features = np.column_stack([np.ones(6), np.zeros(6)])
    assert huber_nnls(features, np.full(6, 5.0), np.ones(6)) == pytest.approx([5.0, 0.0])


def test_the_deviation_is_that_of_a_normal_law() -> None:
    values = np.random.default_rng(2).normal(0, 7.0, 20_001)
    assert deviation(values) == pytest.approx(7.0, rel=0.03)
    assert deviation(np.zeros(0)) == 0.0


def test_the_mean_is_kept_by_skew_and_not_moved_by_a_wild_value() -> None:
    random = np.random.default_rng(3)
    skewed = random.gamma(4.0, 10.0, 4001)
    assert abs(huber_mean(skewed) - 40) < abs(float(np.median(skewed)) - 40)
    calm = random.normal(100.0, 1.0, 20)
    wild = np.append(calm, 5000.0)
    assert abs(huber_mean(wild) - calm.mean()) < 1.0 < abs(wild.mean() - calm.mean())
    assert huber_mean(np.full(5, 3.0)) == 3.0


# ---------------------------------------------------------------------- rows drawn anew
def test_sums_drawn_anew_scatter_as_sums_of_dependent_rows_do() -> None:
    """An AR(1) series: the variance of its sum is (1 + r) / (1 - r) times that of white noise."""
    random, n, memory = np.random.default_rng(4), 1500, 0.6
    noise = random.normal(size=n)
    series = np.empty(n)
    series[0] = noise[0]
    for i in range(1, n):
        series[i] = memory * series[i - 1] + noise[i]
    one = np.zeros(n, dtype=np.int64)
    sums = resampled_sums(series[None, :], one, 3000, random)[:, 0]
    ideal = n * series.var() * (1 + memory) / (1 - memory)
    assert sums.mean() == pytest.approx(series.sum(), abs=4 * sums.std() / 50)
    assert 0.6 < sums.var() / ideal < 1.3
    alone = resampled_sums(random.permutation(series)[None, :], one, 3000, random)[:, 0]
    assert alone.var() < 0.5 * sums.var()


@given(st.integers(1, 80), st.integers(1, 4), st.integers(0, 99))
def test_every_row_is_drawn_as_often_as_there_are_rows(n: int, parts: int, seed: int) -> None:
    """Of columns of ones each sum is n, whatever the segments; rows stay in their segment."""
    random = np.random.default_rng(seed)
    segments = np.sort(random.integers(0, parts, n))
    values = np.array([np.ones(n), segments], dtype=float)
    sums = resampled_sums(values, segments, 20, random)
    assert np.allclose(sums[:, 0], n) and np.allclose(sums[:, 1], segments.sum())
    assert 1 <= block_length(n) <= n


# ---------------------------------------------------------------------- against scipy
@given(st.integers(0, 10**6))
def test_the_solver_alone_is_the_one_of_scipy(seed: int) -> None:
    random = np.random.default_rng(seed)
    features = random.random((int(random.integers(4, 40)), 8))
    values = random.normal(size=len(features))
    assert np.array_equal(compiled_nnls()(features, values), nnls(features, values)[0])


@given(st.integers(0, 10**6))
def test_many_fits_at_once_are_those_of_each_to_the_bit(seed: int) -> None:
    random = np.random.default_rng(seed)
    features, scale = random.random((17, 3)), random.random(17) + 0.1
    values = random.normal(size=(6, 17)) * random.integers(0, 2, (6, 1))
    together = huber_nnls_each(features, values, scale)
    each = [huber_nnls(features, one, scale) for one in values]
    assert np.array_equal(together, each)


@given(st.integers(0, 10**6))
def test_the_least_slope_is_that_of_theil_and_sen(seed: int) -> None:
    random = np.random.default_rng(seed)
    x = random.integers(0, 8, int(random.integers(2, 30))).astype(float)
    y = random.integers(-3, 9, len(x)) + random.random(len(x)) * random.integers(0, 2)
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        slope = theilslopes(y, x, 0.95).low_slope if len(set(x)) > 1 else np.nan
    assert least_slope(x, y) == slope or (np.isnan(slope) and np.isnan(least_slope(x, y)))
