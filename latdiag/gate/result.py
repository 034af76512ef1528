"""What the gate concludes: typed, and as it stands below ``result`` in gate.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from latdiag.gate.checks import Level
from latdiag.gate.settings import OnInconclusive
from latdiag.gate.validity import Reason

Word = Literal["REGRESSED", "OK", "IMPROVED", "INCONCLUSIVE", "INVALID"]
EXIT_CODES: dict[Word, int] = {
    "OK": 0,
    "IMPROVED": 0,
    "REGRESSED": 10,
    "INCONCLUSIVE": 11,
    "INVALID": 12,
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One check. ``effect``, its 95 % interval ``lo`` to ``hi`` and the bounds are shares (0.1 is
    10 % slower; of ``exceed2x``, requests): more than ``worse_than``, less than ``safe_below`` and
    less than ``better_than`` are proved at the levels of the look; None where nothing is. ``p``:
    adjusted for all checks that vote. ``base`` and ``candidate``: medians over pairs in ns, of
    ``exceed2x`` shares of requests. ``more_pairs``: about how many more would decide."""

    name: str
    metric: str
    statistic: str
    level: Level
    verdict: Word
    effect: float | None
    lo: float | None
    hi: float | None
    worse_than: float | None
    safe_below: float | None
    better_than: float | None
    min_effect: float
    tolerance: float
    floor_ns: int
    p: float | None
    base: float | None
    candidate: float | None
    pairs: int
    more_pairs: int | None


@dataclass(frozen=True, slots=True)
class Component:
    """Where the time of a request went in each arm, and the difference with its 95 % interval.

    Exact: over all components ``base_ns`` and ``candidate_ns`` add up to the whole, ``requests``
    an arm. Means a request are these divided by ``requests``. ``proved_ns``: what most pairs lost
    at least, a request, by the ranks of pairs, which a few wild ones do not move; None: nothing.
    """

    name: str
    base_ns: int
    candidate_ns: int
    lo_ns: float | None
    hi_ns: float | None
    proved_ns: float | None


@dataclass(frozen=True, slots=True)
class Stop:
    """Where the verdict fell. ``measured`` pairs until then, ``valid`` ones among them;
    ``planned`` in all. ``why``: at a planned look, at the last one, because something is clearly
    broken, or the run was cut before its next look. ``spent``: alpha so far."""

    measured: int
    valid: int
    planned: int
    why: Literal["look", "end", "broken", "cut"]
    spent: float


@dataclass(frozen=True, slots=True)
class Counts:
    """Requests by arm (base, candidate) that were left out, twins that were judged, and by how
    many the outputs' lengths differed."""

    twins: int
    kept: int
    failed: tuple[int, int]
    late: tuple[int, int]
    longer: int
    shorter: int
    lag_ns: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The whole. ``cause``: the component that takes most of what a red check lost, None where
    none stands out. ``minutes``: what ``more_pairs`` of the checks that vote would take."""

    verdict: Word
    exit_code: int
    reasons: tuple[Reason, ...]
    outcomes: tuple[Outcome, ...]
    stop: Stop
    counts: Counts
    components: tuple[Component, ...]
    requests: int
    evidence: str
    cause: str | None
    more_pairs: int | None
    minutes: float | None
    on_inconclusive: OnInconclusive
    seed: int
    block: int

    @property
    def votes(self) -> tuple[Outcome, ...]:
        """The checks that vote."""
        return tuple(each for each in self.outcomes if each.level == "error")

    @property
    def shown(self) -> tuple[Outcome, ...]:
        """The checks that readers see: those that vote, and those that warn."""
        return tuple(each for each in self.outcomes if each.level != "off")


def exit_code(verdict: Word, on_inconclusive: OnInconclusive) -> int:
    """0 for what is no failure; see ``latdiag explain exit``."""
    if verdict == "INCONCLUSIVE" and on_inconclusive != "fail":
        return 0
    return EXIT_CODES[verdict]
