"""A request's stays on the demo's servers: the stamps of vLLM against the books of leaves."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from latdiag.sim import spans
from latdiag.sim.engine import Engine
from latdiag.sim.params import Params
from latdiag.sim.spans import Asked, Context
from latdiag.sim.telemetry import Clock, Telemetry, stated
from latdiag.sim.truth import DECODE, PREFILL, WHOLE, Truth
from latdiag.sim.virtual import play, told
from tests.profiles import examples

from .sim_load import APART, MS, drain
from .test_sim_truth import Ask, in_one_leap, loads, servers

CAPTURE = Path(__file__).parent.parent / "captures" / "vllm-0.24.0-h200" / "pd"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def times(truth: Truth) -> list[dict[str, int]]:
    return [stated(visit, Clock(Telemetry(), visit.part, 0)) for visit in truth.visits]


def check_whole(truth: Truth) -> None:
    (visit,), (said,) = truth.visits, times(truth)
    first = truth.first_token_leaves
    assert visit.part == WHOLE
    assert (said["ttft"], said["e2e"]) == (
        truth.first_ns - truth.arrived_ns,
        truth.finished_ns - truth.arrived_ns,
    )
    assert said["queue"] == first["queue.admission"] == truth.leaves["queue.admission"]
    parse = first["frontend.parse"]
    assert said["prefill"] == said["ttft"] - parse - said["queue"]
    assert said["e2e"] == parse + said["queue"] + said["inference"]


def check_apart(truth: Truth) -> None:
    """Every leaf is in one attribute of one server; nothing lies between the two."""
    here, there = truth.visits
    first, second = times(truth)
    spent, before = truth.leaves, truth.first_token_leaves
    assert (here.part, there.part) == (PREFILL, DECODE)
    assert (here.osl, there.osl, there.isl) == (1, truth.osl, truth.isl)
    assert here.finished_ns == there.arrived_ns
    assert first["e2e"] + second["e2e"] == sum(spent.values())
    assert first["queue"] == spent["queue.admission"]
    assert first["e2e"] == first["ttft"]
    assert first["e2e"] - first["queue"] - first["prefill"] == spent["frontend.parse"]
    own = before["prefill.own"] + before["prefill.contention"]
    assert first["prefill"] == own + before["interconnect.collective"]
    assert second["queue"] == spent["interconnect.kv"] + spent["interconnect.wait"]
    assert (second["ttft"], second["prefill"]) == (second["queue"], 0)
    assert second["decode"] == sum(spent.values()) - first["e2e"] - second["queue"]


@given(servers(), loads())
@examples(300)
def test_what_servers_stamp_adds_up_to_the_leaves(params: Params, asks: list[Ask]) -> None:
    for truth in in_one_leap(params, asks)[1].values():
        for visit in truth.visits:
            stamps = (visit.arrived_ns, visit.queued_ns, visit.scheduled_ns, visit.first_ns)
            assert list(stamps) == sorted(stamps) and visit.first_ns <= visit.finished_ns
        if not params.disaggregated:
            check_whole(truth)
        elif truth.osl == 1 and params.first_token == "prefill":
            assert [visit.part for visit in truth.visits] == [PREFILL]
        else:
            check_apart(truth)


@given(servers(), loads())
@examples(100)
def test_crossings_are_told_once_each_in_order(params: Params, asks: list[Ask]) -> None:
    engine = Engine(params, 5)
    for ask in asks:
        engine.submit(ask.key, ask.at_ns, ask.isl, ask.osl, ask.prompt)
    ended = {emission.key for emission in drain(engine) if emission.last}
    found = engine.take_crossings()
    assert engine.take_crossings() == []
    instants = [one.at_ns for one in found]
    assert instants == sorted(instants)
    by_key = defaultdict(list)
    for one in found:
        by_key[one.key].append(one)
    for key in ended:
        visits = engine.pop_truth(key).visits
        if len(visits) < 2:
            assert key not in by_key
            continue
        left, entered = by_key[key]
        assert (left.visit, left.at_ns) == (visits[0], visits[0].finished_ns)
        assert (entered.visit, entered.at_ns) == (None, visits[1].scheduled_ns)


def test_each_server_has_its_own_state() -> None:
    """Two requests: one still in prefill or on its way, while the other decodes."""
    engine = Engine(APART, 1)
    engine.submit("a", 0, 4, 50)
    engine.submit("b", 8 * MS, 4, 50)
    engine.advance(8 * MS + MS // 2)
    here, there, whole = (engine.gauges(part) for part in (PREFILL, DECODE, WHOLE))
    assert (here["running"], there["running"], whole["running"]) == (1, 1, 2)
    engine.advance(10 * MS)  # b is set up for its transfer
    here, there = engine.gauges(PREFILL), engine.gauges(DECODE)
    assert (here["running"], here["transferring"]) == (0, 0)
    assert (there["running"], there["transferring"]) == (1, 1)


# --- as vLLM's


def _real() -> dict[str, list[dict[str, Any]]]:
    """The spans of the capture by trace, each with its sender and its attributes by name."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    with gzip.open(CAPTURE / "spans.otlp.jsonl.gz", "rt") as file:
        for one in (span for row in file for span in json.loads(row)["resourceSpans"]):
            sender = _plain(one["resource"]["attributes"])["service.instance.id"]
            for span in one["scopeSpans"][0]["spans"]:
                said = _plain(span["attributes"])
                found[span["traceId"]].append(span | {"sender": sender, "said": said})
    return found


