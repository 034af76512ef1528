"""All checks on the pairs measured up to one moment: effects, bounds, verdicts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from latdiag.gate.blocks import Blocks
from latdiag.gate.checks import Check
from latdiag.gate.plan import LEAST_PAIRS, Plan
from latdiag.gate.result import Outcome, Word
from latdiag.gate.twins import Floats, Mask
from latdiag.stats import betting
from latdiag.stats.flips import Null, lower_bound, middle, null_of, scores_of, upper_bound
from latdiag.stats.spending import Look

#: One-sided, of the interval that readers see beside an effect.
_INTERVAL = 0.025
#: A check that would need so many times the pairs planned is not decided by measuring longer.
_MOST_MORE = 20
#: Figures of the document: beyond these digits machines may differ.
_DIGITS = 9


@dataclass(frozen=True, slots=True)
class _Bounds:
    """On the scale of a column's values; infinite where nothing is proved."""

    effect: float
    lo: float
    hi: float
    worse: float
    better: float
    safe: float


class Trial:
    """The checks of ``plan`` on the valid pairs among the first ``measured``.

    ``look``: the levels in force; None where no look is planned here, and nothing can be proved
    but what the bets on every pair (``plan.abort_level``) refute, if they are ``broken``.
    """

    def __init__(
        self, blocks: Blocks, valid: Mask, plan: Plan, measured: int, look: Look | None
    ) -> None:
        self._blocks, self._plan, self._look = blocks, plan, look
        self._checks = plan.checks
        self._valid = valid
        self.valid = valid & (np.arange(blocks.pairs) < measured)
        self.measured = measured
        self._places = np.flatnonzero(self.valid)
        self.n = len(self._places)
        self._voting = np.array([check.level == "error" for check in self._checks])
        self._values = [blocks.columns[check.name].value[self.valid] for check in self._checks]
        self._worse = self._null(1)
        effects = self._effects()
        self._usual = effects.critical_each(_INTERVAL)
        if look is not None:
            self._better = self._null(-1)
            self._safe = effects.critical_each(look.safe_level)
            # By whether a check votes: those that do not are a family of their own.
            self._limits = {
                votes: tuple(
                    null.critical(look.level, self._voting == votes)
                    for null in (self._worse, self._better)
                )
                for votes in {*self._voting.tolist()}
            }

    def _null(self, sign: int) -> Null:
        """Of being worse (1) or better (-1) than the margin."""
        each = zip(self._checks, self._values, strict=True)
        return self._null_of([scores_of(sign * v - margin(check), "rank") for check, v in each])

    def _effects(self) -> Null:
        """What intervals of effects come from: of counts the null of their mean."""
        if not any(check.counts for check in self._checks):
            return self._worse
        each = zip(self._checks, self._values, strict=True)
        return self._null_of([scores_of(v - margin(check), check.kind) for check, v in each])

    def _null_of(self, scores: list[Floats]) -> Null:
        of, settings = self._plan.pairs, self._plan.settings
        table = np.column_stack(scores)
        return null_of(table, self._places, of, settings.flips, settings.seed)

    @property
    def _needed(self) -> float:
        """What bets on every pair must make of 1, for all checks that vote together."""
        return float(self._voting.sum()) / self._plan.abort_level

    def outcomes(self, broken: bool) -> tuple[Outcome, ...]:
        """Every check. ``broken``: the bets on every pair are won, which says which are worse."""
        p = {True: self._worse.p(self._voting)}
        p[False] = self._worse.p(~self._voting) if not self._voting.all() else p[True]
        return tuple(
            self._outcome(place, check, float(p[bool(self._voting[place])][place]), broken)
            for place, check in enumerate(self._checks)
        )

    def _outcome(self, place: int, check: Check, p: float, broken: bool) -> Outcome:
        values = self._values[place]
        column = self._blocks.columns[check.name]
        there = self.valid & ~np.isnan(column.value)
        n = int(there.sum())
        if not n:
            nothing = (None,) * 6
            return Outcome(
                check.name, check.metric, check.statistic, check.level, "INCONCLUSIVE", *nothing,
                check.min_effect, check.tolerance, check.floor_ns, None, None, None, 0, None,
            )  # fmt: skip
        bounds = self._bounds(place, check, values, broken)
        twins = float(column.twins[there].mean())
        shares = [_share(check, each, twins) for each in (bounds.effect, bounds.lo, bounds.hi)]
        worse, safe, better = (
            _share(check, each, twins) for each in (bounds.worse, bounds.safe, bounds.better)
        )
        base, candidate = _typical(check, column.base[there], column.candidate[there], twins)
        word = self._word(place, broken, bounds, safe)
        more = None
        if word == "INCONCLUSIVE" and self._look is not None:
            more = self._more(check, bounds, twins, n)
        effect, lo, hi = (_printed(each) for each in shares)
        return Outcome(
            check.name, check.metric, check.statistic, check.level, word, effect, lo, hi,
            _printed(worse), _printed(safe), None if check.counts else _printed(better),
            check.min_effect, check.tolerance, check.floor_ns,
            round(p, _DIGITS) if self._look is not None else None,
            _printed(base), _printed(candidate), n, more,
        )  # fmt: skip

    def _bounds(self, place: int, check: Check, values: Floats, broken: bool) -> _Bounds:
        usual = float(self._usual[place])
        worse, better, safe = -math.inf, math.inf, math.inf
        if self._look is not None:
            limits = self._limits[bool(self._voting[place])]
            worse = lower_bound(values, "rank", limits[0])
            better = upper_bound(values, "rank", limits[1])
            safe = upper_bound(values, check.kind, float(self._safe[place]))
        elif broken and self._voting[place]:
            worse = betting.bound(values, self._needed)
        return _Bounds(
            middle(values, check.kind),
            lower_bound(values, check.kind, usual),
            upper_bound(values, check.kind, usual),
            worse,
            better,
            safe,
        )

    def _word(self, place: int, broken: bool, bounds: _Bounds, safe: float) -> Word:
        """Differences below the floor are ignored: by what is proved, not inside the statistic."""
        check = self._checks[place]
        least = hurdle(check, self._blocks, self._valid)
        if self._look is None:
            bets = (self._values[place] - least)[:, None]
            red = broken and self._voting[place] and betting.won(bets, self._needed).any()
            return "REGRESSED" if red else "INCONCLUSIVE"
        worse, better = (
            bool(null.statistics[place] > limit)
            for null, limit in zip(
                (self._worse, self._better), self._limits[bool(self._voting[place])], strict=True
            )
        )
        if worse and bounds.worse >= least:
            return "REGRESSED"
        floor = floor_share(check, self._blocks, self._valid)
        if better and not check.counts and -math.expm1(bounds.better) >= floor:
            return "IMPROVED"
        return "OK" if safe < max(check.tolerance, floor) else "INCONCLUSIVE"

    def _more(self, check: Check, bounds: _Bounds, twins: float, n: int) -> int | None:
        """Pairs that would decide if the effect stays what it is: bounds close in as the root."""
        limit = check.tolerance * twins if check.counts else math.log1p(check.tolerance)
        needed = min(
            _pairs_for(n, bounds.safe - bounds.effect, limit - bounds.effect),
            _pairs_for(n, bounds.effect - bounds.worse, bounds.effect - margin(check)),
        )
        return max(1, math.ceil(needed) - n) if needed < _MOST_MORE * self._plan.pairs else None


