"""The gate against what it promises (gate.md, section 5), on simulated runs of a known truth."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest

from latdiag.gate.plan import Plan
from latdiag.gate.settings import Settings

from . import table
from .jobs import Job, counted
from .replay import analysis_s, replay_lines
from .score import Tally, settings, tally
from .table import GOALS, Goal
from .world import REGIMES, Fault, measure

_CORES = os.cpu_count() or 1


@pytest.mark.bench
@pytest.mark.parametrize(("margin", "alpha"), [(0.03, 0.005), (0.0, 0.005)])
def test_false_red_over_all_regimes(margin: float, alpha: float) -> None:
    """G1, of arms that are equal: see ``equal_arms``."""
    found = counted(table.alarm_jobs(10_020, margin, alpha, 0), _CORES)
    print("\n".join(table.alarm_lines(margin, alpha, found)))
    whole = table.equal_arms(margin, found)
    share, _, high = whole.share("latdiag")
    assert share <= 0.01 and high <= 0.015
    assert whole.share("p95 worse than 10 %")[0] > 0.05


@pytest.mark.bench
@pytest.mark.parametrize("goal", GOALS, ids=lambda goal: goal.name)
def test_power(goal: Goal) -> None:
    """G3 to G6, at margin 0 and family .01."""
    job = table.job_of(goal, 300, *table.STRICT, 500_000)
    looks, whole = counted([job, replace(job, fixed=True)], _CORES)
    assert looks.verdicts["REGRESSED"] / looks.runs >= goal.least
    if goal.check:
        assert whole.red_checks[goal.check] / whole.runs >= goal.least


@pytest.mark.bench
def test_ok_at_the_tolerance_is_seldom() -> None:
    """G7: at most 5 of 100 of any check, and what so many runs may be off (of 37 rates)."""
    jobs = table.safe_jobs(400, 900_000)
    found = counted(jobs, _CORES)
    print("\n".join(table.safe_lines(jobs, found)))
    for job, each in zip(jobs, found, strict=True):
        for name in ("ttft.exceed2x",) if job.fault.outliers else table.SCALED:
            off = 3.2 * (0.05 * 0.95 * each.runs) ** 0.5
            assert each.safe_checks[name] <= 0.05 * each.runs + off, (job.regime.name, name)


@pytest.mark.bench
def test_the_component_that_is_slower_is_the_cause() -> None:
    """G9, of the simulator."""
    for name, each in zip(table.CAUSES, counted(table.cause_jobs(200, 1), _CORES), strict=True):
        assert each.causes[name] >= 0.95 * each.verdicts["REGRESSED"] > 0


@pytest.mark.bench
def test_the_analysis_is_quick() -> None:
    """G10: from the rows to the verdict in 2 s of CPU."""
    assert analysis_s() < 2.0


def test_a_document_replays_and_a_changed_one_is_refused() -> None:
    """G11."""
    *_, line = replay_lines(2, 1)
    assert line == "G11 of 2 gate.json, 2 replay to the same bytes; changed, 2 refused"


def test_counts_do_not_depend_on_how_many_processes_there_are() -> None:
    """Three pieces, the last one not whole, in one process and in two."""
    job = Job(52, 7, 12, 10, 0.005, 0.03, rivals=True)
    (one,), (two,) = (counted([job], processes) for processes in (1, 2))
    assert one == two and one.runs == 52


def test_the_simulator_is_what_it_says() -> None:
    """What a fault slows is slower by that, twins share their prompts, parts add up."""
    made = measure(REGIMES[0], Fault(decode=1.10), 200, 40, 1)
    tpot = np.log(made["tpot"]).reshape(-1, 2)
    assert np.exp((tpot[:, 1] - tpot[:, 0]).mean()) == pytest.approx(1.10, abs=0.02)
    assert (sum(made["parts"].values()) == made["e2e"]).all()
    assert (made["class"].reshape(-1, 2)[:, 0] == made["class"].reshape(-1, 2)[:, 1]).all()
    busy = measure(REGIMES[2], Fault(), 200, 40, 1)["parts"]["queue"].mean()
    assert busy > 10 * made["parts"]["queue"].mean()


def test_a_fault_of_all_times_is_of_every_metric() -> None:
    """What the rows of G7 rest on."""
    base, slow = (measure(REGIMES[1], Fault(all=each), 4, 10, 1) for each in (1.0, 1.1))
    candidate = base["arm"] == 1
    for metric in ("ttft", "tpot", "e2e"):
        ratio = slow[metric] / base[metric]
        assert ratio[~candidate] == pytest.approx(1.0)
        assert ratio[candidate] == pytest.approx(1.1)


def test_equal_arms_are_seldom_red_where_rivals_are() -> None:
    """The fast subset: 5 runs of each regime, at the default."""
    plan = Plan(40, 25, True, settings(0.005, 0.03))
    whole = Tally()
    for number, regime in enumerate(REGIMES):
        whole.add(tally(regime, Fault(), plan, range(100 * number, 100 * number + 5)))
    assert whole.verdicts["REGRESSED"] <= 1 < whole.red["p95 worse than 10 %"]


def test_a_slower_candidate_is_red() -> None:
    plan = Plan(40, 25, True, settings(0.01, 0.0))
    found = tally(REGIMES[0], Fault(prefill=1.2, decode=1.2), plan, range(8), rivals=False)
    assert found.verdicts["REGRESSED"] >= 7


def test_settings_of_the_bench_are_those_that_ship() -> None:
    assert settings(Settings().alpha, Settings().min_effect) == Settings()
