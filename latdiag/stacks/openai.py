"""The OpenAI API: one header, whose end is not stated for streams. It bounds nothing here."""

from __future__ import annotations

from latdiag.stacks.signal import Mark, Signal, Stack

STACK = Stack(
    name="openai",
    title="OpenAI",
    layer="engine",
    provenance="documented",
    versions="openai 3.54.0 (SDK)",
    signals=(
        Signal(
            "openai.processing",
            "header",
            "openai-processing-ms",
            "ms",
            note="time of processing; of a stream perhaps until the headers: no interval",
        ),
    ),
    marks=(
        Mark("header", r"openai-version: .*"),
        Mark("header", r"openai-processing-ms: \d+", certain=False),
    ),
)
