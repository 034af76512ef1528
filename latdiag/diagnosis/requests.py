"""The requests of a workload one by one: when each began, what it was, where its time went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latdiag.ingest.importers.capture import CAPTURED
from latdiag.measurement import frame as frames
from latdiag.measurement import measure, ttft_split
from latdiag.measurement.frame import Frame
from latdiag.measurement.streams import pieces, read_streams
from latdiag.model.errors import RunFault
from latdiag.model.units import NS_PER_MS

if TYPE_CHECKING:
    import pandas as pd

    from latdiag.attribution.parts import Parts
    from latdiag.store.batch import Batch, Ints
    from latdiag.store.run import Reader, Run

#: Texts and whole numbers of a row besides those of the frame.
_TEXTS, _NUMBERS = ("error",), ("attempt", "isl", "osl", "due_ns")
_TIMES = ("ttft", "tpot", "e2e")
#: What the components of an interval add up to.
_WHOLE = {"client_e2e": "e2e", "client_ttft": "ttft", "decode": None}
#: An instant before the year 2000 is of no clock that tells the time of day.
_LEAST_REAL_NS = 946_684_800 * 10**9


class _Rows:
    """Takes the rows of a run as they go by."""

    columns = tuple(
        dict.fromkeys((*frames.COLUMNS, *frames.IDS, *measure.COLUMNS, *_TEXTS, *_NUMBERS))
    )

    def __init__(self) -> None:
        self._frame: list[dict[str, NDArray[Any]]] = []
        self._texts: dict[str, list[NDArray[np.object_]]] = {name: [] for name in _TEXTS}
        self._values: dict[str, list[Ints]] = {name: [] for name in (*_NUMBERS, *_TIMES)}

    def add(self, batch: Batch) -> None:
        for piece in pieces(batch):
            streams = read_streams(piece)
            split = ttft_split.split(piece, streams)
            self._frame.append(frames.columns_of(piece, streams, split))
            times = measure.of_requests(piece, streams)
            for name in _TIMES:
                self._values[name].append(times[name])
            for name in _NUMBERS:
                self._values[name].append(piece.ints[name])
            for name in _TEXTS:
                self._texts[name].append(piece.texts[name])

    def result(self) -> tuple[Frame, dict[str, NDArray[np.object_]], dict[str, _Column]]:
        """(The frame, texts, whole numbers), all rows in reading order."""
        texts = {
            name: np.concatenate(held) if held else np.zeros(0, dtype=object)
            for name, held in self._texts.items()
        }
        return frames.joined(self._frame), texts, {n: _joined(v) for n, v in self._values.items()}


@dataclass(frozen=True, slots=True)
class _Column:
    """int64 of each row, where it is known."""

    values: NDArray[np.int64]
    known: NDArray[np.bool_]

    def select(self, rows: NDArray[np.int64]) -> _Column:
        return _Column(self.values[rows], self.known[rows])

    def floats(self) -> NDArray[np.float64]:
        """Milliseconds, NaN where it is not known. Below 100 days no nanosecond is lost."""
        return np.where(self.known, self.values / NS_PER_MS, np.nan)


def _joined(pieces: Sequence[Ints]) -> _Column:
    none = np.zeros(0, dtype=np.int64)
    return _Column(
        np.concatenate([none, *(piece.values for piece in pieces)]),
        np.concatenate([none.astype(bool), *(piece.valid for piece in pieces)]),
    )


@dataclass(frozen=True, slots=True)
class Workload:
    """The requests of a run, read once. ``frame``, ``texts``, ``values``: all rows, in reading
    order; ``start``: the time of day (UTC) at which each was sent, NaT where its clock is not
    known to tell it. ``at``: the rows of the workload, by when they were sent."""

    frame: Frame
    texts: dict[str, NDArray[np.object_]]
    values: dict[str, _Column]
    start: NDArray[np.datetime64]
    at: NDArray[np.int64]

    @property
    def lag(self) -> NDArray[np.int64]:
        """How late each row was sent, ns."""
        return np.where(self.frame.begun, self.frame.sent - self.frame.begin, 0)


def read_workload(run: Run, *also: Reader) -> Workload:
    """The requests of ``run``. ``also``: who else takes its rows as they go by."""
    rows = _Rows()
    run.read(rows, *also)
    frame, texts, values = rows.result()
    start = _wall(frame, run.writers)
    return Workload(frame, texts, values, start, _ordered(frame, start))


def request_table(run: Run, parts: Parts | None, interval: str = "client_e2e") -> pd.DataFrame:
    """``table_of`` the requests of the workload of ``run``."""
    return table_of(read_workload(run), parts, interval)


def table_of(
    workload: Workload, parts: Parts | None, interval: str = "client_e2e"
) -> pd.DataFrame:
    """A row for each request of the workload, by when it began.

    ``start``: UTC, of the instant from which its times count: when it was sent; NaT where the
    clock of the row is not known to tell the time of day. ``ttft_ms``, ``tpot_ms``, ``e2e_ms``:
    as the metrics of these names define them. ``schedule_lag_ms``: how late the client sent it, in
    open loop. Then a column for each component, ``queue_ms``, or for several that no evidence
    tells apart, ``queue+prefill_ms``: they add up to the nanosecond to ``e2e_ms``, with
    ``interval`` client_ttft to ``ttft_ms``, with decode to the time from the first token to the
    last; and are NaN for requests that could not be taken apart. The schedule lag is not in
    ``client_ms``.
    An estimate (grade B or C) of a single request may be below zero.
    ``attrs["grades"]``: by column of a component, how it is known, A (measured per request) to E.

    RunFault where the run holds other rows than when it was diagnosed (``parts``).
    """
    import pandas as pd

    frame, texts, values, at = workload.frame, workload.texts, workload.values, workload.at
    lag = workload.lag
    times = {name: values[name] for name in _TIMES}
    times["schedule_lag"] = _Column(lag, frame.begun & values["due_ns"].known)
    grades: dict[str, str] = {}
    components: dict[str, _Column] = {}
    if parts is not None and parts.row is not None and parts.interval == "client_e2e":
        named = parts.parts if interval == "client_e2e" else parts.inside(interval)
        components, whole = _components(frame, parts, named, lag)
        if (of := _WHOLE[interval]) is not None:
            times[of] = _laid_over(times[of], whole)
        grades = {f"{label_of(parts, name)}_ms": parts.sources[name].grade for name in named}
    table = pd.DataFrame(
        {
            "start": pd.to_datetime(workload.start[at]).tz_localize("UTC"),
            "request_id": frame.request_id[at],
            "attempt": _nullable(values["attempt"].select(at)),
            **{name: getattr(frame, name)[at] for name in (*frames.IDS, "scenario", "outcome")},
            "status": _nullable(_Column(frame.status, frame.status > 0).select(at)),
            **{name: column[at] for name, column in texts.items()},
            "isl": _nullable(values["isl"].select(at)),
            "osl": _nullable(values["osl"].select(at)),
            **{f"{name}_ms": column.select(at).floats() for name, column in times.items()},
            **{f"{name}_ms": column.select(at).floats() for name, column in components.items()},
        }
    )
    table.attrs["grades"] = grades
    return table


# ---------------------------------------------------------------------- where the time went
def _components(
    frame: Frame,
    parts: Parts,
    named: Mapping[str, NDArray[np.int64]],
    lag: NDArray[np.int64],
) -> tuple[dict[str, _Column], _Column]:
    """(A column for each of the parts ``named``, their sum), without the client's lag."""
    at = parts.row
    assert at is not None
    check_rows(frame, parts)
    columns: dict[str, _Column] = {}
    whole = np.zeros(len(at), dtype=np.int64)
    for name, column in named.items():
        own = column - lag[at] if "client" in members_of(parts, name) else column
        columns[label_of(parts, name)] = _placed(own, at, frame.n)
        whole += own
    return columns, _placed(whole, at, frame.n)


