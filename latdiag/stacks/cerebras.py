"""Cerebras: times in seconds on every chunk and reply. What its total includes is not stated."""

from __future__ import annotations

from latdiag.stacks.figures import reply
from latdiag.stacks.signal import HIDDEN, Mark, Signal, Stack, of


def _time(name: str, field: str, covers: frozenset[str], rest: str) -> Signal:
    return reply(f"cerebras.{name}", f"time_info.{field}", covers, rest, unit="s")


STACK = Stack(
    name="cerebras",
    title="Cerebras",
    layer="engine",
    hosted=True,
    provenance="documented",
    versions="cerebras-cloud-sdk 1.91.0 (SDK types)",
    signals=(
        _time("queue", "queue_time", of("queue"), "queue.admission"),
        _time("prefill", "prompt_time", of("prefill") | HIDDEN, "prefill.own"),
        _time("decode", "completion_time", of("decode") | HIDDEN, "decode.base"),
        _time("total", "total_time", frozenset(), ""),
    ),
    marks=(Mark("reply", r"time_info\..*"),),
)
