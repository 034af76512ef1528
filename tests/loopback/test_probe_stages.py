"""A probe executes what its design says, stage by stage, and within its limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from latdiag.store.run import Run

from .command import Command, Ended
from .designed import cuts, probed, rows, well_ended
from .invoke import absent
from .peers import Asked, Wire, models, serving, well
from .stream_peer import streaming

# ---------------------------------------------------------------------- stages
STAGES = """
yield PathStage(3, (30,), 2)
yield Stage("S2", (Shot(25, 7, -1),), 1)
yield Stage("S3", shots(6, osl=5), 2)
yield Stage("S6", shots(5, osl=6, at_ns=0))
due = tuple(Shot(18, 3, at_ns) for at_ns in (180_000_000, 60_000_000, 0))
yield Stage("S10", due, segment=1)
yield Stage("S10", shots(3, isl=21), 1, segment=2)
"""


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ended, Path, list[Any]]:
    folder = tmp_path_factory.mktemp("staged")
    with streaming(ttft_s=0.03, itl_s=0.004) as peer:
        ended, run = probed(peer.url, folder, STAGES, "--json", "--seed", "5")
        seen = peer.seen()
    assert well_ended(ended), ended.err
    return ended, run, seen


def test_rows_bear_their_stage_and_segment(staged: tuple[Ended, Path, list[Any]]) -> None:
    found = rows(staged[1])
    stages = [(r.stage, r.scenario or None) for r in found.itertuples()]
    wanted = [("S2", None)] + [("S3", None)] * 6 + [("S6", None)] * 5
    wanted += [("S10", "segment-1")] * 3 + [("S10", "segment-2")] * 3
    assert [s for s in stages if s[0] != "S1"] == wanted
    # This peer takes any body, so the refusal is one token; the GETs are as many as wanted.
    assert sorted(stages[: stages.index(("S2", None))]) == [("S1", "get")] * 3 + [
        ("S1", "refused")
    ]
    assert set(found.outcome) == {"ok"}


def test_lengths_are_those_of_the_shots(staged: tuple[Ended, Path, list[Any]]) -> None:
    found = rows(staged[1])
    found = found[found.stage != "S1"]
    lengths = [*zip(found.isl_wanted, found.osl_wanted, strict=True)]
    assert lengths == [(25, 7)] + [(20, 5)] * 6 + [(20, 6)] * 5 + [(18, 3)] * 3 + [(21, 4)] * 3
    assert (found.osl == found.osl_wanted).all()


def test_no_prompt_and_no_id_comes_twice(staged: tuple[Ended, Path, list[Any]]) -> None:
    _, run, seen = staged
    prompts = [json.loads(one.body)["messages"][0]["content"] for one in seen]
    assert len(set(prompts)) == len(prompts) == 19
    # Nor do any two begin alike: a prefix cache of any block size finds nothing.
    assert len({tuple(p.split()[:4]) for p in prompts}) == 19
    found = rows(run)
    assert found.request_id.nunique() == len(found) == 22
    assert {one.id for one in seen} <= set(found.request_id)


def test_a_closed_loop_waits_at_random_before_each_request(tmp_path: Path) -> None:
    """Or it would keep step with a timer of the server; its first request does not wait."""
    design = 'yield Stage("S3", shots(10, osl=2), 1, dither_ns=200_000_000)'
    with streaming(ttft_s=0.002, itl_s=0.001) as peer:
        ended, run = probed(peer.url, tmp_path, design, "--json")
    assert well_ended(ended), ended.err
    found = rows(run)
    pauses_ns = found.sent_ns.to_numpy()[1:] - found.done_ns.to_numpy()[:-1]
    # Of nine draws up to 200 ms all are below 30 ms once in 25 million runs.
    assert len(pauses_ns) == 9 and pauses_ns.max() > 30_000_000


def test_a_stage_begins_when_the_last_one_has_ended(
    staged: tuple[Ended, Path, list[Any]],
) -> None:
    found = rows(staged[1])
    found["group"] = found.worker
    spans = found.groupby("group").agg(begun=("sent_ns", "min"), ended=("done_ns", "max"))
    spans = spans.sort_values("begun")
    assert len(spans) == 6
    assert (spans.begun.to_numpy()[1:] > spans.ended.to_numpy()[:-1]).all()


def test_closed_loops_have_their_slots_and_bursts_begin_at_once(
    staged: tuple[Ended, Path, list[Any]],
) -> None:
    found = rows(staged[1])
    closed = found[found.stage == "S3"]
    assert all(absent(due) for due in closed.due_ns)
    assert _most_at_once(closed) == 2
    burst = found[found.stage == "S6"]
    assert burst.due_ns.nunique() == 1 and _most_at_once(burst) == 5
    assert (burst.sent_ns >= burst.due_ns).all()
    opened = found[found.scenario == "segment-1"]
    first = opened.due_ns.min()
    assert (opened.due_ns - first).tolist() == [0, 60_000_000, 180_000_000]
    assert (opened.sent_ns >= opened.due_ns).all()
    # Closed again, one at a time.
    assert _most_at_once(found[found.scenario == "segment-2"]) == 1


def _most_at_once(found: Any) -> int:
    edges = [(at, 1) for at in found.sent_ns] + [(at, -1) for at in found.done_ns]
    count = most = 0
    for _, change in sorted(edges):
        count += change
        most = max(most, count)
    return most


def test_every_writer_has_a_name_of_its_own_and_is_closed(
    staged: tuple[Ended, Path, list[Any]],
) -> None:
    run = Run.open(str(staged[1]))
    assert len(run.writers) == 6 and run.cut_short == []
    assert all(writer["counts"]["lost"] == 0 for writer in run.writers)
    assert sum(writer["counts"]["rows"] for writer in run.writers) == 22


def test_whoever_forks_stays_light_and_without_threads(
    staged: tuple[Ended, Path, list[Any]],
) -> None:
    """The planner and a pair for each of six stages: numpy and pyarrow are loaded in them."""
    forks = [line for line in staged[0].err.splitlines() if line.startswith("fork ")]
    assert forks == [f"fork {n}: heavy [] tasks 1" for n in range(1, 14)]


def test_run_json_says_that_the_stages_were_designed(
    staged: tuple[Ended, Path, list[Any]],
) -> None:
    header = Run.open(str(staged[1])).header
    plan = header["plan"]
    assert plan["designed"] is True and plan["budget"] == "quick" and plan["seed"] == 5
    assert plan["limits"] == {
        "max_tokens": 200_000,
        "max_model_len": None,
        "isl": None,
        "osl": None,
        "rate": None,
        "concurrency": None,
    }
    unknown = ("requests", "duration_ns", "rate", "arrivals", "concurrency", "isl", "osl")
    assert all(plan[name] is None for name in unknown)
    assert header["tool"]["verb"] == "probe" and header["target"]["model"] == "peer"


def test_the_cost_comes_first(staged: tuple[Ended, Path, list[Any]]) -> None:
    first = staged[0].err.splitlines()[0]
    assert first.startswith("At most ") and "requests and" in first and "tokens in about" in first


def test_a_design_decides_by_what_it_has_seen(tmp_path: Path) -> None:
    design = """
