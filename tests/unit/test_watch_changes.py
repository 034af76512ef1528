"""What is told to have changed: what did, and not what only looks like it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from latdiag.report.watch_screen import words_of
from latdiag.watch.bins import BIN_NS, Bins
from latdiag.watch.change import Change
from latdiag.watch.changes import Changes
from latdiag.watch.streams import Course, Regime, step_of
from tests.bench.watch.detection import looks, requests_of, told
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


def _made(
    begin: int, end: int, replica: float | None
) -> Iterator[tuple[int, list[Change], list[Change]]]:
    """(Bins that are closed, active changes, what was told): 60 requests in each of 70 bins;
    prefill takes 50 ms longer in bins ``begin`` to ``end``, of one replica or of both."""
    rng = np.random.default_rng(3)
    bins = Bins()
    changes = Changes(bins)
    for number in range(70):
        n = 80 if number % 5 == 0 else 60
        usual = {"frontend": 0.004, "queue": 0.05, "prefill": 0.1, "decode": 1.0}
        table = {name: value * rng.normal(1, 0.05, n) for name, value in usual.items()}
        table |= {"prompt": np.full(n, 400.0), "output": np.full(n, 60.0), "model": np.zeros(n)}
        table["replica"] = np.arange(n) % 2.0
        if begin <= number < end:
            table["prefill"] += 0.05 * ((table["replica"] == replica) | (replica is None))
        table["end"] = (number + rng.uniform(0.05, 0.95, n)) * BIN_NS / 1e9
        bins.add(requests_of(table, np.arange(n)))
        bins.at(number)
        found = changes.look(number + 1)
        yield number + 1, changes.active, found


@pytest.mark.parametrize(
    ("begin", "end", "replica"), [(40, 50, None), (40, 60, None), (20, 60, None), (40, 56, 1.0)]
)
def test_a_step_is_told_with_its_size_and_ends_when_it_goes_back(
    begin: int, end: int, replica: float | None
) -> None:
    everything = []
    for at, active, found in _made(begin, end, replica):
        everything += found
        if begin + 4 <= at <= end:
            assert len(active) == 1, (at, active)
            # Six standard errors of the mean of 180 requests that differ by 5 ms.
            assert active[0].delta_ns == pytest.approx(50e6, rel=0.05), at
            assert active[0].since == begin
        if at >= end + 4:
            assert active == [], (at, active)
    assert [(c.component, c.until) for c in everything] == [("prefill", None), ("prefill", end)]
    assert everything[1].delta_ns == pytest.approx(50e6, rel=0.05)


class _Seats(World):
    """From ``at_s`` on a replica serves ``seats`` requests at once, and others wait."""

    at_s, seats = 1800.0, 3

    def _one(self, at, model, replica, free, running, random):  # type: ignore[no-untyped-def]
        if at >= self.at_s:
            slots = free[model][replica]
            slots[:] = sorted(slots)[-self.seats :]
            self.laws = [dataclasses.replace(law, slots=self.seats) for law in self.laws]
        return super()._one(at, model, replica, free, running, random)


def test_a_queue_that_stays_another_one_is_told_once_it_has_lasted() -> None:
    found = told(_Seats([_LAW], replicas=2, rate=6.0, wave=0.0, seed=7), 3000)
    queue = [(at * 30 - 1800, c) for at, c in found if c.component == "queue" and c.until is None]
    assert queue, found
    seconds, first = queue[0]
    assert 600 <= seconds <= 1000 and first.cause == "component" and first.delta_ns > 0
