"""The dashboard of TensorRT-LLM."""

from __future__ import annotations

from latdiag.dashboards.beside import dashboard, gauges, means, quantiles
from latdiag.dashboards.panels import Panel, Query, Row
from latdiag.dashboards.promql import native

_TRTLLM = 'model_name=~"$served"'
_KV_USAGE = native("trtllm_kv_cache_utilization", _TRTLLM)
TENSORRT_LLM = dashboard(
    "tensorrt-llm",
    "TensorRT-LLM",
    "label_values(trtllm_num_requests_running, model_name)",
    (
        Row(
            "Side by side",
            (
                means(
                    "Queue, prefill and decode: means",
                    "TensorRT-LLM counts from the arrival in its executor, so the HTTP server's"
                    " part is not in it. The queue of a generation server includes the transfer"
                    " of the KV cache; latdiag counts that as interconnect.",
                    {
                        "queue": "trtllm_request_queue_time_seconds",
                        "prefill": "trtllm_request_prefill_time_seconds",
                        "decode": "trtllm_request_decode_time_seconds",
                    },
                    _TRTLLM,
                ),
                quantiles(
                    "Time to first token as TensorRT-LLM measures it",
                    "From the arrival in the executor to the first token.",
                    "trtllm_time_to_first_token_seconds",
                    _TRTLLM,
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
                        "trtllm_num_requests_running": "running",
                        "trtllm_num_requests_waiting": "waiting",
                    },
                    _TRTLLM,
                ),
                Panel(
                    "KV cache in use",
                    "Near 100 %, requests wait for memory.",
                    "percentunit",
                    (
                        Query(
                            f"max by (instance) ({_KV_USAGE})",
                            "{{instance}}",
                        ),
                    ),
                ),
                quantiles(
                    "Time for each output token as TensorRT-LLM measures it",
                    "Mean of a request over its tokens after the first.",
                    "trtllm_time_per_output_token_seconds",
                    _TRTLLM,
                ),
                quantiles(
                    "Whole requests as TensorRT-LLM measures them",
                    "From the arrival in the executor to the last token. Its"
                    " first bound is 0.3 s.",
                    "trtllm_e2e_request_latency_seconds",
                    _TRTLLM,
                ),
            ),
        ),
    ),
)