def check_rows(frame: Frame, parts: Parts) -> None:
    """RunFault where the rows of the run are not those that the parts are of."""
    at = parts.row
    assert at is not None
    if (len(at) and int(at.max()) >= frame.n) or not _still_there(frame.select(at), parts):
        raise RunFault("the run has changed since it was diagnosed", "diagnose it again")


def _still_there(rows: Frame, parts: Parts) -> bool:
    """As far as their times tell."""
    ends = rows.done, np.maximum(rows.done, rows.last)
    alike = [end - rows.begin == parts.total for end in ends]
    return bool((alike[0] | alike[1]).all())


def _placed(values: NDArray[np.int64], at: NDArray[np.int64], n: int) -> _Column:
    """``values`` at these rows of ``n``; elsewhere nothing is known."""
    found = _Column(np.zeros(n, dtype=np.int64), np.zeros(n, dtype=bool))
    found.values[at] = values
    found.known[at] = True
    return found


def _laid_over(below: _Column, above: _Column) -> _Column:
    values = np.where(above.known, above.values, below.values)
    return _Column(values, below.known | above.known)


def members_of(parts: Parts, name: str) -> tuple[str, ...]:
    return parts.sources[name].members or (name,)


def label_of(parts: Parts, name: str) -> str:
    """``queue``, or ``queue+prefill`` where they are one part."""
    return "+".join(members_of(parts, name))


# ---------------------------------------------------------------------- when
def _wall(frame: Frame, writers: Sequence[Mapping[str, object]]) -> NDArray[np.datetime64]:
    """The time of day, UTC, at which each row was sent; NaT where it is not known."""
    found = np.full(frame.n, np.datetime64("NaT", "ns"))
    for clock in frame.clocks:
        rows = np.flatnonzero((frame.clock_id == clock) & frame.begun)
        real = _real(frame.sent[rows], clock, writers)
        if real is not None:
            told = real >= _LEAST_REAL_NS
            found[rows[told]] = real[told].astype("datetime64[ns]")
    return found


def _real(
    instants: NDArray[np.int64], clock: str, writers: Sequence[Mapping[str, object]]
) -> NDArray[np.int64] | None:
    """REALTIME of instants of ``clock``, by the series that the writers kept of it."""
    if clock.startswith(CAPTURED):
        return instants
    series = [
        tuple(sample[:2])
        for writer in writers
        if writer.get("clock_id") == clock and isinstance(kept := writer.get("clock"), list)
        for sample in kept
    ]
    if not series:
        return None
    mono, real = np.array(sorted(series), dtype=np.int64).T
    # Differences to one offset: the offsets themselves exceed what a float64 holds.
    base = int(real[0] - mono[0])
    drift = np.interp(instants, mono, (real - mono - base).astype(float))
    found: NDArray[np.int64] = instants + base + np.rint(drift).astype(np.int64)
    return found


def _ordered(frame: Frame, start: NDArray[np.datetime64]) -> NDArray[np.int64]:
    """The rows of the workload by when they were sent, then as they were read."""
    rows = np.flatnonzero(frame.workload)
    return rows[np.lexsort((frame.sent[rows], start[rows]))]


def _nullable(column: _Column) -> Any:
    import pandas as pd

    return pd.arrays.IntegerArray(column.values.copy(), ~column.known)
