"""The metrics that ``latdiag watch`` exposes: names, types, units, labels and buckets.

The one table of them. What exposes them and what draws them (dashboards, rules) read it; a name
or a label here does not change its meaning.

Label values: ``model``, ``replica``, ``route`` and ``tenant`` are what spans name; ``other`` holds
what came beyond the bounds of ``watch``, and an empty value what nobody named. ``component`` is
one of ``model.components.COMPONENTS``, or several that no evidence tells apart, joined with ``+``
in time order (``queue+prefill``). ``interval``: ``request`` (whole, as servers see it) or
``ttft`` (until the first token). ``window``: ``1m``, ``5m`` or ``60m``, ending at the last full
minute.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]

#: Bounds, s: of a whole request and of TTFT those of OpenTelemetry's GenAI conventions
#: (gen_ai.server.request.duration, gen_ai.server.time_to_first_token; v1.41.0).
REQUEST_S = (
    *(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12),
    *(10.24, 20.48, 40.96, 81.92),
)
TTFT_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25),
    *(0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
)
#: Those of gen_ai.server.time_per_output_token, and below: small models are faster than 10 ms.
TPOT_S = (
    *(0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5),
    *(0.75, 1.0, 2.5),
)
COMPONENT_S = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
    *(2.5, 5.0, 10.0, 30.0),
)
#: Who a request is of; ``route`` and ``tenant`` only where ``watch`` was told which attribute.
GROUP = ("model", "replica", "route", "tenant")
WINDOWS = ("1m", "5m", "60m")
INTERVALS = ("request", "ttft")


@dataclass(frozen=True, slots=True)
class Metric:
    """``name``: of the family; a counter's samples end in ``_total``, a histogram's in
    ``_bucket``, ``_sum`` and ``_count``. ``unit``: as in OpenMetrics, empty for a count.
    ``buckets``: upper bounds of a histogram in ``unit``, without +Inf. ``exemplars``: whether
    buckets bear the trace id of a request (in OpenMetrics only)."""

    name: str
    kind: Kind
    help: str
    unit: str = ""
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    exemplars: bool = False

    @property
    def sample(self) -> str:
        """The name of the sample that an expression asks for."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


METRICS = (
    Metric(
        "latdiag_request_seconds",
        "histogram",
        "Time of a request from its first server's begin to its end.",
        "seconds",
        GROUP,
        REQUEST_S,
        exemplars=True,
    ),
    Metric(
        "latdiag_ttft_seconds",
        "histogram",
        "Time until the first token, where servers state it.",
        "seconds",
        GROUP,
        TTFT_S,
        exemplars=True,
    ),
    Metric(
        "latdiag_tpot_seconds",
        "histogram",
        "Time from the first token to the last for each output token after the first, where"
        " servers state the tokens.",
        "seconds",
        GROUP,
        TPOT_S,
        exemplars=True,
    ),
    Metric(
        "latdiag_component_seconds",
        "histogram",
        "Time of a component in a request; shares are ratios of its sums.",
        "seconds",
        ("component", "interval", "model", "replica"),
        COMPONENT_S,
    ),
    Metric(
        "latdiag_unattributed_seconds",
        "counter",
        "Time of requests that no evidence covers.",
        "seconds",
        ("model",),
    ),
    Metric(
        "latdiag_component_share",
        "gauge",
        "Share of a component in a window: a ratio of sums over all requests.",
        "",
        ("component", "interval", "window", "model"),
    ),
    Metric(
        "latdiag_component_tail_share",
        "gauge",
        "The same over the slowest 5 % of the window's requests; absent below 30 of these.",
        "",
        ("component", "window", "model"),
    ),
    Metric(
        "latdiag_dominant",
        "gauge",
        "1 for the verdict of a window: the largest component, its kind and confidence.",
        "",
        ("component", "kind", "confidence", "window"),
    ),
    Metric(
        "latdiag_requests",
        "counter",
        "Requests by what became of them: attributed, or why not.",
        "",
        ("fate",),
    ),
    Metric(
        "latdiag_evidence_coverage_ratio",
        "gauge",
        "Requests that were attributed over all that were seen in the window.",
        "ratio",
        ("window",),
    ),
    Metric("latdiag_spans_received", "counter", "Spans that came, refused ones included."),
    Metric("latdiag_spans_attributed", "counter", "Spans of requests that were attributed."),
    Metric("latdiag_spans_open", "gauge", "Spans of requests that are not complete yet."),
    Metric(
        "latdiag_spans_dropped", "counter", "Spans that were not used.", "", ("reason",)
    ),
    Metric("latdiag_traces_open", "gauge", "Requests that are not complete yet."),
    Metric(
        "latdiag_sampled_ratio",
        "gauge",
        "Share of requests whose traces are sampled, as --sampled states it; absent without it.",
        "ratio",
    ),
    Metric(
        "latdiag_change_seconds",
        "gauge",
        "A change that holds: by how much the metric moved for the component.",
        "seconds",
        ("metric", "component", "model", "replica", "cause"),
    ),
    Metric(
        "latdiag_changes",
        "counter",
        "Changes that were reported.",
        "",
        ("metric", "component", "cause"),
    ),
    Metric(
        "latdiag_labels_folded",
        "counter",
        "Requests whose label value was counted as other.",
        "",
        ("label",),
    ),
    Metric(
        "latdiag_series_refused",
        "counter",
        "Observations that went to other because no more series are exposed.",
        "",
        ("metric",),
    ),
    Metric(
        "latdiag_forwarded_exports",
        "counter",
        "Exports by what became of forwarding them: forwarded, failed, or looped (came back).",
        "",
        ("outcome",),
    ),
    Metric("latdiag_start_time_seconds", "gauge", "When this watch began, Unix time.", "seconds"),
)  # fmt: skip
BY_NAME = {metric.name: metric for metric in METRICS}
