"""PromQL as the panels and rules use it.

Shares and means are ratios of sums, never means of ratios; quantiles come from summed buckets.
"""

from __future__ import annotations

from latdiag.watch.metrics import BY_NAME

#: The window of a rate in a panel: Grafana makes it long enough for the scrape interval.
PANEL = "$__rate_interval"
#: Which watch a panel shows, and which of its requests.
WATCH = 'instance="$watch"'
MODEL = 'model=~"$model"'
REPLICA = 'replica=~"$replica"'


def series(name: str, *matchers: str) -> str:
    """The selector of one of watch's metrics. ``name``: a family of the table, or the
    ``_bucket``, ``_sum`` or ``_count`` of a histogram; KeyError where the table has none."""
    family, _, part = name.rpartition("_")
    if part in ("bucket", "sum", "count") and family in BY_NAME:
        sample = name
    else:
        sample = BY_NAME[name].sample
    return native(sample, *matchers)


def native(name: str, *matchers: str) -> str:
    """The selector of a metric of a serving stack."""
    return f"{name}{{{','.join(matchers)}}}" if matchers else name


def summed(selector: str, by: str = "", window: str = PANEL) -> str:
    """Increase per second, summed over everything but the labels ``by``."""
    rate = f"rate({selector}[{window}])"
    return f"sum by ({by}) ({rate})" if by else f"sum({rate})"


def ratio(top: str, bottom: str) -> str:
    return f"{top} / {bottom}"


def mean(name: str, *matchers: str, by: str = "") -> str:
    """Mean of a foreign histogram or summary: its sums over its counts."""
    total, count = (native(f"{name}_{part}", *matchers) for part in ("sum", "count"))
    return ratio(summed(total, by), summed(count, by))


def quantile(q: float, bucket: str, by: str = "", window: str = PANEL) -> str:
    """A quantile over all series of the selector; ``by``: labels kept apart."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, {summed(bucket, labels, window)})"


def share(*matchers: str, by: str = "", window: str = PANEL) -> str:
    """Share of each component in the time of its requests; ``by``: labels kept apart."""
    total = series("latdiag_component_seconds_sum", *matchers)
    labels = f"{by}, component" if by else "component"
    whole = summed(total, by, window)
    return f"{summed(total, labels, window)} / on ({by}) group_left () {whole}"


def per_request(interval: str, component: str = "", *matchers: str) -> str:
    """Mean seconds of a request in each component (or in one)."""
    which = (f'interval="{interval}"', *((f'component="{component}"',) if component else ()))
    total = series("latdiag_component_seconds_sum", *which, *matchers)
    whole = "latdiag_ttft_seconds_count" if interval == "ttft" else "latdiag_request_seconds_count"
    count = summed(series(whole, *matchers))
    if component:
        return ratio(summed(total), count)
    return f"{summed(total, 'component')} / on () group_left () {count}"


def attributed(*matchers: str, by: str = "", window: str = PANEL) -> str:
    """Requests that were attributed over all requests of known stacks: what other programs send
    to the same place is no request of a server."""
    good, known = (
        series("latdiag_requests", *matchers, fate)
        for fate in ('fate="attributed"', 'fate!="unknown"')
    )
    return ratio(summed(good, by, window), summed(known, by, window))
