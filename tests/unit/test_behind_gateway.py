"""What a gateway takes, by the totals of the servers behind it; and the end of a stream held."""

from __future__ import annotations

import math

import numpy as np
import pytest

from latdiag.attribution.client_only import end_claim, held_end, partition
from latdiag.attribution.metrics.behind_gateway import Engine, engine_of, explain
from latdiag.attribution.metrics.claims import Aggregates
from latdiag.attribution.metrics.traffic import Own, Total, Traffic
from latdiag.attribution.parts import Parts
from latdiag.measurement.frame import Frame, joined
from latdiag.stacks import catalogue

MS = 1_000_000
S = 1_000_000_000
BOUNDS = (*(0.05, 0.1, 0.2, 0.5, 1.0, 2.0), math.inf)
N = 60


def through(rng: np.random.Generator, flush: bool = False) -> tuple[Frame, dict[str, int]]:
    """Requests through a gateway, and the truth: what engine and gateway took of all."""
    front = rng.exponential(400 * MS, N).astype(np.int64)
    first = rng.uniform(40 * MS, 90 * MS, N).astype(np.int64)
    tokens = rng.integers(8, 60, N)
    decode = ((tokens - 1) * 7 * MS).astype(np.int64)
    held = np.minimum(200 * MS, decode) if flush else np.zeros(N, dtype=np.int64)
    begin = 10**15 + np.arange(N) * 20 * MS
    seen = begin + 3 * MS + front + first + held
    last = np.maximum(seen, begin + 3 * MS + front + first + decode)
    tail = rng.uniform(100 * MS, 300 * MS, N).astype(np.int64)
    given = {
        "row": np.arange(N),
        "begin": begin,
        "sent": begin + MS,
        "first": seen,
        "last": last,
        "done": last + tail,
        "outputs": tokens,
        "client": np.full(N, MS),
        "network": np.full(N, 2 * MS),
        "network_lo": np.full(N, 2 * MS),
        "network_hi": np.full(N, 2 * MS),
        "kernel": np.ones(N, dtype=bool),
        "ok": np.ones(N, dtype=bool),
        "workload": np.ones(N, dtype=bool),
        "scenario": np.full(N, "", dtype=object),
    }
    del given["row"]
    engine = int((first + decode).sum())
    truth = {"first": int(first.sum()), "engine": engine}
    truth["gateway"] = int((last + tail - begin).sum()) - N * 3 * MS - engine
    return joined([given]), truth


