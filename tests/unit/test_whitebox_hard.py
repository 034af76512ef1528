"""Traces that look alike and are not: gateways, legs, tries, lost spans, shared traces.

Each is built by hand, with a clock of its own for every server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from latdiag.attribution.parts import Parts
from latdiag.attribution.spans import explain as whitebox
from latdiag.attribution.spans.columns import Spans
from latdiag.measurement.frame import Frame

from .random_traces import MS, requests, traces

N = 60
LATENCY = "gen_ai.latency."


@dataclass(frozen=True)
class Said:
    """A span: ms from the request's beginning, by its server's clock."""

    name: str
    start: float
    end: float
    server: str
    span: str = "a"
    above: str = "client"
    attributes: Mapping[str, float] = None  # type: ignore[assignment]
    texts: Mapping[str, str] = None  # type: ignore[assignment]


def vllm(
    start: float, queue: float, prefill: float, decode: float, server: str = "v", **more: Any
) -> Said:
    """A request of vLLM with 2 ms of frontend."""
    ttft = 2 + queue + prefill
    times = {"time_in_queue": queue, "time_in_model_prefill": prefill}
    times |= {"time_in_model_decode": decode, "time_to_first_token": ttft, "e2e": ttft + decode}
    tokens = more.pop("tokens", "64")
    texts = {"gen_ai.usage.completion_tokens": tokens, "gen_ai.usage.prompt_tokens": "512"}
    return Said(
        "llm_request", start, start + ttft + decode, server,
        attributes={LATENCY + k: v / 1e3 for k, v in times.items()},
        texts=texts | more.pop("texts", {}), **more,
    )  # fmt: skip


def legs(
    queue: float, prefill: float, kv: float, decode: float, above: str = "client"
) -> list[Said]:
    first = vllm(1, queue, prefill, 0, "p", span="p", above=above, tokens="1")
    return [first, vllm(first.end + 1, kv, 0, decode, "d", span="d", above=above)]


def told(
    each: Sequence[Sequence[Said]], ttft: Sequence[float], e2e: Sequence[float]
) -> tuple[Parts | None, whitebox.Findings]:  # type: ignore[name-defined]
    """Of requests with these spans and the times (ms) that the client saw."""
    n = len(each)
    random = np.random.default_rng(1)
    seen = requests(n, random)
    sent = np.arange(n, dtype=np.int64) * 10_000 * MS
    first = sent + np.rint(np.array(ttft) * MS).astype(np.int64)
    done = sent + np.rint(np.array(e2e) * MS).astype(np.int64)
    none = np.zeros(n, dtype=np.int64)
    seen = replace(
        seen, begin=sent, sent=sent, first=first, last=done, done=done, client=none,
        network=none, network_lo=none, network_hi=none,
    )  # fmt: skip
    parts, facts, _ = whitebox.explain(spans_of(each, sent), seen)
    return parts, facts


def spans_of(each: Sequence[Sequence[Said]], sent: Any) -> Spans:
    flat = [(row, one) for row, said in enumerate(each) for one in said]
    blank = traces(1, np.random.default_rng(1))
    servers = sorted({one.server for _, one in flat})
    offset = {server: 10**15 * (at + 1) for at, server in enumerate(servers)}
    base = [int(sent[row]) + offset[one.server] for row, one in flat]
    values = {
        name: np.array([(one.attributes or {}).get(name, np.nan) for _, one in flat])
        for name in blank.values
    }
    texts = {
        name: np.array([(one.texts or {}).get(name) for _, one in flat], dtype=object)
        for name in blank.texts
    }

    def words(found: list[str]) -> Any:
        return np.array(found, dtype=object)

    none = np.full(len(flat), -1, dtype=np.int64)
    return Spans(
        name=words([one.name for _, one in flat]),
        trace=words([f"{row:032x}" for row, _ in flat]),
        span=words([f"{row}{one.span}" for row, one in flat]),
        above=words(
            [o.above if o.above in ("client", "lost") else f"{r}{o.above}" for r, o in flat]
        ),
        start=np.array([b + round(o.start * MS) for b, (_, o) in zip(base, flat, strict=True)]),
        end=np.array([b + round(o.end * MS) for b, (_, o) in zip(base, flat, strict=True)]),
        sender=np.array([servers.index(one.server) for _, one in flat]),
        stack=none, row=none, parent=none, lost=none >= 0, signal=none,
        role=np.full(len(flat), None, dtype=object),
        values=values, texts=texts, senders=tuple(servers), stacks=blank.stacks,
    )  # fmt: skip


def ms(parts: Parts | None) -> dict[str, float]:
    """Mean ms of each part, by all its members."""
    assert parts is not None
    return {
        "+".join(parts.sources[name].members) or name: float(column.mean()) / MS
        for name, column in parts.parts.items()
    }


def all_alike(said: Sequence[Said], ttft: float, e2e: float) -> dict[str, float]:
    parts, facts = told([said] * N, [ttft] * N, [e2e] * N)
    assert facts.told == N
    return ms(parts)


# ---------------------------------------------------------------------- gateways
def test_a_gateway_alone_does_not_say_what_happened_behind_it() -> None:
    said = [
        Said("ingress", 0, 2720, "g", span="i"),
        Said("router llm egress", 5, 2715, "g", span="e", above="i"),
    ]
    found = all_alike(said, 2320, 2720)
    assert found["frontend+queue+prefill+interconnect"] == pytest.approx(2310, abs=20)
    assert found["decode"] == pytest.approx(400, abs=1)
    # Where in the gateway's span the tokens came is known to the 5 ms at its ends.
    assert 5 <= found["gateway"] <= 10


@pytest.mark.parametrize("queue", [5.0, 2000.0])
def test_a_gateway_before_two_legs_leaves_each_its_time(queue: float) -> None:
    inner = legs(queue, 179, 60, 600, above="e")
    end = inner[-1].end + 2
    said = [
        Said("ingress", 0, end + 1, "g", span="i"),
        Said("router llm egress", 0.5, end, "g", span="e", above="i"),
        *inner,
    ]
    found = all_alike(said, end - 600, end + 1)
    assert found["prefill"] == pytest.approx(179, abs=1)
    assert found["interconnect"] == pytest.approx(60, abs=1)
    assert found["decode"] == pytest.approx(600, abs=1)
    assert found["queue"] == pytest.approx(queue, abs=1)
    assert found["frontend"] < 10


def test_a_first_try_that_failed_at_another_server_is_not_the_frontends() -> None:
    said = [
        Said("ingress", 0, 620, "g", span="i"),
        Said("router a egress", 1, 101, "g", span="x", above="i"),
        Said("router b egress", 102, 619, "g", span="y", above="i"),
        vllm(104, 100, 200, 200, span="v", above="y"),
    ]
    found = all_alike(said, 420, 620)
    assert found["frontend"] < 30
    assert found["decode"] == pytest.approx(200, abs=1)


# ---------------------------------------------------------------------- prefill and decode apart
def test_two_legs_one_after_the_other() -> None:
    said = legs(20, 100, 60, 500)
    found = all_alike(said, said[-1].end - 500, said[-1].end + 1)
    assert found["interconnect"] == pytest.approx(60, abs=0.01)
    assert found["queue"] == pytest.approx(20, abs=0.01)
    assert found["prefill"] == pytest.approx(100, abs=0.01)


def test_prompts_that_the_decode_server_computes_itself_wait_for_no_cache() -> None:
    """Most are short and stay: there queue and transfer are not told apart."""
    both, alone = legs(20, 100, 18, 500), [vllm(1, 200, 150, 500, "d", span="d")]
    each = [both if row % 3 == 0 else alone for row in range(N)]
    ends = [said[-1].end for said in each]
    parts, facts = told(each, [end - 500 for end in ends], [end + 1 for end in ends])
    assert facts.told == N
    found = ms(parts)
    assert "interconnect" not in found and "queue" not in found
    merged = next(name for name in found if "queue" in name)
    assert set(merged.split("+")) == {"queue", "interconnect"}
    assert found[merged] == pytest.approx((2 * 200 + 20 + 18) / 3, abs=1)


def test_a_call_to_another_model_in_the_trace_is_no_prefill_server() -> None:
    guard = vllm(1, 1, 5, 0, "guard", span="g", tokens="1")
    guard = replace(guard, texts={**guard.texts, "gen_ai.usage.prompt_tokens": "40"})
    said = [guard, vllm(12, 300, 50, 400, span="v")]
    found = all_alike(said, 380, 781)
    assert "interconnect" not in found
    assert found["queue"] == pytest.approx(301, abs=1)


def test_a_half_that_was_lost_leaves_the_request_out() -> None:
    said = legs(20, 100, 60, 500)
    each = [said if row % 4 else said[row // 4 % 2 :][:1] for row in range(2 * N)]
    end = said[-1].end
    parts, facts = told(each, [end - 500] * len(each), [end + 1] * len(each))
    assert (facts.told, facts.partial + facts.contradicted) == (90, 30)
    assert ms(parts)["interconnect"] == pytest.approx(60, abs=0.01)


# ---------------------------------------------------------------------- ranks, tries, crowds
def sglang(scheduler: str = "s", rank: int | None = None) -> list[Said]:
    thread = Said(
        f"Scheduler [TP {rank or 0}]", 5, 595, scheduler, span=f"t{scheduler}", above="r",
        attributes={} if rank is None else {"tp_rank": rank},
    )  # fmt: skip
    inside = {"prefill_waiting": (5, 105), "prefill_forward": (105, 295)}
    inside |= {"decode_waiting": (295, 315), "decode_forward": (315, 595)}
    phases = [
        Said(name, *when, scheduler, span=f"{name}{scheduler}", above=f"t{scheduler}")
        for name, when in inside.items()
    ]
    return [thread, *phases]


ROOT = Said(" Req ab", 0, 600, "w", span="r", attributes={f"{LATENCY}time_to_first_token": 0.296})


def test_ranks_of_one_server_count_once() -> None:
    said = [ROOT, *(one for rank in range(4) for one in sglang(f"s{rank}", rank))]
    found = all_alike(said, 300, 604)
    assert found["queue"] == pytest.approx(100, abs=0.01)
    assert found["prefill"] == pytest.approx(190, abs=0.01)
    assert found["decode"] == pytest.approx(300, abs=0.01)


@pytest.mark.parametrize("gone", range(5))
def test_time_of_a_span_that_is_lost_goes_to_nobody_else(gone: int) -> None:
    """Lost everywhere: nothing else grows but what is unattributed or the frontend's own."""
    whole = all_alike([ROOT, *sglang()], 300, 604)
    parts = sglang()
    lost = parts.pop(gone)
    if not gone:
        parts = [replace(one, above="lost") for one in parts]
    found_parts, _ = told([[ROOT, *parts]] * N, [300] * N, [604] * N)
    found = ms(found_parts)
    for name in ("queue", "prefill", "decode", "frontend"):
        # But for the 10 ms of the worker around its scheduler, which may lie on either side.
        assert found.get(name, 0) <= whole[name] + 10, lost.name
    assert sum(found.values()) == pytest.approx(604)


