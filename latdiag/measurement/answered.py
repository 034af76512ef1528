"""Requests that were answered, as the client saw them, with what they may be joined by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latdiag.measurement import ttft_split
from latdiag.measurement.stages import DESIGNED
from latdiag.model.records import Outcome

if TYPE_CHECKING:
    from latdiag.store.batch import Batch

COLUMNS = (
    *ttft_split.COLUMNS,
    "trace_id",
    "span_id",
    "scenario",
    "clock_id",
    "stamp_source",
)


@dataclass(frozen=True, slots=True)
class Answered:
    """One entry per successful request of the workload, in the order of ``sent``; int64 ns.

    ``begin``: due, or sent in closed loop. ``client``, ``network``, ``network_lo``,
    ``network_hi``, ``delayed``: of TTFT, as the client's stamps prove them where ``kernel`` is
    True; elsewhere network is the smallest round trip of the connection, 0 if unknown.
    """

    trace_id: NDArray[np.object_]
    span_id: NDArray[np.object_]
    request_id: NDArray[np.object_]
    response_id: NDArray[np.object_]
    scenario: NDArray[np.object_]
    clock_id: NDArray[np.object_]
    begin: NDArray[np.int64]
    sent: NDArray[np.int64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    done: NDArray[np.int64]
    client: NDArray[np.int64]
    network: NDArray[np.int64]
    network_lo: NDArray[np.int64]
    network_hi: NDArray[np.int64]
    delayed: NDArray[np.bool_]
    kernel: NDArray[np.bool_]

    @property
    def n(self) -> int:
        return len(self.sent)

    def select(self, rows: NDArray[Any]) -> Answered:
        """These requests alone, in the given order."""
        return Answered(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


def answered(batches: Iterable[Batch]) -> Answered:
    """All of the batches (columns ``COLUMNS``), designed stages and warm-up left out."""
    pieces = [_piece(batch) for batch in batches]
    names = [f.name for f in fields(Answered)]
    if not pieces:
        texts, flags = names[:6], ("delayed", "kernel")
        kinds = {n: object if n in texts else bool if n in flags else np.int64 for n in names}
        return Answered(**{n: np.zeros(0, dtype=kind) for n, kind in kinds.items()})
    whole = Answered(**{n: np.concatenate([piece[n] for piece in pieces]) for n in names})
    # Equal instants are told apart too: the order of the parts of a run must not matter.
    order = np.lexsort((whole.request_id.astype(str), whole.done, whole.first, whole.sent))
    return whole.select(order)


def _piece(batch: Batch) -> dict[str, NDArray[Any]]:
    ints, texts = batch.ints, batch.texts
    first, _, last = ttft_split.first_output(batch)
    good = (texts["outcome"] == Outcome.OK.value) & ~np.isin(texts["stage"], DESIGNED)
    good &= ints["sent_ns"].valid & (first >= ints["sent_ns"].values) & (first > 0)
    good &= ~batch.bools["clock_step"]
    split = ttft_split.split(batch)
    kernel = np.zeros(batch.n, dtype=bool)
    kernel[split.row] = True
    sent, due = ints["sent_ns"].values, ints["due_ns"]
    begin = np.where(due.valid, np.minimum(due.values, sent), sent)
    trip = np.where(ints["min_rtt_ns"].valid, ints["min_rtt_ns"].values, 0)
    trip = np.clip(trip, 0, np.maximum(first - sent, 0))
    found: dict[str, NDArray[Any]] = {}
    for name in ("network", "network_lo", "network_hi"):
        found[name] = trip.copy()
        found[name][split.row] = getattr(split, name)
    found["client"] = sent - begin
    found["client"][split.row] += split.client
    found["delayed"] = ~kernel
    found["delayed"][split.row] = split.delayed
    done = np.maximum(np.where(ints["done_ns"].valid, ints["done_ns"].values, last), last)
    found |= {"begin": begin, "sent": sent, "first": first, "last": last, "done": done}
    found |= {name: texts[name] for name in ("trace_id", "span_id", "request_id", "response_id")}
    found |= {"scenario": texts["scenario"], "clock_id": texts["clock_id"], "kernel": kernel}
    return {name: column[good] for name, column in found.items()}
