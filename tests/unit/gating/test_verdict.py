"""The verdict and its vetoes, on runs in which one thing is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from latdiag.gate.blocks import blocks_of
from latdiag.gate.judge import decided, judged
from latdiag.gate.plan import LEAST_PAIRS, Arms, Plan
from latdiag.gate.result import Verdict, exit_code
from latdiag.gate.trial import Trial
from latdiag.gate.twins import MISSING, Twins
from latdiag.gate.validity import valid_pairs
from tests.bench.gate.score import twins_of
from tests.bench.gate.world import Fault, Regime, measure

from .made import QUIET, measured, quick


def rules(verdict: Verdict) -> set[str]:
    return {reason.rule for reason in verdict.reasons}


def test_equal_arms_are_ok() -> None:
    verdict = measured(pairs=60, block=40).verdict()
    assert (verdict.verdict, verdict.exit_code, verdict.cause) == ("OK", 0, None)
    assert all(o.safe_below is not None and o.safe_below < o.tolerance for o in verdict.votes)


@pytest.mark.parametrize(
    ("fault", "metric", "cause"),
    [
        (Fault(prefill=1.3), "ttft", "prefill"),
        (Fault(decode=1.2), "tpot", "decode"),
        (Fault(wait_ms=25.0), "ttft", "queue"),
    ],
    ids=["prefill", "decode", "queue"],
)
def test_what_is_slower_is_red_and_named(fault: Fault, metric: str, cause: str) -> None:
    verdict = measured(fault).verdict()
    assert (verdict.verdict, verdict.exit_code, verdict.cause) == ("REGRESSED", 10, cause)
    red = [o for o in verdict.votes if o.verdict == "REGRESSED"]
    assert metric in {o.metric for o in red}
    for o in red:
        least = 0.0 if o.statistic == "exceed2x" else o.min_effect
        assert o.worse_than is not None and o.worse_than >= least


def test_the_components_add_up_exactly() -> None:
    run = measured(Fault(prefill=1.3))
    verdict = run.verdict()
    blocks = run.blocks.first(verdict.stop.measured)
    for arm in ("base_ns", "candidate_ns"):
        whole = sum(getattr(each, arm) for each in verdict.components)
        assert whole == sum(int(getattr(part, arm).sum()) for part in blocks.parts.values())
    e2e = blocks.columns["e2e.shift"]
    assert verdict.requests == int(blocks.alike.sum()) == int(e2e.twins.sum())


def test_without_evidence_the_clients_own_split_explains() -> None:
    verdict = measured(Fault(prefill=1.3), parts=lambda _: {}).verdict()
    assert verdict.cause == "to first token"
    assert [c.name for c in verdict.components] == ["to first token", "after first token"]


def test_what_is_faster_is_improved_and_passes() -> None:
    verdict = measured(Fault(prefill=0.7, decode=0.7), pairs=60).verdict()
    assert (verdict.verdict, verdict.exit_code) == ("IMPROVED", 0)
    better = {o.name: o.better_than for o in verdict.votes if o.verdict == "IMPROVED"}
    assert "tpot.shift" in better and all(b is not None and b < -0.03 for b in better.values())


@pytest.mark.parametrize(("setting", "code"), [("pass", 0), ("warn", 0), ("fail", 11)])
def test_too_few_pairs_for_the_noise_are_inconclusive(setting: Any, code: int) -> None:
    """A true +7 %, between margin and tolerance."""
    settings = quick(on_inconclusive=setting)
    verdict = measured(Fault(prefill=1.06, decode=1.06), pairs=16, settings=settings).verdict()
    assert (verdict.verdict, verdict.exit_code) == ("INCONCLUSIVE", code)
    assert exit_code("INVALID", setting) == 12 and exit_code("REGRESSED", setting) == 10


def test_a_difference_below_the_floor_is_nobodys_regression() -> None:
    floors = [
        {"metric": m, "stat": ["shift", "p95"], "floor": "1s"} for m in ("ttft", "tpot", "e2e")
    ]
    off = {"metric": "ttft", "stat": "exceed2x", "level": "off"}
    settings = quick(check=[*floors, off], fixed=True)
    assert measured(Fault(prefill=1.3), settings=settings).verdict().verdict == "OK"


def test_a_margin_decides_between_red_and_not() -> None:
    """A true +6 % is red against a margin of 0 and not against 15 %."""
    faults = Fault(decode=1.06)
    zero = quick(min_effect=0.0)
    wide = quick(min_effect="15%", tolerance="40%")
    assert measured(faults, pairs=60, settings=zero).verdict().verdict == "REGRESSED"
    assert measured(faults, pairs=60, settings=wide).verdict().verdict != "REGRESSED"


def test_breakage_below_the_floor_is_no_reason_to_stop() -> None:
    """Bets are held against the floor too: they are won only by what is then red."""
    floors = [
        {"metric": metric, "stat": ["shift", "p95"], "floor": floor}
        for metric, floor in (("tpot", "1ms"), ("e2e", "100ms"))
    ]
    settings = quick(min_effect=0.0, check=floors)
    verdict = measured(Fault(decode=1.06), pairs=60, settings=settings).verdict()
    assert verdict.stop.why != "broken"
    red = measured(Fault(decode=1.5), pairs=60, settings=settings).verdict()
    assert (red.verdict, red.stop.why) == ("REGRESSED", "broken")


def test_an_early_look_calls_nothing_ok_that_may_still_turn_red() -> None:
    """A TPOT that is 5 % slower is proved to be within the tolerance before it is proved to be
    slower; with no margin it is a regression."""
    run = measured(Fault(decode=1.05), pairs=80, settings=quick(min_effect=0.0))
    verdict = run.verdict()
    assert (verdict.verdict, verdict.cause) == ("REGRESSED", "decode")
    valid = valid_pairs(run.blocks, run.plan)
    words = [
        {o.verdict for o in Trial(run.blocks, valid, run.plan, look.pairs, look).outcomes(False)
         if o.level == "error"}
        for look in run.plan.looks
        if look.pairs < verdict.stop.measured
    ]  # fmt: skip
    assert {"OK"} in words  # of the checks that vote, at a look that was passed over


def test_an_early_look_calls_nothing_ok_where_one_arm_may_lose_more_requests() -> None:
    alike = measured(pairs=80, settings=quick(), regime=QUIET)
    assert alike.verdict().stop.measured < 80
    look = alike.verdict().stop.measured

    def fails(columns: dict[str, Any]) -> Any:
        """Of the candidate, one request in each of some early pairs."""
        odd = (columns["pair"] % 4 == 0) & (columns["pair"] < look) & (columns["index"] == 0)
        return columns["ok"] & ~(odd & (columns["arm"] == 1))

    doubtful = measured(pairs=80, settings=quick(), ok=fails).verdict()
    assert doubtful.stop.measured > look


def test_what_only_warns_does_not_fail() -> None:
    checks = [
        {"metric": m, "stat": s, "level": "warn"}
        for m in ("ttft", "e2e")
        for s in ("shift", "p95")
    ]
    off = {"metric": "ttft", "stat": "exceed2x", "level": "off"}
    verdict = measured(Fault(prefill=1.4), settings=quick(check=[*checks, off])).verdict()
    assert verdict.exit_code == 0
    assert any(o.level == "warn" and o.verdict == "REGRESSED" for o in verdict.outcomes)


def test_where_judges_only_the_twins_with_that_label() -> None:
    check = {"metric": "ttft", "stat": "shift", "where": {"prompt_class": "rag"}}
    run = measured(settings=quick(check=[check]), pairs=20)
    labelled = run.blocks.columns["ttft.shift[prompt_class=rag]"]
    assert 0 < labelled.twins.sum() < run.blocks.columns["ttft.shift"].twins.sum()
    nothing = quick(check=[{**check, "where": {"prompt_class": "none"}}])
    assert rules(measured(settings=nothing, pairs=20).verdict()) == {"missing"}


# ---------------------------------------------------------------------- looks, stops, resumption
def test_gross_breakage_stops_early() -> None:
    run = measured(Fault(prefill=3.0, decode=3.0), pairs=200)
    verdict = run.verdict()
    assert (verdict.verdict, verdict.stop.why) == ("REGRESSED", "broken")
    assert LEAST_PAIRS <= verdict.stop.measured < 25
    assert all(o.worse_than is None or o.worse_than > -1 for o in verdict.votes)


def test_with_one_look_nothing_stops_early() -> None:
    run = measured(Fault(prefill=3.0), pairs=50, settings=quick(fixed=True))
    assert [look.pairs for look in run.plan.looks] == [50]
    assert run.verdict().stop.why == "end" and run.plan.looks[0].level == 0.005


def test_between_looks_nothing_is_decided_and_what_is_left_is_said() -> None:
    run = measured(Fault(prefill=1.07, decode=1.07), pairs=80)
    cut = judged(run.blocks.first(41), run.plan, run.arms)
    assert (cut.verdict, cut.stop.why, cut.more_pairs) == ("INCONCLUSIVE", "cut", 39)
    assert not decided(run.blocks.first(41), run.plan, run.arms)
    assert [look.pairs for look in run.plan.looks_left(41)] == [60, 80]
    spent = run.plan.spent(41)
    assert spent == pytest.approx(run.plan.looks[0].level + run.plan.abort_level)
    assert run.plan.spent(80) == pytest.approx(run.plan.settings.alpha)


@pytest.mark.parametrize("factor", [1.0, 1.07, 1.15, 2.0])
def test_a_run_that_was_cut_ends_as_if_it_had_not_been(factor: float) -> None:
    run = measured(Fault(prefill=factor), pairs=60)
    whole = run.verdict()
    for cut in range(0, 61, 12):
        early = judged(run.blocks.first(cut), run.plan, run.arms)
        if early.stop.why != "cut":
            assert early.stop == whole.stop and early.outcomes == whole.outcomes


def test_more_pairs_than_planned_are_refused() -> None:
    run = measured(pairs=20)
    with pytest.raises(ValueError, match="planned"):
        judged(run.blocks, replace(run.plan, pairs=15), run.arms)


# ---------------------------------------------------------------------- vetoes


def test_a_candidate_that_fails_fast_is_invalid_and_not_faster() -> None:
    verdict = measured(Fault(fails=0.02), pairs=60).verdict()
    assert verdict.verdict == "INVALID" and "failed" in rules(verdict)
    assert measured(Fault(fails=1.0)).verdict().verdict == "INVALID"


def test_an_output_twice_as_long_is_invalid() -> None:
    for fixed in (True, False):
        verdict = measured(Fault(longer=2.0), fixed_length=fixed).verdict()
        assert "lengths" in rules(verdict) and verdict.exit_code == 12


def test_lengths_that_differ_without_direction_void_only_what_was_asked_for() -> None:
    def scattered(made: dict[str, Any]) -> Any:
        return made["tokens"] + np.random.default_rng(1).integers(0, 2, len(made["tokens"]))

    free = measured(fixed_length=False, tokens=scattered)
    assert not rules(free.verdict()) & {"lengths"}
    assert free.blocks.columns["ttft.shift"].twins.sum() > 1.5 * free.blocks.alike.sum()
    assert "lengths" in rules(measured(tokens=scattered).verdict())


def test_a_warm_cache_in_one_arm_is_invalid() -> None:
    verdict = measured(Fault(cached=True)).verdict()
    assert "cache" in rules(verdict) and "cache" in verdict.reasons[0].text


def test_a_second_arm_that_profits_from_the_first_is_invalid() -> None:
    def profits(made: dict[str, Any]) -> Any:
        return np.where(made["second"], made["ttft"] * 7 // 10, made["ttft"])

    verdict = measured(ttft=profits).verdict()
    assert "order" in rules(verdict) and "faster" in verdict.reasons[-1].text


def test_a_stall_of_the_machine_costs_the_pair_and_not_the_run() -> None:
    """Five seconds in one block of the candidate: its twins are late, so its pair is dropped."""

    def stalled(made: dict[str, Any]) -> Any:
        return made["late"] | ((made["pair"] == 7) & (made["arm"] == 1))

    verdict = measured(pairs=60, block=40, late=stalled).verdict()
    assert verdict.verdict == "OK" and verdict.counts.late == (0, 40)
    assert verdict.stop.valid == verdict.stop.measured - 1


def test_five_seconds_that_nobody_saw_coming_are_one_pair_of_many() -> None:
    """The server stood still during one block of the candidate, and no client was late."""

    def stood(made: dict[str, Any]) -> Any:
        return made["ttft"] + 5 * 10**9 * ((made["pair"] == 7) & (made["arm"] == 1))

    verdict = measured(pairs=60, block=40, ttft=stood).verdict()
    assert verdict.verdict not in ("REGRESSED", "INVALID")


def test_late_sends_that_follow_an_arm_are_invalid() -> None:
    random = np.random.default_rng(2)

    def follows(made: dict[str, Any]) -> Any:
        return (made["arm"] == 1) & (random.random(len(made["arm"])) < 0.05)

    assert "late" in rules(measured(late=follows).verdict())


def test_arms_that_say_they_are_unlike_are_invalid_unless_that_is_the_question() -> None:
    arms = Arms({"model": "a", "flags": "-x 1"}, {"model": "a", "flags": "-x 2"})
    verdict = measured(arms=arms).verdict()
    assert rules(verdict) == {"unlike_arms"} and "-x 2" in verdict.reasons[0].text
    asked = quick(may_differ=["flags"])
    assert not measured(arms=arms, settings=asked).verdict().reasons


def without_tpot(*lost: int) -> Callable[[Any], Any]:
    """The simulator's TPOT, without that of these pairs."""
    return lambda made: np.where(np.isin(made["pair"], lost), MISSING, made["tpot"])


