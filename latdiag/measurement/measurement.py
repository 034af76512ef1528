"""What was measured: every metric of the table with its interval, and what was counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from latdiag.model.metrics import METRICS, metric
from latdiag.stats.estimate import Estimate, refusal


@dataclass(slots=True)
class Lengths:
    """Tokens wanted against tokens got, over rows. ``got`` sums all ``rows`` that state a
    length; the others are of the ``compared`` rows, which were also asked for one."""

    rows: int = 0
    got: int = 0
    compared: int = 0
    compared_wanted: int = 0
    compared_got: int = 0
    unlike: int = 0


@dataclass(slots=True)
class Counts:
    """What was counted on the way; ``unknown`` is the key of rows that do not say.

    ``failed``: rows by outcome other than ok. ``left_out``: values that a metric leaves out, by
    metric and reason. ``undecided``: rows for which it cannot be told whether they kept the
    objectives. ``clocks``: clocks in the rows; rates use the longest span on one clock.
    """

    requests: int = 0
    ok: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    output_arrivals: int = 0
    censored_arrivals: int = 0
    multi_token_arrivals: int = 0
    zero_token_arrivals: int = 0
    tokens_unknown: int = 0
    clock_step: int = 0
    left_out: dict[str, dict[str, int]] = field(default_factory=dict)
    token_source: dict[str, int] = field(default_factory=dict)
    stamp_source: dict[str, int] = field(default_factory=dict)
    isl: Lengths = field(default_factory=Lengths)
    osl: Lengths = field(default_factory=Lengths)
    cached_rows: int = 0
    cached_tokens: int = 0
    output_tokens_ok: int = 0
    osl_unknown_ok: int = 0
    undecided: int = 0
    clocks: int = 0


@dataclass(frozen=True, slots=True)
class MetricResult:
    """One metric as it came out. Estimates are in raw units (nanoseconds); ``unit`` is the one
    that they are printed in.

    ``statistics``: by ``p50`` ... ``mean``; ``total`` instead, of a metric of the whole run.
    ``left_out``: values that it leaves out, by reason. ``refused``: why nothing is stated.
    """

    unit: str
    statistics: Mapping[str, Estimate] = field(default_factory=dict)
    total: Estimate | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)
    refused: str | None = None

    def to_json(self) -> dict[str, object]:
        if self.total is not None:
            return self.total.to_json(self.unit)
        left_out = {"left_out": self.left_out} if self.left_out else {}
        refused = {"refused": self.refused} if self.refused else {}
        statistics = {name: one.to_json(self.unit) for name, one in self.statistics.items()}
        return {**statistics, **left_out, **refused}


@dataclass(frozen=True, slots=True)
class Measurement:
    """``statistics``: metric -> ``p95`` or ``mean`` -> Estimate, for metrics of requests and gaps.
    ``totals``: metric -> Estimate, for metrics of the run. Values in raw units (nanoseconds)."""

    statistics: Mapping[str, Mapping[str, Estimate]]
    totals: Mapping[str, Estimate]
    counts: Counts
    span_ns: int

    def reading(self, name: str, statistic: str = "") -> Estimate:
        """One number; a refused Estimate where this statistic was not asked for."""
        if metric(name).per == "run":
            return self.totals[name]
        found = self.statistics[name].get(statistic)
        return found or refusal(f"{name}.{statistic} was not computed")

    def without(self, refused: Mapping[str, str]) -> Measurement:
        """The same with these metrics refused, each for its reason."""
        statistics = {
            name: {each: refusal(refused[name], of.n) for each, of in found.items()}
            if name in refused
            else found
            for name, found in self.statistics.items()
        }
        totals = {
            name: refusal(refused[name], of.n) if name in refused else of
            for name, of in self.totals.items()
        }
        return replace(self, statistics=statistics, totals=totals)

    def metrics(self) -> dict[str, MetricResult]:
        """Every metric of the table, in its order."""
        return {m.name: self._metric(m.name) for m in METRICS}

    def _metric(self, name: str) -> MetricResult:
        of = metric(name)
        if of.per == "run":
            return MetricResult(of.unit, total=self.totals[name])
        found = self.statistics[name]
        left_out = dict(self.counts.left_out.get(name) or {})
        return MetricResult(of.unit, found, None, left_out, found["mean"].refused)
