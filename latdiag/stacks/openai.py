"""The OpenAI API: one header. For streams its end is not documented, so it bounds nothing."""

from __future__ import annotations

from latdiag.stacks.signal import Mark, Signal, Stack

STACK = Stack(
    name="openai",
    title="OpenAI",
    layer="engine",
    hosted=True,
    provenance="documented",
    versions="openai 3.54.0 (SDK)",
    signals=(
        Signal(
            "openai.processing",
            "header",
            "openai-processing-ms",
            "ms",
            note="processing time; for a stream it may end with the headers, so it bounds nothing",
        ),
    ),
    marks=(
        Mark("header", r"openai-version: .*"),
        Mark("header", r"openai-processing-ms: \d+", certain=False),
    ),
)
