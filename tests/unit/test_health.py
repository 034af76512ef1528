"""Health: what load costs over being alone, and the objectives that a reader would set."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from latdiag.attribution.laws import explain as blackbox
from latdiag.diagnosis.health import PRESET, Health, health
from latdiag.diagnosis.result import Share
from latdiag.measurement.changes import Change
from latdiag.measurement.observations import Observations
from latdiag.model.metrics import SLO_PRESETS

from .probe_rows import MS, Reply, gets, reply, seen


def share(of_all: float) -> Share:
    return Share(of_all, None, None, 1, "C", "a test")


def probe(
    slower: float, wait: float = 0.0, step: float = 10.0, every: float = 150.0
) -> list[Reply]:
    """A server that takes ``slower`` times as long in its workload, and waits before. ``every``:
    ms between the workload's requests, of which each takes some 200."""
    rows = gets([0.3] * 8)
    for k, isl in enumerate((32, 128, 512, 1024) * 3):
        rows.append(reply("S3", isl, 1000 * k + 500, 10 + 0.02 * isl, [step] * 8))
    for k in range(40):
        isl = 100 + 10 * k
        server, gaps = wait + 10 + 0.02 * isl, [step * slower] * 20
        rows.append(reply("S10", isl, 50_000 + every * k, server, gaps, scenario="segment-1"))
    return rows


def measured(rows: list[Reply]) -> Health:
    found = blackbox.explain(seen(rows))
    assert found is not None
    well = health(seen(rows), found[0])
    assert well is not None
    return well


def test_an_idle_server_takes_what_it_takes_alone() -> None:
    well = measured(probe(1.0))
    assert well.over_alone == pytest.approx(1.0, abs=0.02)
    assert well.tpot_ns == pytest.approx(10 * MS) and well.n == 40
    # The slowest prompts: 490 tokens at 0.02 ms, 10 ms, and 0.3 ms of client and round trip.
    assert well.ttft_ns == pytest.approx(19.7 * MS, rel=0.02)


def test_steps_that_grow_and_waiting_both_count() -> None:
    assert measured(probe(1.5)).over_alone == pytest.approx(1.46, abs=0.03)
    assert measured(probe(1.0, wait=100.0)).over_alone == pytest.approx(1.46, abs=0.04)


def test_a_server_that_changed_is_measured_by_requests_that_met_no_other() -> None:
    for factor in (0.5, 1.5):
        assert measured(probe(factor, every=2000.0)).over_alone == pytest.approx(1.0, abs=0.05)


def at_times(
    speed: Callable[[float], float], lone_speed: Callable[[int], float] = lambda k: 1.0
) -> Observations:
    """A server that takes ``speed`` times as long at an instant, s of the run, and ``lone_speed``
    of its number for a request that it is asked alone first."""
    rows = gets([0.3] * 8)
    for k, isl in enumerate((32, 128, 512, 1024) * 3):
        rows.append(reply("S3", isl, 1000 * k + 500, 10, [10 * lone_speed(k)] * 20))
    for k in range(60):
        at = 50_000 + 150 * k
        rows.append(reply("S10", 100, at, 10, [10 * speed(at / 1000)] * 20, scenario="segment-1"))
    return seen(rows)


def over_alone(rows: Observations, *changes: Change) -> float:
    found = blackbox.explain(rows)
    assert found is not None
    parts, laws = found
    origin = int(rows.begin[rows.sent > 0].min())
    well = health(rows, parts, changes, origin, laws.step)
    assert well is not None
    return well.over_alone


def changed(
    kind: str,
    since: float,
    until: float,
    factor: float,
    what: str = "tpot",
    alone: bool = False,
    fade_s: float = 0.0,
) -> Change:
    factors = (factor, factor, factor)
    ends = (10.0, 10.0 * factor)
    return Change(kind, what, alone, since, since, since, until, *ends, *factors, 60, fade_s)


