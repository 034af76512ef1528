"""Rows of a virtual client as the store has them: for the design while it goes on, and as a run
that ``latdiag diagnose`` reads like any other."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from latdiag.diagnosis.undecided import undecided
from latdiag.load.plan import BUSY
from latdiag.load.tokens import TokenCounts, token_counts
from latdiag.measurement.observations import COLUMNS, Observations, observe
from latdiag.measurement.stages import Limits, PathStage, Stage
from latdiag.model.records import Kind, Outcome, StampSource
from latdiag.probe.design import probe
from latdiag.store.arrays import to_batch
from latdiag.store.batch import Batch, Lists
from latdiag.store.columns import arrow_batch
from latdiag.store.writer import RunWriter, create_run
from tests.run_documents import header, state

from .client import Client, Row
from .habits import Habit
from .world import World

#: As ``latdiag.probe.run``: a probe leans on no server that is down; what is refused as too many
#: the design heeds. Whoever changes that there changes it here: that file is about sockets and
#: processes, and has no part that could be called without them.
_GIVE_UP, _ENOUGH = 0.2, 10
#: Tokens that a chat template adds to a prompt.
_TEMPLATE = 11
_CLOCK = "5eed000000000001"


def probed(world: World, limits: Limits, path: Path, draw: random.Random) -> list[Row]:
    """A whole probe of ``world``, into the run ``path``; all its rows."""
    client, run = Client(world, draw), Writing(path, limits)
    design = probe(limits, lambda: undecided(str(path)))
    stage: Stage | PathStage | None = next(design, None)
    while stage is not None:
        rows = client.execute(stage)
        run.add(rows)
        if _ends(client.rows):
            break
        try:
            stage = design.send(run.observed())
        except StopIteration:
            stage = None
    run.close()
    return client.rows


def _ends(rows: Sequence[Row]) -> bool:
    failed = sum(not (row.ok or row.status == 400 or row.status in BUSY) for row in rows)
    return len(rows) >= _ENOUGH and failed > _GIVE_UP * len(rows)


class Writing:
    """A run that grows stage by stage."""

    def __init__(self, path: Path, limits: Limits) -> None:
        plan = {"designed": True, "budget": limits.budget, "seed": limits.seed}
        plan["limits"] = {
            "max_tokens": limits.max_tokens,
            "max_model_len": limits.max_model_len,
            "isl": ",".join(map(str, limits.isl)) if limits.isl else None,
            "osl": ",".join(map(str, limits.osl)) if limits.osl else None,
            "rate": limits.rate,
            "concurrency": limits.concurrency,
        }
        create_run(str(path), header("probe", plan=plan))
        self._writer = RunWriter(str(path), "world")
        self._batches: list[Batch] = []
        self._numbers = count(1)
        self._rows = self._failed = 0

    def add(self, rows: Sequence[Row]) -> None:
        if not rows:
            return
        columns = columns_of(rows, self._numbers)
        seen = arrow_batch("requests", columns).select(list(dict.fromkeys(COLUMNS)))
        self._batches.append(to_batch(seen))
        self._writer.write_part(columns)
        self._rows += len(rows)
        self._failed += sum(not row.ok for row in rows)

    def observed(self) -> Observations:
        return observe(self._batches)

    def close(self) -> None:
        counts = {"begun": self._rows, "rows": self._rows, "lost": 0, "failed": self._failed}
        audit = {"reader_cpu_worst_5s": 0.05, "run_queue_share": 0.0, "starved_share": 0.0,
                 "wall_ns": 60_000_000_000}  # fmt: skip
        self._writer.write_state(
            state(writer="world", clock_id=_CLOCK, counts=counts, audit=audit)
        )


def columns_of(rows: Sequence[Row], numbers: Any) -> dict[str, Any]:
    """The table ``requests``."""
    n = len(rows)
    sizes = [len(_stream(row)) for row in rows]
    offsets = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
    flat = [each for row in rows for each in _stream(row)]
    arrivals = np.array([at for at, _ in flat], dtype=np.int64)
    counts = [_counted(row) for row in rows]
    known = np.array([each.counts is not None for each in counts], dtype=bool)
    brought = [n for each in counts for n in each.counts or ()]
    kinds = [kind for each in counts for kind in each.kinds]
    ends = np.concatenate(([0], np.cumsum(np.where(known, sizes, 0)))).astype(np.int64)
    ids = [f"w{next(numbers):07d}" for _ in rows]
    return {
        "request_id": ids,
        "attempt": np.ones(n, dtype=np.int64),
        "scenario": [row.scenario for row in rows],
        "stage": [row.stage for row in rows],
        "clock_id": [_CLOCK] * n,
        "node": ["world"] * n,
        "worker": ["world"] * n,
        **_instants(rows),
        "arrivals_ns": Lists.whole(arrivals, offsets),
        "arrivals_user_ns": Lists.whole(arrivals + 25_000, offsets),
        "kinds": Lists.whole(np.array(kinds, dtype=np.int8), offsets),
        "censored": Lists.whole(np.zeros(len(flat), dtype=bool), offsets),
        "tokens": Lists(np.array(brought, dtype=np.int32), ends, known),
        **_figures(rows, counts),
    }


def _counted(row: Row) -> TokenCounts:
    """As the client counts the tokens of what it received."""
    events = [event for _, event in _stream(row)]
    habit: Habit = row.request.notes.get("habit", Habit())
    by_ids = [e.tokens or None if habit.counts == "ids" else None for e in events]
    so_far = [e.so_far if habit.counts == "so far" else None for e in events]
    total = next((e.so_far for e in reversed(events) if e.kind is Kind.USAGE), None)
    total = so_far[-1] if events and total is None else total
    return token_counts([event.kind for event in events], by_ids, so_far, total)


def _stream(row: Row) -> list[tuple[int, Any]]:
    """Events that a reply's stream has; the replies of the path have none."""
    return row.events if row.osl and row.ok else []


