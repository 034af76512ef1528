"""Demo servers: each fault is the largest part of its own latency, at the load of a probe."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import asdict, replace

import pytest

from latdiag.sim.params import FAULTS, Params, can_be_both, draw, draw_two
from tests.profiles import repetitions

from .sim_load import NAMED, alone, margin, probed, residence_ns

SEEDS = range(40)
#: Of these so many are played; all of them in the profile ``ci``.
PLAYED = range(min(len(SEEDS), repetitions(len(SEEDS))))
#: Least lead of the named component over the next, in every play: presets, draws.
LEAD = {
    "queue": (1.5, 1.5),
    "prefill": (1.7, 1.7),
    "decode": (5.0, 5.0),
    "interference": (1.4, 1.3),
    "kv-transfer": (1.3, 1.4),
    "network": (1.5, 1.2),
}


def test_json_brings_back_the_same_server() -> None:
    one = replace(draw("kv-transfer", 3), refuses=frozenset({"min_tokens"}), eos_mean=40)
    assert Params.from_json(one.to_json()) == one
    assert json.loads(one.to_json())["refuses"] == ["min_tokens"]
    with pytest.raises(TypeError):
        Params.from_json('{"refuses": [], "overhead": 1}')


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"weights_ms": -1.0}, "weights_ms is -1.0"),
        ({"kv_us": float("nan")}, "kv_us is nan"),
        ({"noise": float("inf")}, "noise is inf"),
        ({"block_tokens": 0}, "block_tokens must be"),
        ({"max_seqs": 0}, "max_seqs must be"),
        ({"token_budget": 63}, "some decodes would never run"),
        ({"first_token": "both"}, "not prefill or decode"),
        ({"eos_mean": 0}, "eos_mean must be"),
        ({"refuses": frozenset({"model"})}, "cannot refuse"),
    ],
)
def test_a_server_that_cannot_be_is_told_so(wrong: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        replace(Params(), **wrong)  # type: ignore[arg-type]


def test_draws_repeat_and_differ() -> None:
    assert draw("prefill", 7) == draw("prefill", 7)
    assert len({draw(fault, seed) for fault in FAULTS for seed in SEEDS}) == len(FAULTS) * 40
    assert draw_two("queue", "decode", 1) == draw_two("queue", "decode", 1)
    with pytest.raises(KeyError):
        draw("slow", 0)


@pytest.mark.parametrize("fault", FAULTS)
def test_draws_are_wide(fault: str) -> None:
    drawn = [asdict(draw(fault, seed)) for seed in SEEDS]
    wide = {name: [one[name] for one in drawn] for name in ("seq_us", "frontend_ms", "noise")}
    for name, values in wide.items():
        assert max(values) > 3 * min(values), name
    steps = [one["overhead_ms"] + one["weights_ms"] for one in drawn]
    assert max(steps) > 2 * min(steps)
    assert len({one["token_budget"] for one in drawn}) > 1
    assert all(0.009 < noise < 0.061 for noise in wide["noise"])


@pytest.mark.parametrize("fault", FAULTS)
def test_a_request_alone_keeps_the_time_limits(fault: str) -> None:
    for params in (FAULTS[fault], *(draw(fault, seed) for seed in SEEDS)):
        mean, medium, long = alone(params, [(300, 36), (1024, 1), (4096, 1)])
        assert residence_ns(mean) + 2e6 * params.network_ms > 0.1e9
        assert residence_ns(mean) < (4.0e9 if fault == "decode" else 2.5e9)
        assert medium.leaves["prefill.own"] < 1.1e9
        assert long.leaves["prefill.own"] < 4.4e9  # 4 s, and the step's noise


@pytest.mark.repeated
@pytest.mark.parametrize("fault", NAMED)
@pytest.mark.parametrize("drawn", [False, True], ids=["preset", "draws"])
def test_the_fault_is_the_largest_component_in_every_play(fault: str, drawn: bool) -> None:
    for seed in PLAYED:
        components = probed(draw(fault, seed) if drawn else FAULTS[fault], seed).components
        assert margin(components, NAMED[fault]) > LEAD[fault][drawn], (seed, components)


@pytest.mark.repeated
@pytest.mark.parametrize("drawn", [False, True], ids=["preset", "draws"])
def test_a_queue_is_all_admission(drawn: bool) -> None:
    for seed in PLAYED:
        leaves = probed(draw("queue", seed) if drawn else FAULTS["queue"], seed).leaves
        assert leaves.most_common(1)[0][0] == "queue.admission"
        assert not leaves["queue.preempted"]


@pytest.mark.repeated
@pytest.mark.parametrize("drawn", [False, True], ids=["preset", "draws"])
def test_interference_is_the_largest_leaf_over_all_plays(drawn: bool) -> None:
    """Prefill takes 0.3 of the time at most, so that in one play of 70 requests chance may put
    another leaf first; the mean share over the plays is what the servers are built for."""
    shares: Counter[str] = Counter()
    for seed in PLAYED:
        leaves = probed(
            draw("interference", seed) if drawn else FAULTS["interference"], seed
        ).leaves
        share = leaves["decode.interference"] / leaves.total()
        assert share > 0.12, (seed, leaves)
        for name, spent in leaves.items():
            shares[name] += spent / leaves.total()
    (first, most), (_, second) = shares.most_common(2)
    if drawn:
        assert first == "decode.interference"
        assert most > 1.1 * second
    else:  # the preset is the plain case: decode is what is slow, and a good part of it is this
        assert shares["decode.interference"] > 0.18 * len(PLAYED)


@pytest.mark.repeated
@pytest.mark.parametrize("drawn", [False, True], ids=["preset", "draws"])
def test_healthy_is_hardly_slower_than_alone(drawn: bool) -> None:
    for seed in PLAYED:
        params = draw("healthy", seed) if drawn else FAULTS["healthy"]
        play = probed(params, seed)
        idle = sorted(map(residence_ns, alone(params, play.shapes)))
        busy = sorted(map(residence_ns, play.truths))
        at = p95_index(len(busy))
        assert busy[at] < (1.2 if drawn else 1.15) * idle[at]
        tpot = [(t.finished_ns - t.first_ns) / (t.osl - 1) for t in play.truths]
        assert max(tpot) < 30e6
        assert sorted(t.first_ns - t.arrived_ns for t in play.truths)[at] < 100e6


def p95_index(count: int) -> int:
    """Place of the 95th percentile."""
    return int(0.95 * count)


def test_the_link_of_a_kv_fault_is_not_overloaded() -> None:
    for seed in SEEDS:
        assert 6 * 300 * draw("kv-transfer", seed).kv_us * 1e-6 < 0.6


@pytest.mark.repeated
def test_two_faults_are_both_there() -> None:
    """Both in every play; the mean share is of ten, and known where ten are played."""
    plays = min(10, repetitions(10))
    pairs = [pair for pair in itertools.combinations(NAMED, 2) if can_be_both(*pair)]
    assert len(pairs) == 13
    for pair in pairs:
        for order in (pair, pair[::-1]):
            shares: dict[str, float] = dict.fromkeys(pair, 0.0)
            for seed in range(plays):
                play = probed(draw_two(*order, seed), seed)
                total = play.components.total()
                for fault in pair:
                    spent = (
                        play.leaves["decode.interference"]
                        if fault == "interference"
                        else (play.components[NAMED[fault]])
                    )
                    assert spent > 0.004 * total, (order, seed, fault)
                    shares[fault] += spent / total / plays
            assert plays < 10 or min(shares.values()) > 0.03, (order, shares)


@pytest.mark.parametrize(
    "pair",
    [("queue", "kv-transfer"), ("kv-transfer", "interference"), ("queue", "queue"),
     ("healthy", "decode")],
)  # fmt: skip
def test_faults_that_exclude_each_other(pair: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="no server has both"):
        draw_two(*pair, 0)