def test_a_crowded_trace_is_left_out_and_costs_little() -> None:
    crowd = [vllm(1, 1, 2, 3, span=f"x{i}") for i in range(500)]
    each = [crowd if row == 0 else [vllm(1, 100, 50, 200)] for row in range(N)]
    _, facts = told(each, [155] * N, [356] * N)
    assert (facts.joined, facts.told, facts.partial) == (N, N - 1, 1)


# ---------------------------------------------------------------------- shared traces, ids
def shared(each: Sequence[Said]) -> tuple[Spans, Frame]:
    """Two requests of one trace: the calls of one agent."""
    random = np.random.default_rng(1)
    sent = np.arange(2, dtype=np.int64) * 1000 * MS
    spans = spans_of([[one] for one in each], sent)
    trace = np.full(2, f"{7:032x}", dtype=object)
    seen = replace(requests(2, random), trace_id=trace)
    ends = sent + np.array([round((one.end + 1) * MS) for one in each])
    none = np.zeros(2, dtype=np.int64)
    seen = replace(
        seen, begin=sent, sent=sent, first=ends - 1, last=ends, done=ends, client=none,
        network=none, network_lo=none, network_hi=none,
    )  # fmt: skip
    return replace(spans, trace=trace), seen


def test_calls_that_share_a_trace_are_told_apart_by_their_own_ids() -> None:
    each = [
        vllm(1, 10, 20, 300, texts={"gen_ai.request.id": "cmpl-r0-0"}),
        vllm(1, 70, 20, 500, texts={"gen_ai.request.id": "cmpl-r1-0"}),
    ]
    spans, seen = shared(each)
    _, facts, joined = whitebox.explain(spans, seen)
    assert facts.joined == 2
    assert sorted(joined.row.tolist()) == [0, 1]
    assert [round(float(v), 3) for v in joined.values[f"{LATENCY}time_in_queue"]] == [0.01, 0.07]


def test_spans_without_ids_of_their_own_are_not_each_others_duplicates() -> None:
    said = [ROOT, *sglang()]
    spans = spans_of([said] * 3, np.arange(3) * 1000 * MS)
    nameless = replace(spans, span=np.full(spans.n, None, dtype=object))
    seen = requests(3, np.random.default_rng(1))
    _, facts, joined = whitebox.explain(nameless, seen)
    assert facts.duplicates == 0 and joined.n == spans.n


def test_the_same_span_twice_counts_once() -> None:
    spans = spans_of([[vllm(1, 10, 20, 30)]] * 3, np.arange(3) * 1000 * MS)
    twice = spans.select(np.array([0, 1, 2, 1]))
    _, facts, joined = whitebox.explain(twice, requests(3, np.random.default_rng(1)))
    assert (facts.duplicates, joined.n) == (1, 3)
