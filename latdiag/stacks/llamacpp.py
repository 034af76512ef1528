"""llama-cpp-python's server: one header, and no ``/metrics``.

The header goes out with the first chunk at the earliest, so it holds what came before that; on
this the documents are silent and a recording cannot tell.
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
            note="of a stream: until the headers, whole milliseconds",
        ),
    ),
    marks=(
        Mark("models", "me", certain=False),
        Mark("header", r"openai-processing-ms: \d+", certain=False),
    ),
    captures=("llamacpp",),
)
