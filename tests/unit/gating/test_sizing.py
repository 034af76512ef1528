"""What a budget buys, and whether what it is said to see is seen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latdiag.gate.blocks import blocks_of
from latdiag.gate.judge import judged
from latdiag.gate.live.rounds import by_round
from latdiag.gate.plan import LEAST_PAIRS, Arms, Plan
from latdiag.gate.sizing import sized, visible
from latdiag.model.errors import UsageFault
from tests.bench.gate.score import twins_of
from tests.bench.gate.world import Fault, measure
from tests.profiles import examples, repetitions

from .made import QUIET, measured, quick, with_settings

MS = 1_000_000


@given(st.integers(1, 4_000), st.integers(1, 2_000), st.integers(0, 2_000))
@examples(100)
def test_a_plan_keeps_to_its_budget_or_says_what_is_needed(
    budget_s: int, request_ms: int, start_ms: int
) -> None:
    settings = with_settings(budget=f"{budget_s}s")
    try:
        plan = sized(settings, request_ms * MS, start_ms * MS, True)
    except UsageFault as refusal:
        assert "least for a verdict" in refusal.text and "allow" in refusal.remedy
        assert LEAST_PAIRS * 2 * (25 * request_ms + start_ms) > budget_s * 1_000
        return
    assert LEAST_PAIRS <= plan.pairs <= 1_000 and plan.block in (25, 50)
    assert plan.pairs * 2 * (plan.block * request_ms + start_ms) <= budget_s * 1_000


def test_more_pairs_see_less_and_a_margin_costs_what_it_is() -> None:
    few, many = (measured(pairs=pairs, settings=quick()) for pairs in (20, 80))
    seen = visible(few.blocks, few.plan)
    assert set(seen) == {check.name for check in few.plan.voters}
    assert all(effect < seen[name] for name, effect in visible(many.blocks, many.plan).items())
    zero = measured(pairs=20, settings=quick(min_effect=0.0))
    assert visible(zero.blocks, zero.plan)["tpot.shift"] < seen["tpot.shift"] - 0.015


@pytest.mark.repeated
def test_what_is_said_to_be_seen_is_seen() -> None:
    """A TPOT that is slower by what a pilot of 20 pairs predicts is red in 95 of 100 runs: how
    wrong a pilot may be is inside."""
    runs, red = repetitions(50), 0
    for seed in range(runs):
        pilot = measured(pairs=20, seed=1_000 + seed)
        effect = visible(pilot.blocks, pilot.plan)["tpot.shift"]
        settings, slower = quick(fixed=True), Fault(decode=1 + effect)
        run = measured(slower, pairs=20, seed=seed, settings=settings)
        outcome = next(o for o in run.verdict().votes if o.name == "tpot.shift")
        red += outcome.verdict == "REGRESSED"
    assert red >= 0.85 * runs


def test_a_round_is_a_pair_from_as_many_as_can_decide() -> None:
    plan = Plan(40, 25, True, quick())
    assert by_round(plan, 11) == plan
    whole = by_round(plan, 14)
    assert (whole.pairs, whole.block) == (14, 71) and whole.settings == plan.settings
    strict = Plan(40, 25, True, quick(alpha=1e-5))
    assert by_round(strict, 14) == strict


def test_starts_that_differ_are_differences_by_pairs_and_not_by_rounds() -> None:
    """Each start of either server is faster or slower by 5 %, and the servers are equal."""
    pairs, block, rounds, runs = 144, 10, 12, 40
    settings = quick(min_effect=0.0, fixed=True, alpha=0.01)
    by_pair = Plan(pairs, block, True, settings)
    plans = (by_pair, by_round(by_pair, rounds))
    wrong = [0, 0]
    for seed in range(runs):
        made = measure(QUIET, Fault(), pairs, block, 5_000 + seed)
        each = np.exp(np.random.default_rng(seed).normal(0, 0.05, (rounds, 2)))
        factor = each[made["pair"] * rounds // pairs, made["arm"]]
        for metric in ("ttft", "tpot", "itl", "e2e"):
            made[metric] = np.round(made[metric] * factor).astype(np.int64)
        number = made["pair"] * block + made["index"]
        for place, plan in enumerate(plans):
            cut = {**made, "pair": number // plan.block, "index": number % plan.block}
            blocks = blocks_of(twins_of(cut), plan.block, plan.checks, True)
            wrong[place] += judged(blocks, plan, Arms()).verdict in ("REGRESSED", "IMPROVED")
    assert wrong[1] <= 2 and wrong[0] >= 8, wrong
