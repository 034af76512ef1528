"""SGLang's router (Shepherd Model Gateway): ``smg_*`` metrics in front of any engine.

Its request histograms end when the headers of the worker's stream are there (8 ms where the
stream took far longer), so they are kept and claim nothing.
"""

from __future__ import annotations

from latdiag.stacks.figures import counter, gauge, histogram
from latdiag.stacks.signal import HIDDEN, Mark, Stack, Switch, of

_TO_HEADERS = "until the headers of the worker's stream: no interval of the stream"

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
            note="with gRPC workers only",
        ),
        counter("sglang_router.requests", "smg_router_requests_total"),
        counter(
            "sglang_router.retries",
            "smg_worker_retries_total",
            documented=True,
            note="after a retry",
        ),
        gauge("sglang_router.connections", "smg_http_connections_active"),
        gauge(
            "sglang_router.running",
            "smg_worker_requests_active",
            documented=True,
            note="0.3.2, by its binary",
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