def test_a_short_plan_survives_pairs_that_are_lost() -> None:
    slower, short = Fault(decode=1.4), Plan(LEAST_PAIRS, 25, True, quick())
    assert (short.least_valid, short.least_planned, short.spared) == (11, 12, 14)
    for pairs, lost in ((12, 1), (14, 2)):
        one = measured(slower, pairs=pairs, tpot=without_tpot(*range(lost))).verdict()
        assert one.verdict == "REGRESSED", one.reasons
        more = measured(slower, pairs=pairs, tpot=without_tpot(*range(lost + 1))).verdict()
        assert rules(more) == {"missing"}
    assert not measured(slower, pairs=11).verdict().reasons


def test_a_level_that_needs_more_pairs_has_them_planned() -> None:
    strict = Plan(40, 25, True, quick(alpha=1e-5))
    # 2^-n over seven checks must be within the level of the looks.
    assert 7 * 2.0**-strict.least_valid <= 0.8e-5 < 7 * 2.0 ** (1 - strict.least_valid)
    assert strict.least_planned == strict.least_valid + 1 < strict.spared
    assert "few_pairs" in rules(measured(pairs=16, settings=quick(alpha=1e-5)).verdict())


def test_too_few_valid_pairs_are_invalid() -> None:
    assert "few_pairs" in rules(measured(pairs=10).verdict())