seen = yield Stage("S3", shots(3), 1)
assert (seen.isl > 0).all() and seen.ok.all()
seen = yield Stage("S5", shots(seen.n + 1), 2)
yield Stage("S6", shots(seen.n, at_ns=0))
"""
    with streaming() as peer:
        ended, run = probed(peer.url, tmp_path, design, "--json")
    assert well_ended(ended), ended.err
    assert rows(run).stage.value_counts().to_dict() == {"S3": 3, "S5": 4, "S6": 7}


# ---------------------------------------------------------------------- limits
#: A workload so small that it fits into few tokens.
ONE = ("--json", "--isl", "1", "--osl", "1")


def test_a_stage_beyond_the_tokens_is_not_sent(tmp_path: Path) -> None:
    design = """
yield Stage("S3", shots(4, isl=20, osl=5), 1)
yield Stage("S5", shots(4, isl=20, osl=5), 1)
yield Stage("S6", shots(1, isl=1, osl=1), 1)
"""
    with streaming() as peer:
        ended, run = probed(
            peer.url, tmp_path, design, "--json", *ONE, "--max-tokens-total", "199"
        )
    assert well_ended(ended), ended.err
    assert set(rows(run).stage) == {"S3"}
    (cut,) = cuts(ended)
    assert "S5 needs 100 tokens, and only 99 are left" in cut


def test_a_workload_that_cannot_be_paid_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    with streaming() as peer:
        many = ("--isl", "1000", "--max-tokens-total", "20000")
        ended, _ = probed(peer.url, tmp_path, "yield", "--json", *many)
        assert peer.flight()["total"] <= 1, "nothing but the question itself"
    assert ended.code == 2
    error = json.loads(ended.out)["error"]
    assert "34 requests of this workload are" in error["text"]
    assert "--max-tokens-total" in error["remedy"]


def test_the_last_token_may_be_spent(tmp_path: Path) -> None:
    design = 'for _ in range(2):\n    yield Stage("S3", shots(4, isl=20, osl=5), 1)'
    with streaming() as peer:
        ended, run = probed(
            peer.url, tmp_path, design, "--json", *ONE, "--max-tokens-total", "200"
        )
    assert well_ended(ended) and cuts(ended) == [] and len(rows(run)) == 8


def test_the_design_hears_what_the_server_and_the_user_say(tmp_path: Path) -> None:
    """The server's context, the user's workload: told by the lengths that the design asks for."""
    design = """
