"""A result as OpenMetrics: its metrics with their intervals, and where the time went.

Times are seconds. A statistic of a metric is a gauge, since it is computed and not counted; so are
the sums of components. What was refused is not there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.openmetrics.exposition import generate_latest

from latdiag.model.metrics import METRICS
from latdiag.model.units import NS_PER_S

if TYPE_CHECKING:
    from latdiag.diagnosis.result import Result
    from latdiag.stats.estimate import Estimate

#: Unit of a metric: what ends its name, and what its raw values are divided by.
_UNITS = {
    "ms": ("_seconds", NS_PER_S),
    "tok/s": ("_tokens_per_second", 1),
    "req/s": ("_requests_per_second", 1),
    "share": ("_ratio", 1),
}


class _Families:
    """What prometheus_client collects."""

    def __init__(self, result: Result) -> None:
        self._result = result

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield from _metrics(self._result)
        yield from _components(self._result)


def text_of(result: Result) -> bytes:
    """The whole exposition, ``# EOF`` included."""
    registry = CollectorRegistry()
    registry.register(_Families(result))
    text: bytes = generate_latest(registry)  # type: ignore[no-untyped-call]
    return text


def _metrics(result: Result) -> Iterator[GaugeMetricFamily]:
    titles = {metric.name: metric.title for metric in METRICS}
    for name, found in result.metrics.items():
        suffix, scale = _UNITS[found.unit]
        family = GaugeMetricFamily(
            f"latdiag_{name}{suffix}", titles.get(name, name), labels=("statistic", "bound")
        )
        statistics = dict(found.statistics)
        if found.total is not None:
            statistics["total"] = found.total
        for statistic, estimate in statistics.items():
            for bound, value in _values(estimate):
                family.add_metric((statistic, bound), value / scale)
        if family.samples:
            yield family


def _values(estimate: Estimate) -> Iterator[tuple[str, float]]:
    """The value and the ends of its interval, where they are known."""
    for bound, value in (
        ("value", estimate.value), ("lo", estimate.lo), ("hi", estimate.hi),
    ):  # fmt: skip
        if value is not None:
            yield bound, float(value)


def _components(result: Result) -> Iterator[GaugeMetricFamily]:
    labels = ("component", "population", "grade")
    seconds = GaugeMetricFamily(
        "latdiag_component_seconds", "Time of all requests in a component, summed", labels=labels
    )
    shares = GaugeMetricFamily(
        "latdiag_component_share_ratio", "Share of a component", labels=(*labels, "bound")
    )
    for population, breakdown in result.breakdowns.items():
        for name, share in breakdown.shares.items():
            key = ("+".join(share.members or (name,)), population, share.grade)
            seconds.add_metric(key, share.sum_ns / NS_PER_S)
            for bound in ("share", "lo", "hi"):
                value = getattr(share, bound)
                if value is not None:
                    shares.add_metric((*key, "value" if bound == "share" else bound), value)
    yield from (family for family in (seconds, shares) if family.samples)
