"""What must hold of any evidence, however broken: over random traces of all stacks.

The same over a million of them: tests/bench/whitebox/test_million_traces.py.
"""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cache

import numpy as np
import pytest

from latdiag.attribution.parts import Parts
from latdiag.attribution.spans import explain as whitebox
from latdiag.attribution.spans.columns import Spans
from latdiag.attribution.spans.complete import Findings
from latdiag.attribution.spans.offsets import offsets
from latdiag.diagnosis.breakdown import breakdown
from latdiag.measurement.frame import Frame
from latdiag.model.document import document
from latdiag.stacks.catalogue import stacks

from .random_traces import MS, requests, traces

N = 400
SEEDS = range(12)


def told(spans: Spans, seen: Frame) -> tuple[Parts, Findings]:
    parts, facts, _ = whitebox.explain(spans, seen)
    assert parts is not None
    return parts, facts


@cache
def case(seed: int, kernel: bool = True) -> tuple[Spans, Frame]:
    """Spans and requests that several tests look at: nobody may write into their columns."""
    spans = traces(N, np.random.default_rng(seed))
    seen = requests(N, np.random.default_rng([seed, 1]), kernel)
    for owner in (spans, seen):
        for field in fields(owner):
            if isinstance(column := getattr(owner, field.name), np.ndarray):
                column.flags.writeable = False
    return spans, seen


@cache
def usual(seed: int) -> Parts:
    """What is told of the case as it is."""
    return told(*case(seed))[0]


def same(one: Parts, other: Parts) -> bool:
    """Every column of both, in every interval."""
    return (
        set(one.parts) == set(other.parts)
        and all(np.array_equal(one.parts[k], other.parts[k]) for k in one.parts)
        and one.within.keys() == other.within.keys()
        and all(
            np.array_equal(one.within[i][k], other.within[i][k])
            for i in one.within
            for k in one.within[i]
        )
        and {k: v.members for k, v in one.sources.items()}
        == {k: v.members for k, v in other.sources.items()}
    )


def check_sums(parts: Parts) -> None:
    """Exact in integer nanoseconds, in every row of every interval; only U is negative."""
    whole = sum(parts.parts.values())
    assert np.array_equal(whole, parts.total)
    ttft = sum(parts.within["client_ttft"].values())
    assert np.array_equal(ttft, parts.ttft)
    for columns in (parts.parts, parts.within["client_ttft"]):
        for name, values in columns.items():
            assert values.dtype == np.int64
            assert name == "unattributed" or (values >= 0).all(), name
    for leaf, values in parts.leaves.items():
        assert (values >= 0).all(), leaf


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kernel", [True, False])
def test_sums_are_exact_and_only_unattributed_is_negative(seed: int, kernel: bool) -> None:
    parts, facts = told(*case(seed, kernel))
    check_sums(parts)
    assert facts.joined == N
    assert facts.told + facts.partial + facts.contradicted >= facts.joined


@pytest.mark.parametrize("seed", SEEDS)
def test_the_order_in_which_spans_come_changes_nothing(seed: int) -> None:
    spans, seen = case(seed)
    shuffled = spans.select(np.random.default_rng(seed).permutation(spans.n))
    assert same(usual(seed), told(shuffled, seen)[0])


@pytest.mark.parametrize("seed", SEEDS)
def test_a_clock_that_is_wrong_by_a_constant_changes_nothing(seed: int) -> None:
    spans, seen = case(seed)
    random = np.random.default_rng(seed)
    wrong = random.integers(-(10**17), 10**17, len(spans.senders))[spans.sender]
    skewed = replace(spans, start=spans.start + wrong, end=spans.end + wrong)
    assert same(usual(seed), told(skewed, seen)[0])


@pytest.mark.parametrize("seed", SEEDS)
def test_a_clock_of_the_client_that_is_wrong_changes_nothing(seed: int) -> None:
    spans, seen = case(seed)
    instants = {n: getattr(seen, n) + 10**16 for n in ("begin", "sent", "first", "last", "done")}
    assert same(usual(seed), told(spans, replace(seen, **instants))[0])


