"""Histograms coupled to client ranks, against queues whose truth is known request by request."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from latdiag.attribution.metrics.tail import coupled_tail, observations
from tests.profiles import examples

#: The bounds that vLLM's phase histograms have, and finer ones (seconds).
COARSE = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, math.inf)
FINE = (*(0.001 * 1.62**i for i in range(30)), math.inf)


@dataclass(frozen=True)
class World:
    """Requests of a FIFO queue before ``slots`` equal servers; all in seconds."""

    queue: NDArray[np.float64]
    prefill: NDArray[np.float64]
    ttft: NDArray[np.float64]
    e2e: NDArray[np.float64]


def world(seed: int, n: int = 600, load: float = 0.95, slots: int = 12) -> World:
    """Log-normal prompts and answers; the wait comes from the queue itself."""
    rng = np.random.default_rng(seed)
    prompt = np.clip(rng.lognormal(6.3, 1.0, n), 16, 14_000)
    answer = np.clip(rng.lognormal(5.0, 0.6, n), 8, 1000)
    prefill = 0.01 + 6e-5 * prompt
    decode = answer * 0.012
    work = prefill + decode
    arrivals = np.cumsum(rng.exponential(work.mean() / slots / load, n))
    free = [0.0] * slots
    queue = np.empty(n)
    for i in range(n):
        start = max(arrivals[i], heapq.heappop(free))
        queue[i] = start - arrivals[i]
        heapq.heappush(free, start + work[i])
    network = 0.02 + rng.exponential(0.002, n)
    ttft = network + queue + prefill
    return World(queue, prefill, ttft, ttft + decode)


def histogram(values: NDArray[np.float64], bounds: tuple[float, ...]) -> list[int]:
    return [int(np.count_nonzero(values <= bound)) for bound in bounds]


def shares(seed: int, bounds: tuple[float, ...]) -> dict[str, float]:
    """Queue shares of the slowest 5 %: the truth and every estimate."""
    made = world(seed)
    tail = made.e2e >= np.quantile(made.e2e, 0.95)
    found = coupled_tail(
        [bound * 1e9 for bound in bounds],
        histogram(made.queue, bounds),
        float(made.queue.sum()) * 1e9,
        (made.ttft - made.prefill) * 1e9,
        made.ttft * 1e9,
        tail,
    )
    assert found is not None
    whole = float(made.e2e[tail].sum()) * 1e9
    return {
        "truth": float(made.queue[tail].sum()) * 1e9 / whole,
        "coupled": found.sum_ns / whole,
        "lo": found.lo_ns / whole,
        "hi": found.hi_ns / whole,
        "independent": found.independent_ns / whole,
        "comonotone": found.comonotone_ns / whole,
    }


@pytest.mark.parametrize("bounds", [COARSE, FINE], ids=["coarse", "fine"])
def test_ranks_of_the_client_find_the_tail_that_a_marginal_alone_cannot(
    bounds: tuple[float, ...],
) -> None:
    worlds = [shares(seed, bounds) for seed in range(20)]
    for one in worlds:
        assert one["lo"] <= one["truth"] <= one["hi"]
        assert one["lo"] <= one["coupled"] <= one["hi"]

    def error(name: str) -> float:
        return float(np.mean([abs(one[name] - one["truth"]) for one in worlds]))

    assert error("coupled") <= 0.03
    assert error("coupled") < 0.5 * min(error("independent"), error("comonotone"))


@examples(200)
@given(
    st.lists(st.floats(0, 100), min_size=1, max_size=60),
    st.sampled_from([COARSE, FINE, (math.inf,), (1.0, math.inf)]),
)
def test_the_observations_have_the_sum_and_the_buckets_of_the_histogram(
    values: list[float], bounds: tuple[float, ...]
) -> None:
    seen = np.array(values)
    counts = histogram(seen, bounds)
    made = observations(bounds, counts, float(seen.sum()))
    assert len(made) == len(values)
    assert made.sum() == pytest.approx(seen.sum(), abs=1e-6)
    assert (np.diff(made) >= 0).all()
    # In their buckets, but for a rounding at the edges.
    for below in (1e-9, -1e-9):
        other = histogram(made - below * 100, bounds)
        if below > 0:
            assert all(a >= b for a, b in zip(other, counts, strict=True))
        else:
            assert all(a <= b for a, b in zip(other, counts, strict=True))


@examples(100)
@given(st.integers(0, 10_000), st.integers(2, 80), st.sampled_from([COARSE, FINE]))
def test_the_interval_holds_whatever_the_ranks_say(
    seed: int, n: int, bounds: tuple[float, ...]
) -> None:
    rng = np.random.default_rng(seed)
    queue = rng.exponential(2.0, n)
    ttft = queue + rng.exponential(1.0, n)
    chosen = rng.random(n) < 0.3
    chosen[0] = True
    found = coupled_tail(
        bounds, histogram(queue, bounds), float(queue.sum()), rng.random(n), ttft, chosen
    )
    assert found is not None
    truth = float(queue[chosen].sum())
    assert found.lo_ns <= truth * (1 + 1e-9)
    assert truth <= found.hi_ns * (1 + 1e-9)
    assert found.lo_ns <= found.sum_ns <= found.hi_ns


def test_nothing_is_said_without_observations_or_requests() -> None:
    none, one = np.zeros(0), np.ones(1)
    assert coupled_tail((1.0, math.inf), (0, 0), 0.0, one, one, one > 0) is None
    assert coupled_tail((1.0, math.inf), (1, 1), 0.5, none, none, none > 0) is None
    assert coupled_tail((1.0, math.inf), (1, 1), 0.5, one, one, one < 0) is None
