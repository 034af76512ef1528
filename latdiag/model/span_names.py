"""What the spans of an export call things: the only file that knows these names. An import reads
them back.

``gen_ai.*``: OpenTelemetry's conventions for generative AI, v0.1.0 (semantic-conventions-genai,
docs/gen-ai/client-inference.md). They have no word for queue, prefill or decode; what has none is
``latdiag.*``. Where a share is measured per request (grade A), the span of the client also bears
the names that vLLM and SGLang both use for it (proposed for the conventions in their issue 408).
"""

from __future__ import annotations

SCHEMA_URL = "https://opentelemetry.io/schemas/gen-ai/0.1.0"
SCOPE = "latdiag"
SERVICE = "latdiag"

SERVICE_NAME = "service.name"
HOST_ID = "host.id"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
ERROR_TYPE = "error.type"
STATUS_CODE = "http.response.status_code"

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
#: Of the format that is spoken: the conventions have no name for vLLM or SGLang.
OPENAI = "openai"
MODEL = "gen_ai.request.model"
STREAM = "gen_ai.request.stream"
RESPONSE_ID = "gen_ai.response.id"
FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"

#: Operations by the dialect of a run's target.
OPERATIONS = {"openai-chat": "chat", "openai-completions": "text_completion"}
#: What servers call a component, seconds.
LATENCIES = {
    "queue": "gen_ai.latency.time_in_queue",
    "prefill": "gen_ai.latency.time_in_model_prefill",
    "decode": "gen_ai.latency.time_in_model_decode",
}

#: ns of a span, exact: of the root from due (or sent) to the end, of a phase its part.
NS = "latdiag.ns"
LO_NS, HI_NS = "latdiag.lo_ns", "latdiag.hi_ns"
COMPONENT = "latdiag.component"
MEMBERS = "latdiag.members"
GRADE = "latdiag.grade"
EVIDENCE = "latdiag.evidence"
REQUEST_ID = "latdiag.request_id"
ATTEMPT = "latdiag.attempt"
SCENARIO = "latdiag.scenario"
OUTCOME = "latdiag.outcome"
INTERVAL = "latdiag.interval"
LAG_NS = "latdiag.schedule_lag_ns"
TTFT_NS = "latdiag.ttft_ns"
CLOCK_NS = "latdiag.clock_half_width_ns"
ATTRIBUTED = "latdiag.attributed"
#: Ids of the trace that the server was sent.
SENT_TRACE, SENT_SPAN = "latdiag.sent_trace_id", "latdiag.sent_span_id"
#: Parts that are bounded in this request only, where their grade says measured.
BOUNDED = "latdiag.bounded"
#: ns of each part, ``latdiag.part.queue``: also of those that are too short for a span.
PART = "latdiag.part."
