"""The gate against what it promises (gate.md, section 5), on simulated runs of a known truth."""

from __future__ import annotations

import time

import numpy as np
import pytest

from latdiag.gate.blocks import blocks_of
from latdiag.gate.checks import STATISTICS
from latdiag.gate.judge import judged
from latdiag.gate.plan import Arms, Plan
from latdiag.gate.settings import Settings

from .score import settings, tally, twins_of
from .table import GOALS, Goal, false_alarms, power_of, wrongly_safe
from .world import REGIMES, Fault, measure


@pytest.mark.bench
@pytest.mark.parametrize(("margin", "alpha"), [(0.03, 0.005), (0.0, 0.005)])
def test_false_red_over_all_regimes(margin: float, alpha: float) -> None:
    """G1, of arms that are equal: see ``false_alarms``."""
    lines, whole = false_alarms(10_000, margin, alpha, 0)
    print("\n".join(lines))
    share, _, high = whole.share("latdiag")
    assert share <= 0.01 and high <= 0.015
    assert whole.share("p95 worse than 10 %")[0] > 0.05


@pytest.mark.bench
@pytest.mark.parametrize("goal", GOALS, ids=lambda goal: goal.name)
def test_power(goal: Goal) -> None:
    """G3 to G6, at margin 0 and family .01."""
    found = power_of(goal, 300, 0.0, 0.01, 500_000)
    print(goal.name, dict(found.verdicts), found.requests / found.runs)
    assert found.verdicts["REGRESSED"] / found.runs >= goal.least
    if goal.check:
        whole = power_of(goal, 300, 0.0, 0.01, 500_000, fixed=True)
        assert whole.red_checks[goal.check] / 300 >= goal.least


@pytest.mark.bench
def test_ok_at_the_tolerance_is_seldom() -> None:
    """G7: at most 5 of 100, and what 400 runs may be off."""
    found = wrongly_safe(400, 900_000)
    wrong = found.safe_checks["tpot.shift"]
    print(f"OK at the tolerance: {wrong} of {found.runs}")
    assert wrong <= 0.05 * found.runs + 2 * (0.05 * 0.95 * found.runs) ** 0.5


@pytest.mark.bench
def test_the_analysis_is_quick() -> None:
    """G10: 8,000 requests, 35 tests, 9,999 flips: from the rows to the verdict in 2 s of CPU."""
    classes = [{"prompt_class": each} for each in ("cached", "chat", "rag")]
    checks = [
        {"metric": metric, "stat": list(STATISTICS), "where": where}
        for metric, where in zip(("ttft", "tpot", "e2e"), classes, strict=True)
    ]
    plan = Plan(80, 50, True, settings(0.005, 0.03, check=checks, fixed=True))
    twins = twins_of(measure(REGIMES[0], Fault(), 80, 50, 1))
    assert len(plan.checks) == 35 and len(twins.pair) == 8_000
    start = time.process_time()
    judged(blocks_of(twins, 50, plan.checks, True), plan, Arms())
    spent = time.process_time() - start
    print(f"{spent:.2f} s")
    assert spent < 2.0


def test_the_simulator_is_what_it_says() -> None:
    """What a fault slows is slower by that, twins share their prompts, parts add up."""
    made = measure(REGIMES[0], Fault(decode=1.10), 200, 40, 1)
    tpot = np.log(made["tpot"]).reshape(-1, 2)
    assert np.exp((tpot[:, 1] - tpot[:, 0]).mean()) == pytest.approx(1.10, abs=0.02)
    assert (sum(made["parts"].values()) == made["e2e"]).all()
    assert (made["class"].reshape(-1, 2)[:, 0] == made["class"].reshape(-1, 2)[:, 1]).all()
    busy = measure(REGIMES[2], Fault(), 200, 40, 1)["parts"]["queue"].mean()
    assert busy > 10 * made["parts"]["queue"].mean()


def test_equal_arms_are_seldom_red_where_rivals_are() -> None:
    """The fast subset: 5 runs of each regime, at the default."""
    plan = Plan(40, 25, True, settings(0.005, 0.03))
    red, rivals = 0, 0
    for number, regime in enumerate(REGIMES):
        found = tally(regime, Fault(), plan, range(100 * number, 100 * number + 5))
        red += found.verdicts["REGRESSED"]
        rivals += found.red["p95 worse than 10 %"]
    assert red <= 1 < rivals


def test_a_slower_candidate_is_red() -> None:
    plan = Plan(40, 25, True, settings(0.01, 0.0))
    found = tally(REGIMES[0], Fault(prefill=1.2, decode=1.2), plan, range(8), rivals=False)
    assert found.verdicts["REGRESSED"] >= 7


def test_settings_of_the_bench_are_those_that_ship() -> None:
    assert settings(Settings().alpha, Settings().min_effect) == Settings()
