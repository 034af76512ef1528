"""KV blocks, prompts that are known, and KV on its way from a prefill to a decode side."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from latdiag.sim.engine import Engine
from latdiag.sim.kv_blocks import Holding, KvBlocks
from latdiag.sim.virtual import play

from .sim_load import APART, LAW, MS, TICK, US, drain, leaves, ms


def test_the_latest_is_pushed_out_and_computes_again() -> None:
    params = replace(TICK, kv_blocks=4, block_tokens=4)
    engine = Engine(params, 1)
    engine.submit("a", 0, 4, 8)
    engine.submit("b", 0, 4, 8)
    found = drain(engine)
    at = {key: [e.at_ns / MS for e in found if e.key == key] for key in "ab"}
    assert at["a"] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert at["b"] == [1, 2, 3, 4, 5, 9, 10, 11]  # no block for a's 9th token but b's
    assert leaves(engine.pop_truth("b")) == {
        "prefill.own": MS, "decode.base": 6 * MS, "queue.preempted": 3 * MS,
        "prefill.recompute": MS,
    }  # fmt: skip
    gauges = engine.gauges()
    assert (gauges["preemptions"], gauges["kv_usage"], gauges["running"]) == (1, 0, 0)


def test_who_was_pushed_out_is_before_all_who_wait() -> None:
    """One block is free from 5 on, enough for c; but b, pushed out, is first in the queue."""
    params = replace(TICK, kv_blocks=4, block_tokens=4)
    played = play(params, 1, [("a", 0, 4, 8), ("b", 0, 4, 8), ("c", 2 * MS, 4, 1)])
    assert ms(played["b"][0])[5:] == [9, 10, 11]
    assert ms(played["c"][0]) == [9]


def test_a_prompt_pushed_out_in_mid_prefill() -> None:
    """From there on all of its prefill is recompute, in its time to first token too."""
    params = replace(TICK, kv_blocks=6, block_tokens=4, token_budget=4, max_seqs=4)
    played = play(params, 1, [("a", 0, 4, 10), ("b", MS // 2, 16, 2)])
    # From 1 on b has four blocks and 3 tokens a step; at 5 a wants its third block.
    assert ms(played["a"][0]) == list(range(1, 11))
    truth = played["b"][1]
    assert leaves(truth) == {
        "queue.admission": MS // 2, "prefill.own": 4 * MS, "queue.preempted": 5 * MS,
        "prefill.recompute": 4 * MS, "decode.base": MS,
    }  # fmt: skip
    assert truth.first_token_leaves["prefill.recompute"] == 4 * MS


def test_an_admission_leaves_room_for_the_others_to_grow() -> None:
    """One block of a hundred stays free while somebody runs, and none otherwise."""
    params = replace(TICK, kv_blocks=100, block_tokens=4)
    played = play(params, 1, [("a", 0, 4, 3), ("b", MS // 2, 392, 1), ("c", 9 * MS, 400, 1)])
    assert ms(played["b"][0]) == [4]  # not at 1: two blocks are a's then, 98 are left
    assert ms(played["c"][0]) == [10]
    assert ms(play(params, 1, [("a", 0, 4, 3), ("b", MS // 2, 388, 1)])["b"][0]) == [2]


def test_known_prompts_are_not_computed_again() -> None:
    params = replace(TICK, overhead_ms=0.0, compute_us=1000.0, prefix_cache=True, block_tokens=4)
    engine = Engine(params, 1)
    prompt = list(range(12))
    engine.submit("a", 0, 12, 1, prompt)
    engine.submit("same", 20 * MS, 12, 1, prompt)
    engine.submit("longer", 40 * MS, 20, 1, [*prompt, 98, 99])
    engine.submit("other", 80 * MS, 12, 1, [9, *prompt[1:]])
    engine.submit("unknown", 100 * MS, 12, 1)
    drain(engine)
    truths = {key: engine.pop_truth(key) for key in ("a", "same", "longer", "other", "unknown")}
    assert {key: truth.cached for key, truth in truths.items()} == {
        "a": 0, "same": 8, "longer": 12, "other": 0, "unknown": 0,
    }  # fmt: skip
    assert leaves(truths["same"]) == {"prefill.own": 4 * MS}  # one block at least is computed
    assert leaves(truths["longer"]) == {"prefill.own": 8 * MS}
    gauges = engine.gauges()
    assert (gauges["prefix_queries"], gauges["prefix_hits"]) == (68, 20)
    assert gauges["kv_usage"] == 0


def test_apart_the_first_token_leaves_before_the_transfer() -> None:
    played = play(APART, 1, [("a", 0, 4, 10), ("b", 0, 4, 3), ("c", 0, 4, 1)])
    # both computed at 1, set up at 3; the link carries a until 7.4, b until 11.8
    assert ms(played["a"][0]) == [1, *(7.4 + i for i in range(1, 10))]
    assert ms(played["b"][0]) == [1, 13.4, 14.4]
    assert ms(played["c"][0]) == [1]  # nothing to hand over
    assert leaves(played["b"][1]) == {
        "prefill.own": MS,
        "interconnect.kv": 6400 * US,
        "interconnect.wait": 4400 * US + 600 * US,
        "decode.base": 2 * MS,
    }


def test_apart_the_first_token_leaves_after_the_transfer() -> None:
    params = replace(APART, first_token="decode")
    played = play(params, 1, [("a", 0, 4, 10), ("b", 0, 4, 3), ("c", 0, 4, 1)])
    assert ms(played["a"][0]) == [7.4 + i for i in range(10)]
    assert ms(played["b"][0]) == [12.4, 13.4, 14.4]
    assert ms(played["c"][0]) == [16.4]
    assert leaves(played["c"][1]) == {
        "prefill.own": MS, "interconnect.kv": 6400 * US, "interconnect.wait": 9000 * US,
    }  # fmt: skip
    assert sum(played["b"][1].first_token_leaves.values()) == 12_400 * US


def test_apart_no_prompt_disturbs_a_decode() -> None:
    params = replace(LAW, disaggregated=True, kv_us=1.0)
    played = play(params, 1, [(str(i), i * 10 * MS, 400, 30) for i in range(8)])
    assert not any(truth.leaves["decode.interference"] for _, truth in played.values())


def test_apart_seats_of_the_decode_side_are_a_hand_over() -> None:
    params = replace(APART, max_seqs=1, token_budget=16, kv_us=0.0)
    played = play(params, 1, [("a", 0, 4, 5), ("b", 0, 4, 2)])
    assert leaves(played["b"][1]) == {
        "queue.admission": MS, "prefill.own": MS, "interconnect.kv": 2 * MS,
        "interconnect.wait": 3 * MS, "decode.base": MS,
    }  # fmt: skip


def test_blocks_of_the_prefill_side_are_held_until_they_are_across() -> None:
    params = replace(APART, kv_blocks=2, block_tokens=4)
    played = play(params, 1, [("a", 0, 4, 2), ("b", 0, 8, 1)])
    assert leaves(played["b"][1]) == {"queue.admission": 7400 * US, "prefill.own": MS}


# KV blocks by themselves


def conserved(blocks: KvBlocks, held: list[Holding]) -> None:
    free, idle, shared = blocks.census()
    assert min(free, idle, shared) >= 0
    assert free + idle + shared + sum(one.private for one in held) == blocks.total
    assert shared == len({node for one in held for node in one.shared})
    assert blocks.available == free + idle


@given(st.data())
def test_blocks_are_conserved_whatever_happens(data: st.DataObject) -> None:
    blocks = KvBlocks(data.draw(st.integers(1, 12)), 2, caching=data.draw(st.booleans()))
    held: list[tuple[Holding, list[int]]] = []
    for _ in range(data.draw(st.integers(1, 40))):
        what = data.draw(st.sampled_from(["claim", "extend", "share", "release"]))
        if what == "claim":
            prompt = data.draw(st.lists(st.integers(0, 1), min_size=1, max_size=8))
            found = blocks.find(prompt)
            before = blocks.census()
            got = blocks.claim(found, blocks.needed(len(prompt)), data.draw(st.integers(0, 2)))
            if got is None:
                assert blocks.census() == before
            else:
                assert len(found) <= (len(prompt) - 1) // 2
                held.append((got, prompt))
        elif held:
            one, prompt = held[data.draw(st.integers(0, len(held) - 1))]
            if what == "extend":
                assert blocks.extend(one) or not blocks.available
            elif what == "share":
                blocks.share(one, prompt, data.draw(st.integers(0, 8)))
            else:
                blocks.release(one)
                held.remove((one, prompt))
        conserved(blocks, [one for one, _ in held])
    for one, _ in held:
        blocks.release(one)
    assert blocks.available == blocks.total


def test_a_found_block_holds_what_was_asked_for() -> None:
    """A beginning that differs anywhere is another prompt, evicted ones are not found."""
    blocks = KvBlocks(3, 2, caching=True)
    first = blocks.claim([], 3, 0)
    assert first is not None
    blocks.share(first, [1, 2, 3, 4, 5, 6], 6)
    assert len(blocks.find([1, 2, 3, 4, 9])) == 2
    assert blocks.find([9, 2, 3, 4, 9]) == []
    assert blocks.find([1, 2, 9, 4, 5]) == first.shared[:1]
    blocks.release(first)
    other = blocks.claim([], 1, 0)  # the end of the old prompt goes first
    assert other is not None
    assert len(blocks.find([1, 2, 3, 4, 5, 6, 7])) == 2
