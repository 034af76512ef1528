"""The dashboard of gateways before the engines: Envoy and LiteLLM."""

from __future__ import annotations

from latdiag.dashboards.beside import dashboard, gauges, quantiles, rates
from latdiag.dashboards.ours import component
from latdiag.dashboards.panels import Panel, Query, Row
from latdiag.dashboards.promql import mean, native, summed


def _litellm_own() -> str:
    whole, upstream = (
        summed(native(f"litellm_{name}_latency_metric_sum"))
        for name in ("request_total", "llm_api")
    )
    count = summed(native("litellm_request_total_latency_metric_count"))
    return f"({whole} - {upstream}) / {count}"


_ENVOY = Row(
    "Envoy",
    (
        Panel(
            "Gateway beside Envoy's request time",
            "Envoy's time runs from the first byte of the request to the end of the reply, so it"
            " contains the engine. latdiag's is what the gateway itself took.",
            "s",
            (
                component("gateway"),
                Query(f"{mean('envoy_http_downstream_rq_time')} / 1000", "Envoy: whole request"),
            ),
        ),
        Panel(
            "Connecting to the engines",
            "Mean time that Envoy took to open a connection.",
            "s",
            (
                Query(
                    " / ".join(
                        (
                            mean("envoy_cluster_upstream_cx_connect_ms", by="envoy_cluster_name"),
                            "1000",
                        )
                    ),
                    "{{envoy_cluster_name}}",
                ),
            ),
        ),
        gauges(
            "Requests that Envoy holds",
            "Active requests, and those that wait for a connection to an engine.",
            "short",
            {
                "envoy_cluster_upstream_rq_active": "active",
                "envoy_cluster_upstream_rq_pending_active": "waiting",
            },
            by="envoy_cluster_name",
        ),
        rates(
            "Retries, time-outs and overflow",
            "Each second, over all clusters. A retry hides a slow or broken engine from the"
            " client, but not from its latency.",
            "short",
            {
                "envoy_cluster_upstream_rq_retry": "retries",
                "envoy_cluster_upstream_rq_timeout": "time-outs",
                "envoy_cluster_upstream_rq_pending_overflow": "refused: too many waiting",
            },
        ),
    ),
)

_LITELLM = Row(
    "LiteLLM",
    (
        Panel(
            "Gateway beside LiteLLM's own time",
            "LiteLLM's own time is its total minus the time of the call to the engine: the"
            " difference of two sums, over the number of requests.",
            "s",
            (component("gateway"), Query(_litellm_own(), "LiteLLM: its own time")),
        ),
        quantiles(
            "Time to first token as LiteLLM measures it",
            "Of the call to the engine, streams only.",
            "litellm_llm_api_time_to_first_token_metric",
        ),
        quantiles(
            "Whole requests as LiteLLM measures them",
            "From the receipt of a request to the end of its reply.",
            "litellm_request_total_latency_metric",
        ),
        rates(
            "Requests and failures",
            "Each second.",
            "reqps",
            {
                "litellm_proxy_total_requests_metric_total": "requests",
                "litellm_deployment_total_requests_total": "calls to engines",
            },
        ),
    ),
)

GATEWAYS = dashboard("gateways", "the gateway", "", (_ENVOY, _LITELLM))
