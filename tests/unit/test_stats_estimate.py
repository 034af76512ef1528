"""Quantiles, means and shares against exact binomial sums and hand-made samples."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from latdiag.model.units import percentile_name
from latdiag.stats import Estimate, mean, quantile, sample_bound, share
from latdiag.stats.dependence import SERIES_TERMS, sum_variance
from latdiag.stats.estimate import interval_ranks, quantiles, rank, refused


def lognormal(n: int, seed: int = 1) -> np.ndarray:
    return (np.random.default_rng(seed).lognormal(0, 1, n) * 1e8).astype(np.int64)


@pytest.mark.parametrize(("q", "n"), [(0.5, 11), (0.9, 64), (0.95, 130), (0.99, 662)])
def test_sample_bound_has_the_published_values(q: float, n: int) -> None:
    assert sample_bound(q) == n


@pytest.mark.parametrize("q", [0.01, 0.05, 0.3, 0.5, 0.75, 0.9, 0.975, 0.99, 0.999, 0.9999])
def test_sample_bound_is_the_smallest_that_the_binomial_allows(q: float) -> None:
    n, tail = sample_bound(q), min(q, 1 - q)
    assert binom.cdf(1, n, tail) <= 0.01 < binom.cdf(1, n - 1, tail)


@pytest.mark.parametrize("q", [0.0, 1.0, -1.0, 1.5])
def test_sample_bound_refuses_what_is_no_quantile(q: float) -> None:
    with pytest.raises(ValueError, match="quantile"):
        sample_bound(q)


@given(st.integers(1, 100_000), st.integers(1, 999))
def test_rank_is_the_smallest_with_that_share(n: int, thousandths: int) -> None:
    k = rank(n, thousandths / 1000)
    assert k * 1000 >= n * thousandths > (k - 1) * 1000


@given(st.integers(0, 5000), st.sampled_from([0.1, 0.5, 0.9, 0.95, 0.99]))
def test_interval_ranks_cover_and_are_tight(more: int, q: float) -> None:
    n = sample_bound(q) + more
    low, high = interval_ranks(n, n, q)
    assert 1 <= low <= rank(n, q) <= high <= n
    # P(low <= Binomial <= high - 1): the quantile lies between those two order statistics.
    assert binom.cdf(high - 1, n, q) - binom.cdf(low - 1, n, q) >= 0.95
    assert binom.cdf(low, n, q) > 0.025 - 1e-12
    assert 1 - binom.cdf(high - 2, n, q) > 0.025 - 1e-12


@given(st.integers(0, 3000), st.floats(0.02, 1.0), st.sampled_from([0.1, 0.5, 0.9, 0.95, 0.99]))
def test_fewer_effective_samples_never_narrow_the_interval(
    more: int, part: float, q: float
) -> None:
    n = 4 * sample_bound(q) + more
    n_effective = max(sample_bound(q), int(n * part))
    low, high = interval_ranks(n, n, q)
    low_few, high_few = interval_ranks(n, n_effective, q)
    slack = math.ceil(n / n_effective)
    assert 1 <= low_few <= low + slack and high - slack <= high_few <= n
    # The ends stand where those of a sample of n_effective do.
    exact = interval_ranks(n_effective, n_effective, q)
    assert low_few / n <= exact[0] / n_effective and high_few / n >= exact[1] / n_effective


def test_a_quantile_is_a_value_that_was_measured() -> None:
    values = np.arange(1, 1001, dtype=np.int64)
    np.random.default_rng(0).shuffle(values)
    found = quantile(values, 0.95)
    assert found.value == 950.0
    assert found.n == found.n_effective == 1000
    low, high = interval_ranks(1000, 1000, 0.95)
    assert (found.lo, found.hi) == (low, high)
    assert "order statistics" in found.method and found.refused is None


@pytest.mark.parametrize("q", [0.5, 0.9, 0.95, 0.99])
def test_one_sample_below_the_bound_is_refused_and_the_bound_is_not(q: float) -> None:
    bound = sample_bound(q)
    values = lognormal(bound)
    short = quantile(values[:-1], q)
    assert short.value is short.lo is short.hi is None
    assert short.n == bound - 1 and short.needs == bound
    assert short.refused is not None and str(bound) in short.refused
    full = quantile(values, q)
    assert full.refused is None and full.needs is None
    assert full.value is not None and full.lo is not None and full.hi is not None
    assert full.lo <= full.value <= full.hi


def test_independent_samples_at_the_bound_seldom_lose_their_interval() -> None:
    """The test for dependence is allowed to be wrong in a tenth of the cases (measured: 7 %)."""
    kept = [quantile(lognormal(662, seed), 0.99).lo is not None for seed in range(200)]
    assert sum(kept) >= 0.85 * len(kept)


def test_samples_that_share_one_burst_bear_no_interval() -> None:
    """1000 samples, but all that lie beyond p99 come from one moment: a p99 of one event."""
    values = lognormal(1000)
    values.sort()
    spread = np.random.default_rng(3).permutation(values[:980])
    burst = np.concatenate([spread[:500], values[980:], spread[500:]])
    found = quantile(burst, 0.99)
    assert found.value is not None and found.refused is None
    assert found.lo is None and found.hi is None and found.needs == 662
    assert found.method.startswith("no interval: 1000 dependent values")
    assert 1 <= found.n_effective < 662


def test_order_restores_time() -> None:
    rng = np.random.default_rng(5)
    values = np.cumsum(rng.normal(size=2000) * 1e6).astype(np.int64) + 10**9
    places = rng.permutation(2000)
    in_time = quantile(values, 0.5)
    shuffled = quantile(values[places], 0.5, order=places.astype(np.int64))
    assert in_time == shuffled
    assert in_time.n_effective < 100
    # Without the order the same values look independent.
    assert quantile(values[places], 0.5).n_effective > 1000


def test_the_gaps_of_one_request_are_worth_one() -> None:
    gaps = lognormal(10_000)
    found = quantile(gaps, 0.5, sizes=np.array([10_000]))
    assert found.n_effective == 1 and found.value is not None and found.lo is None


def test_gaps_alike_within_requests_are_worth_the_requests() -> None:
    per_request = lognormal(200)
    gaps = np.repeat(per_request, 50)
    found = quantile(gaps, 0.5, sizes=np.full(200, 50))
    assert 120 <= found.n_effective <= 220
    lone = quantile(per_request, 0.5)
    assert found.value == lone.value
    assert found.lo is not None and lone.lo is not None and found.lo <= lone.lo * 1.1


def test_sizes_and_order_move_rows_not_values() -> None:
    rng = np.random.default_rng(8)
    sizes = rng.integers(1, 9, 400)
    level = np.cumsum(rng.normal(size=400)) * 1e6 + 1e9
    flat = [np.full(k, v).astype(np.int64) for k, v in zip(sizes, level, strict=True)]
    in_time = quantile(np.concatenate(flat), 0.5, sizes)
    places = rng.permutation(400)
    moved = np.concatenate([flat[i] for i in places])
    assert quantile(moved, 0.5, sizes[places], places.astype(np.int64)) == in_time
    assert quantile(moved, 0.5, sizes[places]).n_effective > 2 * in_time.n_effective


def test_several_quantiles_are_the_single_ones() -> None:
    values = lognormal(1000)
    wanted = (0.5, 0.9, 0.99, 0.999)
    assert quantiles(values, wanted) == [quantile(values, q) for q in wanted]


@pytest.mark.parametrize("n", [0, 1, 10])
def test_too_few_for_any(n: int) -> None:
    for found in quantiles(np.arange(n, dtype=np.int64), (0.5, 0.99)):
        assert found.value is None and found.n == n and found.refused


def test_equal_values_have_an_interval_of_no_width() -> None:
    found = quantile(np.full(700, 5, dtype=np.int64), 0.99)
    assert (found.value, found.lo, found.hi, found.n_effective) == (5.0, 5.0, 5.0, 700)
    same = mean(np.full(700, 5, dtype=np.int64))
    assert (same.value, same.lo, same.hi, same.n_effective) == (5.0, 5.0, 5.0, 700)


def test_most_values_equal_to_the_quantile() -> None:
    values = np.array([1] * 900 + [2] * 100, dtype=np.int64)
    np.random.default_rng(0).shuffle(values)
    found = quantile(values, 0.5)
    assert (found.value, found.lo, found.hi) == (1.0, 1.0, 1.0)


def test_mean_of_independent_values_is_student() -> None:
    values = np.array([10, 12, 9, 11, 13], dtype=np.int64)
    found = mean(values)
    half = 2.7764451 * math.sqrt(2.5 / 5)
    assert found.value == 11.0
    assert found.lo == pytest.approx(11 - half) and found.hi == pytest.approx(11 + half)
    assert found.n == found.n_effective == 5


def test_mean_of_one_value_has_no_interval_and_says_so() -> None:
    found = mean(np.array([7], dtype=np.int64))
    assert (found.value, found.lo, found.hi, found.n) == (7.0, None, None, 1)
    assert "no interval" in found.method
    assert mean(np.array([], dtype=np.int64)).refused == "no samples"


def test_mean_of_a_drift_has_no_interval() -> None:
    """A series that only climbs holds no information on how its mean would vary."""
    found = mean(np.arange(100, dtype=np.int64))
    assert found.value == 49.5 and found.lo is None
    assert "too few" in found.method and found.n_effective < 11


@pytest.mark.parametrize(
    ("hits", "n", "lo", "hi"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0)],
)
def test_share_is_wilson(hits: int, n: int, lo: float, hi: float) -> None:
    """Expected: Wilson interval without continuity correction, worked by hand."""
    flags = np.zeros(n, dtype=np.bool_)
    flags[:hits] = True
    found = share(np.random.default_rng(2).permutation(flags))
    assert found.value == hits / n
    assert found.lo == pytest.approx(lo, abs=1e-4) and found.hi == pytest.approx(hi, abs=1e-4)
    assert found.lo is not None and found.hi is not None
    assert found.lo <= hits / n <= found.hi
    assert share(np.zeros(0, dtype=np.bool_)).refused == "no samples"


def test_failures_in_one_burst_widen_the_share() -> None:
    flags = np.zeros(1000, dtype=np.bool_)
    flags[300:330] = True
    burst = share(flags)
    spread = share(np.random.default_rng(4).permutation(flags))
    assert burst.value == spread.value
    assert burst.n_effective < spread.n_effective / 5
    assert burst.hi is not None and spread.hi is not None and burst.hi > spread.hi * 1.3


def test_long_series_are_bundled_without_changing_the_variance() -> None:
    rng = np.random.default_rng(6)
    terms = rng.normal(size=10 * SERIES_TERMS)
    terms -= terms.mean()
    assert sum_variance(terms).variance == pytest.approx(terms.size, rel=0.1)
    climb = np.repeat(rng.normal(size=SERIES_TERMS // 4), 40)
    climb -= climb.mean()
    assert sum_variance(climb).variance == pytest.approx(40 * climb.size, rel=0.2)


@given(
    st.lists(st.integers(-(10**12), 10**12), min_size=1, max_size=120),
    st.sampled_from([0.1, 0.5, 0.9]),
    st.data(),
)
def test_estimates_keep_their_promises(values: list[int], q: float, data: st.DataObject) -> None:
    flat = np.array(values, dtype=np.int64)
    cuts = data.draw(st.lists(st.integers(0, len(values)), max_size=20))
    edges = sorted({0, len(values), *cuts})
    sizes = np.diff(edges) if data.draw(st.booleans()) else None
    for found in (quantile(flat, q, sizes), mean(flat, sizes)):
        assert found.n == len(values) and 0 <= found.n_effective <= found.n
        assert (found.value is None) == (found.refused is not None)
        if found.lo is not None:
            assert found.hi is not None and found.value is not None
            assert found.lo <= found.value <= found.hi
    found = quantile(flat, q, sizes)
    if found.value is not None:
        assert found.value == sorted(values)[rank(len(values), q) - 1]


def test_json_is_in_the_unit_and_complete() -> None:
    one = Estimate(2_500_000.0, 2_000_000.0, None, 9, 8, "how")
    assert one.to_json("ms") == {
        "value": 2.5, "lo": 2.0, "hi": None, "unit": "ms", "n": 9, "n_effective": 8,
        "method": "how",
    }  # fmt: skip
    assert Estimate(0.25, None, None, 9, 9, "how").to_json("share")["value"] == 0.25
    few = refused(0.99, 10)
    assert few is not None
    assert few.to_json("ms")["value"] is None
    assert few.to_json("ms")["needs"] == 662 and "662" in str(few.to_json("ms")["refused"])


@pytest.mark.parametrize(("q", "name"), [(0.5, "p50"), (0.99, "p99"), (0.999, "p99.9")])
def test_percentiles_are_named_as_people_do(q: float, name: str) -> None:
    assert percentile_name(q) == name
