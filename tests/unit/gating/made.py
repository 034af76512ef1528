"""Runs of two arms that are made, not measured: small, seeded, with one thing wrong at a time."""

from __future__ import annotations

import json
from typing import Any

import jsonschema

from latdiag.gate.blocks import blocks_of
from latdiag.gate.document import Measured
from latdiag.gate.plan import Arms, Plan
from latdiag.gate.settings import Settings, settings_of
from latdiag.gate.table import Table
from latdiag.report.gate import schema_text
from tests.bench.gate.score import twins_of
from tests.bench.gate.world import Fault, Regime, measure

QUIET = Regime("calm", stalls=0.0, contaminated=0.0, drift=0.02, lost=0.0, late_blocks=0.0)
SAME = Fault()
GATE_SCHEMA = jsonschema.Draft202012Validator(json.loads(schema_text()))


def with_settings(**keys: object) -> Settings:
    """Settings as a configuration would give them."""
    return settings_of(Table(keys, "[gate] of latdiag.toml"))


def quick(**keys: object) -> Settings:
    """The same with fewer flips, enough for the levels of every look."""
    return with_settings(flips=1_999, **keys)


def measured(
    fault: Fault = SAME,
    pairs: int = 40,
    block: int = 25,
    settings: Settings | None = None,
    arms: Arms | None = None,
    regime: Regime = QUIET,
    seed: int = 3,
    fixed_length: bool = True,
    **columns: Any,
) -> Measured:
    """A whole run. ``columns``: functions that change a column of the simulator, by its name."""
    made = measure(regime, fault, pairs, block, seed)
    for name, change in columns.items():
        made[name] = change(made)
    plan = Plan(pairs, block, fixed_length, settings or quick())
    blocks = blocks_of(twins_of(made), block, plan.checks, fixed_length)
    return Measured(plan, arms or Arms(), blocks)
