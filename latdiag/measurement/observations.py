"""The rows of a probe as arrays: what its design and its laws work on.

One entry per row, in the order of sending; int64 ns. A probe has some thousand rows at most, so
unlike a load it is held whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latdiag.measurement import ttft_split
from latdiag.model.records import OUTPUT_KINDS, Outcome

if TYPE_CHECKING:
    from latdiag.store.batch import Batch

#: What ``observe`` reads; ask the store for these.
COLUMNS = tuple(
    dict.fromkeys(
        (
            *ttft_split.COLUMNS,
            *("scenario", "status", "headers_ns", "tokens"),
            *("isl", "osl", "isl_wanted", "osl_wanted"),
        )
    )
)


@dataclass(frozen=True, slots=True)
class Observations:
    """All rows so far. 0 stands for an instant or a number that is not known.

    ``usable``: the row succeeded and its TTFT could be split; only then ``client``, ``network``
    (in [``network_lo``, ``network_hi``]) and ``server`` mean something:
    ``client + network + server == first - begin``. ``begin``: due in open loop, else sent.
    ``answer``: from the last byte of the request on the wire to the first byte of the reply,
    less one round trip: what lies behind the first hop, for requests without tokens too; -1
    where the stamps do not say. ``connect``: name, TCP and TLS of a fresh connection, and
    ``trip``: the smallest round trip of a connection; -1 where there is none. ``arrivals``,
    ``brought``, ``exact``: instants of the output arrivals of all rows, the tokens that each
    brought, and whether its stamp is its own; row i holds ``[offsets[i]:offsets[i + 1]]``.
    """

    stage: NDArray[np.object_]
    scenario: NDArray[np.object_]
    ok: NDArray[np.bool_]
    status: NDArray[np.int64]
    usable: NDArray[np.bool_]
    isl: NDArray[np.int64]
    osl: NDArray[np.int64]
    begin: NDArray[np.int64]
    sent: NDArray[np.int64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    done: NDArray[np.int64]
    client: NDArray[np.int64]
    network: NDArray[np.int64]
    network_lo: NDArray[np.int64]
    network_hi: NDArray[np.int64]
    server: NDArray[np.int64]
    delayed: NDArray[np.bool_]
    answer: NDArray[np.int64]
    offsets: NDArray[np.int64]
    arrivals: NDArray[np.int64]
    brought: NDArray[np.float64]
    exact: NDArray[np.bool_]
    connect: NDArray[np.int64] | None = None
    trip: NDArray[np.int64] | None = None

    @property
    def n(self) -> int:
        return len(self.stage)

    def of(self, *stages: str) -> NDArray[np.int64]:
        """The usable rows of these stages."""
        return np.flatnonzero(self.usable & np.isin(self.stage, stages))

    def later(self, rows: NDArray[Any]) -> NDArray[np.float64]:
        """Tokens after the first arrival, of each of these rows."""
        some = np.diff(self.offsets)[rows] > 0
        at = np.where(some, self.offsets[:-1][rows], 0)
        first = self.brought[at] if len(self.brought) else np.zeros(len(rows))
        return np.where(some, np.maximum(self.osl[rows] - first, 0.0), 0.0)

    def select(self, rows: NDArray[Any]) -> Observations:
        """These rows alone, in the given order."""
        sizes = np.diff(self.offsets)[rows]
        offsets = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
        inside = _spans(self.offsets[:-1][rows], sizes)
        flat = {name: getattr(self, name)[inside] for name in _FLAT}
        rest: dict[str, Any] = {
            f.name: None if (column := getattr(self, f.name)) is None else column[rows]
            for f in fields(self)
            if f.name not in (*_FLAT, "offsets")
        }
        return Observations(**rest, **flat, offsets=offsets)


_FLAT = ("arrivals", "brought", "exact")


def observe(batches: Iterable[Batch]) -> Observations:
    """All rows of the batches (columns ``COLUMNS``), in the order in which they were sent."""
    pieces = [_columns(batch) for batch in batches]
    if not pieces:
        return _nothing()
    joined: dict[str, Any] = {
        name: np.concatenate([piece[name] for piece in pieces])
        for name in pieces[0]
        if name != "sizes"
    }
    sizes = np.concatenate([piece["sizes"] for piece in pieces])
    whole = Observations(**joined, offsets=np.concatenate(([0], np.cumsum(sizes))))
    # Rows of equal instants must not depend on the order of the parts.
    return whole.select(np.lexsort((whole.done, whole.isl, whole.begin, whole.sent)))


def _columns(batch: Batch) -> dict[str, NDArray[Any]]:
    ints, texts = batch.ints, batch.texts
    ok = texts["outcome"] == Outcome.OK.value
    sent = ints["sent_ns"].values
    due = ints["due_ns"]
    begin = np.where(due.valid, np.minimum(due.values, sent), sent)
    split = ttft_split.split(batch)
    found: dict[str, NDArray[Any]] = {"stage": texts["stage"], "scenario": texts["scenario"]}
    usable = np.zeros(batch.n, dtype=bool)
    usable[split.row] = ok[split.row]
    for name in ("client", "network", "network_lo", "network_hi", "server", "delayed"):
        values = getattr(split, name)
        column = np.zeros(batch.n, dtype=values.dtype)
        column[split.row] = values
        found[name] = column
    found["client"] = np.where(usable, found["client"] + sent - begin, 0)
    first, _, last = ttft_split.first_output(batch)
    done = np.where(ints["done_ns"].valid, ints["done_ns"].values, last)
    found |= {"ok": ok, "usable": usable, "begin": begin, "sent": sent}
    found |= {"first": first, "last": last, "done": done, "answer": _answers(batch)}
    isl = ints["isl"]
    found["isl"] = np.where(isl.valid, isl.values, ints["isl_wanted"].values)
    found["status"] = ints["status"].values
    found |= {"connect": _connects(batch), "trip": _or_less(batch, "min_rtt_ns")}
    return found | _arrivals(batch)


def _connects(batch: Batch) -> NDArray[np.int64]:
    """From the start of work on a request until its connection stood; -1: it was there."""
    ints = batch.ints
    until = np.where(ints["tls_ns"].valid, ints["tls_ns"].values, ints["tcp_ns"].values)
    lost = np.where(ints["retry_ns"].valid, ints["retry_ns"].values, 0)
    return np.where(ints["tcp_ns"].valid, until - ints["sent_ns"].values - lost, -1)


def _or_less(batch: Batch, name: str) -> NDArray[np.int64]:
    return np.where(batch.ints[name].valid, batch.ints[name].values, -1)


def _answers(batch: Batch) -> NDArray[np.int64]:
    """Time behind the first hop until the first byte of the reply."""
    ints = batch.ints
    head, left, trip = ints["headers_ns"], ints["wire_last_ns"], ints["min_rtt_ns"]
    known = head.valid & (left.valid | ints["wire_ns"].valid) & ~batch.bools["clock_step"]
    since = np.where(left.valid, left.values, ints["wire_ns"].values)
    return np.where(known, np.maximum(head.values - since - trip.values, 0), -1)


def _arrivals(batch: Batch) -> dict[str, NDArray[Any]]:
    """The output arrivals alone, how many each row has (``sizes``), and its tokens (``osl``)."""
    kinds, tokens = batch.lists["kinds"], batch.lists["tokens"]
    keep = np.isin(kinds.values, [int(kind) for kind in OUTPUT_KINDS])
    before = np.concatenate(([0], np.cumsum(keep)))
    sizes = before[kinds.offsets[1:]] - before[kinds.offsets[:-1]]
    counted = np.diff(tokens.offsets) == np.diff(kinds.offsets)
    inside = np.repeat(counted, np.diff(kinds.offsets))
    from_ = np.repeat(counted, np.diff(tokens.offsets))
    # Where only the total is known, the arrivals share it; where nothing is, they are tokens.
    osl = np.where(batch.ints["osl"].valid, batch.ints["osl"].values, sizes)
    brought = np.repeat(osl / np.maximum(sizes, 1), np.diff(kinds.offsets))
    brought[inside] = tokens.values[from_]
    return {
        "arrivals": batch.lists["arrivals_ns"].values[keep],
        "brought": brought[keep],
        "exact": ~batch.lists["censored"].values[keep],
        "sizes": sizes,
        "osl": osl,
    }


def _spans(starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """start, start + 1, ... for each of the spans, one after the other."""
    if not len(sizes):
        return np.zeros(0, dtype=np.int64)
    ends = np.cumsum(sizes)
    return np.arange(int(ends[-1])) - np.repeat(ends - sizes, sizes) + np.repeat(starts, sizes)


def _nothing() -> Observations:
    texts = np.zeros(0, dtype=object)
    flags, ints = np.zeros(0, dtype=bool), np.zeros(0, dtype=np.int64)
    kinds = {"stage": texts, "scenario": texts, "ok": flags, "usable": flags}
    kinds |= {"delayed": flags, "exact": flags, "offsets": np.zeros(1, dtype=np.int64)}
    return Observations(**{f.name: kinds.get(f.name, ints) for f in fields(Observations)})
