"""What was measured, judged: from the run on disk and what was measured before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from latdiag.gate.blocks import Blocks, blocks_of, joined
from latdiag.gate.document import Measured, loaded
from latdiag.gate.judge import judged
from latdiag.gate.live import rows
from latdiag.gate.live.sending import UNPAIRED
from latdiag.gate.plan import Arms, Plan
from latdiag.gate.twins import Twins
from latdiag.model.errors import UnlikeRuns
from latdiag.model.text import shown
from latdiag.store.run import Run

if TYPE_CHECKING:
    from latdiag.gate.live.kept import Facts, Kept
    from latdiag.gate.live.pairs import Course

#: Rules that more pairs do not mend: a run that breaks one ends at once.
_LASTING = frozenset({"unlike_arms", "run", "lengths", "failed"})
#: Share by which the counts of the same prompts may differ.
_COUNTS = 0.001


@dataclass(frozen=True, slots=True)
class Gathered:
    """``path``: of the run. ``arms``: what is known of both. ``fixed_length``: as in ``Plan``.
    ``before``: what another run had measured, with which this one goes on."""

    path: str
    arms: Arms
    fixed_length: bool
    before: Measured | None = None

    def begin(self, course: Course) -> None:
        """See ``pairs.Observer``. UsageFault where the pairs before were measured otherwise."""
        if self.before is None:
            return
        if self.before.plan.fixed_length != self.fixed_length:
            raise _unlike("lengths of output are no longer as fixed as they were")
        for now, then in (
            (self.arms.base, self.before.arms.base),
            (self.arms.candidate, self.before.arms.candidate),
        ):
            for what in sorted(now.keys() & then.keys()):
                if now[what] != then[what]:
                    raise _unlike(
                        f"{what} was {shown(then[what], 60)}, and is {shown(now[what], 60)}"
                    )
        course.plan = self.before.plan
        course.first = course.done = self.before.blocks.pairs

    def median_e2e(self, since: int) -> tuple[int | None, int | None]:
        """See ``pairs.Observer``."""
        return rows.medians(rows.read_rows(Run.open(self.path)), since)

    def decided(self, course: Course) -> bool:
        """See ``pairs.Observer``."""
        assert course.plan is not None
        columns = rows.read_rows(Run.open(self.path))
        twins = rows.twins_of(columns, course, course.plan.block)
        measured = self._measured(twins, course.plan, course.wall_ns)
        verdict = judged(measured.blocks, measured.plan, measured.arms)
        lasting = {reason.rule for reason in verdict.reasons} & _LASTING
        return verdict.stop.why != "cut" or bool(lasting)

    def result(self, course: Course, broken: tuple[str, ...] = ()) -> Measured:
        """All of it, with the components. ``broken``: what voids the run, a sentence each."""
        plan = course.plan
        assert plan is not None
        columns, read = rows.read_all(Run.open(self.path))
        if not columns:
            twins, evidence = rows.no_twins(), self.arms.evidence
        else:
            paired = columns["number"] < UNPAIRED
            arm = (columns["number"] // plan.block) % 2
            parts, evidence = rows.parts_of(read, arm, paired)
            twins = rows.twins_of(columns, course, plan.block, parts)
        whole = self._measured(twins, plan, course.wall_ns)
        arms = replace(whole.arms, evidence=evidence, broken=(*whole.arms.broken, *broken))
        return replace(whole, arms=arms)

    def _measured(self, twins: Twins, plan: Plan, wall_ns: int) -> Measured:
        blocks: Blocks = blocks_of(twins, plan.block, plan.checks, self.fixed_length)
        facts = [dict(each) for each in (self.arms.base, self.arms.candidate)]
        if self.before is not None:
            blocks = joined(self.before.blocks, blocks)
            wall_ns += self.before.arms.wall_ns
        for fact, counted in zip(facts, _counted(twins), strict=True):
            if counted:
                fact["tokenizer"] = counted
        arms = replace(self.arms, base=facts[0], candidate=facts[1], wall_ns=wall_ns)
        return Measured(plan, arms, blocks)


def _counted(twins: Twins) -> tuple[str, str]:
    """How many tokens each arm counts in the same prompts, where they differ; else nothing.

    Servers count alike or they do not: a tokeniser or a template that is another shows at once.
    """
    place = np.stack([twins.pair, twins.index])
    known = twins.ok & (twins.prompt > 0)
    sums = []
    own = [known & (twins.arm == arm) for arm in (0, 1)]
    both = _common(place[:, own[0]], place[:, own[1]])
    if not both:
        return "", ""
    for mask in own:
        keys = zip(*place[:, mask].tolist(), strict=True)
        chosen = [
            n for key, n in zip(keys, twins.prompt[mask].tolist(), strict=True) if key in both
        ]
        sums.append(sum(chosen))
    if abs(sums[0] - sums[1]) <= _COUNTS * sum(sums) / 2:
        return "", ""
    base, candidate = (f"{each} tokens in {len(both)} prompts" for each in sums)
    return base, candidate


def _common(one: np.ndarray, other: np.ndarray) -> set[tuple[int, int]]:
    return {*zip(*one.tolist(), strict=True)} & {*zip(*other.tolist(), strict=True)}


def gathered(path: str, facts: Sequence[Facts], fixed_length: bool, kept: Kept | None) -> Gathered:
    """``kept``: what was measured before. RunFault where somebody changed it."""
    base, candidate = map(_plain, facts)
    before = loaded(kept.data, kept.name)[0] if kept is not None else None
    return Gathered(path, Arms(base, candidate), fixed_length, before)


def _plain(facts: Facts) -> dict[str, str]:
    found = {"model": facts.model}
    if facts.stacks:
        found["engine"] = " + ".join(name for name, _ in facts.stacks)
        versions = [f"{name} {version}" for name, version in facts.stacks if version]
        if versions:
            found["engine_version"] = " + ".join(versions)
    return found


def _unlike(what: str) -> UnlikeRuns:
    return UnlikeRuns(
        f"this gate was begun with other arms: {what}",
        "name another file with --out, and measure anew",
    )
