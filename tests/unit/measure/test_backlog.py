"""Overload: an open loop that asks for more than is finished, and one that does not."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from latdiag.measurement import frame as frames
from latdiag.measurement.backlog import Rows, backlog_of
from latdiag.sim.params import FAULTS, Params
from latdiag.sim.virtual import play
from tests.unit.sim_load import shapes

S = 1_000_000_000
#: Requests/s that a server finishes whose places are always taken.
QUEUE = FAULTS["queue"]


def sent(params: Params, rate: float, n: int, seed: int, windows: int = 2) -> list[Rows]:
    """The rows of Poisson arrivals in windows with a pause between them."""
    draw, start, pieces = random.Random(seed), 0, []
    for window in range(windows):
        at, arrivals = start, []
        for place, shape in enumerate(shapes(draw, n)):
            at += round(draw.expovariate(rate) * S)
            arrivals.append((str(place), at, *shape))
        played = play(params, seed + window, arrivals)
        begin = np.array([at for _, at, *_ in arrivals])
        streams = [played[key][0] for key, *_ in arrivals]
        first = np.array([each[0] for each in streams])
        last = np.array([each[-1] for each in streams])
        outputs = np.array([len(each) for each in streams])
        yes, scenario = np.ones(n, dtype=bool), np.full(n, f"segment-{window}", dtype=object)
        pieces.append(
            {"begin": begin, "sent": begin, "first": first, "last": last, "done": last,
             "outputs": outputs, "scenario": scenario, "ok": yes, "begun": yes, "ended": yes,
             "sound": yes, "workload": yes}
        )  # fmt: skip
        start = int(last.max()) + S
    return Rows.of_frame(frames.joined(pieces))


@cache
def capacity(params: Params) -> float:
    """Requests/s of a server that is never without work, counted by what it has finished."""
    (rows,) = sent(params, 1e3, 1200, 99, windows=1)
    done = np.sort(rows.done)
    return 1000 * S / float(done[1100] - done[100])


@pytest.mark.parametrize("seed", range(6))
def test_capacity_is_within_a_tenth_at_three_times_of_it(seed: int) -> None:
    able = capacity(QUEUE)
    found = backlog_of(sent(QUEUE, 3 * able, 64, seed), 3 * able)
    assert found is not None
    assert found.served_rate == pytest.approx(able, rel=0.1)
    assert found.served_lo < 1.03 * able and 0.97 * able < found.served_hi
    assert found.offered_rate == pytest.approx(3 * able, rel=0.3)
    assert found.grew == "ttft" and found.last_ms > 3 * found.first_ms
    # What it is told to ask for is what it bears, and so many servers bear what is asked now.
    assert 0.7 * able < found.bearable_rate < 0.95 * able * 1.05
    assert (found.more_replicas + 1) * found.bearable_rate >= found.offered_rate


def test_what_a_server_bears_is_no_overload() -> None:
    able = capacity(QUEUE)
    named = [
        backlog_of(sent(QUEUE, load * able, 50, seed), load * able)
        for load in (0.5, 0.8, 0.95)
        for seed in range(12)
    ]
    assert not any(named)


def test_a_server_that_lets_all_in_is_overloaded_too() -> None:
    """All stream at once, ever slower: nobody waits for a place."""
    able = capacity(FAULTS["decode"])
    rate = 2 * able
    found = backlog_of(sent(FAULTS["decode"], rate, 400, 1), rate)
    assert found is not None and found.served_rate == pytest.approx(able, rel=0.1)


def test_a_window_shorter_than_a_reply_says_nothing() -> None:
    """Everything is sent before the first reply ends: what piles up may be all that ever will."""
    slow = replace(FAULTS["decode"], weights_ms=400.0)
    assert backlog_of(sent(slow, 50.0, 40, 1), 50.0) is None


def test_few_requests_say_nothing() -> None:
    able = capacity(QUEUE)
    assert backlog_of(sent(QUEUE, 3 * able, 8, 1), 3 * able) is None
