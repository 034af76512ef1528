"""The dashboard to open first: where time goes now, what changed, what the evidence covers."""

from __future__ import annotations

from latdiag.dashboards.ours import (
    CHANGES,
    WHICH_MODEL,
    WHICH_WATCH,
    quantiles,
    rate_of_requests,
    seconds,
    shares,
)
from latdiag.dashboards.panels import Dashboard, Panel, Query, Row, Variable
from latdiag.dashboards.promql import (
    MODEL,
    REPLICA,
    WATCH,
    attributed,
    quantile,
    ratio,
    series,
    share,
    summed,
)
from latdiag.watch.metrics import GROUP, TTFT_S, WINDOWS

_CHOSEN = (MODEL, REPLICA)
_WINDOW = 'window="$window"'
#: As the client of Prometheus for Python writes a bound, and Prometheus 3 stores it.
BOUNDS = tuple(str(float(bound)) for bound in TTFT_S)


def _within() -> str:
    chosen = (WATCH, *_CHOSEN)
    return ratio(
        summed(series("latdiag_ttft_seconds_bucket", *chosen, 'le="$slo"')),
        summed(series("latdiag_ttft_seconds_count", *chosen)),
    )


_NOW = Row(
    "Now",
    (
        Panel(
            "Verdict",
            "The largest component of the chosen window, the kind of verdict and how sure it is."
            " Empty while no request has been attributed in the window.",
            "none",
            (
                Query(
                    f"{series('latdiag_dominant', WATCH, _WINDOW)} == 1",
                    "{{kind}}: {{component}} ({{confidence}})",
                    instant=True,
                ),
            ),
            kind="stat",
            width=6,
            height=5,
            text=True,
        ),
        Panel(
            "Time to first token",
            "Mean and 95th percentile of all requests of the chosen models and replicas.",
            "s",
            (
                Query(
                    ratio(
                        summed(series("latdiag_ttft_seconds_sum", WATCH, *_CHOSEN)),
                        summed(series("latdiag_ttft_seconds_count", WATCH, *_CHOSEN)),
                    ),
                    "mean",
                ),
                Query(
                    quantile(0.95, series("latdiag_ttft_seconds_bucket", WATCH, *_CHOSEN)), "p95"
                ),
            ),
            kind="stat",
            width=6,
            height=5,
        ),
        Panel(
            "Requests",
            "Requests that ended, each second.",
            "reqps",
            (rate_of_requests(*_CHOSEN),),
            kind="stat",
            width=4,
            height=5,
        ),
        Panel(
            "First token within the target",
            "Share of requests whose first token came within the time chosen as target above.",
            "percentunit",
            (Query(_within(), "within target"),),
            kind="stat",
            width=4,
            height=5,
        ),
        Panel(
            "Requests with evidence",
            "Share of the requests of known stacks that could be attributed. Everything on this"
            " page is about these requests only.",
            "percentunit",
            (Query(attributed(WATCH), "attributed"),),
            kind="stat",
            width=4,
            height=5,
        ),
    ),
)

_WHERE = Row(
    "Where the time goes",
    (
        shares("Shares of the time to the first token", "ttft", *_CHOSEN),
        shares("Shares of a request", "request", *_CHOSEN),
        seconds("Mean time to the first token, in parts", "ttft", MODEL),
        seconds("Mean time of a request, in parts", "request", MODEL),
    ),
)

_MEAN = series("latdiag_component_share", WATCH, _WINDOW, 'interval="request"', MODEL)
_TAIL = series("latdiag_component_tail_share", WATCH, _WINDOW, MODEL)


def _line(expr: str) -> str:
    """With no other label than those by which the table's columns become one line; each sum is
    of one series, since one watch is chosen."""
    return f"sum by (model, component) ({expr})"


