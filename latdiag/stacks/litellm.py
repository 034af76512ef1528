"""LiteLLM's proxy: its own overhead as a histogram and a header.

Headers of a stream go out before it ends, so their durations end there too. The histogram
``litellm_overhead_latency_metric`` is in milliseconds with bounds made for seconds: only its sum
says something.
"""

from __future__ import annotations

from latdiag.stacks.figures import histogram
from latdiag.stacks.signal import HIDDEN, Mark, Signal, Stack, Switch, of

_BEHIND = of("frontend", "queue", "prefill", "interconnect", "decode") | HIDDEN

STACK = Stack(
    name="litellm",
    title="LiteLLM proxy",
    layer="gateway",
    provenance="documented",
    versions="1.109.1",
    signals=(
        Signal(
            "litellm.overhead_header",
            "header",
            "x-litellm-overhead-duration-ms",
            "ms",
            covers=of("gateway"),
            rest="gateway.proc",
            note="of a stream: until its headers",
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
    marks=(Mark("header", r"x-litellm-.*"), Mark("metric", r"litellm_.*")),
    headers=("x-litellm-response-duration-ms",),
    switches=(
        Switch(
            "/metrics",
            ("litellm.e2e", "litellm.upstream", "litellm.overhead"),
            'litellm_settings: callbacks: ["prometheus"]',
        ),
    ),
)
