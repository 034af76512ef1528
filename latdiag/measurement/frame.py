"""The requests of a run as columns: what every source of evidence is set against.

A row per attempt, those of designed stages included. What the client alone proves of a request
stands in its row; see ``ttft_split`` for the parts of TTFT.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latdiag.load.plan import BUSY
from latdiag.measurement import ttft_split
from latdiag.measurement.stages import DESIGNED
from latdiag.measurement.streams import Streams, read_streams
from latdiag.measurement.ttft_split import TtftSplit
from latdiag.model.records import Outcome
from latdiag.model.units import NS_PER_S

if TYPE_CHECKING:
    from latdiag.store.batch import Batch

#: What evidence names a request by besides its ``request_id``; long texts, one a row.
IDS = ("response_id", "trace_id", "span_id")
#: What a server may ask to wait, s: a day.
_LONGEST_WAIT_S = 86_400.0
#: What ``columns_of`` reads; ask the store for these, and for ``IDS`` where evidence is joined.
COLUMNS = (
    *(name for name in ttft_split.COLUMNS if name not in IDS),
    *("scenario", "clock_id", "status", "headers_ns", "isl", "isl_wanted", "retry_after_s", "osl"),
)


@dataclass(frozen=True, slots=True)
class Frame:
    """One entry per attempt; instants and durations are int64 ns.

    ``row``: its place in reading order. ``begin``: due, or sent in closed loop. ``first``,
    ``last``: output arrivals, 0 where there is none. ``done``: end of the reply, ``last`` where
    that is not known. ``client``, ``network``, ``network_lo``, ``network_hi``, ``delayed``: of
    TTFT, as the client's stamps prove them where ``kernel`` is True; elsewhere ``network`` is the
    smallest round trip of the connection, 0 if unknown, and ``client`` the lag alone.
    ``outputs``: output arrivals. ``osl``: tokens of the reply as counted, 0 where nobody says;
    ``carried``: those that arrivals state, 0 where they do not; ``in_first``: those of the first
    one, 1 where it states none. ``isl``: tokens of the prompt as counted, else as wanted, 0 where
    nobody says. ``status``: 0 where there is none. ``headers``: when the first
    byte of the reply came, 0 where that is not known. ``begun``, ``ended``: whether ``sent`` and
    ``done`` were stamped. ``sound``: it has a first token after it was sent, and no
    step of the clock lies in it. ``workload``: it is of no designed stage, nor of the warm-up.
    ``shed``: the server refused it as too many; ``wait``: ns that it asked to wait then, -1 where
    it did not. The texts of ``IDS`` are all None where they were not read.
    """

    row: NDArray[np.int64]
    request_id: NDArray[np.object_]
    response_id: NDArray[np.object_]
    trace_id: NDArray[np.object_]
    span_id: NDArray[np.object_]
    scenario: NDArray[np.object_]
    stage: NDArray[np.object_]
    clock_id: NDArray[np.object_]
    outcome: NDArray[np.object_]
    status: NDArray[np.int64]
    begin: NDArray[np.int64]
    sent: NDArray[np.int64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    done: NDArray[np.int64]
    outputs: NDArray[np.int64]
    osl: NDArray[np.int64]
    carried: NDArray[np.int64]
    in_first: NDArray[np.int64]
    isl: NDArray[np.int64]
    headers: NDArray[np.int64]
    client: NDArray[np.int64]
    network: NDArray[np.int64]
    network_lo: NDArray[np.int64]
    network_hi: NDArray[np.int64]
    delayed: NDArray[np.bool_]
    kernel: NDArray[np.bool_]
    ok: NDArray[np.bool_]
    begun: NDArray[np.bool_]
    ended: NDArray[np.bool_]
    sound: NDArray[np.bool_]
    workload: NDArray[np.bool_]
    shed: NDArray[np.bool_]
    wait: NDArray[np.int64]

    @property
    def n(self) -> int:
        return len(self.row)

    def select(self, rows: NDArray[Any]) -> Frame:
        """These rows alone, in the given order."""
        return Frame(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def answered(self, workload: bool = True) -> Frame:
        """The successful requests that evidence can be set against, in the order of ``sent``: of
        the workload, or of all else. No reply of theirs ends before its last token."""
        rows = np.flatnonzero(self.ok & self.sound & (self.workload == workload))
        done = np.maximum(self.done, self.last)
        keys = (done[rows], self.first[rows], self.sent[rows])
        order = np.lexsort(keys)
        if _ties(keys, order):
            # Equal instants are told apart too: the order of the parts of a run must not matter.
            order = np.lexsort((self.request_id[rows].astype(str), *keys))
        chosen = rows[order]
        return replace(self.select(chosen), done=done[chosen])

    @property
    def split(self) -> NDArray[np.int64]:
        """The rows of the workload whose TTFT the client's stamps take apart."""
        return np.flatnonzero(self.kernel & self.workload)

    @property
    def clocks(self) -> list[str]:
        """The clocks that the instants are of, sorted."""
        return sorted({str(clock) for clock in set(self.clock_id.tolist()) - {None}})


