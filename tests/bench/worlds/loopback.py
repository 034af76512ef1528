"""Probes of served worlds by the program itself, and their truth: a sample of the virtual ones."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from latdiag.model.records import Kind
from latdiag.store.run import Run

from .client import Row
from .draft import EPOCH
from .judge import Answer, answer_of, book_of, judge
from .kinds import drawn
from .request import Event
from .sockets import RealClock, Served, Serving
from .truth import SEND, Cause, Ledger
from .work import LATDIAG, Record, Task

#: The loopback device, as far as the kernel's own ACK bounds it; what lies between that and the
#: server's reading of a request is the server's.
_WAY = Cause("network.upload", "loopback", ("ack",))
_READ = Cause("frontend.parse", "reading of the request", ("refused",))
_PROBE_S = 400


def sampled(tasks: Iterable[Task]) -> Iterator[Record]:
    """One after the other: each probe has the machine for itself as far as it can."""
    for task in tasks:
        yield asyncio.run(_probed(task))


async def _probed(task: Task) -> Record:
    clock = RealClock(EPOCH)
    world, draft = drawn(task.kind, task.seed, clock)
    serving = Serving(world)
    url = f"http://127.0.0.1:{await serving.start()}/v1"
    given = []
    for name, value in draft.workload.items():
        # The program takes a law of lengths where a design takes the lengths.
        shown = value[0] if isinstance(value, tuple) else value
        given += [f"--{name}", str(shown)]
    begun = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "latdiag", "probe", url, "--json", "--quiet", "--budget",
        task.budget, "--out", str(task.run), "--seed", "7", *given,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), _PROBE_S)
    await serving.close()
    rows = list(rows_of(task.run, serving)) if task.run.is_dir() else []
    record = Record(task, book_of(rows), world.described)
    record.lasted_s, record.requests = time.monotonic() - begun, len(serving.served)
    try:
        said = json.loads(out)
        record.sentence = said["verdict"]["sentence"]
        answer = answer_of(said)
    except (ValueError, KeyError):
        # A probe that cannot be finished has not answered.
        record.sentence = err.decode(errors="replace").strip()[-200:]
        answer = Answer("insufficient")
    record.judged[LATDIAG] = judge(answer, record.book)
    return record


def rows_of(path: Path, serving: Serving) -> Iterator[Row]:
    """The workload's rows with the ledger of what the world did for them."""
    frame = Run.open(str(path)).frame()
    for one in frame[frame["stage"] == "S10"].to_dict("records"):
        served = serving.served.get(str(one["request_id"]))
        if served is not None:
            yield _row(one, served, serving.clock.shift)


def _row(one: dict[str, Any], served: Served, shift: int) -> Row:
    def at(name: str) -> int | None:
        value = one[name]
        return int(value) if isinstance(value, int) else None

    row = Row("S10", str(one["scenario"]), served.request, at("due_ns"), at("sent_ns") or 0, 0, 0)
    row.status, row.done = int(one["status"] or 0), at("done_ns")
    if one["outcome"] != "ok" or row.done is None:
        row.done = None
        return row
    row.events = [
        (int(t), Event(Kind.ANSWER, 1))
        for t, kind in zip(one["arrivals_ns"], one["kinds"], strict=True)
        if kind in (Kind.ANSWER, Kind.REASONING)
    ]
    row.request.ledger = whole(row, at("wire_ns"), at("acked_ns"), served, shift)
    return row


def whole(row: Row, wire: int | None, acked: int | None, served: Served, shift: int) -> Ledger:
    """From ``begin`` to ``done`` by the client's clock, the world's own time between."""
    assert row.done is not None
    ledger = Ledger(row.begin)
    sent = min(max(wire or row.sent, row.begin), served.came)
    ledger.book(sent, SEND)
    ledger.book(min(max(acked or sent, sent), served.came), _WAY)
    ledger.book(served.came, _READ)
    for cause, took in served.ledger.spent.items():
        # The client may have the last byte before the server's write returns.
        ledger.book(min(ledger.at + took, max(row.done, ledger.at)), cause)
    ledger.book(max(row.done, ledger.at), _WAY)
    return ledger
