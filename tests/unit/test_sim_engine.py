"""The engine, small cases by hand: exact instants and exact leaves."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from latdiag.model.components import LEAVES
from latdiag.sim.engine import Emission, Engine
from latdiag.sim.params import Params
from latdiag.sim.truth import ENGINE_LEAVES
from latdiag.sim.virtual import play

from .sim_load import APART, LAW, MS, TICK, US, drain, leaves, ms


def test_leaves_are_named_as_in_the_model() -> None:
    assert set(ENGINE_LEAVES) < {leaf.name for leaf in LEAVES}


def test_one_request_alone() -> None:
    params = replace(LAW, attention_ns=2.0, frontend_ms=2.0, frontend_us=5.0)
    tokens, truth = play(params, 1, [("a", 1000, 100, 3)])["a"]
    ready = 1000 + 2 * MS + 500 * US
    first = ready + 11 * MS + 10 * US + 2 * 100 * 50
    second = first + 4 * MS + 101 * US + 10 * US
    assert tokens == [first, second, second + 4 * MS + 102 * US + 10 * US]
    assert leaves(truth) == {
        "frontend.parse": 2500 * US,
        "prefill.own": first - ready,
        "decode.base": tokens[2] - first,
    }
    assert (truth.arrived_ns, truth.first_ns, truth.finished_ns) == (1000, first, tokens[2])
    assert (truth.isl, truth.osl, truth.cached) == (100, 3, 0)
    assert truth.first_token_leaves == truth.leaves | {"decode.base": 0}


def test_two_requests_one_step_law() -> None:
    """b comes while a decodes: its prompt stretches a's step, then they decode together."""
    played = play(LAW, 1, [("a", 0, 10, 4), ("b", 5 * MS, 50, 2)])
    (a, of_a), (b, of_b) = played["a"], played["b"]
    prefill_a = 4 * MS + 10 * US  # 10 tokens hide behind the weights
    alone = 4 * MS + 11 * US + 10 * US
    mixed = 1 * MS + 51 * 100 * US + 12 * US + 20 * US
    both = 4 * MS + (13 + 51) * US + 20 * US
    assert a == [prefill_a, prefill_a + alone, prefill_a + alone + mixed,
                 prefill_a + alone + mixed + both]  # fmt: skip
    assert b == [a[2], a[3]]
    base = [4 * MS + (context + 10) * US for context in (11, 12, 13)]
    assert leaves(of_a) == {
        "prefill.own": prefill_a,
        "decode.base": sum(base),
        "decode.interference": mixed - base[1],
        "decode.batch": both - base[2],
    }
    own = 1 * MS + 50 * 100 * US + 10 * US
    assert leaves(of_b) == {
        "queue.admission": a[1] - 5 * MS,
        "prefill.own": own,
        "prefill.contention": mixed - own,
        "decode.base": 4 * MS + 61 * US,
        "decode.batch": both - 4 * MS - 61 * US,
    }


def test_a_prompt_in_chunks_behind_decodes_and_another_prompt() -> None:
    """Budget 10: a's prompt leaves 4 tokens of its second step to b, then b has all but a's."""
    params = replace(TICK, token_budget=10, max_seqs=8, compute_us=1000.0)
    played = play(params, 1, [("a", 0, 16, 2), ("b", 0, 10, 1)])
    assert ms(played["a"][0]) == [22, 22 + 8]
    assert ms(played["b"][0]) == [30]
    # the first step had no place for b
    assert leaves(played["b"][1]) == {
        "queue.admission": 11 * MS, "prefill.own": 12 * MS, "prefill.contention": 7 * MS,
    }  # fmt: skip
    assert leaves(played["a"][1]) == {
        "prefill.own": 18 * MS, "prefill.contention": 4 * MS,
        "decode.base": 2 * MS, "decode.interference": 6 * MS,
    }  # fmt: skip


