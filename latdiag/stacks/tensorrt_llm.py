"""TensorRT-LLM (``trtllm-serve``): histograms at ``/prometheus/metrics``.

Reading the plain ``/metrics`` or ``/perf_metrics`` empties them, so latdiag does not read them.
Times to the first token begin when the executor receives the request, so they exclude the
frontend. On a decode-only server, the queue time is the KV transfer and its handshake.
"""

from __future__ import annotations

from latdiag.stacks.figures import gauge, histogram
from latdiag.stacks.signal import HIDDEN, Knob, Mark, Stack, Switch, of

_FIRST = of("queue", "prefill") | HIDDEN
_MADE = of("decode") | HIDDEN

_MANUAL = "TensorRT-LLM documentation, trtllm-serve"

STACK = Stack(
    name="tensorrt_llm",
    title="TensorRT-LLM",
    layer="engine",
    provenance="documented",
    versions="collector 050f80d",
    signals=(
        histogram(
            "tensorrt_llm.e2e",
            "trtllm_e2e_request_latency_seconds",
            _FIRST | _MADE,
            roles=("unified",),
        ),
        histogram(
            "tensorrt_llm.ttft",
            "trtllm_time_to_first_token_seconds",
            _FIRST,
            roles=("unified",),
            first_token=True,
        ),
        histogram(
            "tensorrt_llm.queue",
            "trtllm_request_queue_time_seconds",
            of("queue.admission"),
            "queue.admission",
            ("unified", "prefill"),
        ),
        histogram(
            "tensorrt_llm.queue",
            "trtllm_request_queue_time_seconds",
            of("interconnect.kv", "interconnect.wait"),
            "interconnect.kv",
            ("decode",),
            note="the KV transfer, plus any wait for a place in the batch",
        ),
        histogram(
            "tensorrt_llm.prefill",
            "trtllm_request_prefill_time_seconds",
            of("prefill") | HIDDEN,
            "prefill.own",
        ),
        histogram(
            "tensorrt_llm.decode",
            "trtllm_request_decode_time_seconds",
            _MADE,
            "decode.base",
            ("unified", "decode"),
        ),
        gauge("tensorrt_llm.running", "trtllm_num_requests_running"),
        gauge("tensorrt_llm.waiting", "trtllm_num_requests_waiting"),
        gauge("tensorrt_llm.kv_usage", "trtllm_kv_cache_utilization"),
    ),
    marks=(Mark("metric", r"trtllm_.*"),),
    knobs=(
        Knob("admitted", "--max_batch_size", source=_MANUAL),
        Knob("chunk", "--max_num_tokens with enable_chunked_prefill: true", source=_MANUAL),
        Knob("apart", "trtllm-serve disaggregated", source=_MANUAL),
        Knob("memory", "kv_cache_config.free_gpu_memory_fraction", source=_MANUAL),
        Knob("parallel", "--tp_size", source=_MANUAL),
        Knob("speculation", "speculative_config", source=_MANUAL),
    ),
    switches=(
        Switch(
            "histograms",
            ("tensorrt_llm.queue", "tensorrt_llm.prefill", "tensorrt_llm.decode"),
            "return_perf_metrics: true, --metrics http://HOST:PORT/prometheus/metrics here",
        ),
    ),
)
