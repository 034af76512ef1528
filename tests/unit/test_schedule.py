"""Schedules are pure: all of this runs without a clock."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latdiag.load.work.schedule import ClosedLoop, OpenLoop
from latdiag.model.errors import UsageFault
from latdiag.model.units import NS_PER_S

RATES = st.floats(0.01, 50_000, allow_nan=False)
RAMPS = st.one_of(st.just(0), st.integers(1, 600 * NS_PER_S))
KINDS = st.sampled_from(["poisson", "constant"])


def first(schedule: OpenLoop, n: int) -> list[int]:
    return list(itertools.islice(schedule.offsets(), n))


@given(RATES, KINDS, RAMPS, st.integers(0, 2**48))
def test_offsets_are_whole_and_never_decrease(rate, kind, ramp, seed):
    offsets = first(OpenLoop(rate, kind, ramp, seed), 200)
    assert all(type(offset) is int and offset >= 0 for offset in offsets)
    assert offsets == sorted(offsets)


@given(RATES, RAMPS)
def test_constant_count_is_the_integral_of_the_rate_at_every_instant(rate, ramp):
    schedule = OpenLoop(rate, "constant", ramp)
    for k, offset in enumerate(first(schedule, 300)):
        # Request k is due when k are expected; a nanosecond's rounding is all that differs.
        slack = rate / NS_PER_S + 1e-6 * max(k, 1)
        assert schedule.expected(offset) == pytest.approx(k, abs=slack)


def test_constant_rate_is_even_and_begins_at_once():
    assert first(OpenLoop(4, "constant"), 5) == [i * NS_PER_S // 4 for i in range(5)]


def test_constant_ramp_reaches_half_of_the_requests_and_then_the_full_rate():
    offsets = first(OpenLoop(100, "constant", 10 * NS_PER_S), 2000)
    # 10 s of a ramp to 100/s are 500 requests; a quarter of them in the first half.
    assert sum(offset < 10 * NS_PER_S for offset in offsets) == 500
    assert sum(offset < 5 * NS_PER_S for offset in offsets) == 125
    after = [b - a for a, b in itertools.pairwise(offsets) if a >= 10 * NS_PER_S]
    assert set(after) == {NS_PER_S // 100}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ramp_s", [0, 20])
def test_poisson_has_the_wanted_mean_and_the_spread_of_independent_arrivals(seed, ramp_s):
    schedule = OpenLoop(200, "poisson", ramp_s * NS_PER_S, seed)
    offsets = first(schedule, 12_000)
    # Rescaled by the integral of the rate, gaps are exponential with mean 1 and deviation 1.
    points = [0.0, *(schedule.expected(offset) for offset in offsets)]
    gaps = [b - a for a, b in itertools.pairwise(points)]
    n = len(gaps)
    mean = sum(gaps) / n
    variance = sum((gap - mean) ** 2 for gap in gaps) / n
    assert abs(mean - 1) < 4 / math.sqrt(n)
    assert abs(variance - 1) < 4 * math.sqrt(8 / n)  # the fourth moment of Exp(1) is 9
    beyond_two = sum(gap > 2 for gap in gaps) / n
    assert beyond_two == pytest.approx(math.exp(-2), abs=4 * math.sqrt(math.exp(-2) / n))


@given(RATES, KINDS, RAMPS, st.integers(0, 2**48))
def test_the_same_seed_gives_the_same_offsets(rate, kind, ramp, seed):
    schedule = OpenLoop(rate, kind, ramp, seed)
    assert (
        first(schedule, 50) == first(schedule, 50) == first(OpenLoop(rate, kind, ramp, seed), 50)
    )


def test_other_seeds_give_other_offsets():
    assert first(OpenLoop(10, seed=1), 20) != first(OpenLoop(10, seed=2), 20)


def test_workers_share_a_schedule_without_overlap():
    schedule = OpenLoop(10, seed=3)
    shares = [list(itertools.islice(schedule.offsets(), w, 300, 3)) for w in range(3)]
    assert sorted(itertools.chain(*shares)) == first(schedule, 300)


@pytest.mark.parametrize(
    ("text", "rate", "kind"),
    [
        ("10", 10, "poisson"),
        ("poisson:10", 10, "poisson"),
        ("constant:2.5", 2.5, "constant"),
        (" 0.5 ", 0.5, "poisson"),
        ("1e3", 1000, "poisson"),
    ],
)
def test_rates_are_read(text, rate, kind):
    schedule = OpenLoop.parse(text, ramp_ns=7, seed=9)
    assert schedule == OpenLoop(rate, kind, 7, 9)


@pytest.mark.parametrize(
    "text", ["", "ten", "0", "-3", "nan", "inf", "gamma:10", "constant:", ":10", "10:constant"]
)
def test_what_is_no_rate_is_refused_in_a_sentence(text):
    with pytest.raises(UsageFault) as fault:
        OpenLoop.parse(text)
    assert fault.value.remedy


@given(st.integers(1, 5000), RAMPS)
def test_closed_loop_starts_are_spread_over_the_ramp(concurrency, ramp):
    starts = ClosedLoop(concurrency, ramp).starts()
    assert len(starts) == concurrency
    assert starts[0] == 0
    assert starts == sorted(starts)
    assert starts[-1] < max(ramp, 1)
    gaps = [b - a for a, b in itertools.pairwise(starts)]
    assert all(abs(gap - ramp / concurrency) <= 1 for gap in gaps)


def test_closed_loop_of_nothing_is_refused():
    with pytest.raises(UsageFault):
        ClosedLoop(0)
    with pytest.raises(UsageFault):
        ClosedLoop(1, -1)
    with pytest.raises(UsageFault):
        OpenLoop(1, ramp_ns=-1)
