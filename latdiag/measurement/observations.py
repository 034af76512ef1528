"""The rows of a probe as arrays: what its design and its laws work on.

One entry per row, in the order of sending; int64 ns. A probe has some thousand rows at most, so
unlike those of a load its arrivals are held, all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latdiag.load.plan import LOADED_PATH, PATH
from latdiag.measurement import frame as frames
from latdiag.measurement import ttft_split
from latdiag.measurement.frame import Frame
from latdiag.measurement.stages import DESIGNED, WORKLOAD
from latdiag.measurement.streams import Streams, aligned, among, read_streams
from latdiag.model.errors import RunFault
from latdiag.model.records import OUTPUT_KINDS

if TYPE_CHECKING:
    from latdiag.store.batch import Batch

#: What ``columns_of`` reads besides the columns of a frame.
MORE = ("osl_wanted", "error")
#: What ``observe`` reads; ask the store for these.
COLUMNS = (*frames.COLUMNS, *MORE)
#: The stages whose arrivals are kept: a load has none of them, however long it was.
_KEPT = (*DESIGNED[1:], WORKLOAD)
#: Several deep probes read together have fewer; a law of more would take gigabytes.
MOST_DESIGNED = 30_000


@dataclass(frozen=True, slots=True)
class Observations:
    """All rows so far. 0 stands for an instant or a number that is not known.

    ``row``: its place in the frame. ``usable``: the row succeeded and its TTFT could be split;
    only then ``client``, ``network`` (in [``network_lo``, ``network_hi``]) and ``server`` mean
    something: ``client + network + server == first - begin``. ``begin``: due in open loop, else
    sent. ``answer``: from the last byte of the request on the wire to the first byte of the reply,
    less one round trip: what lies behind the first hop, for requests without tokens too; -1
    where the stamps do not say. ``connect``: name, TCP and TLS of a fresh connection, and
    ``trip``: the smallest round trip of a connection; -1 where there is none. ``arrivals``,
    ``brought``, ``exact``: instants of the output arrivals of a probe's own stages, the
    tokens that each brought, and whether its stamp is its own; row i holds
    ``[offsets[i]:offsets[i + 1]]``. ``shed``: the server refused the row as too many, and
    ``wait``: ns that it asked to wait then, -1 where it did not.
    """

    row: NDArray[np.int64]
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
    shed: NDArray[np.bool_]
    wait: NDArray[np.int64]
    connect: NDArray[np.int64] | None = None
    trip: NDArray[np.int64] | None = None
    #: tokens of output that were asked for, where nobody states how many there are; 0 elsewhere
    asked: NDArray[np.int64] | None = None
    #: the words by which a request about the path was refused; empty elsewhere
    words: NDArray[np.object_] | None = None

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
        rest: dict[str, NDArray[Any]] = {
            f.name: column[rows]
            for f in fields(self)
            if f.name not in (*_FLAT, "offsets") and (column := getattr(self, f.name)) is not None
        }
        return Observations(**rest, **flat, offsets=offsets)


_FLAT = ("arrivals", "brought", "exact")


def observe(batches: Iterable[Batch]) -> Observations:
    """All rows of the batches (columns ``COLUMNS``), in the order in which they were sent."""
    rows, more = [], []
    for batch in batches:
        streams = read_streams(batch)
        rows.append(frames.columns_of(batch, streams, ttft_split.split(batch, streams)))
        more.append(columns_of(batch, streams))
    return observations(frames.joined(rows), more)


def observations(frame: Frame, more: Sequence[dict[str, NDArray[Any]]]) -> Observations:
    """The rows of ``frame`` in the order in which they were sent. ``more``: what ``columns_of``
    made of them, batch after batch. RunFault for more designed requests than probes make."""
    if not more:
        return _nothing()
    if (designed := int(np.isin(frame.stage, DESIGNED).sum())) > MOST_DESIGNED:
        raise RunFault(
            f"the run claims {designed:,} designed requests, and probes make {MOST_DESIGNED:,} at"
            " most",
            "run `latdiag probe` again, or restore the run from a copy",
        )
    joined: dict[str, NDArray[Any]] = {
        name: np.concatenate([piece[name] for piece in more]) for name in more[0]
    }
    offsets = np.concatenate(([0], np.cumsum(joined.pop("sizes")))).astype(np.int64)
    usable = frame.kernel & frame.ok
    split = {
        name: np.where(frame.kernel, getattr(frame, name), 0)
        for name in ("network", "network_lo", "network_hi")
    }
    first, client = frame.first, np.where(frame.kernel, frame.client, 0)
    whole = Observations(
        **{name: getattr(frame, name) for name in _OF_FRAME},
        **split,
        **joined,
        usable=usable,
        client=np.where(usable, frame.client, 0),
        server=np.where(frame.kernel, first - frame.begin - client - split["network"], 0),
        delayed=frame.delayed & frame.kernel,
        offsets=offsets,
    )
    # Rows of equal instants must not depend on the order of the parts.
    return whole.select(np.lexsort((whole.done, whole.isl, whole.begin, whole.sent)))


_NO_ARRIVALS = {
    "arrivals": np.zeros(0, dtype=np.int64),
    "brought": np.zeros(0),
    "exact": np.zeros(0, dtype=bool),
}
_OF_FRAME = (
    *("row", "stage", "scenario", "ok", "status", "begin", "sent", "first", "last", "done"),
    *("shed", "wait"),
)


def columns_of(batch: Batch, streams: Streams) -> dict[str, NDArray[Any]]:
    """What observations have beyond a frame: columns of all rows (``sizes``: arrivals that a row
    has), and those of the arrivals of a probe's own stages."""
    isl, osl, wanted = (batch.ints[name] for name in ("isl", "osl", "osl_wanted"))
    columns = {
        "isl": np.where(isl.valid, isl.values, batch.ints["isl_wanted"].values),
        # Where the total is not known either, arrivals are tokens.
        "osl": np.where(osl.valid, osl.values, streams.outputs),
        "words": _words(batch),
        "asked": np.where(osl.valid | ~wanted.valid, 0, wanted.values),
        "answer": _answers(batch),
        "connect": _connects(batch),
        "trip": _or_less(batch, "min_rtt_ns"),
    }
    kept = np.isin(batch.texts["stage"], _KEPT)
    columns["sizes"] = np.where(kept, streams.outputs, 0)
    if kept.any():
        each = columns["osl"][kept] / np.maximum(streams.outputs[kept], 1)
        return columns | _arrivals(batch.select(kept), each)
    return columns | _NO_ARRIVALS


