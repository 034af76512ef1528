"""SGLang: one span per phase of a request, below a root span with ``gen_ai.*`` attributes.

``time_in_model_prefill`` on the root includes the queue, so phases are read from the phase spans
alone. A wait after the first token (``decode_waiting`` on a server that does both) is time in
which other requests are prefilled: interference, not queueing.
"""

from __future__ import annotations

from dataclasses import replace

from latdiag.stacks.figures import counter, gauge, histogram, reply
from latdiag.stacks.signal import HIDDEN, Key, Knob, Mark, Place, Role, Signal, Stack, Switch, of

_UNIFIED = of("frontend", "queue", "prefill", "decode") | HIDDEN
_GIVES = of("frontend", "queue", "prefill", "interconnect") | HIDDEN
_TAKES = _GIVES | of("decode")
_FIRST = {"unified": of("frontend", "queue", "prefill") | HIDDEN, "decode": _GIVES}


def _span(
    name: str, foreign: str, covers: frozenset[str], rest: str, *roles: str, prefix: bool = False
) -> Signal:
    return Signal(
        f"sglang.{name}", "span", foreign, covers=covers, rest=rest, roles=roles, prefix=prefix
    )


_FRONT = of("frontend")
#: The scheduler's phases follow each other without a gap: where there is one, a span was lost.
_GAP = "unattributed.rest"
#: A prefill server's last phase is the transfer, which may begin some time after the prompt is
#: computed.
_HELD = "interconnect.wait"
_SPANS = (
    _span("request", " Req ", _UNIFIED, "frontend.parse", "unified", prefix=True),
    _span("request", "prefill Req ", _GIVES, "frontend.parse", "prefill", prefix=True),
    _span("request", "decode Req ", _TAKES, "frontend.parse", "decode", prefix=True),
    _span("scheduler", "Scheduler [", _UNIFIED, _GAP, "unified", prefix=True),
    _span("scheduler", "Prefill Scheduler [", _GIVES, _HELD, "prefill", prefix=True),
    _span("scheduler", "Decode Scheduler [", _TAKES, _GAP, "decode", prefix=True),
    _span("tokenize", "tokenize", _FRONT, "frontend.parse"),
    _span("dispatch", "api_server_dispatch", _FRONT, "frontend.parse"),
    replace(
        _span("dp_dispatch", "dpc_dispatch", _FRONT, "frontend.parse"),
        documented=True,
        note="only with data parallelism",
    ),
    _span("process", "request_process", _FRONT, "frontend.parse"),
    _span("queue", "prefill_waiting", of("queue.admission"), "queue.admission"),
    _span("prefill", "prefill_forward", of("prefill") | HIDDEN, "prefill.own"),
    _span(
        "decode_waiting",
        "decode_waiting",
        of("decode.interference"),
        "decode.interference",
        "unified",
    ),
    _span("decode_waiting", "decode_waiting", of("queue.admission"), "queue.admission", "decode"),
    _span("decode", "decode_forward", of("decode") | HIDDEN, "decode.base"),
    _span("prefill_prepare", "prefill_prepare", _FRONT, "frontend.parse", "prefill"),
    _span(
        "prefill_bootstrap",
        "prefill_bootstrap",
        of("interconnect.wait"),
        "interconnect.wait",
        "prefill",
    ),
    _span(
        "kv_transfer",
        "prefill_transfer_kv_cache",
        of("interconnect.kv"),
        "interconnect.kv",
        "prefill",
    ),
    _span("decode_prepare", "decode_prepare", _FRONT, "frontend.parse", "decode"),
    _span(
        "decode_bootstrap",
        "decode_bootstrap",
        of("interconnect.wait"),
        "interconnect.wait",
        "decode",
    ),
    # The prefill server's whole work and the transfer, as the decode server waits for them.
    _span("decode_transferred", "decode_transferred", _GIVES, "interconnect.wait", "decode"),
)
_TTFT = tuple(
    Signal(
        "sglang.ttft",
        "attribute",
        "gen_ai.latency.time_to_first_token",
        "s",
        covers=covers,
        rest="frontend.parse",
        roles=(role,),
        bearer="sglang.request",
        starts=Place("start"),
        first_token=True,
    )
    for role, covers in _FIRST.items()
)

#: What each role has in all, and until the first token that the client sees.
_WHOLE = {"unified": _UNIFIED, "prefill": _GIVES, "decode": _TAKES}


def _of_role(
    name: str, family: str, role: str, covers: frozenset[str], rest: str, stage: str = ""
) -> Signal:
    """A histogram of one role; the label ``engine_type`` says which the server has."""
    labels = f'engine_type="{role}"' + (f',stage="{stage}"' if stage else "")
    return histogram(
        f"sglang.metrics.{name}",
        f"sglang:{family}{{{labels}}}",
        covers,
        rest,
        (role,),
        first_token=family == "time_to_first_token_seconds",
    )


