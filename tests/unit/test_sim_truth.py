"""What holds for every server and every load: nothing lost, and every nanosecond booked once."""

from __future__ import annotations

import random
from dataclasses import dataclass

from hypothesis import event, given
from hypothesis import strategies as st

from latdiag.sim.engine import Emission, Engine
from latdiag.sim.params import Params
from latdiag.sim.truth import ENGINE_LEAVES, Truth
from latdiag.sim.virtual import play
from tests.profiles import examples

MS = 1_000_000
_FOREVER = 1 << 62
#: What may happen to a request after its first token.
_AFTER_FIRST = {
    "queue.preempted", "prefill.recompute", "interconnect.kv", "interconnect.wait",
    "interconnect.collective", "decode.base", "decode.batch", "decode.interference",
}  # fmt: skip


@dataclass(frozen=True)
class Ask:
    key: str
    at_ns: int
    isl: int
    osl: int
    prompt: tuple[int, ...] | None
    gone_ns: int | None


Outcome = tuple[list[Emission], dict[str, Truth], dict[str, float]]


@st.composite
def servers(draw: st.DrawFn) -> Params:
    def some(*values: float) -> float:
        return draw(st.sampled_from(values) | st.floats(0, max(values)))

    seats = draw(st.integers(1, 8))
    return Params(
        overhead_ms=some(0.0, 1.0, 1e-6, 3.3),
        weights_ms=some(0.0, 3.5, 20.0),
        compute_us=some(0.0, 20.0, 900.0),
        kv_ns=some(0.0, 20.0, 1e5),
        seq_us=some(0.0, 20.0, 5e3),
        attention_ns=some(0.0, 1.0, 500.0),
        comm_ms=some(0.0, 2.0),
        comm_us=some(0.0, 30.0),
        token_budget=seats + draw(st.integers(0, 60)),
        chunked=draw(st.booleans()),
        max_seqs=seats,
        kv_blocks=draw(st.integers(12, 60)),
        block_tokens=draw(st.integers(4, 8)),
        prefix_cache=draw(st.booleans()),
        noise=some(0.0, 0.02, 0.5),
        frontend_ms=some(0.0, 1.0, 30.0),
        frontend_us=some(0.0, 1.0, 300.0),
        disaggregated=draw(st.booleans()),
        kv_setup_ms=some(0.0, 5.0, 60.0),
        kv_us=some(0.0, 50.0, 900.0),
        first_token=draw(st.sampled_from(["prefill", "decode"])),
    )


@st.composite
def loads(draw: st.DrawFn, *, leave: bool = True) -> list[Ask]:
    """Up to 14 requests of at most 48 tokens, so that they fit every server; in order."""
    asks, at_ns = [], draw(st.integers(0, 10**18))
    for index in range(draw(st.integers(1, 14))):
        at_ns += draw(st.sampled_from([0, 1, MS, 40 * MS]) | st.integers(0, 100 * MS))
        isl, osl = draw(st.integers(1, 32)), draw(st.integers(1, 16))
        prompt = None
        if draw(st.booleans()):  # long common beginnings
            common = draw(st.integers(0, isl))
            prompt = (1,) * common + (2 + index % 2,) * (isl - common)
        gone = leave and draw(st.integers(0, 3)) == 0
        gone_ns = at_ns + draw(st.integers(0, 200 * MS)) if gone else None
        asks.append(Ask(str(index), at_ns, isl, osl, prompt, gone_ns))
    return asks


def finish(engine: Engine, asks: list[Ask], found: list[Emission]) -> Outcome:
    ended = {emission.key for emission in found if emission.last}
    truths = {ask.key: engine.pop_truth(ask.key) for ask in asks if ask.key in ended}
    return found, truths, engine.gauges()


def in_one_leap(params: Params, asks: list[Ask]) -> Outcome:
    engine = Engine(params, 5)
    for ask in asks:
        engine.submit(ask.key, ask.at_ns, ask.isl, ask.osl, ask.prompt)
    for ask in asks:
        if ask.gone_ns is not None:
            engine.cancel(ask.key, ask.gone_ns)
    found = engine.advance(_FOREVER)
    assert engine.next_ns() is None
    return finish(engine, asks, found)


def in_small_steps(params: Params, asks: list[Ask], rng: random.Random) -> Outcome:
    """As a server does: each call when its instant has come, time in steps of any size."""
    calls = [(ask.at_ns, 0, ask) for ask in asks]
    calls += [(ask.gone_ns, 1, ask) for ask in asks if ask.gone_ns is not None]
    calls.sort(key=lambda call: call[:2])
    engine, found = Engine(params, 5), []
    now_ns = calls[0][0] - 1
    while calls or engine.next_ns() is not None:
        due = [call[0] for call in calls[:1]]
        if (next_ns := engine.next_ns()) is not None:
            due.append(next_ns)
        # to the next event, short of it, or past it as far as the next call
        now_ns = max(now_ns + 1, min(due) + rng.choice((0, 0, -1, -1000, MS, 50 * MS)))
        if calls:
            now_ns = min(now_ns, calls[0][0])
        while calls and calls[0][0] == now_ns:
            _, leaves, ask = calls.pop(0)
            if leaves:
                engine.cancel(ask.key, now_ns)
            else:
                engine.submit(ask.key, now_ns, ask.isl, ask.osl, ask.prompt)
        got = engine.advance(now_ns)
        assert all(emission.at_ns <= now_ns for emission in got)
        due_ns = engine.next_ns()
        assert due_ns is None or due_ns > now_ns
        found += got
        check_blocks(engine)
    return finish(engine, asks, found)


