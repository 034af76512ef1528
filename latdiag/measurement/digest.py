"""One pass over a run's rows: metrics, TTFT split, partition, failures, what deviates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.client_only import partition
from latdiag.attribution.parts import Parts
from latdiag.measurement import measure, ttft_split
from latdiag.measurement.measurement import Measurement
from latdiag.measurement.slo import Slo
from latdiag.measurement.stages import DESIGNED
from latdiag.measurement.ttft_split import TtftSplit
from latdiag.model.records import Outcome

if TYPE_CHECKING:
    from latdiag.store.batch import Batch

#: What ``digest`` reads; ask the store for these.
COLUMNS = tuple(
    dict.fromkeys((*measure.COLUMNS, *ttft_split.COLUMNS, "status", "error", "reused"))
)


WARMUP = "warmup"


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
    """All that a report says of the rows. Arrays are int64 ns, one entry per row.

    ``split`` and ``sent`` (instants) have one entry per row that could be split, in one order.
    """

    measurement: Measurement
    parts: Parts
    split: dict[str, NDArray[np.int64]]
    sent: NDArray[np.int64]
    lags: NDArray[np.int64]
    failures: dict[str, Failure] = field(default_factory=dict)
    isl: Deviation = field(default_factory=Deviation)
    osl: Deviation = field(default_factory=Deviation)
    warmups: int = 0
    #: requests that only taught a probe its laws
    designed: int = 0
    fresh: int = 0
    connect_mean_ns: float = 0.0
    bounded: int = 0
    retried: int = 0
    sent_rate: float | None = None


class _Pass:
    """What is gathered while the batches go by."""

    def __init__(self, slos: Sequence[Slo]) -> None:
        self.tally = measure.Tally(slos)
        self.splits: list[TtftSplit] = []
        self.sent: list[NDArray[np.int64]] = []
        self.lags: list[NDArray[np.int64]] = []
        #: per clock: requests, first and last instant of sending
        self.sending: dict[str, tuple[int, int, int]] = {}
        self.retried = 0
        self.failures: dict[str, Failure] = {}
        self.isl, self.osl = Deviation(), Deviation()
        self.warmups = self.designed = self.fresh = 0
        self.connect_ns: list[NDArray[np.int64]] = []

    def through(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Hand on the batches without warm-up and designed stages, noting what they hold."""
        for batch in batches:
            stage = batch.texts["stage"]
            aside = np.isin(stage, DESIGNED)
            if aside.any():
                warm = int((stage == WARMUP).sum())
                self.warmups += warm
                self.designed += int(aside.sum()) - warm
                batch = batch.select(~aside)
            if batch.n:
                self._note(batch)
                yield batch

    def _note(self, batch: Batch) -> None:
        self.tally.add(batch)
        split = ttft_split.split(batch)
        self.splits.append(split)
        self.sent.append(batch.ints["sent_ns"].values[split.row])
        due, sent = batch.ints["due_ns"], batch.ints["sent_ns"]
        known = due.valid & sent.valid
        self._note_sending(batch)
        self.retried += int(batch.ints["retry_ns"].valid.sum())
        self.lags.append((sent.values - due.values)[known])
        self._note_failures(batch)
        _deviate(self.isl, batch, "isl")
        _deviate(self.osl, batch, "osl")
        fresh = split.connect > 0
        self.fresh += int(fresh.sum())
        self.connect_ns.append(split.connect[fresh])

    def _note_sending(self, batch: Batch) -> None:
        sent, clocks = batch.ints["sent_ns"], batch.texts["clock_id"]
        for clock in set(clocks.tolist()):
            instants = sent.values[(clocks == clock) & sent.valid]
            if len(instants):
                n, first, last = self.sending.get(str(clock), (0, int(instants[0]), 0))
                self.sending[str(clock)] = (
                    n + len(instants),
                    min(first, int(instants.min())),
                    max(last, int(instants.max())),
                )

    def _note_failures(self, batch: Batch) -> None:
        outcomes = batch.texts["outcome"]
        for row in np.flatnonzero(outcomes != Outcome.OK.value).tolist():
            found = self.failures.setdefault(str(outcomes[row]), Failure())
            found.count += 1
            if found.count == 1:
                status, text = batch.ints["status"], batch.texts["error"][row]
                found.status = int(status.values[row]) if status.valid[row] else None
                found.example = None if text is None else str(text)


def digest(batches: Iterable[Batch], slos: Sequence[Slo] = ()) -> Digest:
    """Read all batches (columns ``COLUMNS``) once."""

    seen = _Pass(slos)
    parts = partition(seen.through(batches))
    names = ("ttft", "client", "network", "network_lo", "network_hi", "server")
    joined: dict[str, Any] = {
        name: _joined([getattr(split, name) for split in seen.splits]) for name in names
    }
    connects = _joined(seen.connect_ns)
    return Digest(
        measurement=seen.tally.result(),
        parts=parts,
        split=joined,
        sent=_joined(seen.sent),
        lags=_joined(seen.lags),
        failures=seen.failures,
        isl=seen.isl,
        osl=seen.osl,
        warmups=seen.warmups,
        designed=seen.designed,
        fresh=seen.fresh,
        connect_mean_ns=float(connects.mean()) if len(connects) else 0.0,
        retried=seen.retried,
        sent_rate=_sent_rate(seen.sending),
        bounded=sum(int(split.delayed.sum()) for split in seen.splits),
    )


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
