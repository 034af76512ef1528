"""LiteLLM's proxy: a span of the whole request, its own overhead as a histogram and a header.

The headers of a stream are sent before it ends, and so the durations in them end there: the
overhead that they report is a part of the proxy's, not all of it. The histogram
``litellm_overhead_latency_metric`` is in milliseconds but has bucket bounds for seconds, so only
its sum is usable. The span ``litellm_request`` begins before the proxy has chosen where to send
the request, so it includes work of the proxy and separates nothing; ``Received Proxy Server
Request`` has the client's ``traceparent``.
"""

from __future__ import annotations

from latdiag.stacks.figures import histogram
from latdiag.stacks.signal import HIDDEN, Knob, Mark, Signal, Stack, Switch, of

_BEHIND = of("frontend", "queue", "prefill", "interconnect", "decode") | HIDDEN

STACK = Stack(
    name="litellm",
    title="LiteLLM proxy",
    layer="gateway",
    provenance="captured",
    versions="1.108.7",
    signals=(
        Signal(
            "litellm.request",
            "span",
            "Received Proxy Server Request",
            covers=_BEHIND | of("gateway"),
            rest="gateway.proc",
            outlasts=True,
            note="ends when its callbacks are done, after the reply",
        ),
        Signal(
            "litellm.overhead_header",
            "header",
            "x-litellm-overhead-duration-ms",
            "ms",
            covers=of("gateway"),
            rest="gateway.proc",
            note="for a stream, it ends with the response headers",
        ),
        histogram(
            "litellm.e2e",
            "litellm_request_total_latency_metric",
            _BEHIND | of("gateway"),
            "gateway.proc",
        ),
        histogram("litellm.upstream", "litellm_llm_api_latency_metric", _BEHIND, "frontend.parse"),
        histogram(
            "litellm.overhead",
            "litellm_overhead_latency_metric",
            of("gateway"),
            "gateway.proc",
            unit="ms",
        ),
    ),
    marks=(
        Mark("header", r"x-litellm-.*"),
        Mark("metric", r"litellm_.*"),
        Mark("scope", "litellm"),
        Mark("service", "litellm", certain=False),
    ),
    headers=("x-litellm-response-duration-ms",),
    captures=("litellm-1.108.7",),
    knobs=(Knob("workers", "--num_workers", source="litellm --help"),),
    switches=(
        Switch(
            "spans",
            ("litellm.request",),
            'litellm_settings: callbacks: ["otel"]; OTEL_EXPORTER=otlp_grpc OTEL_ENDPOINT=URL',
        ),
        Switch(
            "/metrics",
            ("litellm.e2e", "litellm.upstream", "litellm.overhead"),
            'litellm_settings: callbacks: ["prometheus"]',
        ),
    ),
)
