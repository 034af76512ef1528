"""What the server truly did, kept in memory and written when the load is over."""

from __future__ import annotations

import json
from array import array
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: A send later than this is late; a run with more than this share of late sends is void.
LATE_NS = 1_000_000
LATE_SHARE = 0.001
#: Lockstep only: the sends of a step must be over within this share of it (p99).
BURST_SHARE = 0.9


@dataclass(slots=True)
class RequestRecord:
    """One request as the server saw it. ``*_real`` CLOCK_REALTIME, ``*_mono`` CLOCK_MONOTONIC, ns.

    ``first_real``/``last_real``: kernel arrival stamps of its first and last byte (of the last
    segment in the read that brought that byte). ``rx_first``/``rx_last``/``tx_first``: offsets in
    the raw byte stream of the connection, of the request's first byte, one past its last byte,
    and one past the last byte of the first token's send.
    """

    number: int
    connection: int
    nth: int
    accept_mono: int
    first_real: int
    last_real: int
    read_mono: int
    read_real: int
    port: int
    rx_first: int
    rx_last: int
    size: int
    request_id: str
    traceparent: str
    prompt: int = 0
    ttft_ns: int = 0
    think_ns: int = 0
    withheld: bool = False
    tokens: int = 0
    chunks: int = 0
    tx_first: int = 0
    finished: bool = False


@dataclass(slots=True)
class Records:
    """One row a send. ``tx_real`` is filled where the kernel's transmit stamp was asked for."""

    capacity: int
    with_tx: bool = False
    count: int = 0
    dropped: int = 0
    blocked: int = 0
    requests: list[RequestRecord] = field(default_factory=list)
    request: array[int] = field(init=False)
    index: array[int] = field(init=False)
    due: array[int] = field(init=False)
    mono: array[int] = field(init=False)
    real: array[int] = field(init=False)
    after: array[int] = field(init=False)
    tx_real: array[int] = field(init=False)

    def __post_init__(self) -> None:
        self.request = array("i", bytes(4 * self.capacity))
        self.index = array("i", bytes(4 * self.capacity))
        for name in ("due", "mono", "real", "after"):
            setattr(self, name, array("q", bytes(8 * self.capacity)))
        self.tx_real = array("q", bytes(8 * self.capacity * self.with_tx))

    def add(self, request: int, index: int, due: int, mono: int, real: int, after: int) -> int:
        """The row's number, -1 where there was no room (counted: the run is void)."""
        row = self.count
        if row >= self.capacity:
            self.dropped += 1
            return -1
        self.request[row] = request
        self.index[row] = index
        self.due[row] = due
        self.mono[row] = mono
        self.real[row] = real
        self.after[row] = after
        self.count = row + 1
        return row

    def columns(self) -> dict[str, NDArray[Any]]:
        """Copies of the filled part, and of the requests under ``r_NAME``."""
        rows: dict[str, NDArray[Any]] = {}
        for name in ("request", "index", "due", "mono", "real", "after", "tx_real"):
            rows[name] = np.array(getattr(self, name)[: self.count])
        if not self.with_tx:
            del rows["tx_real"]
        listed = [asdict(r) for r in self.requests]
        for each in fields(RequestRecord):
            rows[f"r_{each.name}"] = np.array([r[each.name] for r in listed])
        return rows

    def dump(self, path: Path, settings: dict[str, Any]) -> dict[str, Any]:
        """Writes PATH (npz) and returns the summary, which the file holds too (``meta``)."""
        columns: dict[str, Any] = self.columns()
        summary = {**settings, **self.summary(columns, settings)}
        with path.open("wb") as file:
            np.savez(file, meta=np.array(json.dumps(summary)), **columns)
        return {**summary, "path": str(path)}

    def summary(
        self, columns: dict[str, NDArray[Any]], settings: dict[str, Any]
    ) -> dict[str, Any]:
        step = round(settings.get("lockstep_ms", 0.0) * 1e6)
        late = lateness(columns, step > 0)
        said: dict[str, Any] = {
            "requests": len(self.requests),
            "sends": self.count,
            "token_sends": len(late),
            "dropped": self.dropped,
            "blocked": self.blocked,
            "late_p50_us": _percentile_us(late, 50),
            "late_p99_us": _percentile_us(late, 99),
            "late_max_us": _percentile_us(late, 100),
            "late_share": float(np.mean(late > LATE_NS)) if len(late) else 0.0,
            "burst_p99_us": _percentile_us(bursts(columns), 99) if step else 0.0,
        }
        said["void_because"] = void_because(said, step)
        return said


def lateness(columns: dict[str, NDArray[Any]], lockstep: bool) -> NDArray[np.int64]:
    """ns that each token's send began after it should have.

    Free-running: after its due time. Lockstep: all streams are due at one instant and one thread
    sends one after another, so a send is due when the send before it has returned, if that is
    later than the grid; how long the whole step took is checked apart (``bursts``).
    """
    should = columns["due"]
    if lockstep and len(should):
        before = np.concatenate([should[:1], columns["after"][:-1]])
        should = np.maximum(should, before)
    late: NDArray[np.int64] = (columns["mono"] - should)[columns["index"] >= 0]
    return late


def bursts(columns: dict[str, NDArray[Any]]) -> NDArray[np.int64]:
    """ns from each grid point to the return of its last send."""
    tokens = columns["index"] >= 0
    due, after = columns["due"][tokens], columns["after"][tokens]
    if not len(due):
        return np.zeros(0, np.int64)
    grid, which = np.unique(due, return_inverse=True)
    last = np.zeros(len(grid), np.int64)
    np.maximum.at(last, which, after)
    return np.asarray(last - grid, np.int64)


def void_because(summary: dict[str, Any], step_ns: int) -> list[str]:
    """Why this run can judge nobody; empty when it can."""
    reasons = []
    if summary["late_share"] > LATE_SHARE:
        reasons.append(f"{summary['late_share']:.2%} of the sends late by over 1 ms")
    if summary["dropped"]:
        reasons.append(f"{summary['dropped']} records dropped")
    if summary["blocked"]:
        reasons.append(f"{summary['blocked']} sends would have blocked")
    if step_ns and summary["burst_p99_us"] * 1000 > BURST_SHARE * step_ns:
        reasons.append(f"a lockstep burst takes {summary['burst_p99_us'] / 1000:.1f} ms (p99)")
    return reasons


def _percentile_us(values: NDArray[np.int64], q: float) -> float:
    return float(np.percentile(values, q)) / 1000 if len(values) else 0.0
