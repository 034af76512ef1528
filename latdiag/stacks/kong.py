"""Kong Gateway: the time of its plugins and routing before it passes a request on.

A retry of an upstream that does not answer counts as Kong's own time
(developer.konghq.com/support/kong-proxy-latency-exceeds-timeout-limit-specified-on-service).
"""

from __future__ import annotations

from latdiag.stacks.signal import Knob, Mark, Signal, Stack, of

STACK = Stack(
    name="kong",
    title="Kong Gateway",
    layer="gateway",
    provenance="documented",
    versions="3",
    signals=(
        Signal(
            "kong.proxy",
            "header",
            "x-kong-proxy-latency",
            "ms",
            covers=of("gateway"),
            rest="gateway.proc",
            note="ends when the request is passed on to the server behind it",
        ),
        # Kong's nginx holds headers back until the body begins where it buffers, so this bounds
        # nothing of what the client waited.
        Signal(
            "kong.upstream",
            "header",
            "x-kong-upstream-latency",
            "ms",
            note="ends with the response headers of the server behind it, not with the stream",
        ),
    ),
    marks=(
        Mark("header", r"(via|server): .*kong(/(?P<version>[\d.]+).*)?"),
        Mark("header", r"x-kong-.*"),
    ),
    knobs=(Knob("flush", "response_buffering: false on the route"),),
)
