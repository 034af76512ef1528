"""NVIDIA Dynamo: a frontend with a router, and workers around an engine.

With separate prefill workers, the router hands a request to both workers at once. The prefill
worker's ``handle_payload`` lasts until the KV cache has been sent, so it includes the transfer;
the decode worker's begins at the same time, waits for the KV cache and then decodes. ``ttft_ms``
in a reply's ``nvext.timing`` ends with the prefill, before the transfer, so the client sees its
first token later. ``ttft_ms`` on the span ``http-request``, and the frontend's histogram, end
when the frontend sends the first token.
"""

from __future__ import annotations

from latdiag.stacks.figures import counter, gauge, histogram, reply
from latdiag.stacks.signal import HIDDEN, Key, Knob, Mark, Place, Role, Signal, Stack, Switch, of

_WORK = of("queue", "prefill") | HIDDEN
_ALL = _WORK | of("interconnect", "decode")
_ROUTED = of("gateway.proc")
#: Of a worker that only prefills: with the way of its KV cache to the other.
_SENT = _WORK | of("interconnect.kv")
#: Of one that only decodes: it waits for the other, and does nothing of what that does.
_RECEIVED = of("interconnect", "decode") | HIDDEN


def _span(name: str, foreign: str, covers: frozenset[str], rest: str = "", *roles: str) -> Signal:
    return Signal(f"dynamo.{name}", "span", foreign, covers=covers, rest=rest, roles=roles)


_SPANS = (
    _span("request", "http-request", _ALL | of("frontend") | _ROUTED, "frontend.parse"),
    Signal(
        "dynamo.first",
        "attribute",
        "ttft_ms",
        unit="ms",
        covers=_ALL | of("frontend") | _ROUTED,
        rest="frontend.parse",
        bearer="dynamo.request",
        starts=Place("start"),
        first_token=True,
        note="ends when the frontend sends the first token, so it includes the KV transfer",
    ),
    _span("select", "kv_router.select_worker", _ROUTED, "gateway.proc"),
    _span("route", "kv_router.route_request", _SENT | _ROUTED, "gateway.proc", "prefill"),
    _span("route", "kv_router.route_request", _ALL | _ROUTED, "gateway.proc", "decode"),
    _span(
        "route",
        "kv_router.route_request",
        _WORK | of("decode") | _ROUTED,
        "gateway.proc",
        "unified",
    ),
    _span("worker", "handle_payload", _SENT, "", "prefill"),
    _span("worker", "handle_payload", _RECEIVED, "interconnect.wait", "decode"),
    _span("worker", "handle_payload", _WORK | of("decode"), "", "unified"),
)

#: Until the first token of the prefill worker: a transfer after it is not in there.
_FIRST = of("frontend") | _ROUTED | _WORK
_ESTIMATE = "the router's estimate, not a measurement: it said 0 for a transfer of 400 ms"
_METRICS = (
    histogram(
        "dynamo.metrics.e2e",
        "dynamo_frontend_request_duration_seconds",
        _ALL | of("frontend") | _ROUTED,
        "frontend.parse",
    ),
    histogram(
        "dynamo.metrics.ttft",
        "dynamo_frontend_time_to_first_token_seconds",
        _FIRST | of("interconnect"),
        "frontend.parse",
        note="with separate prefill workers, it includes the KV transfer",
    ),
    histogram(
        "dynamo.metrics.itl",
        "dynamo_frontend_inter_token_latency_seconds",
        of("decode") | HIDDEN,
        "decode.base",
        note="one sample per token",
    ),
    histogram(
        "dynamo.metrics.preprocess",
        'dynamo_frontend_stage_duration_seconds{stage="preprocess"}',
        of("frontend"),
        "frontend.parse",
    ),
    histogram(
        "dynamo.metrics.routing",
        "dynamo_router_overhead_total_ms",
        _ROUTED,
        "gateway.proc",
        unit="ms",
        note="one sample per routing decision: two per request with separate prefill workers",
    ),
    histogram(
        "dynamo.metrics.permit_wait",
        "dynamo_work_handler_permit_wait_seconds",
        of("queue.admission"),
        "queue.admission",
        documented=True,
        note="only for a worker pool with a limit; comes before the engine's own queue",
    ),
    histogram(
        "dynamo.metrics.kv_estimate",
        "dynamo_component_router_kv_transfer_estimated_latency_seconds",
        note=_ESTIMATE,
    ),
    counter(
        "dynamo.metrics.requests",
        'dynamo_frontend_requests_total{status="success"}',
        note="its histograms of durations count refused requests too",
    ),
    counter("dynamo.metrics.output_tokens", "dynamo_frontend_output_tokens_total"),
    gauge(
        "dynamo.metrics.queued",
        "dynamo_frontend_queued_requests",
        note="counts requests until their first reply, so those in prefill count as queued",
    ),
    gauge("dynamo.metrics.running", "dynamo_frontend_inflight_requests"),
    gauge("dynamo.metrics.router_queue", "dynamo_frontend_router_queue_pending_requests"),
    gauge("dynamo.metrics.worker_queue", "dynamo_work_handler_queue_depth"),
)

