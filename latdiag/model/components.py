"""The components that a latency is split into, and their leaves.

Time order; ``unattributed`` closes the sum and is the only one that may be negative.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

_Value = TypeVar("_Value")

#: In time order. The four that the project is about: queue, prefill, interconnect, decode.
COMPONENTS = (
    "client",
    "network",
    "gateway",
    "frontend",
    "queue",
    "prefill",
    "interconnect",
    "decode",
    "unattributed",
)


@dataclass(frozen=True, slots=True)
class Leaf:
    """One indivisible class of time. ``name`` is ``component.what``."""

    code: str
    name: str
    meaning: str

    @property
    def component(self) -> str:
        return self.name.partition(".")[0]


LEAVES = (
    Leaf("C1", "client.schedule_lag", "the request was sent later than it was due"),
    Leaf("C2", "client.read_lag", "bytes lay in the kernel before the client read them"),
    Leaf("R1", "client.retry", "failed attempts, and the waits between them"),
    Leaf("N1", "network.dns", "name resolution"),
    Leaf("N2", "network.tcp", "TCP connect"),
    Leaf("N3", "network.tls", "TLS handshake"),
    Leaf("N4", "network.upload", "the request on its way to the server"),
    Leaf("N5", "network.download", "the reply on its way back, including retransmissions"),
    Leaf("G1", "gateway.proc", "a proxy's work on the request and on each chunk"),
    Leaf("G2", "gateway.flush", "chunks held in a proxy's buffer"),
    Leaf("F1", "frontend.parse", "parsing, chat template, tokenising, handing over to the engine"),
    Leaf("Q1", "queue.admission", "accepted by the engine, not yet scheduled"),
    Leaf("Q2", "queue.preempted", "scheduled before, preempted, waiting again"),
    Leaf("P1", "prefill.own", "computing this prompt alone"),
    Leaf("P2", "prefill.contention", "other requests' work in the same steps during prefill"),
    Leaf("P3", "prefill.recompute", "prefill again after a preemption"),
    Leaf("X1", "interconnect.kv", "KV cache transfer that compute does not hide"),
    Leaf("X2", "interconnect.wait", "hand-over between prefill and decode servers"),
    Leaf("X3", "interconnect.collective", "collectives that compute does not hide"),
    Leaf("X4", "interconnect.offload", "KV cache reloaded from the host"),
    Leaf("D1", "decode.base", "decode steps as if this request were alone"),
    Leaf("D2", "decode.batch", "slower steps because other requests decode too"),
    Leaf("D3", "decode.interference", "steps stretched or paused by other requests' prefill"),
    Leaf("D4", "decode.stall", "pauses of all streams at once, without a prefill"),
    Leaf("U", "unattributed.rest", "end-to-end time minus everything that evidence covers"),
)


_PLACE = {name: place for place, name in enumerate(COMPONENTS)}


def in_time_order(by_name: Mapping[str, _Value]) -> dict[str, _Value]:
    """Entries by the time order of their components or leaves, in front what is neither."""
    names = sorted(by_name, key=lambda name: _PLACE.get(name.partition(".")[0], -1))
    return {name: by_name[name] for name in names}
