"""What voids a verdict: the arms were not comparable, or too little of them could be compared.

Every rule that asks whether arms are alike is a test on whole pairs with flipped signs, so what
disturbs both arms, or one block of either, is no reason; what follows an arm is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from latdiag.gate.blocks import ENOUGH, Blocks
from latdiag.gate.plan import PRESENT, Arms, Plan
from latdiag.gate.twins import BASE, CANDIDATE, Floats, Ints, Mask
from latdiag.model.text import shown
from latdiag.model.units import show_ms
from latdiag.stats.flips import middle, scores_of, two_sided_p

#: Chance that arms that are alike are called unlike, by each rule.
_LEVEL = 0.01
#: Share of twins with outputs of unlike length that voids the run.
_UNLIKE = 0.05
#: Share of prompt tokens by which the arms' cached tokens may differ.
_CACHED = 0.05
#: Part of the smallest effect that the gate reports, to which a difference in lag may add up.
_LAG = 0.2


#: Rules that say no more than that too little was measured: of a run that was cut that is known.
TOO_LITTLE = frozenset({"few_pairs", "missing"})


@dataclass(frozen=True, slots=True)
class Reason:
    """``rule``: a word for programs; ``text``: a sentence."""

    rule: str
    text: str


def valid_pairs(blocks: Blocks, plan: Plan) -> Mask:
    """Pairs that kept enough of their twins."""
    return np.asarray(blocks.kept >= ENOUGH * plan.block)


def reasons(blocks: Blocks, valid: Mask, plan: Plan, arms: Arms) -> tuple[Reason, ...]:
    """Every rule that is broken; ``valid``: the mask of ``valid_pairs``."""
    return tuple(
        reason
        for rule in (_unlike_arms, _lost, _lengths, _cache, _lag, _order, _few)
        for reason in rule(blocks, valid, plan, arms)
    )


def _unlike_arms(blocks: Blocks, valid: Mask, plan: Plan, arms: Arms) -> Iterator[Reason]:
    for text in arms.broken:
        yield Reason("run", shown(text))
    for what in sorted({*arms.base, *arms.candidate} - {*plan.settings.may_differ}):
        one, other = arms.base.get(what), arms.candidate.get(what)
        if one is not None and other is not None and one != other:
            yield Reason(
                "unlike_arms",
                f"the arms differ in {shown(what, 40)}: base {shown(one, 80)},"
                f" candidate {shown(other, 80)}",
            )


def _lost(blocks: Blocks, valid: Mask, plan: Plan, arms: Arms) -> Iterator[Reason]:
    yield from lost(blocks, plan, _LEVEL)


def lost(blocks: Blocks, plan: Plan, level: float) -> Iterator[Reason]:
    """What one arm loses more of than the other, at ``level`` by each rule."""
    for rule, counts, did in (
        ("failed", blocks.failed, "failed"),
        ("late", blocks.late, "were late or saw a clock set"),
    ):
        apart = counts[:, CANDIDATE] - counts[:, BASE]
        if _differ(apart, plan, level):
            one, other = counts.sum(axis=0)
            of = blocks.pairs * plan.block
            text = f"of {of} requests an arm, {one} of the base and {other} of the candidate {did}"
            yield Reason(rule, text)


def _lengths(blocks: Blocks, valid: Mask, plan: Plan, arms: Arms) -> Iterator[Reason]:
    longer, shorter = int(blocks.longer.sum()), int(blocks.shorter.sum())
    clean = int(blocks.kept.sum()) + (longer + shorter if plan.fixed_length else 0)
    if longer + shorter <= _UNLIKE * max(1, clean):
        return
    # Where a length was asked for, any other voids; where outputs end by themselves they may
    # differ, but not in one direction.
    if plan.fixed_length or _differ(blocks.longer - blocks.shorter, plan):
        yield Reason(
            "lengths",
            f"outputs differ in length: the candidate's were longer in {longer} twins and shorter"
            f" in {shorter}, of {clean}",
        )


def _cache(blocks: Blocks, valid: Mask, plan: Plan, arms: Arms) -> Iterator[Reason]:
    apart = blocks.cached[:, CANDIDATE] - blocks.cached[:, BASE]
    prompt = int(blocks.prompt.sum())
    if prompt and abs(int(apart.sum())) > _CACHED * prompt / 2 and _differ(apart, plan):
        one, other = blocks.cached.sum(axis=0)
        text = f"prompt tokens from a cache: {one} of the base, {other} of the candidate"
        yield Reason("cache", text)


def _lag(blocks: Blocks, valid: Mask, plan: Plan, arms: Arms) -> Iterator[Reason]:
    apart = blocks.lag_ns[:, CANDIDATE] - blocks.lag_ns[:, BASE]
    typical = [blocks.columns[c.name].base for c in plan.voters if c.metric == "ttft"]
    times = typical[0] if typical else np.array([np.nan])
    if np.isnan(times).all():
        return
    effect = max(plan.settings.min_effect * float(np.nanmedian(times)), _floor(plan))
    if abs(middle(apart.astype(float), "rank")) > _LAG * effect and _differ(apart, plan):
        one, other = (show_ms(float(np.median(blocks.lag_ns[:, arm]))) for arm in (0, 1))
        yield Reason(
            "lag", f"the client sent late by {one} ms to the base, {other} ms to the candidate"
        )


def _floor(plan: Plan) -> int:
    return min(check.floor_ns for check in plan.voters)


def _order(blocks: Blocks, valid: Mask, plan: Plan, arms: Arms) -> Iterator[Reason]:
    """Whoever comes second is faster or slower: a cache that the first one filled, or a server
    that has not come to rest. Signs are by position here, so an effect of the arm cancels."""
    sign = np.where(blocks.candidate_second, 1.0, -1.0)
    shifts = [check for check in plan.voters if check.statistic == "shift"]
    for check in shifts:
        value = blocks.columns[check.name].value
        there = valid & ~np.isnan(value)
        if there.sum() < plan.least_valid:
            continue
        later = (value[there] - middle(value[there], "rank")) * sign[there]
        effect = middle(later, "rank")
        if abs(effect) > check.min_effect and _differ(
            scores_of(later, "rank"), plan, _LEVEL / len(shifts)
        ):
            word = "slower" if effect > 0 else "faster"
            yield Reason(
                "order",
                f"the arm that came second was {word} by {abs(math.expm1(effect)):.1%} in"
                f" {check.metric}, whichever it was",
            )
            return


def _few(blocks: Blocks, valid: Mask, plan: Plan, arms: Arms) -> Iterator[Reason]:
    n = int(valid.sum())
    if n < plan.least_valid:
        yield Reason(
            "few_pairs", f"{n} of {blocks.pairs} pairs are valid, {plan.least_valid} are needed"
        )
        return
    for check in plan.voters:
        there = int((valid & ~np.isnan(blocks.columns[check.name].value)).sum())
        if there < max(plan.least_valid, PRESENT * n):
            yield Reason("missing", f"{check.name} has a value in {there} of {n} valid pairs")


def _differ(apart: Ints | Floats, plan: Plan, level: float = _LEVEL) -> bool:
    return two_sided_p(apart, plan.settings.flips, plan.settings.seed + 1) < level
