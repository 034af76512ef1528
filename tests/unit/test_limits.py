"""By which rule a server refuses requests as too many, and that a probe goes on below it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from latdiag.attribution.laws.admission import Streams, streams_of
from latdiag.attribution.laws.limits import IN_FLIGHT, RATE, refused_of
from latdiag.diagnosis.limits import _of_streams
from latdiag.measurement.stages import REFUSALS, WORKLOAD, Limits, Stage
from latdiag.probe.budget import MAX_TOKENS
from latdiag.probe.design import probe

from .fake_server import FakeServer, steps
from .probe_rows import MS, Reply, seen

QUICK = Limits("quick", MAX_TOKENS["quick"], None, 7)
S = 1000 * MS


@dataclass
class Limited(FakeServer):
    """``places``: more are refused. ``allows``: by when they come; ``status``: how."""

    places: int = 1 << 30
    allows: Callable[[int], bool] = lambda at: True
    wait: int = -1
    ends: list[int] = field(default_factory=list)

    def _one(self, stage: Stage, shot: object, due: int, free: list[int]) -> int:
        under_way = sum(end > due for end in self.ends)
        if under_way >= self.places or not self.allows(due):
            isl = shot.isl  # type: ignore[attr-defined]
            segment = f"segment-{stage.segment}" if stage.segment else ""
            refused = Reply(stage.name, isl, due, scenario=segment, status=429, wait=self.wait)
            self.rows.append(refused)
            return due + MS
        end = super()._one(stage, shot, due, free)  # type: ignore[arg-type]
        self.ends.append(end)
        return end


@dataclass
class Bucket:
    """``rate`` requests/s, ``burst`` at once."""

    rate: float
    burst: int
    empty: float = -1e18

    def __call__(self, at: int) -> bool:
        pace = 1e9 / self.rate
        if max(self.empty, at) + pace > at + self.burst * pace:
            return False
        self.empty = max(self.empty, at) + pace
        return True


@dataclass
class Window:
    """``number`` requests in each ``seconds``, which begin at even times."""

    number: int
    seconds: int
    taken: dict[int, int] = field(default_factory=dict)

    def __call__(self, at: int) -> bool:
        window = (at + 777 * MS) // (self.seconds * S)
        if self.taken.get(window, 0) >= self.number:
            return False
        self.taken[window] = self.taken.get(window, 0) + 1
        return True


def probed(server: Limited, limits: Limits = QUICK) -> Limited:
    for _ in steps(server, limits):
        pass
    return server


def served(server: Limited) -> int:
    return sum(bool(row.arrivals) and row.stage == WORKLOAD for row in server.rows)


# ---------------------------------------------------------------------- what a probe finds
@pytest.mark.parametrize("places", [1, 2, 3, 5, 8, 12])
@pytest.mark.parametrize("own", [{}, {"rate": 6.0}, {"concurrency": 20}])
def test_so_many_at_once_are_found_and_the_workload_is_served_below(
    places: int, own: dict[str, float]
) -> None:
    limits = replace(QUICK, **own)  # type: ignore[arg-type]
    server = probed(Limited(places=places), limits)
    law = refused_of(seen(server.rows))
    assert law is not None and (law.rule, law.value, law.known) == (IN_FLIGHT, places, True)
    work = [row for row in server.rows if row.stage == WORKLOAD]
    assert len(work) >= 34 and served(server) >= 0.97 * len(work)


@pytest.mark.parametrize("rate", [1.0, 2.3, 5.0])
@pytest.mark.parametrize("burst", [1, 4, 20])
@pytest.mark.parametrize("wait", [-1, 2 * S])
def test_a_bucket_of_requests_is_found_and_the_workload_is_served_below(
    rate: float, burst: int, wait: int
) -> None:
    server = probed(Limited(allows=Bucket(rate, burst), wait=wait))
    law = refused_of(seen(server.rows))
    assert law is not None and law.rule == RATE and law.known
    assert law.value == pytest.approx(rate, rel=0.1) and law.window_s is None
    assert law.wait_s == (2.0 if wait > 0 else None)
    assert served(server) >= 30


@pytest.mark.parametrize(("number", "seconds"), [(10, 5), (20, 10), (25, 20)])
def test_windows_of_requests_are_found(number: int, seconds: int) -> None:
    server = probed(Limited(allows=Window(number, seconds)))
    law = refused_of(seen(server.rows))
    assert law is not None and law.rule == RATE and law.known
    assert law.value == pytest.approx(number / seconds, rel=0.1)
    assert served(server) >= 30


def test_refusals_without_a_rule_are_counted_and_no_number_is_named() -> None:
    """Every fifth request, whatever is under way."""
    count = iter(range(1 << 20))
    server = probed(Limited(allows=lambda at: next(count) % 5 != 4))
    law = refused_of(seen(server.rows))
    assert law is not None and not law.known and law.refused > 10


def test_a_server_without_limits_is_sent_nothing_to_find_them() -> None:
    server = probed(Limited())
    assert refused_of(seen(server.rows)) is None
    assert not any(stage.name == REFUSALS for stage in server.stages)


def test_one_that_refuses_everything_is_left_alone() -> None:
    """And the design says why it ends."""
    server, design = Limited(allows=lambda at: False, wait=30 * S), probe(QUICK)
    stage = next(design)
    with pytest.raises(StopIteration) as end:
        while True:
            server.answer(stage)
            assert len(server.stages) < 30
            stage = design.send(seen(server.rows))
    assert len(server.rows) < 250
    assert end.value.value is None or "refuses requests as too many" in end.value.value


# ---------------------------------------------------------------------- what rows show
def test_a_burst_that_is_refused_in_part_may_be_of_either_rule() -> None:
    """Until another burst comes at once behind it."""

    def burst(at_s: float, good: int, bad: int) -> list[Reply]:
        at = round(at_s * S)
        taken = [Reply("S6", 32, at, (at + 50 * MS, at + 90 * MS)) for _ in range(good)]
        return taken + [Reply("S6", 32, at, status=429) for _ in range(bad)]

    first = refused_of(seen(burst(1, 8, 8)))
    assert first is not None and first.rule == IN_FLIGHT and not first.sure
    again = refused_of(seen(burst(1, 8, 8) + burst(1.15, 8, 1)))
    assert again is not None and (again.rule, again.value) == (IN_FLIGHT, 8)
    fewer = refused_of(seen(burst(1, 8, 8) + burst(1.15, 1, 8)))
    assert fewer is not None and fewer.rule != IN_FLIGHT


def test_a_place_that_one_of_several_servers_lacked_is_no_limit_of_all() -> None:
    """Three of four stream at once, and of eight then seven do."""

    def burst(at_s: float, good: int) -> list[Reply]:
        at = round(at_s * S)
        firsts = [at + 20 * MS] * good + [at + 130 * MS]
        return [
            Reply("S6", 32, at, tuple(first + k * 10 * MS for k in range(10))) for first in firsts
        ]

    assert streams_of(seen(burst(1, 3))) == Streams(3, 4, False)
    assert streams_of(seen(burst(1, 3) + burst(2, 7))) is None


@pytest.mark.parametrize("of_workload", [True, False])
def test_a_gateway_that_showed_itself_may_be_what_limits(of_workload: bool) -> None:
    """Options are the engine's, and LiteLLM was seen to let requests through one by one."""
    found = Streams(1, 2, of_workload)
    alone = _of_streams(found, (("vllm", "0.10.0"),)).sentence
    before = _of_streams(found, (("litellm", None), ("vllm", "0.10.0"))).sentence
    assert "--max-num-seqs" in alone and "may be what limits" not in alone
    assert "--max-num-seqs" in before and before.endswith("; LiteLLM proxy may be what limits it.")


@pytest.mark.parametrize(("gathered", "shown"), [(1, 3), (30, None)])
def test_what_is_made_before_the_first_arrival_is_no_wait_for_a_place(
    gathered: int, shown: int | None
) -> None:
    """A reply whose text all comes near its end is made all the time: one that comes later has
    waited for no place by half of what shows of it."""

    def reply(first_ms: int) -> Reply:
        arrivals = tuple((first_ms + 10 * place) * MS for place in range(3))
        return Reply("S6", 32, MS, arrivals, brought=(gathered, 1, 1))

    found = streams_of(seen([*(reply(300 + place) for place in range(3)), reply(340)]))
    assert (found.value if found is not None else None) == shown
