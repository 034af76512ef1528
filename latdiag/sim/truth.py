"""What really happened to a request: every nanosecond of its residence under one leaf."""

from __future__ import annotations

import json
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


#: The parts that a server can have. One that does all is WHOLE.
WHOLE, PREFILL, DECODE = "", "prefill", "decode"


@dataclass(frozen=True, slots=True)
class Visit:
    """A request's stay on one server, as the events that vLLM stamps; instants of the engine.

    ``arrived_ns <= queued_ns <= scheduled_ns <= first_ns <= finished_ns``: read by the server,
    handed to its engine, scheduled for the first time, first token, last token. ``part``: WHOLE,
    or with the KV cache on a link between two servers PREFILL and DECODE. There the first server
    makes one token, and its stay ends; the second one's queue holds the transfer, and it has its
    first token with the cache, so as soon as the request is scheduled.
    """

    part: str
    arrived_ns: int
    queued_ns: int
    scheduled_ns: int
    first_ns: int
    finished_ns: int
    isl: int
    osl: int


@dataclass(frozen=True, slots=True)
class Truth:
    """A finished request, in integer nanoseconds of the engine's clock.

    ``leaves`` has every name of ENGINE_LEAVES, each >= 0, and sums to ``finished_ns -
    arrived_ns``; ``first_token_leaves`` is the part of it until the first token left and sums
    to ``first_ns - arrived_ns``. ``cached``: prompt tokens that the prefix cache brought.
    ``visits``: of the servers it was on, one after the other without a gap.
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
    visits: tuple[Visit, ...] = ()

    def line(self, request_id: str, trace_id: str, late_ns: int = 0) -> str:
        """As a line of the truth file. ``late_ns``: of its most belated token."""
        fields = {
            "request_id": request_id,
            "trace_id": trace_id,
            "arrived_ns": self.arrived_ns,
            "first_ns": self.first_ns,
            "finished_ns": self.finished_ns,
            "isl": self.isl,
            "osl": self.osl,
            "cached": self.cached,
            "leaves": self.leaves,
            "first_token_leaves": self.first_token_leaves,
            "late_ns": late_ns,
        }
        return json.dumps(fields) + "\n"
