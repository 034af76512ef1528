"""The gate and its rivals on simulated runs: how often each is red, and what the gate says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from scipy import stats

from latdiag.gate.blocks import blocks_of
from latdiag.gate.judge import judged
from latdiag.gate.plan import Arms, Plan
from latdiag.gate.result import Verdict
from latdiag.gate.settings import Settings, settings_of
from latdiag.gate.table import Table
from latdiag.gate.twins import Twins

from .baselines import BASELINES
from .world import Columns, Fault, Regime, measure


def twins_of(columns: Columns) -> Twins:
    """The columns of the simulator as the gate takes them."""
    rows = len(columns["pair"])
    return Twins(
        pair=columns["pair"],
        index=columns["index"],
        arm=columns["arm"],
        second=columns["second"],
        times_ns={name: columns[name] for name in ("ttft", "tpot", "itl", "e2e")},
        tokens=columns["tokens"],
        ok=columns["ok"],
        late=columns["late"],
        stepped=np.zeros(rows, dtype=bool),
        lag_ns=np.zeros(rows, dtype=np.int64),
        prompt=columns["prompt"],
        cached=columns["cached"],
        labels={"prompt_class": columns["class"]},
        parts_ns=columns["parts"],
    )


def settings(alpha: float, margin: float, **more: object) -> Settings:
    """Settings of the bench: what is not named is as shipped."""
    return settings_of(Table({"alpha": alpha, "min_effect": margin, **more}, "the bench"))


def voting_only(plan: Plan) -> Plan:
    """The plan without the checks that are only reported: the same verdict, sooner."""
    voters = tuple(each for each in plan.settings.checks if each.level == "error")
    return replace(plan, settings=replace(plan.settings, checks=voters))


def verdict_of(columns: Columns, plan: Plan, resume_at: int | None = None) -> Verdict:
    """The verdict as a run comes to it; with ``resume_at`` it was cut there and went on."""
    blocks = blocks_of(twins_of(columns), plan.block, plan.checks, plan.fixed_length)
    if resume_at is not None:
        first = judged(blocks.first(min(resume_at, blocks.pairs)), plan, Arms())
        if first.stop.why != "cut":
            return first
    return judged(blocks, plan, Arms())


@dataclass
class Tally:
    """Of ``runs`` simulated runs: what each rule said, and what the gate spent."""

    runs: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    red_checks: Counter[str] = field(default_factory=Counter)
    safe_checks: Counter[str] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)
    red: Counter[str] = field(default_factory=Counter)
    causes: Counter[str] = field(default_factory=Counter)
    requests: int = 0

    def share(self, rule: str) -> tuple[float, float, float]:
        """Share of red with its exact 95 % interval (Clopper and Pearson)."""
        count = self.verdicts["REGRESSED"] if rule == "latdiag" else self.red[rule]
        interval = stats.binomtest(count, self.runs).proportion_ci(0.95, "exact")
        return count / self.runs, interval.low, interval.high

    def add(self, other: Tally) -> None:
        """Runs of ``other`` too."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    def keys(self) -> dict[str, Any]:
        """For JSON."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


def tally(
    regime: Regime, fault: Fault, plan: Plan, seeds: Iterable[int], rivals: bool = True
) -> Tally:
    """One run for each seed. Every fifth is cut once and resumed."""
    found = Tally()
    lean = voting_only(plan)
    for seed in seeds:
        columns = measure(regime, fault, plan.pairs, plan.block, seed)
        resume = plan.pairs // 3 if seed % 5 == 0 else None
        verdict = verdict_of(columns, lean, resume)
        found.runs += 1
        found.verdicts[verdict.verdict] += 1
        found.requests += verdict.stop.measured * plan.block
        found.rules.update(reason.rule for reason in verdict.reasons)
        found.red_checks.update(o.name for o in verdict.votes if o.verdict == "REGRESSED")
        found.safe_checks.update(o.name for o in verdict.votes if o.verdict == "OK")
        if verdict.verdict == "REGRESSED":
            found.causes[verdict.cause or "none"] += 1
        if rivals:
            found.red.update(name for name, rule in BASELINES.items() if rule(columns))
    return found
