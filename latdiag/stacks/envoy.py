"""Envoy: a span of the incoming request, and one of the request that it sends upstream."""

from __future__ import annotations

from latdiag.stacks.signal import HIDDEN, Key, Knob, Mark, Signal, Stack, Switch, of

_BEHIND = of("frontend", "queue", "prefill", "interconnect", "decode") | HIDDEN

STACK = Stack(
    name="envoy",
    title="Envoy",
    layer="gateway",
    provenance="captured",
    versions="1.40",
    signals=(
        Signal(
            "envoy.ingress",
            "span",
            "ingress",
            covers=_BEHIND | of("gateway"),
            rest="gateway.proc",
        ),
        # What it waits for: the server behind it, and the way there.
        Signal(
            "envoy.upstream",
            "span",
            "router ",
            covers=_BEHIND,
            rest="frontend.parse",
            prefix=True,
        ),
        # It ends with the upstream's headers, which some engines send long before the first token.
        # It begins when the router has the whole request: filters before it (a delay, an external
        # authorisation, a rate limit) are not in it. Measured with a delay of 250 ms: 21 of 271.
        Signal(
            "envoy.upstream_time",
            "header",
            "x-envoy-upstream-service-time",
            "ms",
            until_headers=True,
            documented=True,
            note="ends with the response headers of the server behind it, not with the stream",
        ),
    ),
    marks=(
        Mark("scope", "envoy"),
        Mark("header", "server: envoy"),
        Mark("header", r"x-envoy-.*"),
        Mark("service", "envoy.*", certain=False),
    ),
    keys=(Key("guid:x-request-id", "request_id"),),
    knobs=(Knob("workers", "--concurrency", source="Envoy documentation, command line options"),),
    switches=(
        Switch(
            "spans",
            ("envoy.ingress", "envoy.upstream"),
            "tracing.provider envoy.tracers.opentelemetry with spawn_upstream_span: true",
        ),
    ),
    captures=("envoy-1.40-vllm",),
    texts=("guid:x-request-id", "upstream_cluster"),
)
