"""End-to-end latency in components, as any load proves it without a designed probe.

What lies behind the first hop until the first token cannot be told apart then: it is one merged
class under ``queue``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.parts import Parts, Source
from latdiag.measurement.ttft_split import first_output, split
from latdiag.model.records import Outcome

if TYPE_CHECKING:
    from latdiag.store.batch import Batch

#: What the client cannot tell apart: everything behind the first hop until the first token.
BEHIND_THE_HOP = ("queue", "prefill", "frontend", "gateway")
_PARTS = ("client", "network", "queue", "decode", "unattributed")
SOURCES = {
    "client": Source("A", "user and kernel transmit stamps of this client"),
    "network": Source("A", "transmit and ACK stamps, TCP_INFO min_rtt"),
    "queue": Source(
        "E",
        "kernel receive stamp of the first token minus the ACK: everything behind the first hop",
        BEHIND_THE_HOP,
    ),
    "decode": Source(
        "A",
        "kernel receive stamps, first to last token; time on links between steps is inside",
    ),
    "unattributed": Source("A", "from the last token to the last byte that counts"),
}


def partition(batches: Iterable[Batch]) -> Parts:
    """Partition every successful row; the others, and those without exact stamps, are counted."""
    found: list[dict[str, NDArray[Any]]] = []
    left_out = 0
    for batch in batches:
        piece = _partition(batch)
        left_out += int((batch.texts["outcome"] == Outcome.OK.value).sum()) - len(piece["total"])
        found.append(piece)
    if not found:
        found.append({name: np.zeros(0, dtype=np.int64) for name in _COLUMNS})
    joined = {name: np.concatenate([piece[name] for piece in found]) for name in _COLUMNS}
    # Equal instants are told apart too: the order of the batches must not matter.
    order = np.lexsort((joined["queue"], joined["total"], joined["sent"]))
    joined = {name: values[order] for name, values in joined.items()}
    less = (joined["network"] - joined["network_lo"]).astype(float)
    more = (joined["network_hi"] - joined["network"]).astype(float)
    return Parts(
        total=joined["total"],
        ttft=joined["ttft"],
        parts={name: joined[name] for name in _PARTS},
        delayed=joined["delayed"].astype(bool),
        left_out=left_out,
        sources=SOURCES,
        slack={"network": (less, more), "queue": (more, less)},
    )


_COLUMNS = ("sent", "total", "ttft", *_PARTS, "network_lo", "network_hi", "delayed")


def _partition(batch: Batch) -> dict[str, NDArray[Any]]:
    ttft = split(batch)
    _, _, last = first_output(batch)
    good = batch.texts["outcome"][ttft.row] == Outcome.OK.value
    row = ttft.row[good]
    sent = batch.ints["sent_ns"].values[row]
    due = batch.ints["due_ns"]
    lag = np.where(due.valid[row], np.maximum(sent - due.values[row], 0), 0)
    done = batch.ints["done_ns"]
    ended = np.where(done.valid[row], done.values[row], last[row])
    total = ended - sent + lag
    decode = np.maximum(last[row] - (sent + ttft.ttft[good]), 0)
    client, network, server = ttft.client[good] + lag, ttft.network[good], ttft.server[good]
    return {
        "sent": sent,
        "total": total,
        "ttft": ttft.ttft[good] + lag,
        "client": client,
        "network": network,
        "queue": server,
        "decode": decode,
        # What follows the last token (usage, end mark) belongs to no component known here.
        "unattributed": total - client - network - server - decode,
        "network_lo": ttft.network_lo[good],
        "network_hi": ttft.network_hi[good],
        "delayed": ttft.delayed[good].astype(np.int64),
    }
