"""What is told to have changed: what did, and not what only looks like it."""

from __future__ import annotations

import numpy as np

from latdiag.report.watch_screen import words_of
from latdiag.watch.streams import Course, Regime, step_of
from tests.bench.watch.detection import looks, told
from tests.bench.watch.traffic import Fault, Law, World

#: One model that is far from full, so that little traffic says much.
_LAW = Law(12, 0.004, 0.05, 0.00025, 0.008, 0.0003, 400, 60)


def _course(value: list[float], load: list[float] | None = None) -> Course:
    n = len(value)
    return Course(np.arange(n), np.array(value), np.full(n, 100.0), np.array(load or [10.0] * n))


def test_noise_is_no_step_and_a_step_is_one() -> None:
    rng = np.random.default_rng(1)
    flat = (100 + rng.normal(0, 3, 60)).tolist()
    found = step_of(_course(flat), Regime())
    assert found is not None and abs(found.z) < 1
    moved = [*flat[:-6], *(v + 20 for v in flat[-6:])]
    found = step_of(_course(moved), Regime())
    assert found is not None and found.z > 1
    assert 52 <= found.since <= 55


def test_what_follows_the_load_is_left_to_it() -> None:
    rng = np.random.default_rng(2)
    load = [*(10 + rng.normal(0, 2, 54)), *(16 + rng.normal(0, 2, 6))]
    value = [50 + 5 * x + rng.normal(0, 2) for x in load]
    found = step_of(_course(value, load), Regime())
    assert found is not None and abs(found.z) < 1 < found.load_ratio


def test_too_short_a_past_says_nothing() -> None:
    assert step_of(_course([100.0] * 15), Regime()) is None


def test_prefill_that_takes_longer_is_found_and_told() -> None:
    world = World([_LAW], replicas=2, rate=6.0, wave=0.0, seed=5)
    world.faults = [Fault(1200, "prefill", 1.4, 0)]
    changes = [change for _, change in told(world, 1500)]
    assert [c.component for c in changes if c.cause == "component"] == ["prefill"]
    first = changes[0]
    assert 1170 <= first.since * 30 <= 1290 and first.model == "m0" and first.delta_ns > 0
    assert "prefill +" in words_of(first) and "TTFT p95 (m0)" in words_of(first)


def test_a_steady_server_tells_nothing() -> None:
    world = World([_LAW], replicas=2, rate=6.0, wave=0.4, seed=6)
    assert [c for _, c in told(world, 3600) if c.cause != "load"] == []


def test_by_how_much_is_of_the_time_since_the_change_and_is_renewed() -> None:
    """Prefill takes 1.4 times as long from bin 40 on: the screen says by how much, to the end."""
    world = World([_LAW], replicas=2, rate=6.0, wave=0.0, seed=5)
    world.faults = [Fault(1200, "prefill", 1.4, 0)]
    first, last = None, None
    for _, changes, _ in looks(world, 2100):
        mine = [c for c in changes.active if c.component == "prefill" and not c.of_replica]
        if mine:
            first, last = first or mine[0], mine[0]
    assert first is not None and last is not None
    share = last.delta_ns / last.before_ns
    assert 0.33 <= share <= 0.47, share
    assert abs(first.delta_ns / first.before_ns - share) < 0.15