def totals(truth: dict[str, int], n: int = N, more: int = 0) -> list[Total]:
    """What Dynamo's frontend says of them; ``more``: requests that it refused."""
    dynamo = {s.name: s for s in catalogue.stack("dynamo").signals}

    def total(name: str, ns: int, count: int) -> Total:
        spread = tuple(count * (i + 1) // len(BOUNDS) for i in range(len(BOUNDS)))
        signal = dynamo[f"dynamo.metrics.{name}"]
        return Total(signal, "unified", ("r",), count, ns, ns, ns, (BOUNDS, spread))

    itl = total("itl", truth["engine"] - truth["first"], 40 * n)
    return [
        total("e2e", truth["engine"] + more * MS, n + more),
        total("ttft", truth["first"], n),
        itl,
    ]


def aggregates(verdict: str = "own", finished: int = N) -> Aggregates:
    return Aggregates((), Traffic(verdict, {"unified": finished}, 0, 0.0, ""), ())


def engine(truth: dict[str, int]) -> Engine:
    found = engine_of(totals(truth), aggregates(), Own(N), 0, 0)
    assert found is not None
    return found


NOBODY = joined([])


@pytest.mark.parametrize("flush", [False, True])
def test_what_the_client_waited_beyond_the_servers_is_the_gateways(flush: bool) -> None:
    rows, truth = through(np.random.default_rng(1), flush)
    place = np.zeros(N, dtype=np.int64)
    parts = explain(rows, NOBODY, [engine(truth)], place, ["litellm"], 0)
    assert isinstance(parts, Parts), parts
    assert int(parts.parts["gateway"].sum()) == truth["gateway"]
    assert int(parts.parts["decode"].sum()) == truth["engine"] - truth["first"]
    assert np.array_equal(sum(parts.parts.values()), parts.total)
    assert not parts.parts["unattributed"].any()
    assert "litellm" in parts.sources["gateway"].evidence
    assert parts.sources["frontend"].members == ("frontend", "queue", "prefill", "interconnect")
    # The intervals inside are filled too.
    for inside, length in (("client_ttft", parts.ttft), ("decode", rows.last - rows.first)):
        assert np.array_equal(sum(parts.within[inside].values()), length), inside
    # A stream that the gateway holds back is shorter than the decode.
    assert (parts.within["decode"]["decode"] <= rows.last - rows.first).all()


def test_servers_that_took_longer_than_the_client_waited_explain_nothing() -> None:
    rows, truth = through(np.random.default_rng(2))
    more = {"first": truth["first"], "engine": 3 * int((rows.done - rows.begin).sum())}
    found = explain(rows, NOBODY, [engine(more)], np.zeros(N, dtype=np.int64), [], 0)
    assert isinstance(found, str) and "the servers took" in found


def test_requests_of_others_leave_no_totals() -> None:
    _, truth = through(np.random.default_rng(3))
    assert engine_of(totals(truth, 2 * N), aggregates("others", 2 * N), Own(N), 0, 0) is None
    assert engine_of(totals(truth)[2:], aggregates(), Own(N), 0, 0) is None


def test_requests_that_were_refused_had_a_bound_and_no_token() -> None:
    _, truth = through(np.random.default_rng(4))
    counted = totals(truth, more=9)
    assert engine_of(counted, aggregates("others", N + 9), Own(N), 0, 0) is None
    found = engine_of(counted, aggregates("others", N + 9), Own(N), 9, 40 * MS)
    assert found is not None
    middle, least, most = found.stream
    assert middle - least == 40 * MS and middle == most
    assert least <= truth["engine"] - truth["first"] <= most


def test_a_server_further_behind_that_counts_no_refusal_bounds_the_one_in_front() -> None:
    _, truth = through(np.random.default_rng(4))
    vllm = {s.foreign: s for s in catalogue.stack("vllm").signals}
    ns = truth["engine"] - 50 * MS
    signal = vllm["vllm:e2e_request_latency_seconds"]
    inner = Total(signal, "unified", ("w",), N, ns, ns, ns)
    counted = [*totals(truth, more=9), inner]
    found = engine_of(counted, aggregates("others", N + 9), Own(N), 9, 10 * S)
    assert found is not None
    # The refused may have taken all of the difference, but not what the inner server took.
    assert found.stream[1] == ns - truth["first"]


# ---------------------------------------------------------------------- the end of a stream
def test_a_stop_token_and_the_network_explain_a_late_end() -> None:
    stream, outputs = np.full(4, 300 * MS), np.full(4, 31)
    after = np.array([0, 10 * MS, 45 * MS, 400 * MS])
    held = held_end(after, stream, outputs, np.array([0, 0, 60 * MS, 60 * MS]))
    assert held.tolist() == [0, 0, 0, 400 * MS]
    # A reply of one token has no step of its own.
    none, one = np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.int64)
    assert held_end(5 * MS * one, none, one, none).any()


def test_the_end_is_of_who_showed_itself_or_of_two() -> None:
    held, total = np.full(5, 300 * MS), np.full(5, S)
    one, two = end_claim(held, total, gateway=True), end_claim(held, total, gateway=False)
    assert one is not None and two is not None and one.leaves != two.leaves
    assert one.origins[0].grade == "C" and two.origins[0].grade == "E"
    assert not one.may_be_early and not one.may_be_late and not one.early.any()
    assert end_claim(held // 100, total, gateway=True) is None


def test_a_load_alone_books_the_end_to_what_lies_behind_the_hop() -> None:
    rows, _ = through(np.random.default_rng(5))
    parts = partition(rows)
    share = parts.parts["unattributed"].sum() / parts.total.sum()
    assert abs(float(share)) < 0.01
    late = rows.last - rows.first
    assert np.array_equal(sum(parts.within["decode"].values()), late)
