"""The streaming histogram against exact values, and the sample that turns into one."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latdiag.stats import Sample, mean, quantile
from latdiag.stats.estimate import rank
from latdiag.stats.histogram import MOST_BLOCKS, RESOLUTION, BlockHistogram, buckets, edge
from tests.profiles import examples


def lognormal(n: int, seed: int = 1) -> np.ndarray:
    return (np.random.default_rng(seed).lognormal(0, 1, n) * 2e7).astype(np.int64) + 1


@given(st.lists(st.integers(1, 2**53), min_size=1))
def test_a_value_lies_in_its_bucket(values: list[int]) -> None:
    for value, bucket in zip(values, buckets(np.array(values)).tolist(), strict=True):
        assert edge(bucket) <= value < edge(bucket + 1)
        assert edge(bucket + 1) - edge(bucket) <= RESOLUTION * value


def test_buckets_are_consecutive_over_an_octave() -> None:
    values = np.arange(2**20, 2**21 + 1, 2**9)
    assert (np.diff(buckets(values)) == 1).all()


@pytest.mark.parametrize("q", [0.01, 0.5, 0.9, 0.99])
def test_quantiles_are_those_of_the_values_within_a_bucket(q: float) -> None:
    values = lognormal(200_000)
    held = BlockHistogram(first_block=1000)
    held.add(values)
    found, exact = held.quantile(q), quantile(values, q)
    assert found.value is not None and exact.value is not None
    assert abs(found.value - exact.value) <= RESOLUTION * exact.value
    assert found.lo is not None and exact.lo is not None
    assert found.hi is not None and exact.hi is not None
    width = exact.hi - exact.lo
    assert exact.lo - width <= found.lo <= exact.lo * (1 + RESOLUTION) + width
    assert exact.hi * (1 - RESOLUTION) - width <= found.hi <= exact.hi + width + found.hi * 0.001
    assert found.n == 200_000 and "0.049%" in found.method


def test_mean_is_exact_and_its_interval_alike() -> None:
    values = lognormal(200_000)
    held = BlockHistogram(first_block=1000)
    held.add(values)
    found, exact = held.mean(), mean(values)
    assert found.value == pytest.approx(values.mean(), rel=1e-12)
    assert found.hi is not None and exact.hi is not None
    assert found.value is not None and exact.value is not None
    assert found.hi - found.value == pytest.approx(exact.hi - exact.value, rel=0.35)


@given(
    st.lists(st.lists(st.integers(-5, 10**10), max_size=6), max_size=60),
    st.data(),
)
@examples(60)
def test_how_rows_come_in_does_not_matter(rows: list[list[int]], data: st.DataObject) -> None:
    sizes = np.array([len(row) for row in rows], dtype=np.int64)
    values = np.array([value for row in rows for value in row], dtype=np.int64)
    whole = BlockHistogram(first_block=2)
    whole.add(values, sizes)
    cuts = sorted({0, len(rows), *data.draw(st.lists(st.integers(0, len(rows)), max_size=9))})
    parts = BlockHistogram(first_block=2)
    ends = np.concatenate([[0], np.cumsum(sizes)])
    for start, stop in itertools.pairwise(cuts):
        parts.add(values[ends[start] : ends[stop]], sizes[start:stop])
    assert parts.n == whole.n == len(values)
    for q in (0.1, 0.5, 0.9):
        assert parts.quantile(q) == whole.quantile(q)
    got, expected = parts.mean(), whole.mean()
    assert (got.n, got.n_effective) == (expected.n, expected.n_effective)
    # The sums are made in another order: equal but for the last bits of a float.
    for a, b in ((got.value, expected.value), (got.lo, expected.lo), (got.hi, expected.hi)):
        assert a == b or (a is not None and b is not None and a == pytest.approx(b, rel=1e-9))


@given(st.lists(st.integers(-3, 10**9), min_size=64, max_size=3000))
@examples(40)
def test_ranks_count_negative_and_zero_values(values: list[int]) -> None:
    held = BlockHistogram(first_block=1)
    held.add(np.array(values, dtype=np.int64))
    ordered = sorted(values)
    for q in (0.1, 0.5, 0.9):
        found = held.quantile(q)
        if found.value is None or found.lo is None or found.hi is None:
            continue
        exact = ordered[rank(len(values), q) - 1]
        assert found.lo <= exact <= found.hi
        if exact > 0:
            assert abs(found.value - exact) <= RESOLUTION * exact
        elif exact == 0:
            assert found.value == 0


def test_blocks_merge_and_lose_nothing() -> None:
    held = BlockHistogram(first_block=10)
    values = lognormal(50_000)
    held.add(values)
    assert held.n == 50_000
    blocks = int(held.mean().method.split()[2])
    assert MOST_BLOCKS // 2 <= blocks <= MOST_BLOCKS
    assert held.mean().value == pytest.approx(values.mean())


def test_a_run_of_slow_blocks_lowers_the_worth() -> None:
    calm = np.full(100_000, 20_000_000, dtype=np.int64)
    calm += np.random.default_rng(1).integers(0, 1000, 100_000)
    wave = calm.copy()
    wave[40_000:60_000] += 10_000_000
    worth = []
    for values in (calm, wave):
        held = BlockHistogram(first_block=1000)
        held.add(values)
        worth.append(held.quantile(0.5).n_effective)
    assert worth[1] < worth[0] / 100


def test_an_empty_histogram_refuses() -> None:
    held = BlockHistogram()
    assert held.mean().refused and held.share().refused and held.quantile(0.5).refused


def filled(sample: Sample, values: np.ndarray, per_row: int = 1, at_once: int = 7) -> Sample:
    sizes = np.full(values.size // per_row, per_row)
    order = np.arange(sizes.size)
    for start in range(0, sizes.size, at_once):
        rows = slice(start, start + at_once)
        flat = slice(start * per_row, (start + at_once) * per_row)
        sample.add(values[flat], sizes[rows], order[rows])
    return sample


def test_a_sample_is_exact_up_to_its_limit_and_a_histogram_beyond() -> None:
    values = lognormal(1000)
    exact = filled(Sample(limit=1000), values)
    (p50,) = exact.quantiles([0.5])
    assert p50 == quantile(values, 0.5) and "exact" in p50.method
    beyond = filled(Sample(limit=999), values)
    (near,) = beyond.quantiles([0.5])
    assert "histogram" in near.method and near.n == 1000
    assert near.value is not None and p50.value is not None
    assert abs(near.value - p50.value) <= RESOLUTION * p50.value
    assert beyond.mean().value == pytest.approx(exact.mean().value)


def test_the_moment_of_turning_does_not_depend_on_the_calls() -> None:
    values = lognormal(200_000)
    few = filled(Sample(limit=5000), values, per_row=10, at_once=20_000)
    many = filled(Sample(limit=5000), values, per_row=10, at_once=37)
    assert few.quantiles([0.5, 0.99]) == many.quantiles([0.5, 0.99])


def test_rows_without_values_do_not_count_as_rows() -> None:
    values = lognormal(300)
    sparse = Sample()
    there = np.zeros(900, dtype=np.bool_)
    there[::3] = True
    sparse.add(values, there, np.arange(900))
    assert sparse.quantiles([0.5]) == [quantile(values, 0.5)]
    assert sparse.n == 300


@pytest.mark.parametrize("limit", [10_000, 100])
def test_a_copy_goes_its_own_way(limit: int) -> None:
    values = lognormal(500)
    one = filled(Sample(limit), values)
    other = one.copy()
    before = one.quantiles([0.5])
    filled(other, lognormal(500, seed=2))
    assert one.quantiles([0.5]) == before and one.n == 500
    assert other.n == 1000 and other.quantiles([0.5]) != before


@pytest.mark.parametrize("limit", [10_000, 100])
def test_shares_of_flags(limit: int) -> None:
    flags = np.random.default_rng(0).random(2000) < 0.1
    held = Sample(limit)
    held.add(flags.view(np.int8), np.ones(2000, dtype=np.bool_), np.arange(2000))
    found = held.share()
    assert found.value == pytest.approx(flags.mean())
    assert found.lo is not None and found.hi is not None and found.lo < 0.1 < found.hi
    assert Sample().share().refused and Sample().mean().refused
    assert Sample().quantiles([0.5])[0].refused