def test_decodes_come_before_prompts_in_the_budget() -> None:
    """With budget 3, two streams leave a token a step to a prompt, and all once they ended."""
    params = replace(TICK, token_budget=3, max_seqs=3)
    arrivals = [("a", 0, 3, 4), ("b", MS // 2, 2, 3), ("c", MS * 3 // 2, 5, 1)]
    played = play(params, 1, arrivals)
    assert ms(played["a"][0]) == [1, 2, 3, 4]
    assert ms(played["b"][0]) == [2, 3, 4]
    assert ms(played["c"][0]) == [5]  # 1 + 1 + 3 tokens, from 2 on
    assert leaves(played["c"][1]) == {"queue.admission": MS // 2, "prefill.own": 3 * MS}


def test_unchunked_prompts_pause_all_streams() -> None:
    params = replace(LAW, chunked=False, comm_ms=0.5)
    (a, of_a), (_, of_b) = play(params, 1, [("a", 0, 10, 3), ("b", 6 * MS, 50, 1)]).values()
    prefill_a = 4 * MS + 510 * US
    step = 4 * MS + 21 * US + 500 * US
    pause = 6 * MS + 10 * US + 500 * US
    assert a == [prefill_a, prefill_a + step, prefill_a + step + pause + step + 1 * US]
    # collectives of the pause are no step of a's: interference, whole
    assert leaves(of_a) == {
        "prefill.own": 4 * MS + 10 * US,
        "decode.base": 2 * step + 1 * US - 1 * MS,
        "decode.interference": pause,
        "interconnect.collective": 1500 * US,
    }
    assert leaves(of_b) == {
        "queue.admission": a[1] - 6 * MS,
        "prefill.own": pause - 500 * US,
        "interconnect.collective": 500 * US,
    }


def test_unchunked_steps_hold_whole_prompts_up_to_the_budget() -> None:
    params = replace(TICK, chunked=False, token_budget=64, compute_us=1000.0)
    arrivals = [("a", 0, 100, 1), ("b", 1, 40, 1), ("c", 2, 24, 1), ("d", 3, 1, 1)]
    played = play(params, 1, arrivals)
    assert [ms(tokens) for tokens, _ in played.values()] == [[101], [166], [166], [168]]


def test_collectives_are_apart_from_the_split() -> None:
    params = replace(TICK, comm_ms=1.0, comm_us=100.0, seq_us=100.0)
    (_, of_a), (_, of_b) = play(params, 1, [("a", 0, 10, 2), ("b", 0, 20, 2)]).values()
    assert leaves(of_a) == {
        "prefill.own": 1100 * US, "prefill.contention": 100 * US, "decode.base": 1100 * US,
        "decode.batch": 100 * US, "interconnect.collective": (1000 + 3000 + 1000 + 200) * US,
    }  # fmt: skip
    assert of_a.leaves == of_b.leaves


def test_seats_are_given_in_order() -> None:
    params = replace(TICK, max_seqs=1, token_budget=64)
    arrivals = [("a", 0, 8, 3), ("c", 20, 8, 1), ("b", 10, 8, 2)]
    played = play(params, 1, arrivals)
    assert ms(played["a"][0]) == [1, 2, 3]
    assert ms(played["b"][0]) == [4, 5]
    assert ms(played["c"][0]) == [6]
    assert leaves(played["c"][1]) == {"queue.admission": 5 * MS - 20, "prefill.own": MS}


def test_the_frontend_is_a_delay_and_no_queue() -> None:
    params = replace(TICK, frontend_us=100.0)
    played = play(params, 1, [("long", 0, 100, 1), ("short", 1 * MS, 10, 1)])
    assert ms(played["short"][0]) == [3]
    assert ms(played["long"][0]) == [11]
    assert leaves(played["long"][1]) == {"frontend.parse": 10 * MS, "prefill.own": MS}


@pytest.mark.parametrize("at_ms", [0.5, 1.5, 2.5, 5.0, 8.0, 9.1])
def test_a_client_that_goes_leaves_nothing_behind(at_ms: float) -> None:
    """In the frontend, prefill, set-up, on the link, and decoding."""
    params = replace(APART, frontend_ms=1.0)
    engine = Engine(params, 1)
    engine.submit("a", 0, 4, 10)
    engine.submit("b", 0, 4, 3)
    engine.cancel("a", round(at_ms * MS))
    found = drain(engine)
    assert all(e.at_ns < at_ms * MS for e in found if e.key == "a")
    assert [e.index for e in found if e.key == "b"] == [0, 1, 2]
    gauges = engine.gauges()
    for name in ("running", "waiting", "transferring", "in_frontend", "kv_usage"):
        assert gauges[name] == 0, name
    with pytest.raises(KeyError):
        engine.pop_truth("a")
    assert engine.pop_truth("b").leaves["interconnect.kv"] == 6400 * US
    engine.submit("a", 50 * MS, 4, 1)  # the name is free again
    assert len(drain(engine)) == 1


def test_a_cancelled_transfer_waiting_for_the_link_is_skipped() -> None:
    engine = Engine(APART, 1)
    for key in "abc":
        engine.submit(key, 0, 4, 2)
    engine.cancel("b", 4 * MS)
    drain(engine)
    assert engine.pop_truth("c").leaves["interconnect.wait"] == 4400 * US
    assert engine.gauges()["transfers"] == 2


def test_cancel_after_the_end_or_of_nobody_is_nothing() -> None:
    engine = Engine(TICK, 1)
    engine.submit("a", 0, 4, 1)
    engine.advance(MS)
    engine.cancel("a", 2 * MS)
    engine.cancel("nobody", 2 * MS)
    assert engine.next_ns() is None
    assert engine.pop_truth("a").finished_ns == MS


def test_what_comes_late_waits_from_its_own_instant() -> None:
    engine = Engine(TICK, 1)
    assert engine.next_ns() is None
    assert engine.advance(10 * MS) == []
    engine.submit("a", 9 * MS, 4, 1)
    assert engine.next_ns() == 10 * MS
    assert engine.advance(20 * MS) == [Emission("a", 11 * MS, 0, True)]
    assert leaves(engine.pop_truth("a")) == {"queue.admission": MS, "prefill.own": MS}


@pytest.mark.parametrize(
    ("isl", "osl", "prompt"), [(0, 1, None), (1, 0, None), (2, 1, [1, 2, 3]), (20, 14, None)]
)
def test_requests_that_cannot_be(isl: int, osl: int, prompt: Sequence[int] | None) -> None:
    engine = Engine(replace(TICK, kv_blocks=2, block_tokens=16), 1)
    with pytest.raises(ValueError, match="request 'a'"):
        engine.submit("a", 0, isl, osl, prompt)
    engine.submit("a", 0, 20, 13)
    with pytest.raises(ValueError, match="is there already"):
        engine.submit("a", 0, 1, 1)
    assert len(drain(engine)) == 13
    with pytest.raises(ValueError, match="is there already"):
        engine.submit("a", 0, 1, 1)


def test_gauges_in_mid_flight() -> None:
    engine = Engine(replace(TICK, max_seqs=1, token_budget=64, kv_blocks=10), 1)
    for key, at_ns in (("a", 0), ("b", 1), ("c", 5 * MS)):
        engine.submit(key, at_ns, 16, 9)
    engine.advance(3 * MS)
    gauges = engine.gauges()
    assert (gauges["running"], gauges["waiting"], gauges["in_frontend"]) == (1, 1, 1)
    assert gauges["kv_usage"] == pytest.approx(0.2)
    assert (gauges["steps"], gauges["generation_tokens"], gauges["prompt_tokens"]) == (4, 3, 32)


def test_noise_is_one_factor_of_the_whole_step_with_mean_one() -> None:
    quiet = play(LAW, 1, [("a", 0, 10, 1000)])["a"][0]
    loud = play(replace(LAW, noise=0.05), 1, [("a", 0, 10, 1000)])["a"][0]
    ratios = [
        (after - before) / (calm - still)
        for before, after, still, calm in zip(loud, loud[1:], quiet, quiet[1:], strict=False)
    ]
    mean = sum(ratios) / len(ratios)
    sigma = (sum((one - mean) ** 2 for one in ratios) / len(ratios)) ** 0.5
    assert abs(mean - 1) < 4 * 0.05 / len(ratios) ** 0.5
    assert 0.045 < sigma < 0.055
    assert play(replace(LAW, noise=0.05), 2, [("a", 0, 10, 1000)])["a"][0] != loud


def test_noise_keeps_the_parts_of_a_step_in_proportion() -> None:
    """b's prompt in a's step: own and contention grow by the same factor."""
    arrivals = [("a", 0, 10, 1), ("b", 0, 50, 1)]
    calm = play(LAW, 1, arrivals)["b"][1].leaves
    loud = play(replace(LAW, noise=0.3), 1, arrivals)["b"][1].leaves
    factor = loud["prefill.own"] / calm["prefill.own"]
    assert abs(factor - 1) > 0.01
    assert abs(loud["prefill.contention"] / calm["prefill.contention"] - factor) < 1e-5


def test_fast_enough_for_virtual_time() -> None:
    rng = random.Random(1)
    at_ns, arrivals = 0, []
    for index in range(400):
        at_ns += round(rng.expovariate(15) * 1e9)
        arrivals.append((str(index), at_ns, rng.randint(1, 1500), rng.randint(1, 200)))
    begun = time.process_time()
    played = play(Params(disaggregated=True, kv_us=20.0, kv_blocks=2000), 1, arrivals)
    emissions = sum(len(tokens) for tokens, _ in played.values())
    assert emissions / (time.process_time() - begun) > 30_000