def check_blocks(engine: Engine) -> None:
    """Every block is free, cached, or held by a request that is alive."""
    held = [one.holding for one in engine._live.values() if one.holding is not None]
    for loop in engine._loops:
        free, idle, shared = loop.blocks.census()
        mine = [one for one in held if one.pool is loop.blocks]
        assert free + idle + shared + sum(one.private for one in mine) == loop.blocks.total
        assert shared == len({node for one in mine for node in one.shared})
        assert min(free, idle, shared) >= 0


def check_sums(truth: Truth) -> None:
    assert tuple(truth.leaves) == tuple(truth.first_token_leaves) == ENGINE_LEAVES
    assert sum(truth.leaves.values()) == truth.finished_ns - truth.arrived_ns
    assert sum(truth.first_token_leaves.values()) == truth.first_ns - truth.arrived_ns
    for name, spent in truth.leaves.items():
        assert isinstance(spent, int)
        assert 0 <= truth.first_token_leaves[name] <= spent
        assert name in _AFTER_FIRST or truth.first_token_leaves[name] == spent
        assert not (name.startswith("decode.") and truth.first_token_leaves[name])


def check_tokens(asks: list[Ask], outcome: Outcome) -> None:
    """Emissions in order; every request that nobody left has all its tokens, and its truth."""
    found, truths, _ = outcome
    assert [e.at_ns for e in found] == sorted(e.at_ns for e in found)
    for ask in asks:
        mine = [e for e in found if e.key == ask.key]
        assert [e.index for e in mine] == list(range(len(mine)))
        assert [e.last for e in mine] == [e.index == ask.osl - 1 for e in mine]
        if ask.gone_ns is None:
            assert len(mine) == ask.osl
        if ask.key in truths:
            truth = truths[ask.key]
            assert (truth.first_ns, truth.finished_ns) == (mine[0].at_ns, mine[-1].at_ns)
            assert (truth.arrived_ns, truth.isl, truth.osl) == (ask.at_ns, ask.isl, ask.osl)
            assert 0 <= truth.cached < ask.isl
        else:
            assert ask.gone_ns is not None
            assert all(e.at_ns < ask.gone_ns for e in mine)


@given(servers(), loads(), st.randoms(use_true_random=False))
@examples(400)
def test_every_nanosecond_is_booked_once_however_time_is_cut(
    params: Params, asks: list[Ask], rng: random.Random
) -> None:
    leap = in_one_leap(params, asks)
    assert in_small_steps(params, asks, rng) == leap
    _, truths, gauges = leap
    check_tokens(asks, leap)
    for truth in truths.values():
        check_sums(truth)
        cached = params.prefix_cache and truth.cached
        event(f"cached {bool(cached)}")
    for name in ("running", "waiting", "transferring", "in_frontend", "kv_usage"):
        assert gauges[name] == 0, name
    event(f"preempted {gauges['preemptions'] > 0}")


@given(servers(), loads(leave=False))
@examples(150)
def test_leaves_are_where_their_cause_is(params: Params, asks: list[Ask]) -> None:
    """Without a cause, no time; and decode alone fills what lies between first and last token."""
    _, truths, gauges = in_one_leap(params, asks)
    for truth in truths.values():
        spent = truth.leaves
        if not gauges["preemptions"]:
            assert not spent["queue.preempted"]
            assert not spent["prefill.recompute"]
        if not params.disaggregated:
            assert not spent["interconnect.kv"]
            assert not spent["interconnect.wait"]
        if params.comm_ms == params.comm_us == 0:
            assert not spent["interconnect.collective"]
        if params.max_seqs == 1:
            assert not spent["decode.batch"]
            assert not spent["decode.interference"]
            assert not spent["prefill.contention"]
        after = {name: spent[name] - truth.first_token_leaves[name] for name in spent}
        decode = sum(ns for name, ns in after.items() if name.startswith("decode."))
        others = after["interconnect.collective"] + after["queue.preempted"]
        others += (
            after["prefill.recompute"] + after["interconnect.kv"] + after["interconnect.wait"]
        )
        assert decode + others == truth.finished_ns - truth.first_ns
        if params.disaggregated and params.first_token == "decode":
            assert not after["interconnect.kv"]
            assert not after["interconnect.wait"]


@given(servers(), st.integers(1, 32), st.integers(1, 16))
def test_who_is_alone_shares_with_nobody(params: Params, isl: int, osl: int) -> None:
    truth = play(params, 3, [("a", 0, isl, osl)])["a"][1]
    for name in ("queue.admission", "queue.preempted", "prefill.contention", "prefill.recompute",
                 "interconnect.wait", "decode.batch", "decode.interference"):  # fmt: skip
        assert not truth.leaves[name], name


def test_the_random_loads_reach_the_rare_cases() -> None:
    """Preemption, cache hits, recompute and all leaves do occur under loads like those above."""
    seen: dict[str, int] = dict.fromkeys((*ENGINE_LEAVES, "cached"), 0)
    rng = random.Random(2)
    for round_ in range(60):
        params = Params(
            token_budget=16, max_seqs=6, kv_blocks=12, block_tokens=4, comm_ms=0.1,
            chunked=round_ % 2 == 0, disaggregated=round_ % 3 == 0, kv_us=100.0, kv_setup_ms=1.0,
            prefix_cache=True,
        )  # fmt: skip
        asks = []
        for key in range(12):
            isl = rng.randint(8, 32)
            prompt = (1,) * rng.randint(0, isl)
            at_ns = rng.randrange(100 * MS)
            asks.append(Ask(str(key), at_ns, isl, rng.randint(1, 16), prompt, None))
        for truth in in_one_leap(params, asks)[1].values():
            for name, spent in truth.leaves.items():
                seen[name] += spent > 0
            seen["cached"] += truth.cached > 0
    assert min(seen.values()) > 10, seen
