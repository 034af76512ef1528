"""LMDeploy: histograms like vLLM's. Decode time ends in the frontend, so it includes some IPC."""

from __future__ import annotations

from latdiag.stacks.figures import gauge, histogram
from latdiag.stacks.signal import HIDDEN, Knob, Mark, Stack, Switch, of

_FIRST = of("frontend", "queue", "prefill") | HIDDEN
_MADE = of("decode") | HIDDEN

_MANUAL = "lmdeploy serve api_server --help"

STACK = Stack(
    name="lmdeploy",
    title="LMDeploy",
    layer="engine",
    provenance="documented",
    versions="1263d5c",
    signals=(
        histogram(
            "lmdeploy.e2e",
            "lmdeploy:e2e_request_latency_seconds",
            _FIRST | _MADE,
            "frontend.parse",
        ),
        histogram(
            "lmdeploy.ttft",
            "lmdeploy:time_to_first_token_seconds",
            _FIRST,
            "frontend.parse",
            first_token=True,
        ),
        histogram(
            "lmdeploy.queue",
            "lmdeploy:request_queue_time_seconds",
            of("queue.admission"),
            "queue.admission",
        ),
        histogram(
            "lmdeploy.prefill",
            "lmdeploy:request_prefill_time_seconds",
            of("prefill") | HIDDEN,
            "prefill.own",
        ),
        histogram("lmdeploy.decode", "lmdeploy:request_decode_time_seconds", _MADE, "decode.base"),
        gauge("lmdeploy.running", "lmdeploy:num_requests_running"),
        gauge("lmdeploy.waiting", "lmdeploy:num_requests_waiting"),
    ),
    marks=(Mark("metric", r"lmdeploy:.*"),),
    knobs=(
        Knob("admitted", "--max-batch-size", source=_MANUAL),
        Knob("chunk", "--max-prefill-token-num", source=_MANUAL),
        Knob("memory", "--cache-max-entry-count, --quant-policy 8", source=_MANUAL),
        Knob("parallel", "--tp", source=_MANUAL),
    ),
    switches=(
        Switch(
            "/metrics",
            ("lmdeploy.queue", "lmdeploy.prefill", "lmdeploy.decode"),
            "leave out --disable-metrics",
        ),
    ),
)