_TAILS = Row(
    "Slowest requests against all",
    (
        Panel(
            "Shares: all requests, and the slowest 5 %",
            "Ratios of sums over the chosen window. A component whose share grows in the slowest"
            " requests is what makes them slow. Empty where fewer than 30 slow requests exist. A"
            " line without a model is about all models.",
            "percentunit",
            (
                Query(_line(_MEAN), "all requests", instant=True),
                Query(_line(_TAIL), "slowest 5 %", instant=True),
                Query(_line(f"{_TAIL} - ignoring (interval) {_MEAN}"), "difference", instant=True),
            ),
            kind="table",
        ),
        quantiles(
            "Time to first token: quantiles and mean",
            "latdiag_ttft_seconds",
            "Quantiles are estimated from the histogram, so they are as exact as its bounds.",
            *_CHOSEN,
        ),
        quantiles(
            "Whole requests: quantiles and mean",
            "latdiag_request_seconds",
            "From the first server's begin to its end.",
            *_CHOSEN,
        ),
        quantiles(
            "Time for each output token after the first",
            "latdiag_tpot_seconds",
            "Only requests whose spans state how many tokens they returned.",
            *_CHOSEN,
        ),
    ),
)


def _since() -> str:
    now, hour = (
        series("latdiag_component_share", WATCH, f'window="{window}"', 'interval="request"', MODEL)
        for window in ("5m", "60m")
    )
    return f"{now} - ignoring (window) {hour}"


_CHANGED = Row(
    "What changed",
    (
        Panel(
            "Changes that hold",
            "By how much a metric moved, for which component and replica, and what watch believes"
            " is the cause. Empty while nothing has changed.",
            "s",
            (Query(series("latdiag_change_seconds", WATCH, MODEL), "moved by", instant=True),),
            kind="table",
            hidden=("__name__", "instance", "job"),
        ),
        Panel(
            "Shares of the last 5 minutes against the last hour",
            "Above zero: the component takes a larger share now than in the last hour."
            " A line without a model is about all models.",
            "percentunit",
            (Query(_since(), "{{model}}: {{component}}"),),
        ),
    ),
)

_WHO = Row(
    "Who",
    (
        Panel(
            "Mean time to first token by the chosen label",
            "One line for each model, replica, route or tenant, as chosen above. Routes and"
            " tenants exist only where watch has been given their attributes.",
            "s",
            (
                Query(
                    ratio(
                        summed(series("latdiag_ttft_seconds_sum", WATCH, *_CHOSEN), "$group"),
                        summed(series("latdiag_ttft_seconds_count", WATCH, *_CHOSEN), "$group"),
                    ),
                    "{{$group}}",
                ),
            ),
        ),
        Panel(
            "95th percentile of the time to first token by the chosen label",
            "Computed from the buckets of all requests that share the label's value.",
            "s",
            (
                Query(
                    quantile(
                        0.95, series("latdiag_ttft_seconds_bucket", WATCH, *_CHOSEN), "$group"
                    ),
                    "{{$group}}",
                ),
            ),
        ),
        Panel(
            "Share of the queue in the time to first token, by replica",
            "Of the time that requests spend at each replica. A replica whose queue takes more"
            " than that of the others gets more than it can serve. Empty where evidence does not"
            " tell the queue from other components.",
            "percentunit",
            (
                Query(
                    " ".join(
                        (
                            summed(
                                series(
                                    "latdiag_component_seconds_sum",
                                    WATCH,
                                    'interval="ttft"',
                                    'component="queue"',
                                    *_CHOSEN,
                                ),
                                "replica",
                            ),
                            "/",
                            summed(
                                series(
                                    "latdiag_component_seconds_sum",
                                    WATCH,
                                    'interval="ttft"',
                                    *_CHOSEN,
                                ),
                                "replica",
                            ),
                        )
                    ),
                    "{{replica}}",
                ),
            ),
        ),
        Panel(
            "Components by model",
            "Shares of the time to the first token for each model: ratios of sums.",
            "percentunit",
            (
                Query(
                    share(WATCH, 'interval="ttft"', *_CHOSEN, by="model"),
                    "{{model}}: {{component}}",
                ),
            ),
        ),
    ),
)