def _words(batch: Batch) -> NDArray[np.object_]:
    """Of the few requests that are sent to be refused."""
    chosen = np.isin(batch.texts["stage"], (PATH, LOADED_PATH))
    if not chosen.any():
        return np.full(len(chosen), "", dtype=object)
    found: NDArray[np.object_] = np.where(chosen, batch.texts["error"], "")
    return found


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


def _arrivals(batch: Batch, each: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
    """The output arrivals alone. ``each``: tokens that one brings, of the rows that state but
    their total."""
    stamps, tokens = batch.lists["arrivals_ns"], batch.lists["tokens"]
    lengths = np.diff(stamps.offsets)
    keep = among(aligned(batch.lists["kinds"], stamps), OUTPUT_KINDS)
    counted = np.repeat(np.diff(tokens.offsets) == lengths, lengths)
    brought = np.where(counted, aligned(tokens, stamps), np.repeat(each, lengths))
    return {
        "arrivals": stamps.values[keep],
        "brought": brought[keep],
        "exact": ~aligned(batch.lists["censored"], stamps)[keep],
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
    kinds |= {"delayed": flags, "exact": flags, "shed": flags}
    kinds |= {"offsets": np.zeros(1, dtype=np.int64)}
    return Observations(**{f.name: kinds.get(f.name, ints) for f in fields(Observations)})
