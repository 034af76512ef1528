"""Pace: rough figures that the next stage is designed by, and how many streams are let in."""

from __future__ import annotations

import pytest
from hypothesis import given

from latdiag.attribution.laws.admission import admitted
from latdiag.probe.pace import pace
from tests.profiles import examples

from .fake_server import FakeServer, servers, steps
from .probe_rows import MS, TRIP, Reply, any_replies, gets, reply, seen
from .test_design import QUICK


def burst(
    firsts: list[float], steps_: int = 10, gap: float = 10.0, at: float = 5000
) -> list[Reply]:
    """S6: requests of one instant whose first tokens come when they come."""
    return [reply("S6", 32, at, first, [gap] * (steps_ - 1)) for first in firsts]


def test_the_figures_of_a_server_that_keeps_to_its_law() -> None:
    server = FakeServer(base_ms=7.0, token_us=50.0, gap_ms=12.0)
    for stage in steps(server, QUICK):
        if stage.name == "S6":
            break
    found = pace(seen(server.rows))
    assert found.slope_ns == pytest.approx(50_000, rel=0.01)
    assert found.base_ns == pytest.approx(7 * MS, rel=0.01)
    assert found.gap_ns == pytest.approx(12 * MS, rel=0.01)
    assert found.ttft_ns(1000) == pytest.approx(57 * MS, rel=0.01)
    assert found.floor_ns == pytest.approx(0.5 * MS + TRIP) and found.admitted is None


def test_one_slow_prompt_does_not_move_it() -> None:
    rows = [
        reply("S3", n, 1000 * k, 10 + 0.1 * n, [5.0] * 3)
        for k, n in enumerate((32, 64, 256, 512, 1024))
    ]
    calm = pace(seen(rows))
    wild = pace(seen([*rows, reply("S3", 700, 9000, 5000.0, [5.0] * 3)]))
    assert wild.ttft_ns(1024) == pytest.approx(calm.ttft_ns(1024), rel=0.1)


def test_the_warm_up_speaks_only_while_nothing_else_does() -> None:
    cold = reply("warmup", 64, 0, 900.0, [30.0] * 11)
    assert pace(seen([cold])).ttft_ns(64) == pytest.approx(900.3 * MS, rel=0.01)
    warm = [cold, reply("S2", 32, 3000, 10.0, [10.0] * 30)]
    assert pace(seen(warm)).ttft_ns(32) == pytest.approx(10.3 * MS, rel=0.01)


@pytest.mark.parametrize(
    ("firsts", "found"),
    [
        ([20.0] * 8, None),
        ([20.0, 25.0, 30.0, 35.0], None),
        # 90 ms after its first token the first one ends; who begins later was not let in.
        ([20.0, 20.0, 130.0, 130.0], 2),
        ([20.0, 20.0, 20.0, 130.0], 3),
        ([20.0, 130.0, 240.0, 350.0], 1),
    ],
)
def test_whoever_begins_after_another_has_ended_was_not_let_in(
    firsts: list[float], found: int | None
) -> None:
    assert admitted(seen(burst(firsts))) == found


def test_the_first_burst_with_a_limit_decides() -> None:
    rows = burst([20.0] * 4) + burst([20.0] * 3 + [140.0], at=9000) + burst([20.0] * 8, at=12_000)
    assert admitted(seen(rows)) == 3
    assert admitted(seen(gets([1.0] * 5))) is None


def flushed(first: float, flushes: int, period: float, at: float = 5000) -> Reply:
    """S6: 96 tokens, let go in so many flushes."""
    gaps = ([0.0] * (96 // flushes - 1) + [period]) * flushes
    return reply("S6", 32, at, first, gaps[:95])


@pytest.mark.parametrize("flushes", [1, 2, 4])
def test_one_flush_later_is_no_wait_for_a_place(flushes: int) -> None:
    """A gateway lets go every 1.2 s, so the prompt that was last comes a whole flush later."""
    alone = [reply("S2", 32, 0, 1200, ([0.0] * 31 + [1200.0]) * 4)]
    alone += [reply("S5", 32, 9000, 1200, ([0.0] * 31 + [1200.0]) * 8)]
    one = [flushed(1200.0, flushes, 1200.0, 40_000) for _ in range(3)]
    late = [flushed(2400.0, flushes, 1200.0, 40_000)]
    assert admitted(seen(alone + one + late)) is None
    # After two whole replies it was no flush.
    waited = [flushed(1200.0 * (2 * flushes + 3), flushes, 1200.0, 40_000)]
    assert admitted(seen(alone + one + waited)) == 3


@examples(40)
@given(servers())
def test_slots_are_found_or_nothing_is_claimed(server: FakeServer) -> None:
    """Of a server that takes every request; where a step takes no time, none can be seen."""
    server.fails, server.longest = 0, 1 << 30
    for _ in steps(server, QUICK):
        pass
    found = admitted(seen(server.rows))
    bursts = [len(stage.shots) for stage in server.stages if stage.name == "S6"]
    if server.gap_ms > 0:
        assert found == (server.slots if bursts and max(bursts) > server.slots else None)


@examples(60)
@given(any_replies())
def test_whatever_comes_the_figures_can_be_planned_with(rows: list[Reply]) -> None:
    found = pace(seen(rows))
    assert found.base_ns >= 0 and found.slope_ns >= 0 and found.gap_ns >= 100_000
    assert found.ttft_ns(1) <= found.ttft_ns(5000)
    assert found.admitted is None or found.admitted >= 1
