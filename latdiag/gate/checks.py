"""What the gate tests: a metric, a statistic, and how much worse is too much."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from latdiag.model.units import NS_PER_MS

if TYPE_CHECKING:
    from latdiag.stats.flips import Kind

Level = Literal["error", "warn", "off"]
METRICS = ("ttft", "tpot", "itl", "e2e")
STATISTICS = ("shift", "p50", "p95", "p99", "exceed2x")
#: Requests an arm from which a p99 may vote: below, a block's p99 is its largest value.
P99_REQUESTS = 4_000
#: Differences of less are nobody's regression, whatever their share of a fast endpoint's time.
FLOORS_NS = {
    "ttft": NS_PER_MS,
    "tpot": NS_PER_MS // 10,
    "itl": NS_PER_MS // 10,
    "e2e": 2 * NS_PER_MS,
}
#: What more requests than in the base may take over twice their twin's time and the check be OK.
EXCEED_TOLERANCE = 0.015
#: What votes unless a configuration says otherwise.
PRIMARY = (
    *(("ttft", each) for each in ("shift", "p95", "exceed2x")),
    *((metric, each) for metric in ("tpot", "e2e") for each in ("shift", "p95")),
)


@dataclass(frozen=True, slots=True)
class Check:
    """One test. ``min_effect``: REGRESSED is proved to be more than that; ``tolerance``: OK is
    proved to be less (of a ratio, 0.03 is 3 %; of ``exceed2x`` it is a share of requests).

    ``floor_ns``: a smaller difference is ignored by both. ``where``: only twins whose labels have
    these values.
    """

    metric: str
    statistic: str
    level: Level
    min_effect: float
    tolerance: float
    floor_ns: int
    where: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """``ttft.p95``, or ``ttft.p95[prompt_class=rag]``."""
        inside = ",".join(f"{key}={value}" for key, value in self.where)
        return f"{self.metric}.{self.statistic}" + (f"[{inside}]" if inside else "")

    @property
    def counts(self) -> bool:
        """Whether its values are counts of requests, and not logarithms of ratios."""
        return self.statistic == "exceed2x"

    @property
    def kind(self) -> Kind:
        """What its effect is: of counts the mean, because it is a share of requests. What proves
        that it is worse are the ranks in either case: one wild block counts as one pair."""
        return "mean" if self.counts else "rank"


def default_checks(min_effect: float, tolerance: float) -> tuple[Check, ...]:
    """Every metric by every statistic: those of ``PRIMARY`` vote, the others are reported."""
    return tuple(
        Check(
            metric,
            statistic,
            "error" if (metric, statistic) in PRIMARY else "off",
            min_effect,
            EXCEED_TOLERANCE if statistic == "exceed2x" else tolerance,
            FLOORS_NS[metric],
        )
        for metric in METRICS
        for statistic in STATISTICS
    )


def planned_checks(checks: tuple[Check, ...], requests: int) -> tuple[Check, ...]:
    """The checks of a plan of ``requests`` an arm: where these are too few for a p99, it is
    reported and does not vote. That depends on the plan alone, never on what was measured."""
    return tuple(
        replace(check, level="off")
        if check.statistic == "p99" and requests < P99_REQUESTS
        else check
        for check in checks
    )
