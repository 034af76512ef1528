"""Stages as a server with limits takes them: what it refuses as too many is a finding.

A stage goes out within the limit that is known by then: fewer requests at once, or slower, after
the time that the server asked for. Where requests are refused all the same, small ones are sent
until it shows by which rule (S12), and those that were sent alone are sent again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from latdiag.attribution.laws.limits import (
    IN_FLIGHT,
    RATE,
    Refused,
    free_after,
    refused_of,
)
from latdiag.measurement.stages import (
    BEHIND,
    REFUSALS,
    WORKLOAD,
    PathStage,
    Shot,
    Stage,
)
from latdiag.model.units import NS_PER_MS, NS_PER_S
from latdiag.probe.budget import REFUSAL_POSTS, REFUSAL_ROUNDS, RESENT, SHORT, Purse
from latdiag.probe.pace import pace

if TYPE_CHECKING:
    from latdiag.measurement.observations import Observations

#: Requests go out so much slower than a rate that they are not to pass.
_BELOW = 1.1
#: Seconds between requests whose answers say nothing yet of a rate.
_BLIND_S = 0.5
#: The golden section: multiples of it lie evenly between whole numbers.
_UNEVEN = 0.618034
#: Tokens of such a reply.
_OSL = 4


class Heed:
    """``seen``: all that was observed. ``why``: the design ends with these words, because the
    limits of the server leave no time for the rest. ``patience_s``: time that limits may cost."""

    def __init__(self, patience_s: float, purse: Purse) -> None:
        self.seen: Observations | None = None
        self.why: str | None = None
        self._law: Refused | None = None
        self._purse = purse
        self._left_ns = patience_s * NS_PER_S
        self._rounds, self._resent = REFUSAL_ROUNDS, RESENT

    def through(
        self, stage: Stage | PathStage
    ) -> Generator[Stage | PathStage, Observations, Observations | None]:
        """Sends the stage, or what the limits leave of it; all that was observed by then."""
        more: Stage | PathStage | None = stage
        while more is not None and (fitted := self._fitted(more)) is not None:
            before = self.seen.n if self.seen is not None else 0
            self.seen = yield fitted
            if not self.seen.shed[before:].any():
                break
            yield from self._study(self.seen)
            more = self._again(fitted, before)
        return self.seen

    # ------------------------------------------------------------------ within a limit
    def _fitted(self, stage: Stage | PathStage) -> Stage | PathStage | None:
        """The stage within the limit; None where nothing is left of it, or no time for it."""
        law = self._law
        if self.why is not None:
            return None
        if law is None:
            return stage
        if law.rule == IN_FLIGHT:
            fitted = _within_places(stage, int(law.value))
        elif law.rule == RATE:
            fitted = self._within_rate(stage, law)
        else:
            fitted = replace(stage, after_ns=round((law.wait_s or 0.0) * NS_PER_S))
        return None if fitted is None else self._timed(fitted)

    def _within_rate(self, stage: Stage | PathStage, law: Refused) -> Stage | PathStage | None:
        """As many as are taken at once go out when so many are; more, one after the other."""
        if isinstance(stage, PathStage):
            return replace(stage, refused=(), after_ns=round((law.wait_s or 0.0) * NS_PER_S))
        loads, needed = stage.name in (WORKLOAD, BEHIND), len(stage.shots)
        pause_ns = 0.0
        if loads or needed > law.burst:
            if not stage.slots and not loads:
                return None
            pause_ns, needed = _BELOW * NS_PER_S / law.lo * stage.slots, max(1, law.burst // 2)
        assert self.seen is not None
        return replace(
            stage,
            beside=tuple(shot for shot in stage.beside if not shot.isl),
            pause_ns=round(pause_ns),
            after_ns=round(_BELOW * free_after(self.seen, law, needed)),
        )

    def _timed(self, stage: Stage | PathStage) -> Stage | PathStage | None:
        """The stage, if there is time for what the limit makes it last."""
        paused = getattr(stage, "pause_ns", 0) * len(getattr(stage, "shots", ()))
        needed = stage.after_ns + paused / max(1, getattr(stage, "slots", 1))
        if needed > self._left_ns:
            law = self._law
            assert law is not None
            rate = f" (about {law.value:.3g}/s are taken)" if law.known else ""
            self.why = (
                f"the server refuses requests as too many{rate}: {stage.name} would take"
                f" {needed / NS_PER_S:.0f} s more, and there are"
                f" {max(0.0, self._left_ns) / NS_PER_S:.0f} s left"
            )
            return None
        self._left_ns -= needed
        return stage

    # ------------------------------------------------------------------ which limit
    def _study(self, seen: Observations) -> Generator[Stage | PathStage, Observations, None]:
        """Small requests until the rule is known, or what may be spent on that is spent."""
        self._law = law = refused_of(seen)
        twice = False
        while law is not None and self._rounds and not (law.known and (law.sure or twice)):
            self._rounds -= 1
            twice = law.rule == IN_FLIGHT
            stage = self._asking(law, seen)
            paid = self._purse.pays(stage, share=False)
            fitted = self._timed(paid) if paid is not None else None
            if not isinstance(fitted, Stage):
                return
            lasts = fitted.shots[-1].at_ns
            self._left_ns -= lasts
            self.seen = seen = yield fitted
            self._law = law = refused_of(seen)

    def _asking(self, law: Refused, seen: Observations) -> Stage:
        """What tells more of the rule."""
        at = pace(seen)
        if law.rule == IN_FLIGHT:
            # As many again as soon as these have ended: places are free then, a bucket is empty.
            size = min(int(law.value) + 1, REFUSAL_POSTS // 2)
            lasts = size * (at.ttft_ns(SHORT) - at.floor_ns) + _OSL * at.gap_ns
            again = round(1.5 * lasts + at.floor_ns + 20 * NS_PER_MS)
            shots = (Shot(SHORT, _OSL, 0),) * size + (Shot(SHORT, _OSL, again),) * size
            return Stage(REFUSALS, shots, 0, "whether so many at once are taken again")
        blind = law.rule != RATE or not np.isfinite(law.hi)
        gap_s = _BLIND_S if blind else 0.5 / law.hi
        # What is taken at once after a pause says nothing of the pace, and comes first.
        first = min(REFUSAL_POSTS // 2, law.burst if law.rule == RATE else law.most)
        if law.window_s is not None and law.burst <= first:
            # They last until a window ends.
            gap_s = max(gap_s, 2.2 * law.window_s / REFUSAL_POSTS)
        number = int(min(REFUSAL_POSTS - first, max(4.0, self._left_ns / NS_PER_S / 3 / gap_s)))
        after_s = (law.wait_s or 2.0) if blind else 0.0
        # Uneven, or no pace would be told from those near it.
        gaps = (gap_s * (0.6 + 0.8 * (k * _UNEVEN % 1.0)) for k in range(1, number))
        moments = [0.0] * first + list(accumulate(gaps))
        shots = tuple(Shot(SHORT, _OSL, round(moment * NS_PER_S)) for moment in moments)
        return Stage(
            REFUSALS, shots, 0, "at which pace requests are taken", after_ns=round(after_s * 1e9)
        )

    def _again(self, stage: Stage | PathStage, before: int) -> Stage | PathStage | None:
        """What was to be alone and was refused; None where there is none, or too much of it."""
        seen = self.seen
        assert seen is not None
        new = np.arange(before, seen.n)
        if isinstance(stage, PathStage):
            answered = int((seen.scenario[new] == "get").sum())
            missing = stage.gets - answered
            return replace(stage, gets=missing, refused=(), fresh=0) if missing > 0 else None
        mine = new[seen.stage[new] == stage.name]
        if stage.slots != 1 or stage.name == WORKLOAD or len(mine) != len(stage.shots):
            return None
        shots = tuple(
            shot for shot, row in zip(stage.shots, mine.tolist(), strict=True) if seen.shed[row]
        )
        if not shots or len(shots) > self._resent:
            return None
        self._resent -= len(shots)
        return self._purse.pays(replace(stage, shots=shots), share=False)


def _within_places(stage: Stage | PathStage, places: int) -> Stage | PathStage | None:
    """The stage with no more at once; None where it is about more."""
    if isinstance(stage, PathStage):
        return stage
    if not stage.slots:
        loads = stage.name in (WORKLOAD, BEHIND)
        return stage if loads or _at_once(stage) <= places else None
    return replace(stage, slots=min(stage.slots, places))


def _at_once(stage: Stage) -> int:
    """Requests of an open loop that are under way together, as it is meant."""
    moments = Counter(shot.at_ns for shot in stage.shots)
    most = max(moments.values())
    return most + (most > 1 and stage.name == "S8")
