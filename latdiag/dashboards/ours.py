"""Panels of watch's own metrics, which several dashboards show."""

from __future__ import annotations

from latdiag.dashboards.panels import Panel, Query, Row, Variable
from latdiag.dashboards.promql import (
    MODEL,
    REPLICA,
    WATCH,
    per_request,
    quantile,
    ratio,
    series,
    share,
    summed,
)

WHICH_WATCH = Variable("watch", "Watch", "label_values(latdiag_start_time_seconds, instance)")
WHICH_MODEL = Variable(
    "model", "Model", "label_values(latdiag_request_seconds_count, model)", several=True
)
CHANGES = series("latdiag_change_seconds", WATCH)


def shares(title: str, interval: str, *matchers: str) -> Panel:
    of = "the time to the first token" if interval == "ttft" else "the whole request"
    return Panel(
        title,
        f"Share of each component in {of}: its seconds over the seconds of all components, summed"
        " over all requests. With replicas chosen: of the time that was spent at them. Names"
        " joined with + are components that no evidence tells apart.",
        "percentunit",
        (Query(share(WATCH, f'interval="{interval}"', *matchers), "{{component}}"),),
        stack=True,
    )


def seconds(title: str, interval: str, *matchers: str) -> Panel:
    of = "before the first token" if interval == "ttft" else "of a request"
    return Panel(
        title,
        f"Mean time {of} in each component. The parts add up to the mean; quantiles of components"
        " would not add up, so there are none here. Always over all replicas: the parts of one"
        " request may belong to several.",
        "s",
        (Query(per_request(interval, "", WATCH, *matchers), "{{component}}"),),
        stack=True,
    )


def quantiles(title: str, family: str, what: str, *matchers: str) -> Panel:
    chosen = (WATCH, *matchers)
    bucket = series(f"{family}_bucket", *chosen)
    total, count = (series(f"{family}_{part}", *chosen) for part in ("sum", "count"))
    return Panel(
        title,
        f"{what} A dot is one request: click it for its trace, if the data source names the"
        " traces' data source.",
        "s",
        (
            Query(quantile(0.99, bucket), "p99"),
            Query(quantile(0.95, bucket), "p95", exemplars=True),
            Query(quantile(0.5, bucket), "p50"),
            Query(ratio(summed(total), summed(count)), "mean"),
        ),
    )


def beside(stack: str) -> Row:
    """What latdiag says, as the first row of a stack's dashboard."""
    return Row(
        "What latdiag says",
        (
            shares("Where the time to the first token goes", "ttft", MODEL),
            shares("Where the time of a request goes", "request", MODEL),
            quantiles(
                "Time to first token",
                "latdiag_ttft_seconds",
                f"Time to the first token as the spans state it, to compare with {stack}'s below.",
                MODEL,
            ),
            seconds("Mean time in each component", "request", MODEL),
        ),
    )


def component(name: str) -> Query:
    """Mean seconds of one component in a request."""
    return Query(per_request("request", name, WATCH, MODEL), f"latdiag: {name}")


def rate_of_requests(*matchers: str) -> Query:
    return Query(
        summed(series("latdiag_request_seconds_count", WATCH, *matchers)), "latdiag: requests"
    )


__all__ = [
    "CHANGES",
    "REPLICA",
    "WHICH_MODEL",
    "WHICH_WATCH",
    "beside",
    "component",
    "quantiles",
    "rate_of_requests",
    "seconds",
    "shares",
]
