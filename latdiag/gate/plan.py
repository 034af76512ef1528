"""What is decided before anything is measured: pairs, checks that vote, looks, error to spend."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from latdiag.gate.checks import Check, planned_checks
from latdiag.gate.settings import Settings
from latdiag.stats.spending import Look, looks_of

#: Fewer are not planned: with the default checks and alpha one of them may be lost.
LEAST_PAIRS = 12
#: With fewer valid pairs no rule of validity could speak: 2^-9 is under half of its level of 0.01.
_LEAST_JUDGED = 9
#: Share of valid pairs in which a check that votes must have a value.
PRESENT = 0.8
#: Of alpha, what stopping for something that is clearly broken may spend; looks have the rest.
ABORT_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Plan:
    """``pairs`` of ``block`` requests an arm. ``fixed_length``: every request was asked for the
    number of tokens that it must bring."""

    pairs: int
    block: int
    fixed_length: bool
    settings: Settings

    @property
    def checks(self) -> tuple[Check, ...]:
        """Every check, p99 at the level that so many requests allow."""
        return planned_checks(self.settings.checks, self.pairs * self.block)

    @property
    def voters(self) -> tuple[Check, ...]:
        """The primary family."""
        return tuple(check for check in self.checks if check.level == "error")

    @property
    def abort_level(self) -> float:
        """What the test after every pair may spend; nothing where there is one look only."""
        return 0.0 if self.settings.fixed else ABORT_SHARE * self.settings.alpha

    @property
    def least_valid(self) -> int:
        """Fewer valid pairs decide nothing, even if all of them lie on one side."""
        settings = self.settings
        worse = len(self.voters) / (settings.alpha - self.abort_level)
        least = math.ceil(math.log2(max(worse, 1 / settings.safe_alpha)))
        return max(_LEAST_JUDGED, least)

    @property
    def least_planned(self) -> int:
        """Fewer are not planned: one of them may be lost."""
        return max(LEAST_PAIRS, self.least_valid + 1)

    @property
    def spared(self) -> int:
        """Of so many as many may be lost as a check may lack anyway."""
        return math.ceil(self.least_valid / PRESENT)

    @property
    def looks(self) -> tuple[Look, ...]:
        """When the verdict may fall, and at what level."""
        settings = self.settings
        return looks_of(
            self.pairs,
            1 if settings.fixed else settings.looks,
            settings.alpha - self.abort_level,
            settings.safe_alpha,
            settings.flips,
            len(self.voters),
            LEAST_PAIRS,
        )

    def looks_left(self, measured: int) -> tuple[Look, ...]:
        """What a run that was cut after ``measured`` pairs may still do: the alpha that its looks
        spent is gone, and no look is added."""
        return tuple(look for look in self.looks if look.pairs > measured)

    def spent(self, measured: int) -> float:
        """Alpha gone after ``measured`` pairs."""
        looks = sum(look.level for look in self.looks if look.pairs <= measured)
        return looks + (self.abort_level if measured else 0.0)


@dataclass(frozen=True, slots=True)
class Arms:
    """What each arm said it is (model, engine, version, flags ...), by the names of
    ``settings.MAY_DIFFER``; ``broken``: what else voids the run, a sentence each. ``wall_ns``: how
    long the pairs took together, 0 where nobody measured it. ``evidence``: what the components
    rest on, for readers."""

    base: Mapping[str, str] = field(default_factory=dict)
    candidate: Mapping[str, str] = field(default_factory=dict)
    broken: tuple[str, ...] = ()
    wall_ns: int = 0
    evidence: str = "the client's stamps"