def _plain(attributes: list[dict[str, Any]]) -> dict[str, Any]:
    return {one["key"]: next(iter(one["value"].items())) for one in attributes}


def _ours(first_token: str) -> list[dict[str, Any]]:
    params = Params(disaggregated=True, kv_setup_ms=5.0, kv_us=100.0, first_token=first_token)
    truth = play(params, 1, [("a", 0, 40, 12)])["a"][1]
    context = Context(f"00-{TRACE}-{PARENT}-01")
    asked = Asked("cmpl-c16-3", chat=False, max_tokens=12, temperature=0.7)
    arrived = told([(context, asked, truth)], Telemetry(), 1, 10**18)
    return [one.record._asdict() | {"part": one.part} for one in arrived]


def test_two_servers_say_of_a_request_what_two_vllm_servers_do() -> None:
    for two in _real().values():
        first, second = sorted(two, key=lambda span: int(span["startTimeUnixNano"]))
        assert first["sender"] != second["sender"]
        for mode in ("prefill", "decode"):
            here, there = _ours(mode)
            assert (here["part"], there["part"]) == (PREFILL, DECODE)
            assert here["trace_id"] == there["trace_id"] == TRACE
            assert here["parent"] == there["parent"] == PARENT
            assert here["span_id"] != there["span_id"]
            for ours, real in ((here, first), (there, second)):
                assert first["parentSpanId"] == second["parentSpanId"]
                assert list(ours["attributes"]) == list(real["said"])
            same = ("completion_tokens", "max_tokens")
            for name in (f"gen_ai.{part}" for part in (f"usage.{same[0]}", f"request.{same[1]}")):
                assert (first["said"][name][1], here["attributes"][name]) == ("1", 1)
                assert int(second["said"][name][1]) > 1 and there["attributes"][name] == 12
            name = "gen_ai.usage.prompt_tokens"
            assert first["said"][name] == second["said"][name]
            assert here["attributes"][name] == there["attributes"][name] == 40
            name = "gen_ai.request.id"
            assert first["said"][name] == second["said"][name]
            assert here["attributes"][name] == there["attributes"][name] == "cmpl-c16-3-0"
        zero = "gen_ai.latency.time_in_model_decode"
        assert first["said"][zero][1] == here["attributes"][zero] == 0
        break


def test_a_chat_has_the_same_id_on_both_servers() -> None:
    params = Params(disaggregated=True)
    truth = play(params, 1, [("a", 0, 4, 2)])["a"][1]
    asked = Asked("chatcmpl-x", chat=True, max_tokens=2)
    ids = [
        spans.attributes(visit, Clock(Telemetry(), visit.part, 0), asked)["gen_ai.request.id"]
        for visit in truth.visits
    ]
    assert ids == ["chatcmpl-x", "chatcmpl-x"]


@given(st.integers(1, 40), st.integers(2, 20))
@examples(30)
def test_where_the_first_token_leaves_changes_nothing_of_what_is_said(isl: int, osl: int) -> None:
    """Only the client can tell."""
    found = []
    for mode in ("prefill", "decode"):
        params = Params(disaggregated=True, kv_setup_ms=5.0, kv_us=100.0, first_token=mode)
        found.append(play(params, 1, [("a", 0, isl, osl)])["a"][1])
    assert found[0].visits == found[1].visits
    assert found[0].first_ns < found[1].first_ns
