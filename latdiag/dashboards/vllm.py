"""The dashboard of vLLM."""

from __future__ import annotations

from latdiag.dashboards.beside import dashboard, gauges, means, quantiles, rates
from latdiag.dashboards.ours import component
from latdiag.dashboards.panels import Panel, Query, Row
from latdiag.dashboards.promql import mean, native, ratio, summed

_VLLM = 'model_name=~"$served"'
VLLM = dashboard(
    "vllm",
    "vLLM",
    "label_values(vllm:num_requests_running, model_name)",
    (
        Row(
            "Side by side",
            (
                means(
                    "Queue, prefill and decode: means",
                    "vLLM's queue time of a decode server includes the wait for the KV cache;"
                    " latdiag counts that wait as interconnect. vLLM's prefill ends at the first"
                    " token.",
                    {
                        "queue": "vllm:request_queue_time_seconds",
                        "prefill": "vllm:request_prefill_time_seconds",
                        "decode": "vllm:request_decode_time_seconds",
                    },
                    _VLLM,
                ),
                quantiles(
                    "Time to first token as vLLM measures it",
                    "From the arrival in the API server to the first token.",
                    "vllm:time_to_first_token_seconds",
                    _VLLM,
                ),
            ),
        ),
        Row(
            "Why",
            (
                gauges(
                    "Requests that run and wait",
                    "Waiting requests that do not drain mean more load than this server can take.",
                    "short",
                    {
                        "vllm:num_requests_running": "running",
                        "vllm:num_requests_waiting": "waiting",
                    },
                    _VLLM,
                ),
                gauges(
                    "KV cache in use",
                    "Near 100 %, requests wait for memory, or are preempted and computed again.",
                    "percentunit",
                    {"vllm:kv_cache_usage_perc": "in use"},
                    _VLLM,
                    by="instance, engine",
                ),
                rates(
                    "Preemptions",
                    "Requests that lost their place in the KV cache, each second.",
                    "short",
                    {"vllm:num_preemptions_total": "preempted"},
                    _VLLM,
                ),
                rates(
                    "Tokens",
                    "Prompt tokens and generated tokens, each second.",
                    "short",
                    {
                        "vllm:prompt_tokens_total": "prompt",
                        "vllm:generation_tokens_total": "generated",
                    },
                    _VLLM,
                ),
                Panel(
                    "Prompt tokens found in the prefix cache",
                    "Hits over queries, both in tokens: what prefill did not have to compute.",
                    "percentunit",
                    (
                        Query(
                            ratio(
                                summed(native("vllm:prefix_cache_hits_total", _VLLM)),
                                summed(native("vllm:prefix_cache_queries_total", _VLLM)),
                            ),
                            "found",
                        ),
                    ),
                ),
                quantiles(
                    "Time between tokens as vLLM measures it",
                    "One observation for each step of the engine and request.",
                    "vllm:inter_token_latency_seconds",
                    _VLLM,
                ),
            ),
        ),
        Row(
            "KV transfer by NIXL (disaggregated servers only)",
            (
                Panel(
                    "Interconnect beside NIXL's transfers",
                    "NIXL's time is that of one transfer of one rank, not of one request: compare"
                    " the trend, not the value.",
                    "s",
                    (
                        component("interconnect"),
                        Query(mean("vllm:nixl_xfer_time_seconds", _VLLM), "NIXL: transfer"),
                        Query(mean("vllm:nixl_post_time_seconds", _VLLM), "NIXL: post"),
                    ),
                ),
                rates(
                    "Failed transfers",
                    "Transfers that failed and KV caches that expired before they were read.",
                    "short",
                    {
                        "vllm:nixl_num_failed_transfers_total": "failed",
                        "vllm:nixl_num_kv_expired_reqs_total": "expired",
                    },
                    _VLLM,
                ),
            ),
        ),
    ),
)