def test_a_server_that_changed_on_the_way_is_judged_by_what_it_takes_alone_by_then() -> None:
    """The run's first request was sent at 0.1 s, in ``gets``."""
    stepped = at_times(lambda s: 2.0 if s > 55 else 1.0)
    first = float(stepped.begin[stepped.sent > 0].min()) / 1e9
    assert over_alone(stepped) > 1.4
    assert over_alone(stepped, changed("step", 55 - first, 59, 2.0)) == pytest.approx(1, abs=0.06)
    drifted = at_times(lambda s: 2.0 ** ((s - 50) / 9))
    drift = changed("drift", 50 - first, 59 - first, 2.0)
    assert over_alone(drifted, drift) < 1.3 < over_alone(drifted)
    spell = changed("spell", 55 - first, 59, 2.0)
    assert over_alone(stepped, spell) > 1.4, "that may be others' load"
    of_ttft = changed("step", 55 - first, 59, 2.0, what="ttft")
    assert over_alone(stepped, of_ttft) > 1.4


def test_a_cold_start_seen_only_before_the_workload_leaves_open_what_requests_take_alone() -> None:
    cold = changed("cold_start", 1, 12, 0.5, alone=True, fade_s=3.0)
    assert over_alone(at_times(lambda s: 1.0), cold) == 0.0


def test_unlike_replicas_are_what_requests_take_alone_and_unevenness_is_not() -> None:
    def slow(every: int, times: float) -> Observations:
        def turn(s: float) -> float:
            return times if round((s - 50) / 0.15) % every == 0 else 1.0

        return at_times(turn, lambda k: times if k % every == 0 else 1.0)

    assert over_alone(slow(3, 2.0)) < 1.3
    few = at_times(lambda s: 2.0 if round((s - 50) / 0.15) % 3 == 0 else 1.0)
    assert over_alone(few) > 1.4, "alone, none was slow"
    uneven = at_times(lambda s: 2.0, lambda k: 1.0 + k / 11)
    assert over_alone(uneven) > 1.2, "all between: no replicas"


def merged(of_all: float, *members: str) -> Share:
    return Share(of_all, None, None, 1, "C", "a test", members=members)


def test_what_a_merged_class_may_hold_leaves_it_open_and_a_part_that_stands_out_does_not() -> None:
    well = Health(1.1, 1.0 * MS, 1.0 * MS, 9)
    decode = {"decode": share(0.6)}
    may_be_gateway = {"gateway": merged(0.25, "gateway", "prefill"), **decode}
    assert not well.good(may_be_gateway) and well.open(may_be_gateway)
    assert not well.open({"gateway": share(0.4), **decode}), "nothing is open there"
    assert not well.open({"gateway": merged(0.4, "gateway", "prefill"), **decode}), "too large"
    assert well.open({"gateway": merged(0.9, "gateway", "decode")}), "its pace may be the engine's"
    # Load costs a tenth: a queue takes no more of it.
    assert well.good({"queue": merged(0.4, "queue", "prefill"), **decode})
    crowded = Health(1.28, 1.0 * MS, 1.0 * MS, 9)
    assert crowded.open({"queue": merged(0.25, "queue", "prefill"), **decode})
    slow = Health(1.1, 600.0 * MS, 1.0 * MS, 9)
    assert not slow.open(may_be_gateway), "somebody waits"
    # Faster than alone: what a request takes alone is not known.
    assert Health(0.7, 1.0 * MS, 1.0 * MS, 9).open(decode)


def test_the_limits_are_those_of_the_preset() -> None:
    """500 ms to the first token and 30 ms from token to token."""
    assert set(SLO_PRESETS[PRESET]) == {"ttft.p99<500ms", "tpot.p99<30ms"}
    shares = {"queue": share(0.1), "decode": share(0.9)}
    for ttft, tpot, good in ((499, 29, True), (501, 29, False), (499, 31, False)):
        assert Health(1.0, ttft * MS, tpot * MS, 9).good(shares) == good


@pytest.mark.parametrize("name", ["client", "network", "gateway", "queue", "interconnect"])
def test_what_a_server_could_do_without_may_not_stand_out(name: str) -> None:
    well = Health(1.0, 1.0 * MS, 1.0 * MS, 9)
    assert well.good({name: share(0.19), "decode": share(0.81)})
    assert not well.good({name: share(0.21), "decode": share(0.79)})


def test_single_tokens_have_no_pace_and_no_workload_has_no_health() -> None:
    rows = [r for r in probe(1.0) if r.stage != "S10"]
    found = blackbox.explain(seen(rows))
    assert found is not None and health(seen(rows), found[0]) is None
    rows += [reply("S10", 100, 50_000 + 2000 * k, 12.0, []) for k in range(40)]
    assert measured(rows).tpot_ns == 0.0