#: Of ``nvext.timing``, by the frontend's clock: the first two add up to ttft_ms. "Prefill start"
#: is stamped in the router, so the engine's queue is in prefill_time_ms.
_REPLIES = (
    reply(
        "dynamo.reply.before",
        "nvext.timing.prefill_wait_time_ms",
        of("frontend", "queue.admission") | _ROUTED,
        "gateway.proc",
    ),
    reply(
        "dynamo.reply.prefill",
        "nvext.timing.prefill_time_ms",
        _WORK,
        "prefill.own",
        ("prefill", "unified"),
        bearer="dynamo.worker",
        starts=Place("start"),
        note="what the prefill worker spends after it is the KV transfer",
    ),
    reply(
        "dynamo.reply.ttft",
        "nvext.timing.ttft_ms",
        _FIRST,
        "frontend.parse",
        note="with separate prefill workers, it ends before the KV transfer",
    ),
    reply(
        "dynamo.reply.e2e",
        "nvext.timing.total_time_ms",
        _ALL | of("frontend") | _ROUTED,
        "frontend.parse",
    ),
    reply(
        "dynamo.reply.kv_estimate",
        "nvext.timing.kv_transfer_estimated_latency_ms",
        note=_ESTIMATE,
    ),
)

_MANUAL = "NVIDIA Dynamo documentation, backends"

STACK = Stack(
    name="dynamo",
    title="NVIDIA Dynamo",
    layer="engine",
    provenance="captured",
    versions="1.6.1",
    signals=(*_SPANS, *_METRICS, *_REPLIES),
    marks=(
        Mark("span", r"kv_router\..*"),
        Mark("metric", r"dynamo_(frontend|component|router|work_handler)_.*"),
        Mark("service", "dynamo-.*", certain=False),
        Mark("span", "handle_payload", certain=False),
        Mark("reply", r"nvext\.(timing|worker_id)"),
    ),
    roles=(
        Role("prefill", span="kv_router.route_request", attribute=("phase", "Prefill")),
        Role("decode", span="kv_router.route_request", attribute=("phase", "Decode")),
        Role("unified", span="kv_router.route_request", attribute=("phase", "Aggregated")),
        Role("prefill", span="handle_payload", attribute=("component", "prefill")),
    ),
    keys=(Key("x_request_id", "request_id"),),
    switches=(
        Switch(
            "spans",
            ("dynamo.request", "dynamo.route", "dynamo.worker"),
            "DYN_LOGGING_JSONL=true OTEL_EXPORT_ENABLED=true"
            " OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=URL",
        ),
        Switch(
            "the workers' /metrics",
            ("dynamo.metrics.permit_wait", "dynamo.metrics.worker_queue"),
            "DYN_SYSTEM_PORT=PORT on each worker, --metrics http://WORKER:PORT/metrics here",
        ),
        Switch(
            "timings in replies",
            ("dynamo.reply.before", "dynamo.reply.prefill", "dynamo.reply.ttft"),
            '"nvext":{"extra_fields":["timing"]} in the request',
        ),
    ),
    refusals=(r"Validation: Temperature must(?: be between |\[request\])",),
    knobs=(
        Knob("frontends", "more replicas of dynamo.frontend", source=_MANUAL, of_workers=True),
        Knob(
            "apart",
            "--disaggregation-mode of the workers",
            since="1.0",
            source=_MANUAL,
        ),
        Knob(
            "admitted",
            "--max-num-seqs (dynamo.vllm) or --max-running-requests (dynamo.sglang)",
            source=_MANUAL,
            of_workers=True,
        ),
        Knob(
            "chunk",
            "--max-num-batched-tokens (dynamo.vllm) or --chunked-prefill-size (dynamo.sglang)",
            source=_MANUAL,
            of_workers=True,
        ),
        Knob(
            "parallel",
            "--tensor-parallel-size (dynamo.vllm) or --tp-size (dynamo.sglang)",
            source=_MANUAL,
            of_workers=True,
        ),
    ),
    captures=("dynamo-1.6.1",),
    texts=("phase", "component", "endpoint", "x_request_id", "request_id"),
)
