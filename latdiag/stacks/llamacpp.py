"""llama-cpp-python's server: one header, and no ``/metrics``.

The header is sent with the first chunk at the earliest, so it may include everything up to that
chunk; neither the documentation nor a recording says so.
"""

from __future__ import annotations

from latdiag.stacks.signal import HIDDEN, Mark, Signal, Stack, of

STACK = Stack(
    name="llamacpp",
    title="llama-cpp-python",
    layer="engine",
    provenance="captured",
    versions="0.3.36",
    signals=(
        Signal(
            "llamacpp.processing",
            "header",
            "openai-processing-ms",
            "ms",
            covers=of("frontend", "queue", "prefill") | HIDDEN,
            rest="prefill.own",
            documented=True,
            note="for a stream, it ends with the response headers; whole milliseconds",
        ),
    ),
    marks=(
        Mark("models", "me", certain=False),
        Mark("header", r"openai-processing-ms: \d+", certain=False),
    ),
    captures=("llamacpp",),
)
