"""From blocks to the verdict: the planned looks in turn, until one decides.

The verdict is a function of the blocks and the plan alone. A run that was cut and went on is
judged as if it had never been cut: the same looks at the same pairs, and none besides.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np

from latdiag.gate.blocks import Blocks
from latdiag.gate.explain import cause_of, components_of
from latdiag.gate.plan import Arms, Plan
from latdiag.gate.result import Counts, Outcome, Stop, Verdict, Word, exit_code
from latdiag.gate.trial import Trial, hurdle
from latdiag.gate.twins import BASE, CANDIDATE, Mask
from latdiag.gate.validity import TOO_LITTLE, lost, reasons, valid_pairs
from latdiag.stats.betting import first_crossing

_NS_PER_MINUTE = 60_000_000_000
#: Level at which losses of the arms seem to differ; far from a proof, for which see ``validity``.
_DOUBT = 0.1


def judged(blocks: Blocks, plan: Plan, arms: Arms) -> Verdict:
    """The verdict on what was measured so far. ValueError for more pairs than planned."""
    if blocks.pairs > plan.pairs:
        raise ValueError(f"{blocks.pairs} pairs were measured, {plan.pairs} were planned")
    valid = valid_pairs(blocks, plan)
    broken = _broken_after(blocks, valid, plan)
    for look in plan.looks:
        if look.pairs > blocks.pairs or (broken is not None and broken < look.pairs):
            break
        trial = Trial(blocks, valid, plan, look.pairs, look)
        outcomes = trial.outcomes(broken=False)
        if look.pairs == plan.pairs:
            return _concluded(blocks, plan, arms, trial, outcomes, "end")
        word = _whole(outcomes)
        good = word in ("OK", "IMPROVED") and not _doubtful(
            blocks.first(look.pairs), plan, outcomes
        )
        if word == "REGRESSED" or good:
            return _concluded(blocks, plan, arms, trial, outcomes, "look")
    if broken is not None:
        trial = Trial(blocks, valid, plan, broken, None)
        return _concluded(blocks, plan, arms, trial, trial.outcomes(broken=True), "broken")
    trial = Trial(blocks, valid, plan, blocks.pairs, None)
    return _concluded(blocks, plan, arms, trial, trial.outcomes(broken=False), "cut")


def decided(blocks: Blocks, plan: Plan, arms: Arms) -> bool:
    """Whether measuring more pairs would change nothing: what a run asks after each pair."""
    return judged(blocks, plan, arms).stop.why != "cut"


def _broken_after(blocks: Blocks, valid: Mask, plan: Plan) -> int | None:
    """Measured pairs after which the bets of a check that votes are won; None if they are not."""
    if not plan.abort_level:
        return None
    places = np.flatnonzero(valid)
    apart = [
        blocks.columns[check.name].value[valid] - hurdle(check, blocks, valid)
        for check in plan.voters
    ]
    at = first_crossing(np.column_stack(apart), plan.abort_level)
    return None if at is None else int(places[at - 1]) + 1


def _concluded(
    blocks: Blocks,
    plan: Plan,
    arms: Arms,
    trial: Trial,
    outcomes: tuple[Outcome, ...],
    why: Literal["look", "end", "broken", "cut"],
) -> Verdict:
    measured = blocks.first(trial.measured)
    valid = trial.valid[: trial.measured]
    broken_rules = reasons(measured, valid, plan, arms)
    if why == "cut":
        broken_rules = tuple(each for each in broken_rules if each.rule not in TOO_LITTLE)
    word: Word = "INVALID" if broken_rules else _whole(outcomes)
    components = components_of(measured, valid, plan)
    votes = [each for each in outcomes if each.level == "error"]
    red = [each for each in votes if each.verdict == "REGRESSED"]
    undecided = [each.more_pairs for each in votes if each.verdict == "INCONCLUSIVE"]
    known = [each for each in undecided if each is not None]
    more = max(known) if known and len(known) == len(undecided) else None
    if why == "cut":
        more = plan.pairs - trial.measured
    each_ns = arms.wall_ns / trial.measured if trial.measured else 0.0
    settings = plan.settings
    return Verdict(
        verdict=word,
        exit_code=exit_code(word, settings.on_inconclusive),
        reasons=broken_rules,
        outcomes=outcomes,
        stop=Stop(trial.measured, trial.n, plan.pairs, why, round(plan.spent(trial.measured), 9)),
        counts=_counts(measured, plan),
        components=components,
        requests=int(measured.alike[valid].sum()),
        evidence=arms.evidence,
        cause=cause_of(components, red) if word == "REGRESSED" else None,
        more_pairs=more,
        minutes=round(more * each_ns / _NS_PER_MINUTE, 1) if more and each_ns else None,
        on_inconclusive=settings.on_inconclusive,
        seed=settings.seed,
        block=plan.block,
    )


def _doubtful(blocks: Blocks, plan: Plan, outcomes: Iterable[Outcome]) -> bool:
    """Whether what remains to be measured may still turn a good verdict: a check that votes seems
    worse than it may be, or one arm seems to lose more requests. Then a look is passed over, which
    costs nothing but time: a candidate that is 5 % slower with no margin is then red, and not OK
    within a tolerance of 10 %."""
    worse = any(
        each.lo is not None and each.lo > _least(each)
        for each in outcomes
        if each.level == "error"
    )
    return worse or any(lost(blocks, plan, _DOUBT))


def _least(outcome: Outcome) -> float:
    """What must be exceeded, as a share; of counts of requests the margin is inside them."""
    if outcome.statistic == "exceed2x" or not outcome.base:
        return 0.0
    return max(outcome.min_effect, outcome.floor_ns / outcome.base)


def _whole(outcomes: Iterable[Outcome]) -> Word:
    """The worst of the checks that vote; better in one is no more than that if all are decided."""
    words = {each.verdict for each in outcomes if each.level == "error"}
    order: tuple[Word, ...] = ("REGRESSED", "INCONCLUSIVE", "IMPROVED")
    return next((word for word in order if word in words), "OK")


def _counts(blocks: Blocks, plan: Plan) -> Counts:
    failed, late = blocks.failed.sum(axis=0), blocks.late.sum(axis=0)
    lags = [int(np.median(blocks.lag_ns[:, arm])) if blocks.pairs else 0 for arm in (0, 1)]
    return Counts(
        twins=blocks.pairs * plan.block,
        kept=int(blocks.kept.sum()),
        failed=(int(failed[BASE]), int(failed[CANDIDATE])),
        late=(int(late[BASE]), int(late[CANDIDATE])),
        longer=int(blocks.longer.sum()),
        shorter=int(blocks.shorter.sum()),
        lag_ns=(lags[BASE], lags[CANDIDATE]),
    )
