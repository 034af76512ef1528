"""What a budget buys: how many pairs, and how small an effect these can see."""

from __future__ import annotations

import math

import numpy as np

from latdiag.gate.blocks import Blocks
from latdiag.gate.plan import Plan
from latdiag.gate.settings import Settings
from latdiag.gate.trial import hurdle
from latdiag.gate.validity import valid_pairs
from latdiag.model.errors import UsageFault
from latdiag.model.units import show_duration
from latdiag.stats.distributions import normal_quantile, t_quantile
from latdiag.stats.robust import deviation

#: Short blocks follow a machine that drifts; in shorter ones the ramp takes too much.
_BLOCK = 25
#: More pairs than these say little more than longer blocks do, and each starts anew.
_MOST_PAIRS = 160
#: No more of the longer ones: gate.json holds, and a verdict computes with, so many.
_MOST_LONG = 1_000
_POWER = 0.95
#: Relative variance of a spread from n values, times n, under the normal law: of the median
#: absolute deviation (efficiency 37 %: Rousseeuw and Croux, JASA 88, 1993), of the standard one.
_OF_MEDIAN, _OF_DEVIATION = 1.36, 0.5
#: By how much a budget is advised to be longer than it would have had to be.
_ROOM = 1.2


def sized(
    settings: Settings, request_ns: int, start_ns: int, fixed_length: bool, spent_ns: int = 0
) -> Plan:
    """The plan that ``settings.budget_ns`` pays for. ``request_ns``: what a request adds to the
    time of its block; ``start_ns``: what a block takes besides (warm-up, drain); ``spent_ns``: of
    the budget, before the first block.

    UsageFault where that is too short for a verdict, with the budget that is not.
    """
    left = max(0, settings.budget_ns - spent_ns)
    block, pairs = _BLOCK, left // max(1, _pair_ns(_BLOCK, request_ns, start_ns))
    if pairs > _MOST_PAIRS:
        block = 2 * _BLOCK
        pairs = min(_MOST_LONG, left // _pair_ns(block, request_ns, start_ns))
    plan = Plan(int(pairs), block, fixed_length, settings)
    if pairs < plan.least_planned:
        # Not to the last second: no two warm-ups take as long.
        pairs_ns = plan.spared * _pair_ns(_BLOCK, request_ns, start_ns)
        least = round(_ROOM * (spent_ns + pairs_ns))
        raise UsageFault(
            f"a budget of {show_duration(settings.budget_ns)} pays for {pairs} pairs here,"
            f" and {plan.least_planned} are the least for a verdict",
            f"allow {show_duration(least)}, or shorten the outputs",
        )
    return plan


def visible(blocks: Blocks, plan: Plan) -> dict[str, float]:
    """Of every check that votes, the effect that ``plan`` finds in 95 of 100 runs (0.1 is 10 %; of
    ``exceed2x`` a share of requests), if pairs go on to differ as those of ``blocks`` do.

    As of a normal law, at the level of the last look over all checks: a prediction, no bound. A
    check without values in the pilot, with the same one in each pair, or with too few to tell how
    much pairs differ, is left out.
    """
    valid = valid_pairs(blocks, plan)
    level = plan.looks[-1].level / len(plan.voters)
    found = {}
    for check in plan.voters:
        column = blocks.columns[check.name]
        there = valid & ~np.isnan(column.value)
        if there.sum() < 2:
            continue
        values = column.value[there]
        apart = values - np.median(values)
        spread = float(apart.std()) if check.counts else deviation(apart)
        doubt = (_OF_DEVIATION if check.counts else _OF_MEDIAN) / len(values)
        reach = _reach(t_quantile(plan.pairs - 1, 1 - level), doubt)
        if not spread or reach is None:
            continue
        effect = hurdle(check, blocks, valid) + reach * spread / math.sqrt(plan.pairs)
        twins = float(column.twins[there].mean())
        found[check.name] = effect / twins if check.counts else math.expm1(effect)
    return found


def _reach(critical: float, doubt: float) -> float | None:
    """Standard errors that an effect must be away to be found with the chance ``_POWER`` by what
    rejects above ``critical``, if the relative variance of the spread is ``doubt``: the k for
    which k - critical = b sqrt(1 + doubt k²), b being the normal quantile. None: there is none."""
    b = normal_quantile(_POWER)
    rest = 1 - b * b * doubt
    if rest <= 0:
        return None
    return (critical + math.sqrt(critical**2 - rest * (critical**2 - b * b))) / rest


def _pair_ns(block: int, request_ns: int, start_ns: int) -> int:
    return 2 * (block * request_ns + start_ns)
