"""What a client says it saw, whichever client it was: the one form that is scored."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: In place of an instant that a client does not state.
UNKNOWN = -1

_NUMBER = re.compile(r"cmpl-(\d+)$")


def number_of(response_id: str | None) -> int:
    """The server's request number out of the id it gave to a reply; UNKNOWN where it is not."""
    found = _NUMBER.search(response_id or "")
    return int(found[1]) if found else UNKNOWN


@dataclass(slots=True)
class Seen:
    """Request i: reply ``number[i]``, token arrivals ``arrivals[offsets[i]:offsets[i+1]]``.

    All instants in ns of CLOCK_MONOTONIC. ``user`` is when the client began with the request,
    ``wire`` when it says the request left, ``done`` the end; UNKNOWN where it states none.
    ``notes`` is for the table: what had to be left out, and why.
    """

    number: NDArray[np.int64]
    offsets: NDArray[np.int64]
    arrivals: NDArray[np.int64]
    censored: NDArray[np.bool_]
    user: NDArray[np.int64]
    wire: NDArray[np.int64]
    done: NDArray[np.int64]
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.number)


@dataclass(slots=True)
class Collector:
    """Builds a Seen request by request."""

    numbers: list[int] = field(default_factory=list)
    arrivals: list[NDArray[np.int64]] = field(default_factory=list)
    censored: list[NDArray[np.bool_]] = field(default_factory=list)
    starts: list[tuple[int, int, int]] = field(default_factory=list)

    def add(
        self,
        number: int,
        arrivals: NDArray[np.int64],
        censored: NDArray[np.bool_],
        *,
        user: int = UNKNOWN,
        wire: int = UNKNOWN,
        done: int = UNKNOWN,
    ) -> None:
        self.numbers.append(number)
        self.arrivals.append(arrivals)
        self.censored.append(censored)
        self.starts.append((user, wire, done))

    def seen(self) -> Seen:
        lengths = np.array([len(a) for a in self.arrivals], np.int64)
        starts = np.array(self.starts, np.int64).reshape(-1, 3)
        return Seen(
            number=np.array(self.numbers, np.int64),
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            arrivals=np.concatenate([np.zeros(0, np.int64), *self.arrivals]),
            censored=np.concatenate([np.zeros(0, np.bool_), *self.censored]),
            user=starts[:, 0],
            wire=starts[:, 1],
            done=starts[:, 2],
        )


#: Kinds of the run's schema that bear output: reasoning, answer, tool, refusal.
OUTPUT_KINDS = (2, 3, 4, 6)

_COLUMNS = ["response_id", "outcome", "sent_ns", "wire_ns", "done_ns"]
_LISTS = ["arrivals_ns", "kinds", "censored"]


def of_run(run: Path) -> Seen:
    """Reads a latdiag run from its parquet parts, by the schema alone."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts = sorted((run / "requests").glob("*.parquet"))
    if not parts:
        raise FileNotFoundError(f"{run} holds no requests")
    wanted = _COLUMNS + _LISTS
    table = pa.concat_tables([pq.read_table(p, columns=wanted) for p in parts])
    collector, failed = Collector(), 0
    for row in table.to_pylist():
        if row["outcome"] != "ok":
            failed += 1
            continue
        output = np.isin(np.array(row["kinds"], np.int8), OUTPUT_KINDS)
        collector.add(
            number_of(row["response_id"]),
            np.array(row["arrivals_ns"], np.int64)[output],
            np.array(row["censored"], np.bool_)[output],
            user=_known(row["sent_ns"]),
            wire=_known(row["wire_ns"]),
            done=_known(row["done_ns"]),
        )
    made = collector.seen()
    if failed:
        made.notes.append(f"{failed} requests failed")
    return made


def _known(value: int | None) -> int:
    return UNKNOWN if value is None else value
