"""Changes on the way: named where the server changes, and not where its queue does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from latdiag.measurement.changes import Change, Requests, changes_of
from latdiag.stats.shapes import shape_of

S, MS = 1_000_000_000, 1_000_000
N = 120


def served(
    seed: int,
    speed: Callable[[float], float] = lambda s: 1.0,
    places: Callable[[float], int] = lambda s: 64,
    every_s: float = 0.25,
) -> Requests:
    """Poisson arrivals at a server with places, served in turn: 10 ms and 0.02 ms a token of the
    prompt, then 20 tokens of 10 ms and 0.3 ms for each other stream, times ``speed`` of the
    instant in s."""
    draw = np.random.default_rng(seed)
    at = np.cumsum(draw.exponential(every_s, N))
    isl = draw.integers(50, 1000, N)
    first, last, ends = np.zeros(N), np.zeros(N), []
    for k in range(N):
        start, free = at[k], sorted(end for end in ends if end > at[k])
        while len(free) >= places(start):
            start = free.pop(0)
        factor = speed(start) * draw.lognormal(0.0, 0.02)
        first[k] = start + factor * (0.010 + 0.00002 * isl[k])
        last[k] = first[k] + factor * 20 * (0.010 + 0.0003 * len(free))
        ends.append(last[k])
    ns = [(S * each).astype(np.int64) + S for each in (at, first, last)]
    return Requests(ns[0], ns[1], ns[2], ns[2] + 10_000, np.full(N, 21), isl)


def found(requests: Requests, alone: Requests | None = None) -> tuple[Change, ...]:
    return changes_of(requests, alone, S)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("factor", [0.5, 1.6])
def test_a_step_is_named_with_its_time_and_size(seed: int, factor: float) -> None:
    (change,) = found(served(seed, lambda s: factor if s > 15 else 1.0))
    assert change.kind == "step" and 0 <= change.from_lo_s <= change.from_s <= change.from_hi_s
    assert change.from_s == pytest.approx(15, abs=1.5)
    assert change.factor == pytest.approx(factor, rel=0.1)
    assert change.factor_lo < change.factor < change.factor_hi
    assert change.after_ms / change.before_ms == pytest.approx(change.factor)


@pytest.mark.parametrize("seed", range(4))
def test_a_spell_has_two_ends(seed: int) -> None:
    (change,) = found(served(seed, lambda s: 2.0 if 10 < s < 18 else 1.0))
    assert change.kind == "spell" and change.factor == pytest.approx(2.0, rel=0.15)
    assert (change.from_s, change.until_s) == (
        pytest.approx(10, abs=2),
        pytest.approx(18, abs=2),
    )


@pytest.mark.parametrize("seed", range(4))
def test_a_drift_and_a_cold_start(seed: int) -> None:
    (slower,) = found(served(seed, lambda s: 1 + 0.03 * s))
    assert slower.kind == "drift" and slower.factor > 1.5
    (cold,) = found(served(seed, lambda s: 1 + 4 * 0.5 ** (s / 3)))
    assert cold.kind == "cold_start" and cold.factor < 0.5


def test_places_that_are_lost_are_named_though_each_request_is_as_fast() -> None:
    named = [found(served(seed, places=lambda s: 1 if s > 15 else 16)) for seed in range(4)]
    assert all(
        any(each.what == "ttft" and each.factor > 2 for each in changes) for changes in named
    )


@pytest.mark.parametrize("places", [1, 2, 64])
def test_a_queue_that_comes_and_goes_is_no_change(places: int) -> None:
    """At four fifths of what the places bear, waits of one server grow and vanish by chance."""
    every = 0.23 / 0.8 / places if places < 64 else 0.1
    named = [found(served(seed, places=lambda s: places, every_s=every)) for seed in range(25)]
    assert sum(bool(each) for each in named) <= 1


def test_requests_that_met_no_other_name_only_what_goes_on_all_the_time() -> None:
    """Designed stages are unlike each other, one after the other."""
    alone = served(1, lambda s: 2.0 if s > 12 else 1.0, every_s=1.0)
    assert not found(served(2), alone)
    assert [each.alone for each in found(served(2), served(1, lambda s: 1 + s / 60, every_s=1.0))]


def test_slow_waves_are_worth_few_values() -> None:
    """An autoregressive series of 0.9 wanders far, and shows no shape."""
    named = 0
    for seed in range(40):
        draw = np.random.default_rng(seed)
        values = np.zeros(N)
        for k in range(1, N):
            values[k] = 0.9 * values[k - 1] + draw.normal()
        named += shape_of(np.arange(N, dtype=float), values) is not None
    assert named <= 2


def test_few_values_and_no_time_say_nothing() -> None:
    one = np.arange(8, dtype=float)
    assert shape_of(one, one) is None
    assert shape_of(np.zeros(50), np.arange(50, dtype=float)) is None
