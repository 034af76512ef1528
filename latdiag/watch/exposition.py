"""The state of a watch as Prometheus and OpenMetrics read it: the table of ``metrics``, filled.

Histograms count with numpy, a batch at a time. The number of series is bounded: what would need
more goes to ``other``, and is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.samples import Exemplar

from latdiag.model.components import COMPONENTS
from latdiag.model.units import NS_PER_S
from latdiag.watch.bins import rows_of
from latdiag.watch.metrics import BY_NAME, GROUP, METRICS, Metric
from latdiag.watch.names import OTHER
from latdiag.watch.requests import Requests

MOST_SERIES = 5_000
#: Of a series: a trace, its value in s, and when.
_Exemplar = tuple[str, float, float]


@dataclass(slots=True)
class _Series:
    counts: NDArray[np.int64]
    sum_ns: int = 0
    exemplars: dict[int, _Exemplar] = field(default_factory=dict)


class Histograms:
    """``refused``: observations by metric that went to ``other`` for want of series."""

    def __init__(self, most: int = MOST_SERIES) -> None:
        self.refused: dict[str, int] = {}
        self.series = 0
        self._most = most
        self._held: dict[str, dict[tuple[str, ...], _Series]] = {}

    def observe(
        self,
        name: str,
        labels: tuple[str, ...],
        ns: NDArray[np.int64],
        traces: NDArray[np.object_] | None = None,
        now_s: float = 0.0,
    ) -> None:
        """Count values under labels, which are in the order of the table."""
        if not len(ns):
            return
        metric = BY_NAME[name]
        held = self._held.setdefault(name, {})
        series = held.get(labels)
        if series is None:
            cost = len(metric.buckets) + 3
            if self.series + cost > self._most and OTHER not in labels:
                self.refused[name] = self.refused.get(name, 0) + len(ns)
                few = tuple(
                    OTHER if label in GROUP and value else value
                    for label, value in zip(metric.labels, labels, strict=True)
                )
                if few != labels:
                    self.observe(name, few, ns, traces, now_s)
                return
            series = held[labels] = _Series(np.zeros(len(metric.buckets) + 1, np.int64))
            self.series += cost
        seconds = ns / NS_PER_S
        place = np.searchsorted(metric.buckets, seconds, side="left")
        series.counts += np.bincount(place, minlength=len(series.counts))
        series.sum_ns += int(ns.sum())
        if traces is not None and metric.exemplars:
            for bucket in np.unique(place).tolist():
                row = int(np.flatnonzero(place == bucket)[-1])
                series.exemplars[bucket] = (str(traces[row]), float(seconds[row]), now_s)

    def families(self) -> Iterator[HistogramMetricFamily]:
        for name, held in list(self._held.items()):
            metric = BY_NAME[name]
            family = HistogramMetricFamily(
                name, metric.help, labels=metric.labels, unit=metric.unit
            )
            bounds = [*(repr(float(bound)) for bound in metric.buckets), "+Inf"]
            for labels, series in list(held.items()):
                reached = np.cumsum(series.counts).tolist()
                buckets: list[Any] = [
                    (bound, reached[at], _exemplar(series.exemplars.get(at)))
                    for at, bound in enumerate(bounds)
                ]
                family.add_metric(labels, buckets, series.sum_ns / NS_PER_S)
            yield family


def _exemplar(one: _Exemplar | None) -> Exemplar | None:
    if one is None:
        return None
    trace, value, at_s = one
    return Exemplar({"trace_id": trace[:100]}, value, at_s or None)


def observe_all(
    histograms: Histograms, requests: Requests, told: Mapping[str, str], now_s: float
) -> None:
    """Count requests that were taken apart. ``told``: the name that each component goes by."""
    if not requests.n or requests.parts is None:
        return
    rows = rows_of(requests)
    labels = [
        requests.labels["model"],
        requests.replica,
        *(requests.labels.get(name, _nobody(requests.n)) for name in GROUP[2:]),
    ]
    steps = rows.steps
    for group, chosen in _grouped(labels):
        timed, stated = chosen[rows.timed[chosen]], chosen[steps[chosen] > 0]
        trace = requests.trace
        for name, mine, values in (
            ("latdiag_request_seconds", chosen, rows.total[chosen]),
            ("latdiag_ttft_seconds", timed, rows.ttft[timed]),
            (
                "latdiag_tpot_seconds",
                stated,
                (rows.total[stated] - rows.ttft[stated]) // steps[stated],
            ),
        ):
            histograms.observe(name, group, values, trace[mine], now_s)
    merged = {source.members[0]: source.members for source in requests.parts.sources.values()
              if source.members}  # fmt: skip
    for at, component in enumerate(COMPONENTS):
        if component not in requests.parts.parts:
            continue
        who = requests.by.get(component, _nobody(requests.n))
        name = "+".join(merged.get(component, (told.get(component, component),)))
        for (model, replica), chosen in _grouped([requests.labels["model"], who]):
            timed = chosen[rows.timed[chosen]]
            for interval, mine, matrix in (
                ("request", chosen, rows.whole),
                ("ttft", timed, rows.early),
            ):
                values = np.maximum(matrix[mine, at], 0)
                if interval == "ttft" and not values.any():
                    continue  # a component that does not come before the first token
                key = (name, interval, model, replica)
                histograms.observe("latdiag_component_seconds", key, values)


def _nobody(n: int) -> NDArray[np.object_]:
    return np.full(n, "", dtype=object)


def _grouped(
    columns: list[NDArray[np.object_]],
) -> Iterator[tuple[tuple[str, ...], NDArray[np.int64]]]:
    """(values, rows) of each combination of values that is there."""
    codes = np.zeros(len(columns[0]), dtype=np.int64)
    distinct = []
    for column in columns:
        names, code = np.unique(column.astype(str), return_inverse=True)
        codes = codes * len(names) + code
        distinct.append(names)
    for each in np.unique(codes).tolist():
        rows = np.flatnonzero(codes == each)
        yield tuple(str(column[rows[0]]) for column in columns), rows


#: A value of a plain metric, with its labels in the order of the table.
Values = Mapping[str, Mapping[tuple[str, ...], float]]


class Exposition:
    """What prometheus_client collects. ``values``: what all metrics but histograms are now."""

    def __init__(self, histograms: Histograms, values: Callable[[], Values]) -> None:
        self._histograms = histograms
        self._values = values

    def collect(self) -> Iterator[Any]:
        yield from self._histograms.families()
        values = self._values()
        for metric in METRICS:
            if metric.kind != "histogram":
                yield _family(metric, values.get(metric.name, {}))

    def registry(self) -> CollectorRegistry:
        made = CollectorRegistry(auto_describe=False)
        made.register(self)
        return made


def _family(metric: Metric, values: Mapping[tuple[str, ...], float]) -> Any:
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=metric.labels, unit=metric.unit)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family
