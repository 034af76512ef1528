"""Groq: times in the last chunk of a stream, in seconds. Its total excludes the queue."""

from __future__ import annotations

from latdiag.stacks.figures import reply
from latdiag.stacks.signal import HIDDEN, Mark, Signal, Stack, of


def _time(name: str, field: str, covers: frozenset[str], rest: str) -> Signal:
    return reply(f"groq.{name}", f"x_groq.usage.{field}", covers, rest, unit="s")


STACK = Stack(
    name="groq",
    title="Groq",
    layer="engine",
    hosted=True,
    provenance="documented",
    versions="groq 1.7.0 (SDK types)",
    signals=(
        _time("queue", "queue_time", of("queue"), "queue.admission"),
        _time("prefill", "prompt_time", of("prefill") | HIDDEN, "prefill.own"),
        _time("decode", "completion_time", of("decode") | HIDDEN, "decode.base"),
        _time("total", "total_time", of("prefill", "decode") | HIDDEN, "decode.base"),
    ),
    marks=(
        Mark("reply", r"x_groq\.usage\..*"),
        Mark("reply", r"x_groq\.id", certain=False),
    ),
)