def _pairs_for(n: int, reach: float, room: float) -> float:
    """Pairs at which a bound that is ``reach`` away after ``n`` comes within ``room``."""
    return n * (reach / room) ** 2 if room > 0.0 and math.isfinite(reach) else math.inf


def margin(check: Check) -> float:
    """What a check's values must exceed; counts have theirs inside (``blocks``)."""
    return 0.0 if check.counts else math.log1p(check.min_effect)


def floor_share(check: Check, blocks: Blocks, valid: Mask) -> float:
    """The check's floor as a share of what the base takes, by the first pairs alone: so it stays
    the same from look to look."""
    base = blocks.columns[check.name].base[valid][:LEAST_PAIRS]
    known = base[~np.isnan(base)]
    if check.counts or not len(known):
        return 0.0
    return check.floor_ns / float(np.median(known))


def hurdle(check: Check, blocks: Blocks, valid: Mask) -> float:
    """What is proved must exceed, on the scale of the values: the margin, and the floor."""
    return max(margin(check), math.log1p(floor_share(check, blocks, valid)))


def _share(check: Check, value: float, twins: float) -> float:
    if check.counts:
        return value / twins
    return math.expm1(value) if value < 700 else math.inf


def _typical(check: Check, base: Floats, candidate: Floats, twins: float) -> tuple[float, float]:
    if check.counts:
        return float(base.mean()) / twins, float(candidate.mean()) / twins
    return float(np.median(base)), float(np.median(candidate))


def _printed(value: float) -> float | None:
    return round(value, _DIGITS) + 0.0 if math.isfinite(value) else None