assert limits.rate is None and limits.seed == 9 and limits.max_tokens == 1_000_000
assert len(limits.isl) > 1000 and limits.osl == (6,)
low, high = min(limits.isl), max(limits.isl)
yield Stage("S10", (Shot(limits.max_model_len, limits.osl[0], -1),), limits.concurrency)
yield Stage("S10", (Shot(low, 5, -1), Shot(high, 5, -1)), 1)
"""

    def script(wire: Wire, asked: Asked) -> None:
        if asked.method == "GET":
            listed = [{"id": "other", "max_model_len": 5}, {"id": "peer", "max_model_len": 777}]
            wire.reply(200, json.dumps({"data": listed}))
        else:
            well(wire, asked)

    options = ("--concurrency", "3", "--isl", "uniform:11-14", "--osl", "6", "--seed", "9")
    with serving(script) as peer:
        ended, run = probed(peer.url, tmp_path, design, "--json", "--budget", "standard", *options)
    assert well_ended(ended), ended.err
    found = rows(run)
    assert found.isl_wanted.tolist() == [777, 11, 14]
    assert found.osl_wanted.tolist() == [6, 5, 5]
    limits = Run.open(str(run)).header["plan"]["limits"]
    assert (limits["max_model_len"], limits["concurrency"]) == (777, 3)
    assert (limits["isl"], limits["osl"]) == ("uniform:11-14", "6")


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({"data": [{"id": "peer", "max_model_len": -4}]}, 200),
        ({"data": [{"id": "peer", "max_model_len": True}]}, 200),
        ({"data": [{"id": "other", "max_model_len": 900}]}, 200),
        ({"data": "peer"}, 200),
        ({}, 500),
        ([1], 404),
    ],
)
def test_a_list_of_models_that_states_no_context_is_no_fault(
    tmp_path: Path, said: object, status: int
) -> None:
    """And where there is no such list, ``/health`` is asked in its place."""

    def script(wire: Wire, asked: Asked) -> None:
        if asked.target == "/health":
            wire.reply(200)
        elif asked.method == "GET":
            wire.reply(status, json.dumps(said))
        else:
            well(wire, asked)

    with serving(script) as peer:
        ended, run = probed(peer.url, tmp_path, "yield PathStage(2, (), 0)", "--quiet")
        gets = [a.target for a in peer.asked if a.number is not None]
    assert Run.open(str(run)).header["plan"]["limits"]["max_model_len"] is None, ended.err
    assert gets == ["/health" if status == 404 else "/v1/models"] * 2


def test_a_load_asks_no_more_than_before(tmp_path: Path) -> None:
    """What a probe wants to know of a server costs a load nothing."""

    def script(wire: Wire, asked: Asked) -> None:
        if not models(wire, asked):
            well(wire, asked)

    run = tmp_path / "it.run"
    with serving(script) as peer:
        named = ["load", peer.url, "--model", "tiny", "--requests", "3", "--out", str(run)]
        command = Command(tmp_path, named)
        assert command.end().code in (0, 12)
        assert [a.target for a in peer.asked if a.method == "GET"] == []
    assert [writer["writer"] for writer in Run.open(str(run)).writers] == ["w0"]
