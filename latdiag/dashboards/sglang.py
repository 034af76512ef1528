"""The dashboard of SGLang."""

from __future__ import annotations

from latdiag.dashboards.beside import dashboard, gauges, means, quantiles, rates
from latdiag.dashboards.panels import Panel, Query, Row
from latdiag.dashboards.promql import mean, native

_SGLANG = 'model_name=~"$served"'
SGLANG = dashboard(
    "sglang",
    "SGLang",
    "label_values(sglang:num_running_reqs, model_name)",
    (
        Row(
            "Side by side",
            (
                means(
                    "Queue: means",
                    "SGLang observes only the first wait of a request, without waits after it was"
                    " retracted.",
                    {"queue": "sglang:queue_time_seconds"},
                    _SGLANG,
                ),
                quantiles(
                    "Time to first token as SGLang measures it",
                    "From the creation of the request to the first token. Its first bound is"
                    " 0.1 s, so quantiles below that are guesses; the mean is exact.",
                    "sglang:time_to_first_token_seconds",
                    _SGLANG,
                ),
                Panel(
                    "Stages as SGLang measures them",
                    "Mean seconds of each stage. Stages of one request may overlap, so they do"
                    " not add up.",
                    "s",
                    (
                        Query(
                            mean("sglang:per_stage_req_latency_seconds", _SGLANG, by="stage"),
                            "{{stage}}",
                        ),
                    ),
                ),
                quantiles(
                    "Time between tokens as SGLang measures it",
                    "Between two chunks of a stream.",
                    "sglang:inter_token_latency_seconds",
                    _SGLANG,
                ),
            ),
        ),
        Row(
            "Why",
            (
                gauges(
                    "Requests that run, wait and were retracted",
                    "Retracted requests lost their KV cache and start again.",
                    "short",
                    {
                        "sglang:num_running_reqs": "running",
                        "sglang:num_queue_reqs": "waiting",
                        "sglang:num_retracted_reqs": "retracted",
                    },
                    _SGLANG,
                ),
                Panel(
                    "KV cache in use",
                    "Near 100 %, requests wait for memory or are retracted.",
                    "percentunit",
                    (
                        Query(
                            f"max by (instance) ({native('sglang:token_usage', _SGLANG)})",
                            "{{instance}}",
                        ),
                    ),
                ),
                gauges(
                    "Queues of disaggregated servers",
                    "Requests that wait for the other side or for the transfer of the KV cache.",
                    "short",
                    {
                        "sglang:num_prefill_bootstrap_queue_reqs": "prefill: hand-shake",
                        "sglang:num_prefill_inflight_queue_reqs": "prefill: transfer",
                        "sglang:num_decode_prealloc_queue_reqs": "decode: memory",
                        "sglang:num_decode_transfer_queue_reqs": "decode: transfer",
                    },
                    _SGLANG,
                ),
                rates(
                    "Tokens",
                    "Prompt tokens and generated tokens, each second.",
                    "short",
                    {
                        "sglang:prompt_tokens_total": "prompt",
                        "sglang:generation_tokens_total": "generated",
                    },
                    _SGLANG,
                ),
            ),
        ),
    ),
)