_STAGES = "per_stage_req_latency_seconds"
_METRICS = (
    *(
        _of_role("e2e", "e2e_request_latency_seconds", role, covers, "frontend.parse")
        for role, covers in _WHOLE.items()
    ),
    *(
        _of_role("ttft", "time_to_first_token_seconds", role, covers, "frontend.parse")
        for role, covers in _FIRST.items()
    ),
    # The first wait only: what follows a retraction is not in it.
    *(
        _of_role("queue", "queue_time_seconds", role, of("queue.admission"), "queue.admission")
        for role in _WHOLE
    ),
    *(
        _of_role("itl", "inter_token_latency_seconds", role, of("decode") | HIDDEN, "decode.base")
        for role in _FIRST
    ),
    *(
        _of_role(
            "prefill", _STAGES, role, of("prefill") | HIDDEN, "prefill.own", "prefill_forward"
        )
        for role in ("unified", "prefill")
    ),
    *(
        _of_role(f"stage.{stage}", _STAGES, role, covers, rest, stage)
        for stage, role, covers, rest in (
            ("request_process", "unified", _FRONT, "frontend.parse"),
            ("prefill_bootstrap", "prefill", of("interconnect.wait"), "interconnect.wait"),
            ("prefill_transfer_kv_cache", "prefill", of("interconnect.kv"), "interconnect.kv"),
            ("decode_prepare", "decode", _FRONT, "frontend.parse"),
            ("decode_bootstrap", "decode", of("interconnect.wait"), "interconnect.wait"),
            ("decode_transferred", "decode", _GIVES, "interconnect.wait"),
        )
    ),
    histogram(
        "sglang.metrics.kv_latency",
        "sglang:kv_transfer_latency_ms",
        unit="ms",
        note="begins while the last chunk is still computing, so it is longer than the transfer",
    ),
    counter("sglang.metrics.requests", "sglang:num_requests_total"),
    counter("sglang.metrics.prompt_tokens", "sglang:prompt_tokens_total"),
    counter("sglang.metrics.output_tokens", "sglang:generation_tokens_total"),
    gauge("sglang.metrics.running", "sglang:num_running_reqs"),
    gauge("sglang.metrics.waiting", "sglang:num_queue_reqs"),
    gauge("sglang.metrics.retracted", "sglang:num_retracted_reqs"),
    gauge("sglang.metrics.bootstrapping", "sglang:num_prefill_bootstrap_queue_reqs"),
    gauge("sglang.metrics.transferring", "sglang:num_prefill_inflight_queue_reqs"),
    gauge("sglang.metrics.preallocating", "sglang:num_decode_prealloc_queue_reqs"),
    gauge("sglang.metrics.receiving", "sglang:num_decode_transfer_queue_reqs"),
    gauge("sglang.metrics.kv_usage", "sglang:token_usage"),
    gauge("sglang.metrics.prefix_hit_rate", "sglang:cache_hit_rate"),
    histogram(
        "sglang.metrics.dp_wait",
        "sglang:dp_attention_sync_wait_seconds",
        of("interconnect.collective"),
        "interconnect.collective",
        documented=True,
        note="only with DP attention",
    ),
    histogram(
        "sglang.metrics.load_back",
        "sglang:load_back_duration_seconds",
        of("interconnect.offload"),
        "interconnect.offload",
        documented=True,
        note="only with the hierarchical cache",
    ),
)

#: Of ``meta_info``, which streams of the OpenAI routes do not bear.
_REPLIES = (
    reply(
        "sglang.reply.e2e",
        "meta_info.e2e_latency",
        _UNIFIED,
        "frontend.parse",
        ("unified",),
        unit="s",
    ),
    reply(
        "sglang.reply.queue",
        "meta_info.queue_time",
        of("queue.admission") | {"queue.preempted"},
        "queue.admission",
        ("unified",),
        unit="s",
        documented=True,
        note="all waits, also those after a retraction; always 0 in replies that are not streamed",
    ),
    reply(
        "sglang.reply.ttft",
        "meta_info.first_token_latency",
        _FIRST["unified"],
        "frontend.parse",
        ("unified",),
        unit="s",
        first_token=True,
        documented=True,
        note="only with --enable-metrics",
    ),
)

_MANUAL = "SGLang documentation, Server Arguments"

STACK = Stack(
    name="sglang",
    title="SGLang",
    layer="engine",
    provenance="captured",
    versions="0.5.16 to 0.5.23",
    signals=(*_SPANS, *_TTFT, *_METRICS, *_REPLIES),
    marks=(
        Mark("scope", "sglang server"),
        Mark("metric", r"sglang:.*"),
        Mark("models", "sglang"),
    ),
    roles=(
        Role("prefill", span="prefill Req "),
        Role("decode", span="decode Req "),
        Role("unified", span=" Req "),
    ),
    keys=(
        Key("gen_ai.request.id", "response_id"),
        Key("rid", "response_id"),
        Key("rid", "request_id"),
    ),
    switches=(
        Switch(
            "spans of every phase",
            ("sglang.request", "sglang.queue", "sglang.prefill", "sglang.decode"),
            "--enable-trace --otlp-traces-endpoint HOST:PORT",
        ),
        Switch(
            "/metrics",
            ("sglang.metrics.queue", "sglang.metrics.prefill", "sglang.metrics.ttft"),
            "--enable-metrics",
        ),
    ),
    refusals=(r"temperature must be non-negative, got -",),
    knobs=(
        Knob("admitted", "--max-running-requests", source=_MANUAL),
        Knob("frontends", "--tokenizer-worker-num", since="0.5.3", source=_MANUAL),
        Knob("chunk", "--chunked-prefill-size", source=_MANUAL),
        Knob("apart", "--disaggregation-mode", source=_MANUAL),
        Knob("memory", "--mem-fraction-static, --kv-cache-dtype fp8_e4m3", source=_MANUAL),
        Knob("parallel", "--tp-size", source=_MANUAL),
        Knob("speculation", "--speculative-algorithm", source=_MANUAL),
        Knob("transfer", "--disaggregation-transfer-backend", source=_MANUAL),
    ),
    captures=("sglang-0.5.16-h200",),
    texts=("rid", "bootstrap_room", "tp_rank", "pp_rank", "dp_rank", "thread_label"),
    ranks=("tp_rank", "pp_rank"),
)
