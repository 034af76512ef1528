"""Text Generation Inference: times in headers of replies that do not stream.

Streamed replies lack them, so a load of latdiag never sees them; recordings of other clients
may. ``x-compute-time`` repeats the total in seconds. All are whole milliseconds on the router's
monotonic clock.
"""

from __future__ import annotations

from latdiag.stacks.signal import HIDDEN, Knob, Mark, Signal, Stack, of

_ALL = of("frontend", "queue", "prefill", "decode") | HIDDEN


def _time(name: str, header: str, covers: frozenset[str], rest: str) -> Signal:
    return Signal(f"tgi.{name}", "header", header, "ms", covers=covers, rest=rest)


_MANUAL = "text-generation-launcher --help"

STACK = Stack(
    name="tgi",
    title="Text Generation Inference",
    layer="engine",
    provenance="documented",
    versions="db931fc",
    signals=(
        _time("total", "x-total-time", _ALL, "frontend.parse"),
        _time("validation", "x-validation-time", of("frontend"), "frontend.parse"),
        _time("queue", "x-queue-time", of("queue"), "queue.admission"),
        _time("inference", "x-inference-time", of("prefill", "decode") | HIDDEN, "decode.base"),
    ),
    knobs=(
        Knob("admitted", "--max-batch-total-tokens, --max-batch-size", source=_MANUAL),
        Knob("frontends", "--validation-workers", source=_MANUAL),
        Knob("chunk", "--max-batch-prefill-tokens", source=_MANUAL),
        Knob("memory", "--cuda-memory-fraction, --kv-cache-dtype fp8_e4m3fn", source=_MANUAL),
        Knob("parallel", "--num-shard", source=_MANUAL),
        Knob("speculation", "--speculate", source=_MANUAL),
    ),
    marks=(Mark("header", r"x-compute-type: .*"), Mark("metric", r"tgi_.*")),
)