def test_no_span_no_parts() -> None:
    random = np.random.default_rng(0)
    parts, facts, _ = whitebox.explain(traces(0, random), requests(5, random))
    assert parts is None
    assert (facts.requests, facts.joined) == (5, 0)


# ---------------------------------------------------------------------- spans as they should be
def vllm(n: int, random: np.random.Generator, skew: int = 0) -> tuple[Spans, Frame]:
    """Consistent requests: 1 ms of network, then the server's span, tokens as they leave."""
    seen = requests(n, random)
    queue, prefill, front, decode = (random.integers(1, 200 * MS, n) for _ in range(4))
    sent = np.arange(n, dtype=np.int64) * 1000 * MS
    server = queue + prefill + front
    first = sent + 2 * MS + server
    seen = replace(
        seen,
        begin=sent,
        sent=sent,
        first=first,
        last=first + decode,
        done=first + decode,
        client=np.full(n, MS // 2),
        network=np.full(n, MS),
        network_lo=np.full(n, MS),
        network_hi=np.full(n, MS),
    )
    spans = traces(n, random)
    one = spans.select(np.unique(spans.trace, return_index=True)[1])
    times = {
        "time_to_first_token": server,
        "e2e": server + decode,
        "time_in_queue": queue,
        "time_in_model_prefill": prefill,
        "time_in_model_decode": decode,
    }
    values = dict(one.values)
    for name, ns in times.items():
        values[f"gen_ai.latency.{name}"] = ns / 1e9
    start = sent + skew
    return replace(
        one,
        name=np.full(n, "llm_request", dtype=object),
        above=np.full(n, "client", dtype=object),
        start=start,
        end=start + server + decode,
        sender=np.zeros(n, dtype=np.int64),
        senders=("one",),
        values=values,
    ), seen


def medians(spans: Spans, seen: Frame) -> dict[str, float]:
    return told(spans, seen)[1].medians


def test_two_attributes_swapped_swap_their_components() -> None:
    spans, seen = vllm(200, np.random.default_rng(3))
    right = medians(spans, seen)
    a, b = "gen_ai.latency.time_in_queue", "gen_ai.latency.time_in_model_prefill"
    values = {**spans.values, a: spans.values[b], b: spans.values[a]}
    wrong = medians(replace(spans, values=values), seen)
    assert wrong["queue"] != right["queue"]
    assert (wrong["queue"], wrong["prefill"]) == (right["prefill"], right["queue"])


def test_an_attribute_that_is_lost_leaves_its_time_to_none_but_unattributed() -> None:
    spans, seen = vllm(200, np.random.default_rng(4))
    right, _ = told(spans, seen)
    gone = np.full(spans.n, np.nan)
    values = {**spans.values, "gen_ai.latency.time_in_queue": gone}
    wrong, facts = told(replace(spans, values=values), seen)
    merged = {m for s in wrong.sources.values() for m in s.members}
    # In every request: then the two are told together, and nobody is blamed.
    assert merged == {"frontend", "queue"}
    both = right.parts["frontend"] + right.parts["queue"]
    assert np.array_equal(wrong.parts["frontend"], both)
    assert facts.partial == 0


def test_requests_with_a_gap_are_left_out_where_others_are_whole() -> None:
    spans, seen = vllm(200, np.random.default_rng(5))
    queue = spans.values["gen_ai.latency.time_in_queue"].copy()
    queue[:40] = np.nan
    values = {**spans.values, "gen_ai.latency.time_in_queue": queue}
    parts, facts = told(replace(spans, values=values), seen)
    assert (facts.partial, facts.told, parts.left_out) == (40, 160, 40)
    assert not any(source.members for source in parts.sources.values())


def test_a_server_that_states_more_than_the_client_saw_is_not_believed() -> None:
    spans, seen = vllm(200, np.random.default_rng(6))
    end = spans.end.copy()
    end[:10] += 200 * MS
    _, facts = told(replace(spans, end=end), seen)
    assert (facts.contradicted, facts.told) == (10, 190)


@pytest.mark.parametrize("late_s", [0.2, 5.0])
def test_a_span_that_ends_when_the_books_are_done_contradicts_nothing(late_s: float) -> None:
    """A gateway's callbacks (LiteLLM's) run after the reply: nobody waited for them."""
    spans, seen = vllm(60, np.random.default_rng(5))
    late = replace(spans, end=spans.end + round(late_s * 1e9))
    known = replace(
        late,
        stacks=tuple(
            replace(
                stack,
                signals=tuple(replace(one, outlasts=one.kind == "span") for one in stack.signals),
            )
            for stack in late.stacks
        ),
    )
    parts, facts = told(known, seen)
    assert facts.contradicted == 0 and facts.told == 60
    for name, column in told(spans, seen)[0].parts.items():
        assert abs(int(parts.parts[name].sum()) - int(column.sum())) <= 60 * 2 * MS
    assert whitebox.explain(late, seen)[1].contradicted == 60
    assert any(one.outlasts for stack in stacks() for one in stack.signals)


def test_a_clock_that_steps_is_found_and_its_step_measured() -> None:
    spans, seen = vllm(400, np.random.default_rng(7), skew=10**15)
    step = np.where(np.arange(400) >= 200, 200 * MS, 0)
    spans = replace(spans, start=spans.start + step, end=spans.end + step)
    parts, facts, joined = whitebox.explain(spans, seen)
    ((_, clock),) = offsets(joined, seen)
    ((at, by),) = clock.steps
    assert at == 200
    assert by == pytest.approx(200 * MS, abs=2 * clock.half_ns + MS)
    assert abs(clock.offset_ns - 10**15) <= clock.half_ns + 2 * MS
    assert parts is not None and facts.told == 400
    straight, _ = told(*vllm(400, np.random.default_rng(7)))
    assert same(parts, straight)


def test_ids_join_what_a_trace_id_does_not() -> None:
    spans, seen = vllm(100, np.random.default_rng(8))
    ids = np.array([f"{r}-0" for r in seen.response_id], dtype=object)
    other = replace(
        spans,
        trace=np.array([f"{at + 10**6:032x}" for at in range(100)], dtype=object),
        texts={**spans.texts, "gen_ai.request.id": ids},
    )
    facts = told(other, seen)[1]
    assert facts.by == {"trace_id": 0, "request_id": 0, "response_id": 100}
    assert same(told(spans, seen)[0], told(other, seen)[0])


def test_an_id_that_two_requests_bear_joins_nothing() -> None:
    spans, seen = vllm(100, np.random.default_rng(9))
    ids = seen.trace_id.copy()
    ids[1] = ids[0]
    facts = told(spans, replace(seen, trace_id=ids))[1]
    assert facts.joined == 98


# ---------------------------------------------------------------------- without a client
@pytest.mark.parametrize("seed", SEEDS)
def test_without_a_client_the_servers_own_time_adds_up_too(seed: int) -> None:
    spans = case(seed)[0]
    parts, facts = whitebox.server_only(spans)
    assert parts is not None and facts.joined == N
    assert np.array_equal(sum(parts.parts.values()), parts.total)
    assert {"client", "network"}.isdisjoint(parts.parts)
    for name, values in parts.parts.items():
        assert name == "unattributed" or (values >= 0).all(), name
    random = np.random.default_rng(seed)
    wrong = random.integers(-(10**17), 10**17, len(spans.senders))[spans.sender]
    skewed = replace(spans, start=spans.start + wrong, end=spans.end + wrong)
    other, _ = whitebox.server_only(skewed.select(random.permutation(spans.n)))
    assert other is not None
    # The order of requests is by their clocks, which lie: the sums do not.
    for name, values in parts.parts.items():
        assert values.sum() == other.parts[name].sum(), name


def test_without_a_client_a_servers_components_are_as_with_one() -> None:
    spans, seen = vllm(200, np.random.default_rng(10))
    alone, _ = whitebox.server_only(spans)
    with_client, _ = told(spans, seen)
    assert alone is not None and alone.interval == "server"
    for name in ("queue", "prefill", "decode", "frontend"):
        assert alone.parts[name].sum() == with_client.parts[name].sum(), name
    entry = breakdown(alone, "client_e2e", "mean")
    assert entry is not None and entry.interval == "server"
    shown = document(entry)
    assert shown["client"] is None and shown["network"] is None
