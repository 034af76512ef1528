"""Recording and alerting rules for Prometheus, on watch's metrics alone.

Burn rates and their windows: "Alerting on SLOs", The Site Reliability Workbook, chapter 5.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from latdiag.dashboards.overview import BOUNDS
from latdiag.dashboards.promql import attributed, quantile, ratio, series, share, summed

_BY = "job, model"
#: Why a span that watch could have used was dropped. Spans that no stack uses are many in a
#: healthy service, and what lacks evidence has an alert of its own.
_LOST = "full|late|refused_.*"
#: Components that a healthy service keeps small; prefill and decode are its work.
_WAITS = "client|network|gateway|frontend|queue|interconnect"
#: Times as fast as the budget allows, over how long, checked over how short, and how urgent.
_BURNS = ((14.4, "1h", "5m", "critical"), (6.0, "6h", "30m", "warning"))


@dataclass(frozen=True, slots=True)
class Targets:
    """``ttft_s``: seconds until the first token, one of the histogram's bounds. ``objective``:
    share of requests that make it. ValueError says what to choose instead."""

    ttft_s: float = 2.5
    objective: float = 0.99

    def __post_init__(self) -> None:
        if str(float(self.ttft_s)) not in BOUNDS:
            raise ValueError(
                f"{self.ttft_s} s is no bound of the histogram of TTFT: choose one of "
                + ", ".join(BOUNDS)
            )
        least = 1 - 1 / max(factor for factor, *_ in _BURNS)
        if not least < self.objective < 1:
            raise ValueError(
                f"an objective of {self.objective} gives an alert that cannot fire:"
                f" choose one between {least:.3f} and 1"
            )


@dataclass(frozen=True, slots=True)
class Recording:
    record: str
    expr: str


@dataclass(frozen=True, slots=True)
class Alert:
    """``value`` fires when ``condition`` (an operator and a bound, and more) holds of it."""

    name: str
    value: str
    condition: str
    wait: str
    severity: str
    summary: str
    description: str

    @property
    def expr(self) -> str:
        return f"{self.value} {self.condition}".rstrip()


SHARE = "model:latdiag_component_seconds:share_rate5m"
REQUESTS = "model:latdiag_request_seconds:rate5m"
MEAN, MEAN_HOUR = (f"model:latdiag_ttft_seconds:mean_rate{window}" for window in ("5m", "1h"))
ATTRIBUTED = "job:latdiag_requests:attributed_ratio_rate10m"


def _missed(window: str) -> str:
    return f"model:latdiag_ttft_seconds:missed_ratio_rate{window}"


def recordings(targets: Targets) -> Iterator[Recording]:
    ttft = {part: series(f"latdiag_ttft_seconds_{part}") for part in ("bucket", "sum", "count")}
    yield Recording(SHARE, share(by="job, model, interval", window="5m"))
    yield Recording(REQUESTS, summed(series("latdiag_request_seconds_count"), _BY, "5m"))
    for name, window in ((MEAN, "5m"), (MEAN_HOUR, "1h")):
        yield Recording(
            name, ratio(summed(ttft["sum"], _BY, window), summed(ttft["count"], _BY, window))
        )
    yield Recording(
        "model:latdiag_ttft_seconds:p95_rate5m", quantile(0.95, ttft["bucket"], _BY, "5m")
    )
    bound = series("latdiag_ttft_seconds_bucket", f'le="{float(targets.ttft_s)}"')
    for window in sorted({window for _, *windows, _ in _BURNS for window in windows}):
        made = ratio(summed(bound, _BY, window), summed(ttft["count"], _BY, window))
        yield Recording(_missed(window), f"1 - {made}")
    yield Recording(ATTRIBUTED, attributed(by="job", window="10m"))


def alerts(targets: Targets) -> Iterator[Alert]:
    yield from _causes()
    yield from _target(targets)
    yield from _evidence()


def _causes() -> Iterator[Alert]:
    yield Alert(
        "LatdiagWaitingDominates",
        f'{SHARE}{{interval="ttft", component=~"({_WAITS})([+]({_WAITS}))*"}}',
        f"> 0.5 and on (job, model) {REQUESTS} > 0.1",
        "10m",
        "warning",
        "{{ $labels.component }} takes most of the time to first token of {{ $labels.model }}",
        "For 10 minutes {{ $labels.component }} has taken {{ $value | humanizePercentage }} of the"
        " time to the first token: requests wait more than they are computed.",
    )
    yield Alert(
        "LatdiagQueueGrows",
        f'{SHARE}{{interval="ttft", component="queue"}}',
        f"> 0.5 and on (job, model) {MEAN} > 2 * {MEAN_HOUR}",
        "5m",
        "critical",
        "{{ $labels.model }} gets more requests than it serves",
        "The queue takes {{ $value | humanizePercentage }} of the time to the first token, whose"
        " mean is more than twice that of the last hour.",
    )
    overloaded = series("latdiag_dominant", 'kind="overloaded"')
    yield Alert(
        "LatdiagOverloaded",
        f"max by (job, component) ({overloaded})",
        "== 1",
        "5m",
        "critical",
        "The servers are overloaded",
        "watch's verdict has been 'overloaded' for 5 minutes, with {{ $labels.component }} as the"
        " largest component.",
    )


def _target(targets: Targets) -> Iterator[Alert]:
    budget = 1 - targets.objective
    for factor, long, short, severity in _BURNS:
        bound = f"> {factor * budget:.6g}"
        yield Alert(
            f"LatdiagFirstTokenTargetMissed{long.upper()}",
            _missed(long),
            f"{bound} and on (job, model) {_missed(short)} {bound}",
            "2m",
            severity,
            "{{ $labels.model }} misses its target for the first token",
            f"{{{{ $value | humanizePercentage }}}} of the requests of the last {long} got their"
            f" first token later than {targets.ttft_s:g} s; the objective allows {budget:.6g} of"
            f" all. At this rate the budget is used up {factor:g} times too fast.",
        )


def _evidence() -> Iterator[Alert]:
    yield Alert(
        "LatdiagEvidenceLost",
        ATTRIBUTED,
        "< 0.5",
        "10m",
        "warning",
        "Most requests can no longer be attributed",
        "Only {{ $value | humanizePercentage }} of the requests of the last 10 minutes had enough"
        " evidence. What the dashboards show describes these only.",
    )
    good = series("latdiag_requests", 'fate="attributed"')
    yield Alert(
        "LatdiagRequestsStopped",
        summed(good, "job", "10m"),
        f"== 0 and {summed(good, 'job', '1h')} > 0",
        "5m",
        "warning",
        "watch no longer sees requests that it can attribute",
        "There were some in the last hour, but none in the last 10 minutes. If there is traffic,"
        " the servers (or the collector before watch) no longer send spans, or these are no longer"
        " known: see what became of requests and spans in the dashboard.",
    )
    received = series("latdiag_spans_received")
    lost = series("latdiag_spans_dropped", f'reason=~"{_LOST}"')
    yield Alert(
        "LatdiagSpansDropped",
        ratio(summed(lost, "job", "10m"), summed(received, "job", "10m")),
        "> 0.01",
        "10m",
        "warning",
        "watch drops spans",
        "{{ $value | humanizePercentage }} of the spans of the last 10 minutes came too late, were"
        " more than watch holds, or were refused; the label reason of latdiag_spans_dropped_total"
        " says which.",
    )
    yield Alert(
        "LatdiagWatchGone",
        f"absent({series('latdiag_start_time_seconds')})",
        "",
        "5m",
        "warning",
        "Prometheus gets no metrics from watch",
        "watch does not run, or Prometheus does not scrape it.",
    )


def document(targets: Targets) -> str:
    """The rules as YAML."""
    lines = ["groups:", "- name: latdiag-recording", "  interval: 30s", "  rules:"]
    for rule in recordings(targets):
        lines += [f"  - record: {rule.record}", f"    expr: {_quoted(rule.expr)}"]
    lines += ["- name: latdiag-alerts", "  interval: 30s", "  rules:"]
    for alert in alerts(targets):
        lines += [
            f"  - alert: {alert.name}",
            f"    expr: {_quoted(alert.expr)}",
            f"    for: {alert.wait}",
            "    labels:",
            f"      severity: {alert.severity}",
            "    annotations:",
            f"      summary: {_quoted(alert.summary)}",
            f"      description: {_quoted(alert.description)}",
        ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A YAML string on one line: in single quotes only these quotes are special."""
    return "'" + text.replace("'", "''") + "'"