_TEXTS = ("request_id", *IDS, "scenario", "stage", "clock_id", "outcome")
_FLAGS = ("delayed", "kernel", "ok", "begun", "ended", "sound", "workload", "shed")


def _ties(keys: Sequence[NDArray[np.int64]], order: NDArray[np.int64]) -> bool:
    """Whether two rows have all keys alike."""
    alike = np.ones(max(len(order) - 1, 0), dtype=bool)
    for key in keys:
        ranked = key[order]
        alike &= ranked[1:] == ranked[:-1]
    return bool(alike.any())


def frame(batches: Iterable[Batch]) -> Frame:
    """All rows of the batches (columns ``COLUMNS`` and ``IDS``)."""
    pieces = []
    for batch in batches:
        streams = read_streams(batch)
        pieces.append(columns_of(batch, streams, ttft_split.split(batch, streams)))
    return joined(pieces)


def joined(pieces: Sequence[dict[str, NDArray[Any]]]) -> Frame:
    """The frame of what ``columns_of`` made of one batch after the other, which is taken out of
    ``pieces``: a long run's columns are not held twice."""
    n = sum(len(piece["sent"]) for piece in pieces)
    whole: dict[str, NDArray[Any]] = {"row": np.arange(n)}
    for name in (f.name for f in fields(Frame) if f.name != "row"):
        columns = [piece.pop(name) for piece in pieces if name in piece]
        if columns:
            whole[name] = np.concatenate(columns)
        elif name in _TEXTS:
            # One None for all rows: a column that was not read takes no room.
            whole[name] = np.broadcast_to(np.array(None, dtype=object), n)
        else:
            whole[name] = np.zeros(n, dtype=bool if name in _FLAGS else np.int64)
    return Frame(**whole)


def columns_of(batch: Batch, streams: Streams, split: TtftSplit) -> dict[str, NDArray[Any]]:
    """The columns of a frame but ``row``, and ``IDS`` as far as the batch has them."""
    ints, texts = batch.ints, batch.texts
    # A stream ends no earlier than it begins, whatever a run that others wrote may say.
    first, last = streams.first, np.maximum(streams.last, streams.first)
    sent, due = ints["sent_ns"].values, ints["due_ns"]
    begin = np.where(due.valid, np.minimum(due.values, sent), sent)
    trip = np.where(ints["min_rtt_ns"].valid, ints["min_rtt_ns"].values, 0)
    trip = np.clip(trip, 0, np.maximum(first - sent, 0))
    kernel = np.zeros(batch.n, dtype=bool)
    kernel[split.row] = True
    columns: dict[str, NDArray[Any]] = {n: texts[n] for n in _TEXTS if n in texts}
    for name in ("network", "network_lo", "network_hi"):
        columns[name] = trip.copy()
        columns[name][split.row] = getattr(split, name)
    columns["client"] = sent - begin
    columns["client"][split.row] += split.client
    columns["delayed"] = ~kernel
    columns["delayed"][split.row] = split.delayed
    done, isl, wanted = ints["done_ns"], ints["isl"], ints["isl_wanted"]
    sound = ints["sent_ns"].valid & (first >= sent) & (first > 0) & ~batch.bools["clock_step"]
    return columns | {
        "status": np.where(ints["status"].valid, ints["status"].values, 0),
        "begin": begin,
        "sent": sent,
        "first": first,
        "last": last,
        "outputs": streams.outputs,
        "osl": np.where(batch.ints["osl"].valid, batch.ints["osl"].values, 0),
        "carried": streams.tokens,
        "in_first": streams.first_tokens,
        "isl": np.where(isl.valid, isl.values, np.where(wanted.valid, wanted.values, 0)),
        "headers": np.where(ints["headers_ns"].valid, ints["headers_ns"].values, 0),
        "done": np.where(done.valid, done.values, last),
        "kernel": kernel,
        "ok": (texts["outcome"] == Outcome.OK.value).astype(bool),
        "begun": ints["sent_ns"].valid,
        "ended": done.valid,
        "sound": sound,
        "workload": ~np.isin(texts["stage"], DESIGNED),
        "shed": _shed(batch),
        "wait": _wait(batch),
    }


def _shed(batch: Batch) -> NDArray[np.bool_]:
    """Requests that were refused as too many, in whatever form the client understood."""
    limited = batch.texts["outcome"] == Outcome.RATE_LIMITED.value
    busy: NDArray[np.bool_] = limited | np.isin(batch.ints["status"].values, list(BUSY))
    return busy.astype(bool)


def _wait(batch: Batch) -> NDArray[np.int64]:
    """Retry-After, ns; -1 where a reply had none, or one that no client would wait for."""
    seconds = batch.floats.get("retry_after_s")
    if seconds is None:
        return np.full(batch.n, -1, dtype=np.int64)
    known = (seconds >= 0) & (seconds <= _LONGEST_WAIT_S)
    return np.where(known, np.where(known, seconds, 0.0) * NS_PER_S, -1).astype(np.int64)
