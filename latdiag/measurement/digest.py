"""One pass over a run's rows: its frame, metrics, failures, what deviates, a probe's arrivals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latdiag.measurement import frame as frames
from latdiag.measurement import measure, observations, ttft_split
from latdiag.measurement.bursts import Bursts, Trains, bursts_of, joined_trains, trains_of
from latdiag.measurement.by_stage import StageRows, StageTallies
from latdiag.measurement.chunks import Chunks, chunks_of, joined_chunks
from latdiag.measurement.frame import Frame
from latdiag.measurement.measurement import Measurement
from latdiag.measurement.observations import Observations
from latdiag.measurement.slo import Slo
from latdiag.measurement.streams import Streams, pieces, read_streams
from latdiag.model.records import Outcome

if TYPE_CHECKING:
    from latdiag.store.batch import Batch

#: What ``digest`` reads; ask the store for these.
COLUMNS = tuple(
    dict.fromkeys((*measure.COLUMNS, *observations.COLUMNS, "retry_ns", "status", "error"))
)


WARMUP = "warmup"
#: Streams that are looked at for bursts: more say nothing new.
_TRAINS = 1 << 13


@dataclass(slots=True)
class Failure:
    """Attempts with one outcome: how many, and the first one's words."""

    count: int = 0
    status: int | None = None
    example: str | None = None


@dataclass(slots=True)
class Deviation:
    """Rows whose length in tokens is not the one asked for; ``worst`` is (got, wanted)."""

    rows: int = 0
    worst: tuple[int, int] = (0, 0)


@dataclass(slots=True)
class Digest:
    """All that a report says of the rows.

    ``frame``: all of them; ``observations``: of a run with designed stages. ``lags``: ns that each
    request of the workload left late. ``chunks``: how each row's output came; empty where there
    is no evidence to set against it. ``bursts``: how streams come, those of a probe's stages
    among them; None where they come token by token, or too little of them is known.
    """

    frame: Frame
    measurement: Measurement
    lags: NDArray[np.int64]
    chunks: Chunks
    bursts: Bursts | None = None
    observations: Observations | None = None
    failures: dict[str, Failure] = field(default_factory=dict)
    isl: Deviation = field(default_factory=Deviation)
    osl: Deviation = field(default_factory=Deviation)
    warmups: int = 0
    #: requests that only taught a probe its laws
    designed: int = 0
    fresh: int = 0
    connect_mean_ns: float = 0.0
    retried: int = 0
    sent_rate: float | None = None
    #: the workload by run and scenario; empty where there is one stage
    stages: Sequence[StageRows] = ()

    @property
    def sent(self) -> NDArray[np.int64]:
        """When each request was sent that ``split`` takes apart."""
        return self.frame.sent[self.frame.split]

    @property
    def split(self) -> dict[str, NDArray[np.int64]]:
        """TTFT from sending on and its parts, ns, of each request that stamps take apart."""
        rows = self.frame.split
        since = self.frame.sent[rows]
        found = {"ttft": self.frame.first[rows] - since}
        found["client"] = self.frame.client[rows] - (since - self.frame.begin[rows])
        for name in ("network", "network_lo", "network_hi"):
            found[name] = getattr(self.frame, name)[rows]
        found["server"] = found["ttft"] - found["client"] - found["network"]
        return found

    @property
    def bounded(self) -> int:
        """Of how many of them the ACK was delayed."""
        return int(self.frame.delayed[self.frame.split].sum())