_COVERAGE = Row(
    "What the evidence covers",
    (
        Panel(
            "Requests by what became of them",
            "Attributed, or the reason why not. Unknown: a trace of no stack that latdiag knows.",
            "reqps",
            (Query(summed(series("latdiag_requests", WATCH), "fate"), "{{fate}}"),),
            stack=True,
        ),
        Panel(
            "Spans",
            "Spans that arrived, that led to an attributed request, and that were dropped, each"
            " second.",
            "short",
            (
                Query(summed(series("latdiag_spans_received", WATCH)), "received"),
                Query(summed(series("latdiag_spans_attributed", WATCH)), "attributed"),
                Query(
                    summed(series("latdiag_spans_dropped", WATCH), "reason"), "dropped: {{reason}}"
                ),
            ),
        ),
        Panel(
            "Time that no evidence covers",
            "Seconds of requests that belong to no component, over all seconds of requests.",
            "percentunit",
            (
                Query(
                    ratio(
                        summed(series("latdiag_unattributed_seconds", WATCH, MODEL)),
                        summed(series("latdiag_request_seconds_sum", WATCH, MODEL)),
                    ),
                    "unattributed",
                ),
            ),
            width=8,
        ),
        Panel(
            "Coverage and sampling",
            "Attributed requests of the chosen window, and the share of traces that the senders"
            " sample. Sampling is absent where spans do not state it.",
            "percentunit",
            (
                Query(series("latdiag_evidence_coverage_ratio", WATCH, _WINDOW), "attributed"),
                Query(series("latdiag_sampled_ratio", WATCH), "sampled"),
            ),
            width=8,
        ),
        Panel(
            "Open requests and spans",
            "Requests whose spans are not complete yet. A steady rise means that ends of traces"
            " do not arrive.",
            "short",
            (
                Query(series("latdiag_traces_open", WATCH), "requests"),
                Query(series("latdiag_spans_open", WATCH), "spans"),
            ),
            width=8,
        ),
        Panel(
            "Bounds that were reached",
            "Requests and observations that were counted under the label value 'other', each"
            " second. Zero as long as labels have few values.",
            "short",
            (
                Query(
                    summed(series("latdiag_labels_folded", WATCH), "label"), "folded: {{label}}"
                ),
                Query(
                    summed(series("latdiag_series_refused", WATCH), "metric"),
                    "refused: {{metric}}",
                ),
            ),
        ),
        Panel(
            "Forwarded exports",
            "Exports that watch passed on, and those that it could not pass on, each second."
            " Empty without --forward.",
            "short",
            (Query(summed(series("latdiag_forwarded_exports", WATCH), "outcome"), "{{outcome}}"),),
        ),
    ),
)

OVERVIEW = Dashboard(
    "latdiag-overview",
    "latdiag: where the latency goes",
    "What latdiag watch sees of production traffic: the verdict, the components, the slowest"
    " requests, what changed, and how much of the traffic the evidence covers.",
    (
        WHICH_WATCH,
        WHICH_MODEL,
        Variable(
            "replica",
            "Replica",
            'label_values(latdiag_request_seconds_count{model=~"$model"}, replica)',
            several=True,
        ),
        Variable("window", "Window", values=(WINDOWS[1], WINDOWS[0], WINDOWS[2])),
        Variable(
            "group", "Lines for each", values=("replica", *(g for g in GROUP if g != "replica"))
        ),
        Variable(
            "slo",
            "Target: first token within (s)",
            values=("2.5", *(b for b in BOUNDS if b != "2.5")),
        ),
    ),
    (_NOW, _WHERE, _TAILS, _CHANGED, _WHO, _COVERAGE),
    changes=CHANGES,
)
