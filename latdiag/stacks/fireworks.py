"""Fireworks: ``perf_metrics`` in the last chunk, if the request asks for it.

A request asks with ``perf_metrics_in_response: true`` in its body. Only dedicated deployments
report the phases. Programs that read these fields disagree on whether they are seconds or
milliseconds, so latdiag decides by how long the requests took.
"""

from __future__ import annotations

from latdiag.stacks.figures import reply
from latdiag.stacks.signal import HIDDEN, Mark, Signal, Stack, Switch, of

_BEFORE = of("frontend", "queue", "prefill") | HIDDEN
_UNIT = "s|ms"


def _time(
    name: str, field: str, covers: frozenset[str], rest: str, first_token: bool = False
) -> Signal:
    return reply(
        f"fireworks.{name}",
        f"perf_metrics.{field}",
        covers,
        rest,
        unit=_UNIT,
        first_token=first_token,
    )


STACK = Stack(
    name="fireworks",
    title="Fireworks",
    layer="engine",
    hosted=True,
    provenance="documented",
    versions="hosted, 2026",
    signals=(
        _time("ttft", "server-time-to-first-token", _BEFORE, "frontend.parse", True),
        _time("e2e", "server-processing-time", _BEFORE | of("decode"), "frontend.parse"),
        _time("tokenizer_queue", "tokenizer-queue-duration", of("frontend"), "frontend.parse"),
        _time("tokenizer", "tokenizer-duration", of("frontend"), "frontend.parse"),
        _time("queue", "prefill-queue-duration", of("queue"), "queue.admission"),
        _time("prefill", "prefill-duration", of("prefill") | HIDDEN, "prefill.own"),
        _time(
            "decode_queue",
            "generation-queue-duration",
            of("interconnect.wait"),
            "interconnect.wait",
        ),
        _time("decode", "generation-duration", of("decode") | HIDDEN, "decode.base"),
    ),
    marks=(Mark("reply", r"perf_metrics\..*"), Mark("header", r"fireworks-.*")),
    headers=("fireworks-server-time-to-first-token", "fireworks-server-processing-time"),
    switches=(
        Switch(
            "timings in replies",
            ("fireworks.ttft", "fireworks.e2e"),
            "--body-json '{\"perf_metrics_in_response\": true}'",
        ),
    ),
)