def _instants(rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "due_ns": [row.due for row in rows],
        "sent_ns": [row.sent for row in rows],
        "dns_ns": [row.connected and row.sent + 50_000 for row in rows],
        "tcp_ns": [row.connected for row in rows],
        "written_ns": [row.written for row in rows],
        "wire_ns": [row.wire for row in rows],
        "wire_last_ns": [row.wire_last for row in rows],
        "acked_ns": [row.acked for row in rows],
        "headers_ns": [row.head for row in rows],
        "done_ns": [row.done for row in rows],
        "min_rtt_ns": [row.trip for row in rows],
    }


def _figures(rows: Sequence[Row], counts: Sequence[TokenCounts]) -> dict[str, Any]:
    n = len(rows)
    # Who states the reply's length states the prompt's.
    told = [row.isl + _TEMPLATE if _states(row) else None for row in rows]
    outcomes = [_outcome(row) for row in rows]
    return {
        "isl": told,
        "osl": [each.osl for each in counts],
        "isl_wanted": [row.isl or None for row in rows],
        "osl_wanted": [row.osl or None for row in rows],
        "token_source": [each.source.value for each in counts],
        "stamp_source": [StampSource.KERNEL.value] * n,
        "retransmits": np.zeros(n, dtype=np.int64),
        "out_of_order": np.zeros(n, dtype=np.int64),
        "reused": [row.connected is None for row in rows],
        "clock_step": np.zeros(n, dtype=bool),
        "retry_after_s": [row.wait_s for row in rows],
        "outcome": outcomes,
        "status": [row.status for row in rows],
        "error": [
            None if o == "ok" else _refusal(row) if row.status else "no answer in time"
            for o, row in zip(outcomes, rows, strict=True)
        ],
    }


def _refusal(row: Row) -> str:
    return f"HTTP {row.status}: {row.words}" if row.words else f"HTTP {row.status}"


def _states(row: Row) -> bool:
    """Whether its reply has usage."""
    return any(event.kind is Kind.USAGE for _, event in _stream(row))


def _outcome(row: Row) -> str:
    if row.status == 429:
        return Outcome.RATE_LIMITED.value
    if row.done is None:
        return Outcome.TIMEOUT.value
    return (Outcome.OK if row.status == 200 else Outcome.HTTP_ERROR).value
