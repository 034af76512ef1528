"""G10 and G11: what the analysis costs, and that gate.json alone gives every number again."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import numpy as np

from latdiag.gate.blocks import blocks_of
from latdiag.gate.checks import STATISTICS
from latdiag.gate.document import Measured, dumped, loaded
from latdiag.gate.judge import judged
from latdiag.gate.plan import Arms, Plan
from latdiag.model.errors import RunFault

from .score import settings, twins_of
from .table import BLOCK, PAIRS
from .world import REGIMES, Fault, measure


def analysis_s() -> float:
    """CPU seconds from the rows of 8,000 requests to the verdict: 35 tests, 9,999 flips."""
    classes = [{"prompt_class": each} for each in ("cached", "chat", "rag")]
    checks = [
        {"metric": metric, "stat": list(STATISTICS), "where": where}
        for metric, where in zip(("ttft", "tpot", "e2e"), classes, strict=True)
    ]
    plan = Plan(80, 50, True, settings(0.005, 0.03, check=checks, fixed=True))
    twins = twins_of(measure(REGIMES[0], Fault(), 80, 50, 1))
    if len(plan.checks) != 35 or len(twins.pair) != 8_000:
        raise ValueError("not what the goal is stated for")
    start = time.process_time()
    judged(blocks_of(twins, 50, plan.checks, True), plan, Arms())
    return time.process_time() - start


def replay_lines(runs: int, seed: int) -> Iterator[str]:
    """The cost; of ``runs`` documents how many give the same text again, and how many are refused
    when one of their measured numbers is another."""
    yield f"G10 8,000 requests x 35 tests x 9,999 flips: {analysis_s():.2f} s of CPU (goal < 2)"
    again = refused = 0
    for number in range(runs):
        text = _document(seed + number)
        again += dumped(loaded(text.encode(), "gate.json")[0]) == text
        refused += _refuses(text, np.random.default_rng(seed + number))
    yield f"G11 of {runs} gate.json, {again} replay to the same bytes; changed, {refused} refused"


def _document(seed: int) -> str:
    plan = Plan(PAIRS, BLOCK, True, settings(0.005, 0.03))
    twins = twins_of(measure(REGIMES[0], Fault(), PAIRS, BLOCK, seed))
    return dumped(Measured(plan, Arms(), blocks_of(twins, BLOCK, plan.checks, True)))


def _refuses(text: str, random: np.random.Generator) -> bool:
    raw = json.loads(text)
    columns = raw["blocks"]["columns"]
    column = columns[sorted(columns)[random.integers(len(columns))]]
    values = column[("value", "base", "candidate")[random.integers(3)]]
    values[random.integers(len(values))] = 0.125
    try:
        loaded(json.dumps(raw).encode(), "gate.json")
    except RunFault:
        return True
    return False