def test_a_metric_that_is_missing_is_invalid() -> None:
    verdict = measured(tpot=lambda made: np.full(len(made["tpot"]), MISSING)).verdict()
    assert rules(verdict) == {"missing"} and "tpot.shift" in verdict.reasons[0].text


def test_lag_that_differs_between_arms_is_invalid_and_lag_of_both_is_not() -> None:
    twins = twins_of(measure(QUIET, Fault(), 40, 25, 3))
    random = np.random.default_rng(0)
    noise = random.integers(0, 200_000, len(twins.arm))
    plan = Plan(40, 25, True, quick())
    for extra, there in ((twins.arm * 3_000_000, True), (3_000_000, False)):
        lagging: Twins = replace(twins, lag_ns=noise + extra)
        verdict = judged(blocks_of(lagging, 25, plan.checks, True), plan, Arms())
        assert ("lag" in rules(verdict)) == there


def test_rows_outside_the_plan_and_rows_twice_are_refused() -> None:
    twins = twins_of(measure(QUIET, Fault(), 12, 10, 3))
    checks = quick().checks
    with pytest.raises(ValueError, match="outside"):
        blocks_of(twins, 9, checks, True)
    twice = replace(twins, index=np.where(twins.index == 3, 2, twins.index))
    with pytest.raises(ValueError, match="same pair"):
        blocks_of(twice, 10, checks, True)


def test_equal_arms_of_a_rough_machine_are_seldom_red_and_seldom_invalid() -> None:
    """The fast subset of the bench: a gate that is red by chance is switched off by its users."""
    rough = Regime("rough", rho=0.3, contaminated=0.15, drift=0.1, late_blocks=0.04)
    words = [
        measured(regime=rough, seed=seed, pairs=24, settings=quick(min_effect=0.0))
        .verdict()
        .verdict
        for seed in range(25)
    ]
    assert words.count("REGRESSED") <= 1 and words.count("INVALID") <= 4
