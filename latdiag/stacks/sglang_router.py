"""SGLang's router (Shepherd Model Gateway): ``smg_*`` metrics in front of any engine.

Its request histograms end with the worker's response headers (8 ms for streams that took far
longer), so latdiag keeps them but attributes no time by them.
"""

from __future__ import annotations

from latdiag.stacks.figures import counter, gauge, histogram
from latdiag.stacks.signal import HIDDEN, Mark, Stack, Switch, of

_TO_HEADERS = "ends with the worker's response headers, long before the stream ends"

STACK = Stack(
    name="sglang_router",
    title="SGLang router",
    layer="gateway",
    provenance="captured",
    versions="0.3.2",
    signals=(
        histogram("sglang_router.http", "smg_http_request_duration_seconds", note=_TO_HEADERS),
        histogram(
            "sglang_router.request", "smg_router_request_duration_seconds", note=_TO_HEADERS
        ),
        histogram(
            "sglang_router.ttft",
            "smg_router_ttft_seconds",
            of("gateway", "frontend", "queue", "prefill") | HIDDEN,
            "gateway.proc",
            documented=True,
            note="only with gRPC workers",
        ),
        counter("sglang_router.requests", "smg_router_requests_total"),
        counter(
            "sglang_router.retries",
            "smg_worker_retries_total",
            documented=True,
            note="only after a retry",
        ),
        gauge("sglang_router.connections", "smg_http_connections_active"),
        gauge(
            "sglang_router.running",
            "smg_worker_requests_active",
            documented=True,
            note="found in the binary of 0.3.2",
        ),
    ),
    marks=(Mark("metric", r"smg_(router|worker|http)_.*"),),
    switches=(
        Switch(
            "/metrics, on a port of its own",
            ("sglang_router.http", "sglang_router.requests"),
            "--prometheus-port PORT, --metrics http://ROUTER:PORT/metrics here",
        ),
    ),
    captures=("sglang_router",),
)
