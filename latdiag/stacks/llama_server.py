"""llama.cpp's own server: ``timings`` in the last chunk of every reply, counters on request.

``prompt_ms`` begins when a slot starts on the prompt, after the template, tokenising and the
queue. ``prompt_n`` excludes cached tokens. With several slots, both times include the work of
other requests in the same batch.
"""

from __future__ import annotations

from latdiag.stacks.figures import counter, gauge, reply
from latdiag.stacks.signal import HIDDEN, Knob, Mark, Stack, Switch, of

_MANUAL = "llama.cpp, tools/server/README.md"

STACK = Stack(
    name="llama_server",
    title="llama.cpp server",
    layer="engine",
    provenance="documented",
    versions="00dc805",
    signals=(
        reply("llama_server.prefill", "timings.prompt_ms", of("prefill") | HIDDEN, "prefill.own"),
        reply("llama_server.decode", "timings.predicted_ms", of("decode") | HIDDEN, "decode.base"),
        counter("llama_server.prefill_seconds", "llamacpp:prompt_seconds_total", "s"),
        counter("llama_server.decode_seconds", "llamacpp:tokens_predicted_seconds_total", "s"),
        counter("llama_server.prompt_tokens", "llamacpp:prompt_tokens_total"),
        counter("llama_server.output_tokens", "llamacpp:tokens_predicted_total"),
        gauge("llama_server.running", "llamacpp:requests_processing"),
        gauge("llama_server.waiting", "llamacpp:requests_deferred"),
    ),
    marks=(
        Mark("metric", r"llamacpp:.*"),
        Mark("models", "llamacpp"),
        Mark("reply", r"timings\.prompt_ms"),
        Mark("header", r"server: llama\.cpp"),
    ),
    knobs=(
        Knob("admitted", "--parallel", source=_MANUAL),
        Knob("chunk", "--batch-size", source=_MANUAL),
        Knob("memory", "--ctx-size, --cache-type-k q8_0", source=_MANUAL),
        Knob("speculation", "--model-draft", source=_MANUAL),
    ),
    switches=(
        Switch(
            "/metrics",
            ("llama_server.prefill_seconds", "llama_server.waiting"),
            "--metrics",
        ),
    ),
)
