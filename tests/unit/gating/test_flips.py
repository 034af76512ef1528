"""The statistics of pairs, against enumeration and against what they promise."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from latdiag.stats import betting, flips, spending
from latdiag.stats.flips import null_of, scores_of
from tests.profiles import examples, repetitions

ALL = np.ones(1, dtype=bool)


def enumerated(scores: np.ndarray) -> np.ndarray:
    """Sums of ``scores`` under every one of the 2^n sign patterns."""
    patterns = np.array(list(itertools.product((-1.0, 1.0), repeat=len(scores))))
    return np.asarray(patterns @ scores)


@pytest.mark.parametrize("kind", ["rank", "mean"])
@pytest.mark.parametrize("n", [3, 6, 10])
def test_p_is_that_of_full_enumeration(kind: flips.Kind, n: int) -> None:
    random = np.random.default_rng(n)
    values = (
        np.round(100 * random.normal(0.4, 1, n)) if kind == "mean" else random.normal(0.4, 1, n)
    )
    scores = scores_of(values, kind)
    null = null_of(scores[:, None], np.arange(n), n, 19_999, 5)
    sums = enumerated(scores)
    exact = (sums >= scores.sum()).mean()
    spread = math.sqrt(exact * (1 - exact) / 19_999)
    assert abs(float(null.p(ALL)[0]) - exact) <= 5 * spread + 1e-4


@pytest.mark.parametrize("n", [5, 9, 14])
def test_signed_ranks_are_wilcoxons(n: int) -> None:
    values = np.random.default_rng(n).normal(0.3, 1, n)
    found = null_of(scores_of(values, "rank")[:, None], np.arange(n), n, 9_999, 1).p(ALL)[0]
    truth = stats.wilcoxon(values, alternative="greater", method="exact").pvalue
    assert found == pytest.approx(truth, abs=5 * math.sqrt(truth / 9_999) + 1e-3)


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=30))
@examples(100)
def test_ranks_share_ties_and_leave_zeros_out(values: list[int]) -> None:
    scores = scores_of(np.array(values, dtype=float), "rank")
    there = [v for v in values if v]
    expected = 2 * stats.rankdata(np.abs(there)) * np.sign(there)
    assert scores[np.array(values) != 0].tolist() == expected.tolist()
    assert not scores[np.array(values) == 0].any()


def test_a_pair_has_the_same_signs_at_every_look() -> None:
    scores = np.random.default_rng(0).integers(-9, 9, (30, 2)).astype(float)
    few = flips.flipped_sums(scores[:20], np.arange(20), 30, 500, 7)
    padded = np.where(np.arange(30)[:, None] < 20, scores, 0.0)
    assert (few == flips.flipped_sums(padded, np.arange(30), 30, 500, 7)).all()


FIRST_DRAWS = [[1, 1, 1], [-1, 1, 1], [1, -1, 1], [-1, 1, -1]]


def test_the_draws_of_a_seed_never_change() -> None:
    """A verdict of today must be that of tomorrow: these are the first draws of seed 1."""
    sums = flips.flipped_sums(np.eye(3), np.arange(3), 3, 4, 1)
    assert sums.astype(int).tolist() == FIRST_DRAWS


@given(st.integers(0, 2**32), st.sampled_from([12, 25, 60]), st.sampled_from(["rank", "mean"]))
@examples(60)
def test_the_bound_excludes_the_margin_exactly_where_the_test_rejects(
    seed: int, n: int, kind: flips.Kind
) -> None:
    values = np.random.default_rng(seed).normal(0.3, 1, n)
    if kind == "mean":
        values = np.round(1000 * values)
    null = null_of(scores_of(values, kind)[:, None], np.arange(n), n, 1_999, 3)
    critical = null.critical(0.05, ALL)
    rejects = bool(null.statistics[0] > critical)
    assert rejects == (float(null.p(ALL)[0]) <= 0.05)
    assert rejects == (flips.lower_bound(values, kind, critical) > 0.0)


def test_the_bounds_of_ranks_are_order_statistics_of_pairwise_means() -> None:
    values = np.random.default_rng(2).normal(0, 1, 15)
    means = np.sort([(a + b) / 2 for i, a in enumerate(values) for b in values[i:]])
    assert flips.middle(values, "rank") == pytest.approx(np.median(means))
    assert flips.lower_bound(values, "rank", 1.96) in means
    assert flips.lower_bound(values, "rank", 100.0) == -math.inf
    assert flips.upper_bound(values, "rank", 1.96) == -flips.lower_bound(-values, "rank", 1.96)


@pytest.mark.repeated
@pytest.mark.parametrize("kind", ["rank", "mean"])
def test_intervals_cover_at_their_level(kind: flips.Kind) -> None:
    """Of skewless noise with wild values: 95 % hold the truth, within what chance allows."""
    random, runs, held = np.random.default_rng(4), repetitions(1_000), 0
    for _ in range(runs):
        values = np.round(1e4 * (0.5 + random.standard_t(3, 25)))
        null = null_of(scores_of(values, kind)[:, None], np.arange(25), 25, 999, 1)
        critical = null.critical(0.025, ALL)
        lo, hi = (f(values, kind, critical) for f in (flips.lower_bound, flips.upper_bound))
        held += lo <= 5e3 <= hi
    assert stats.binomtest(held, runs, 0.95, alternative="less").pvalue > 1e-3


@pytest.mark.repeated
def test_the_largest_statistic_keeps_the_family_at_its_level() -> None:
    """24 correlated tests without an effect: as many false alarms as promised, not 24 times so."""
    random, runs, red, naive = np.random.default_rng(6), repetitions(600), 0, 0
    family = np.ones(24, dtype=bool)
    for _ in range(runs):
        values = random.normal(0, 1, (30, 1)) + random.normal(0, 1, (30, 24))
        scores = np.column_stack([scores_of(each, "rank") for each in values.T])
        null = null_of(scores, np.arange(30), 30, 999, 1)
        red += bool((null.p(family) <= 0.05).any())
        naive += any(null.p(np.arange(24) == at)[at] <= 0.05 for at in range(24))
    assert stats.binomtest(red, runs, 0.05, alternative="greater").pvalue > 1e-3
    assert naive > 3 * red


def test_hoeffdings_tail_is_above_the_exact_one() -> None:
    for n in (5, 12):
        scores = scores_of(np.random.default_rng(n).normal(0, 1, n), "rank")
        sums = enumerated(scores) / np.sqrt(np.square(scores).sum())
        for level in (0.05, 0.01, 0.001):
            assert (sums >= flips.tail_critical(level, 1)).mean() <= level


def test_a_level_below_one_in_the_flips_takes_the_stated_tail() -> None:
    null = null_of(np.ones((30, 1)), np.arange(30), 30, 999, 1)
    assert null.critical(1e-5, ALL) == flips.tail_critical(1e-5, 1)
    assert null.critical(0.01, ALL) < flips.tail_critical(0.01, 1)


# ---------------------------------------------------------------------- looks
@given(
    st.integers(12, 400),
    st.integers(1, 10),
    st.sampled_from([0.2, 0.05, 0.004, 1e-4]),
    st.integers(1, 40),
)
@examples(200)
def test_looks_spend_no_more_than_alpha_and_can_be_passed(
    pairs: int, looks: int, alpha: float, tests: int
) -> None:
    found = spending.looks_of(pairs, looks, alpha, 0.05, 9_999, tests, 12)
    assert sum(look.level for look in found) == pytest.approx(alpha)
    assert sum(look.safe_level for look in found) == pytest.approx(0.05)
    assert found[-1].pairs == pairs and len({look.pairs for look in found}) == len(found)
    for look in found[:-1]:
        assert look.pairs >= 12 and spending.decidable(look.pairs, look.level, tests)
        assert (look.by == "flips") == (look.level * 10_000 >= 1)


def test_the_spending_function_is_that_of_o_brien_and_fleming() -> None:
    """Lan and DeMets: 2 - 2 Phi(z / sqrt(t)); at one-sided .025, halfway, .0015."""
    assert spending.spent(0.025, 0.5) == pytest.approx(0.00153, abs=2e-5)
    assert spending.spent(0.025, 1.0) == 0.025


def test_an_early_look_at_a_small_alpha_is_not_planned() -> None:
    found = spending.looks_of(80, 4, 0.004, 0.05, 9_999, 7, 12)
    assert [look.pairs for look in found] == [40, 60, 80]
    assert found[0].by == "tail"


# ---------------------------------------------------------------------- bets
@given(st.integers(0, 2**32))
@examples(50)
def test_capital_is_expected_to_stay_what_it_is(seed: int) -> None:
    """Over all sign patterns of given sizes the mean is exactly 1, after every pair."""
    sizes = np.random.default_rng(seed).exponential(1.0, 8)
    patterns = np.array(list(itertools.product((-1.0, 1.0), repeat=8))) * sizes
    assert betting.capital(patterns.T).mean(axis=1) == pytest.approx(np.ones(8))


def test_bets_are_won_by_what_is_always_worse_and_never_by_nothing() -> None:
    worse = np.full((30, 2), 0.2)
    at = betting.first_crossing(worse, 0.001)
    assert at is not None and 12 <= at <= 16
    assert betting.first_crossing(np.zeros((30, 2)), 0.001) is None
    assert betting.first_crossing(np.empty((0, 2)), 0.001) is None
    assert betting.first_crossing(worse[: at - 1], 0.001) is None


@given(st.integers(0, 2**32))
@examples(30)
def test_the_bound_of_bets_is_where_they_stop_being_won(seed: int) -> None:
    values = np.random.default_rng(seed).normal(1.5, 0.5, 25)
    bound = betting.bound(values, 2_000.0)
    crossed = betting.first_crossing(values[:, None], 1 / 2_000) is not None
    assert crossed == (bound > 0.0)
    if math.isfinite(bound):
        assert betting.capital((values - bound - 1e-9)[:, None]).max() < 2_000
