"""What really happened to a request: every nanosecond of its residence under one leaf."""

from __future__ import annotations

from dataclasses import dataclass

#: The leaves that the engine can produce (names of ``latdiag.model.components``).
ENGINE_LEAVES = (
    "frontend.parse",
    "queue.admission",
    "queue.preempted",
    "prefill.own",
    "prefill.contention",
    "prefill.recompute",
    "interconnect.kv",
    "interconnect.wait",
    "interconnect.collective",
    "decode.base",
    "decode.batch",
    "decode.interference",
)


@dataclass(frozen=True, slots=True)
class Truth:
    """A finished request, in integer nanoseconds of the engine's clock.

    ``leaves`` has every name of ENGINE_LEAVES, each >= 0, and sums to ``finished_ns -
    arrived_ns``; ``first_token_leaves`` is the part of it until the first token left and sums
    to ``first_ns - arrived_ns``. ``cached``: prompt tokens that the prefix cache brought.
    """

    key: str
    arrived_ns: int
    first_ns: int
    finished_ns: int
    isl: int
    osl: int
    cached: int
    leaves: dict[str, int]
    first_token_leaves: dict[str, int]
