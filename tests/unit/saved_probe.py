"""Runs on disk, as ``probe`` and ``load`` leave them, from requests made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latdiag.model.records import Kind, Outcome
from latdiag.store.writer import RunWriter, create_run
from tests.run_documents import header, state

from .probe_rows import CLIENT, MS, REST, TRIP, Reply

_SINCE = 10**15


def save(
    path: Path,
    replies: Sequence[Reply],
    *,
    writers: Sequence[str] = ("w",),
    designed: bool = True,
    late_ms: float = 0.0,
    clock: str = "c1",
    url: str = "http://127.0.0.1:8000/v1",
    since: int = _SINCE,
) -> str:
    """A closed run of these requests, dealt out to ``writers``. ``late_ms``: by how much the
    workload's requests left after they were due."""
    verb = "probe" if designed else "load"
    create_run(str(path), header(verb, target={"url": url}, plan={"designed": designed}))
    for place, name in enumerate(writers):
        writer = RunWriter(str(path), name)
        mine = replies[place :: len(writers)]
        rows = [_row(r, n, name, late_ms, clock, since) for n, r in enumerate(mine)]
        for half in (rows[::2], rows[1::2]):
            if half:
                writer.write_part({key: [row[key] for row in half] for key in half[0]})
        writer.write_state(state(pid=place))
    return str(path)


def _row(
    reply: Reply, number: int, writer: str, late_ms: float, clock: str, since: int
) -> dict[str, Any]:
    """The row of a request on a kept-alive connection with kernel stamps."""
    sent = since + reply.begin
    wire = sent + CLIENT
    arrivals = [since + at for at in reply.arrivals]
    due = sent - round(late_ms * MS) if reply.stage == "S10" else None
    answered = wire + TRIP + reply.answer if reply.answer >= 0 else None
    got = bool(arrivals)
    outcome = Outcome.OK if got or reply.scenario == "get" else Outcome.HTTP_ERROR
    return {
        "request_id": f"{writer}-{number}",
        "attempt": 1,
        "clock_id": clock,
        "scenario": reply.scenario,
        "stage": reply.stage,
        "due_ns": due,
        "sent_ns": sent,
        "written_ns": wire - 1000,
        "wire_ns": wire,
        "wire_last_ns": wire,
        "acked_ns": wire + TRIP,
        "headers_ns": arrivals[0] if got else answered,
        "arrivals_ns": arrivals,
        "arrivals_user_ns": arrivals,
        "tokens": list(reply.tokens) if got else [],
        "kinds": [int(Kind.ANSWER)] * len(arrivals),
        "censored": [False] * len(arrivals),
        "done_ns": arrivals[-1] + REST if got else answered,
        "min_rtt_ns": TRIP,
        "reused": True,
        "clock_step": False,
        "isl": reply.isl or None,
        "isl_wanted": reply.isl or None,
        "osl": sum(reply.tokens) if got else None,
        "osl_wanted": sum(reply.tokens) if got else None,
        "token_source": "ids" if got else None,
        "stamp_source": "kernel" if got else None,
        "outcome": outcome.value,
        "status": reply.status,
        "error": None if outcome is Outcome.OK else "HTTP 500",
    }
