"""The design of a probe: it ends, keeps to its limits, and asks what it must ask."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latdiag.measurement.stages import BEHIND, DESIGNED, WORKLOAD, Limits, PathStage, Shot, Stage
from latdiag.model.errors import UsageFault
from latdiag.probe.budget import BUDGETS, MAX_TOKENS
from latdiag.probe.cost import cost
from latdiag.probe.design import probe
from latdiag.probe.limits import limits_of
from latdiag.probe.offered import P95_ROWS, TAIL_ROWS
from tests.profiles import examples

from .fake_server import FakeServer, probed, servers, steps
from .probe_rows import seen

QUICK = Limits("quick", MAX_TOKENS["quick"], None, 7)


@st.composite
def any_limits(draw: st.DrawFn) -> Limits:
    """Every kind of limit; ``standard`` seldom, for it has ten times the requests."""
    budget = draw(st.sampled_from(["quick", "quick", "quick", "standard"]))
    lengths = st.lists(st.integers(1, 3000), min_size=1, max_size=30).map(tuple)
    load = draw(st.sampled_from(["own", "rate", "concurrency"]))
    return Limits(
        budget,
        draw(st.sampled_from([1, 50, 500, 3_000, 20_000, 200_000, 1_000_000])),
        draw(st.sampled_from([None, 128, 256, 512, 1024, 2048, 4096, 32_768])),
        draw(st.integers(0, 2**32 - 1)),
        draw(st.none() | lengths),
        draw(st.none() | lengths),
        draw(st.sampled_from([0.01, 2.0, 500.0])) if load == "rate" else None,
        draw(st.sampled_from([1, 16, 1000])) if load == "concurrency" else None,
        draw(st.booleans()),
    )


def made(server: FakeServer) -> list[Shot]:
    return [s for stage in server.stages if isinstance(stage, Stage) for s in stage.shots]


def tokens(server: FakeServer) -> int:
    """The most that its requests can have taken, warm-up included."""
    return sum(shot.isl + shot.osl for shot in made(server))


def by_name(server: FakeServer) -> dict[str, list[Stage]]:
    found: dict[str, list[Stage]] = {}
    for stage in server.stages:
        if isinstance(stage, Stage):
            found.setdefault(stage.name, []).append(stage)
    return found


# ---------------------------------------------------------------------- what always holds
@examples(120)
@given(any_limits(), servers())
def test_it_ends_and_never_asks_for_more_tokens_than_it_may(
    limits: Limits, server: FakeServer
) -> None:
    for count, _ in enumerate(steps(server, limits)):
        assert count < 60
        assert tokens(server) <= limits.max_tokens


@examples(120)
@given(any_limits(), servers())
def test_no_request_is_longer_than_the_servers_context(limits: Limits, server: FakeServer) -> None:
    probed(server, limits)
    for shot in made(server):
        assert shot.isl >= 1 and shot.osl >= 1
        if limits.max_model_len is not None:
            assert shot.isl + shot.osl <= limits.max_model_len, shot
    for stage in server.stages:
        if isinstance(stage, PathStage) and limits.max_model_len is not None:
            assert max(stage.refused, default=0) < limits.max_model_len


@examples(120)
@given(any_limits(), servers())
def test_the_cost_that_is_said_first_is_not_exceeded(limits: Limits, server: FakeServer) -> None:
    said = cost(limits)
    probed(server, limits)
    path = [s for s in server.stages if isinstance(s, PathStage)]
    requests = len(made(server)) + sum(s.gets + len(s.refused) for s in path)
    assert requests <= said.requests
    assert tokens(server) <= said.tokens <= limits.max_tokens
    assert said.seconds > 0


def test_the_cost_knows_which_of_the_users_lengths_will_be_sent() -> None:
    """Long prompts first, short ones after: a mean over more than are sent says too little."""
    limits = replace(QUICK, isl=(5000,) * 100 + (1,) * 100, max_tokens=10**7)
    assert tokens(probed(FakeServer(), limits)) <= cost(limits).tokens


@examples(60)
@given(any_limits(), servers())
def test_stages_are_what_the_loop_can_execute(limits: Limits, server: FakeServer) -> None:
    probed(server, limits)
    for stage in server.stages:
        if isinstance(stage, PathStage):
            continue
        assert stage.name in (*DESIGNED, WORKLOAD) and stage.shots and stage.why
        assert (stage.slots > 0) == all(shot.at_ns < 0 for shot in stage.shots)
        assert (stage.slots == 0) == all(shot.at_ns >= 0 for shot in stage.shots)
        dues = [shot.at_ns for shot in stage.shots]
        loads = stage.name in (WORKLOAD, BEHIND)
        assert not loads or dues == sorted(dues)
        assert (stage.segment > 0) == loads
        assert stage.name != BEHIND or limits.behind


# ---------------------------------------------------------------------- a server that behaves
def test_a_healthy_server_gets_every_stage_and_a_workload_in_segments() -> None:
    server = probed(FakeServer(), QUICK)
    names = by_name(server)
    assert list(names) == ["warmup", "S2", "S3", "S5", "S6", "S8", "S4", "S10"]
    budget = BUDGETS["quick"]
    # One segment more, because there is time for as many as state a p95.
    assert [s.segment for s in names["S10"]] == list(range(1, budget.segments + 2))
    assert [len(s.shots) for s in names["S10"]][:-1] == [budget.requests // 2] * 2
    assert P95_ROWS <= sum(len(s.shots) for s in names["S10"]) < 1.1 * P95_ROWS
    assert all(stage.slots == 1 for name in ("S2", "S3", "S5") for stage in names[name])
    assert [len(stage.shots) for stage in names["S6"]] == list(budget.batches)
    lengths = {shot.isl for stage in names["S3"] for shot in stage.shots}
    assert min(lengths) == 32 and 1024 in lengths and len(lengths) >= 9
    assert max(lengths) == budget.longest
    path = server.stages[0]
    assert isinstance(path, PathStage) and (path.gets, path.fresh) == (10, 3)
    assert Counter(path.refused) == {32: 3, 1024: 3, 4096: 3}


def test_the_order_of_lengths_is_random_and_the_seed_decides_it() -> None:
    orders = {}
    for seed in range(6):
        server = probed(FakeServer(), replace(QUICK, seed=seed))
        orders[seed] = [shot.isl for shot in by_name(server)["S3"][0].shots]
    assert len({tuple(order) for order in orders.values()}) == 6
    assert len({tuple(sorted(order)) for order in orders.values()}) == 1
    again = probed(FakeServer(), QUICK)
    assert made(again) == made(probed(FakeServer(), QUICK))


def test_a_slow_server_gets_fewer_requests_and_not_more_time() -> None:
    """Its prompts take 2 s, its tokens 100 ms: the quick budget still ends in some minutes."""
    slow = probed(FakeServer(base_ms=2000.0, gap_ms=100.0), QUICK)
    assert len(made(slow)) < len(made(probed(FakeServer(), QUICK))) / 1.5
    assert sum(len(s.shots) for s in by_name(slow)["S10"]) >= 30
    lengths = [shot.isl for stage in by_name(slow)["S3"] for shot in stage.shots]
    assert max(lengths) <= 1024


def test_the_load_leaves_a_server_room() -> None:
    """At most 3 streams in flight on average, prefill at most 30 % busy, and never over 6/s."""
    for server in (FakeServer(), FakeServer(base_ms=300.0), FakeServer(gap_ms=120.0)):
        probed(server, replace(QUICK, budget="standard", max_tokens=10**7))
        shots = [shot for stage in by_name(server)["S10"] for shot in stage.shots]
        spans = [stage.shots[-1].at_ns / 1e9 for stage in by_name(server)["S10"]]
        rate = len(shots) / sum(spans)
        prefill = server.base_ms + server.token_us * sum(s.isl for s in shots) / len(shots) / 1000
        stay = prefill + server.gap_ms * sum(s.osl for s in shots) / len(shots)
        assert rate < 6 * 1.1
        assert rate * stay / 1000 < 3 * 1.15 and rate * prefill / 1000 < 0.3 * 1.15


def test_a_server_that_lets_in_one_is_not_thrown_at_and_not_flooded() -> None:
    """It queues, but no more than a fifth more comes than it can serve (mean of 12 probes)."""
    stays, spans = [], []
    for seed in range(12):
        names = by_name(probed(FakeServer(slots=1, gap_ms=40.0), replace(QUICK, seed=seed)))
        assert "S8" not in names and max(len(s.shots) for s in names["S6"]) <= 4
        shots = [shot for stage in names["S10"] for shot in stage.shots]
        stays.append(sum(5.0 + 0.02 * s.isl + 40.0 * s.osl for s in shots) / 1000)
        # From the first arrival to the last there is one interval less than requests.
        spans += [
            s.shots[-1].at_ns / 1e9 * (len(s.shots) + 1) / len(s.shots) for s in names["S10"]
        ]
    assert 0.9 < sum(stays) / sum(spans) < 1.2 * 1.1


def test_injected_prompts_meet_streams_that_run() -> None:
    """Every prompt of S8 comes and is answered while all other streams decode."""
    server = probed(
        FakeServer(token_us=100.0), replace(QUICK, budget="standard", max_tokens=10**7)
    )
    (stage,) = by_name(server)["S8"]
    rows = [row for row in server.rows if row.stage == "S8"]
    streams = [row for row in rows if row.isl == 32]
    prompts = [row for row in rows if row.isl > 32]
    assert len(streams) == 4 and len(prompts) == BUDGETS["standard"].injections
    for prompt in prompts:
        for stream in streams:
            assert stream.arrivals[1] < prompt.begin < prompt.arrivals[0] < stream.arrivals[-1]
    assert len({shot.at_ns % 1_000_000 for shot in stage.shots}) > 3, "dithered"


# ---------------------------------------------------------------------- the user's own workload
def test_a_users_lengths_are_used_in_turn_and_at_the_users_rate() -> None:
    limits = replace(QUICK, isl=(100, 200), osl=(5, 6, 7), rate=3.0, max_tokens=10**7)
    shots = [s for stage in by_name(probed(FakeServer(), limits))["S10"] for s in stage.shots]
    assert [(s.isl, s.osl) for s in shots[:6]] == [
        (100, 5), (200, 6), (100, 7), (200, 5), (100, 6), (200, 7),
    ]  # fmt: skip
    stages = by_name(probed(FakeServer(), limits))["S10"]
    span = sum(stage.shots[-1].at_ns / 1e9 for stage in stages)
    assert len(shots) / span == pytest.approx(3.0, rel=0.3)


def test_a_users_concurrency_makes_a_closed_loop() -> None:
    limits = replace(QUICK, concurrency=8)
    stages = by_name(probed(FakeServer(), limits))["S10"]
    assert all(stage.slots == 8 for stage in stages)


@pytest.mark.parametrize("places", [1, 16, 24, 64, 333])
def test_a_closed_loop_turns_three_times_in_each_segment(places: int) -> None:
    limits = replace(QUICK, concurrency=places, max_tokens=10**7)
    server = FakeServer(slots=8, base_ms=400.0, gap_ms=80.0)
    stages = by_name(probed(server, limits))["S10"]
    sizes = [len(stage.shots) for stage in stages]
    assert min(sizes) >= 3 * places and sum(sizes) <= cost(limits).requests
    assert [stage.segment for stage in stages] == list(range(1, len(stages) + 1))


@pytest.mark.parametrize(
    ("budget", "places", "tokens", "words"),
    [
        ("quick", 400, 10**7, "--budget standard or --concurrency 333"),
        ("quick", 100_000, 10**9, "give --concurrency 333"),
        ("quick", 300, 60_000, "--max-tokens-total"),
    ],
)
def test_a_closed_loop_that_cannot_turn_is_refused_with_what_it_takes(
    budget: str, places: int, tokens: int, words: str
) -> None:
    with pytest.raises(UsageFault) as refused:
        limits_of(budget, tokens, None, places, None, None, 1)
    assert words in f"give {refused.value.remedy}"


def test_a_rate_of_the_probes_own_that_is_not_finished_is_lowered() -> None:
    """Its bursts are served quickly, its workload is not: another tenant came."""
    server = FakeServer(slots=1, base_ms=20.0, gap_ms=20.0)
    design, limits = probe(QUICK), QUICK
    stage, sent = next(design), []
    while True:
        if isinstance(stage, Stage) and stage.name == WORKLOAD:
            server.gap_ms = 80.0
            sent.append(len(stage.shots) * 1e9 / stage.shots[-1].at_ns)
        server.answer(stage)
        try:
            stage = design.send(seen(server.rows))
        except StopIteration:
            break
    assert len(sent) == 2 and sent[1] < 0.6 * sent[0]
    with_own = replace(limits, rate=2.0)
    stages = by_name(probed(FakeServer(slots=1, gap_ms=80.0), with_own))["S10"]
    rates = [len(s.shots) * 1e9 / s.shots[-1].at_ns for s in stages]
    assert rates[1] == pytest.approx(2.0, rel=0.4), "a user's rate is his"


# ---------------------------------------------------------------------- what is undecided
def workload_of(server: FakeServer) -> list[Stage]:
    return by_name(server)["S10"]


def lasted_s(server: FakeServer) -> float:
    """From the first request to the last."""
    begun = [row.begin for row in server.rows]
    return (max(begun) - min(begun)) / 1e9


@pytest.mark.parametrize("budget", ["quick", "standard"])
def test_an_open_verdict_takes_the_time_that_is_left_and_no_more(budget: str) -> None:
    limits = replace(QUICK, budget=budget, max_tokens=10**7)
    asked: list[int] = []
    server = FakeServer(gap_ms=6.0)

    def undecided() -> bool:
        asked.append(len(made(server)))
        return True

    for _ in steps(server, limits, undecided):
        pass
    decided = probed(FakeServer(gap_ms=6.0), limits)
    more = sum(len(stage.shots) for stage in workload_of(server))
    assert more > 1.2 * sum(len(stage.shots) for stage in workload_of(decided))
    assert asked and lasted_s(server) < 1.1 * BUDGETS[budget].total_s
    assert len(workload_of(server)) <= 2 * BUDGETS[budget].segments


def test_a_tail_is_stated_where_the_rate_allows() -> None:
    """600 requests have 30 in their slowest 5 %."""
    fast = probed(FakeServer(gap_ms=1.0), replace(QUICK, rate=20.0, isl=(64,), osl=(16,)))
    assert TAIL_ROWS <= sum(len(s.shots) for s in workload_of(fast)) < 1.1 * TAIL_ROWS
    assert lasted_s(fast) < 1.1 * BUDGETS["quick"].total_s
    # At this one nothing would be decided within the time.
    slow = probed(FakeServer(), replace(QUICK, rate=3.0))
    assert sum(len(s.shots) for s in workload_of(slow)) == 60


def test_nothing_is_added_where_it_would_decide_nothing() -> None:
    def always() -> bool:
        return True

    for server, limits in (
        (FakeServer(slots=1, gap_ms=80.0), replace(QUICK, rate=2.0)),  # it does not keep up
        (FakeServer(fails=3), QUICK),
        (FakeServer(), replace(QUICK, max_tokens=36_000)),
    ):
        for _ in steps(server, limits, always):
            pass
        assert len(workload_of(server)) == 2
        assert tokens(server) <= limits.max_tokens


# ---------------------------------------------------------------------- what ends it early
@pytest.mark.parametrize("own", [{}, {"rate": 3.0}, {"concurrency": 4}])
def test_a_server_behind_gets_the_same_workload_in_turn(own: dict[str, float]) -> None:
    server = probed(FakeServer(), replace(QUICK, **own, behind=True))  # type: ignore[arg-type]
    parts = [s for s in server.stages if isinstance(s, Stage) and s.name in (WORKLOAD, BEHIND)]
    assert [(s.name, s.segment) for s in parts] == [
        (WORKLOAD, 1), (BEHIND, 1), (BEHIND, 2), (WORKLOAD, 2),
    ]  # fmt: skip
    for one, other in zip(parts[::2], parts[1::2], strict=True):
        assert (one.shots, one.slots, one.segment) == (other.shots, other.slots, other.segment)
    # Requests about the path are for the server that the other stages are about.
    assert not any(s.beside for s in parts if s.name == WORKLOAD)
    assert BEHIND not in by_name(probed(FakeServer(), replace(QUICK, **own)))  # type: ignore[arg-type]


def test_it_stops_after_the_first_request_if_nothing_comes_back() -> None:
    server = probed(FakeServer(fails=1), QUICK)
    assert list(by_name(server)) == ["warmup"]


def test_it_sends_nothing_by_itself() -> None:
    """A generator: the path first, and nothing more until it is told what came of it."""
    design = probe(QUICK)
    assert isinstance(next(design), PathStage)
    design.close()


def test_refused_posts_go_out_beside_the_bursts_while_these_last() -> None:
    server = probed(FakeServer(), QUICK)
    for stage in by_name(server)["S6"]:
        lasts = (server.base_ms + server.gap_ms * stage.shots[0].osl) * 1e6
        assert len(stage.beside) == 4
        assert all(shot.isl and 0 < shot.at_ns < 1.2 * lasts for shot in stage.beside)