class Reader:
    """Takes the rows of a run as they go by. ``evidence``: there is some that they are set
    against, by ids and by how their output came."""

    def __init__(self, slos: Sequence[Slo] = (), evidence: bool = False) -> None:
        self.columns = (*COLUMNS, *((*frames.IDS, "out_of_order") if evidence else ()))
        self._tally = measure.Tally(slos)
        self._stages = StageTallies(slos)
        self._frame: list[dict[str, NDArray[Any]]] = []
        self._more: list[dict[str, NDArray[Any]]] = []
        self._evidence = evidence
        self._chunks: list[dict[str, NDArray[Any]]] = []
        self._lags: list[NDArray[np.int64]] = []
        self._trains: list[Trains] = []
        self._judged = 0
        #: per clock: requests, first and last instant of sending
        self._sending: dict[str, tuple[int, int, int]] = {}
        self._failures: dict[str, Failure] = {}
        self._isl, self._osl = Deviation(), Deviation()
        self._warmups = self._designed = self._retried = 0
        self._connect_ns: list[NDArray[np.int64]] = []

    def add(self, batch: Batch) -> None:
        for piece in pieces(batch):
            self._add(piece)

    def _add(self, batch: Batch) -> None:
        streams = read_streams(batch)
        split = ttft_split.split(batch, streams)
        columns = frames.columns_of(batch, streams, split)
        self._frame.append(columns)
        self._more.append(observations.columns_of(batch, streams))
        if self._evidence:
            self._chunks.append(chunks_of(batch, streams))
        ours: NDArray[np.bool_] = columns["workload"]
        connect = split.connect[ours[split.row]]
        self._connect_ns.append(connect[connect > 0])
        if self._judged < _TRAINS:  # designed streams too: they are the longest
            self._judged += batch.n
            cold = batch.texts["stage"] == WARMUP
            self._trains.append(trains_of(*streams.arrivals).select(~cold.astype(bool)))
        self._stages.add(batch, ours, streams, self._tally)
        if not ours.all():
            warm = int((batch.texts["stage"] == WARMUP).sum())
            self._warmups += warm
            self._designed += int((~ours).sum()) - warm
            batch = batch.select(ours)
            streams = read_streams(batch)
        if batch.n:
            self._note(batch, streams)

    def _note(self, batch: Batch, streams: Streams) -> None:
        """What is said of the workload alone."""
        self._tally.add(batch, streams)
        due, sent = batch.ints["due_ns"], batch.ints["sent_ns"]
        known = due.valid & sent.valid
        self._lags.append((sent.values - due.values)[known])
        self._note_sending(batch)
        self._retried += int(batch.ints["retry_ns"].valid.sum())
        self._note_failures(batch)
        _deviate(self._isl, batch, "isl")
        _deviate(self._osl, batch, "osl")

    def _note_sending(self, batch: Batch) -> None:
        sent, clocks = batch.ints["sent_ns"], batch.texts["clock_id"]
        for clock in set(clocks.tolist()):
            instants = sent.values[(clocks == clock) & sent.valid]
            if len(instants):
                n, first, last = self._sending.get(str(clock), (0, int(instants[0]), 0))
                self._sending[str(clock)] = (
                    n + len(instants),
                    min(first, int(instants.min())),
                    max(last, int(instants.max())),
                )

    def _note_failures(self, batch: Batch) -> None:
        outcomes = batch.texts["outcome"]
        for row in np.flatnonzero(outcomes != Outcome.OK.value).tolist():
            found = self._failures.setdefault(str(outcomes[row]), Failure())
            found.count += 1
            if found.count == 1:
                status, text = batch.ints["status"], batch.texts["error"][row]
                found.status = int(status.values[row]) if status.valid[row] else None
                found.example = None if text is None else str(text)

    def result(self) -> Digest:
        """All of the rows so far."""
        frame = frames.joined(self._frame)
        connects = _joined(self._connect_ns)
        return Digest(
            frame=frame,
            measurement=self._tally.result(),
            lags=_joined(self._lags),
            bursts=bursts_of(joined_trains(self._trains)),
            observations=observations.observations(frame, self._more) if self._designed else None,
            chunks=joined_chunks(self._chunks),
            failures=self._failures,
            isl=self._isl,
            osl=self._osl,
            warmups=self._warmups,
            designed=self._designed,
            fresh=len(connects),
            connect_mean_ns=float(connects.mean()) if len(connects) else 0.0,
            retried=self._retried,
            sent_rate=_sent_rate(self._sending),
            stages=self._stages.result(),
        )


def digest(batches: Iterable[Batch], slos: Sequence[Slo] = ()) -> Digest:
    """Read all batches (columns ``COLUMNS``) once."""
    reader = Reader(slos)
    for batch in batches:
        reader.add(batch)
    return reader.result()


def _sent_rate(sending: dict[str, tuple[int, int, int]]) -> float | None:
    """Requests per second while sending went on, on the clock with the most; None for one."""
    n, first, last = max(sending.values(), default=(0, 0, 0))
    return (n - 1) * 1e9 / (last - first) if n > 1 and last > first else None


def _joined(arrays: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate(arrays) if arrays else np.zeros(0, dtype=np.int64)


def _deviate(into: Deviation, batch: Batch, name: str) -> None:
    """Note successful rows whose length differs from the one wanted."""
    got, wanted = batch.ints[name], batch.ints[f"{name}_wanted"]
    good = batch.texts["outcome"] == Outcome.OK.value
    off = np.abs(got.values - wanted.values)
    unlike = good & got.valid & wanted.valid & (off > 0)
    if not unlike.any():
        return
    into.rows += int(unlike.sum())
    worst = int(np.where(unlike, off, -1).argmax())
    if off[worst] > abs(into.worst[0] - into.worst[1]):
        into.worst = (int(got.values[worst]), int(wanted.values[worst]))
