"""An open-loop load on a drawn server in virtual time, saved as the run that a client and a
collector would have left: rows of requests, and spans that went through real protobuf.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from latdiag.ingest.otlp.keep import Keep
from latdiag.ingest.otlp.rows import SpanRows
from latdiag.model.records import Kind, Outcome
from latdiag.sim import spans, virtual
from latdiag.sim.engine import Engine
from latdiag.sim.params import Params
from latdiag.sim.telemetry import Telemetry
from latdiag.sim.truth import Truth
from latdiag.stacks.catalogue import stacks
from latdiag.store.writer import RunWriter, create_run
from tests.run_documents import header, state

#: The client's own work on a request, and from its last token to its last byte.
CLIENT_NS, REST_NS = 60_000, 100_000
#: REALTIME minus the engine's clock; one way to the first hop.
_REAL_NS, _HOP_NS = 1_700_000_000_000_000_000, 30_000
_PAUSE_NS = 2_000_000_000
#: Spans of one export.
_EXPORT = 40
_SEGMENTS = 4


@dataclass(slots=True)
class Row:
    """One request as the client sees it: due and sent at once. ``key`` finds its truth."""

    key: str
    segment: int
    isl: int
    osl: int
    begin: int
    arrivals: list[int] = field(default_factory=list)

    @property
    def wire(self) -> int:
        """When it was on the wire."""
        return self.begin + CLIENT_NS

    @property
    def done(self) -> int:
        """When its last byte came."""
        return self.arrivals[-1] + REST_NS

    @property
    def total(self) -> int:
        return self.done - self.begin


@dataclass(frozen=True, slots=True)
class Load:
    """What happened: requests in the order in which they were due, and the server's books."""

    seed: int
    rows: tuple[Row, ...]
    truths: dict[str, Truth]

    @property
    def middle_s(self) -> float:
        """Seconds from the first request to the middle of the load."""
        return (self.rows[-1].begin - self.rows[0].begin) / 2e9


def rate_per_s(params: Params, draw: random.Random) -> float:
    """As a probe offers: six a second, three in flight and prefill for 0.3 of the time at most,
    from what the server needs for requests that never meet."""
    trial = list(_lengths(draw, 30))
    apart = [(str(n), n * 100_000_000_000, *one) for n, one in enumerate(trial)]
    alone = [truth for _, truth in virtual.play(params, 1, apart).values()]
    whole = sum(truth.finished_ns - truth.arrived_ns for truth in alone) / len(alone) / 1e9
    prefill = sum(truth.leaves["prefill.own"] for truth in alone) / len(alone) / 1e9
    return min(6.0, 3 / (whole + 2e-3 * params.network_ms), 0.3 / max(prefill, 1e-9))


def _lengths(draw: random.Random, count: int) -> Iterator[tuple[int, int]]:
    """(ISL, OSL) as a probe's own workload has them: log-normal."""
    for _ in range(count):
        isl = min(1024, max(32, round(draw.lognormvariate(5.545, 0.6))))
        yield isl, min(96, max(8, round(draw.lognormvariate(3.178, 0.5))))


def loaded(params: Params, seed: int, count: int = 240) -> Load:
    """Poisson arrivals in independent segments, over the relay's way if there is one."""
    draw = random.Random(f"load {seed}")
    rate, engine, rows = rate_per_s(params, draw), Engine(params, seed), list[Row]()
    at_ns = 1_000_000_000
    for place, (isl, osl) in enumerate(_lengths(draw, count)):
        segment = place * _SEGMENTS // count
        at_ns += round(draw.expovariate(rate) * 1e9)
        if rows and segment != rows[-1].segment:
            at_ns += _PAUSE_NS
        rows.append(Row(f"r{place + 1}", segment, isl, osl, at_ns))
    for row in rows:
        engine.submit(row.key, row.wire + _HOP_NS + _way(params, draw), row.isl, row.osl)
    by_key = {row.key: row for row in rows}
    while (now_ns := engine.next_ns()) is not None:
        for emission in engine.advance(now_ns):
            arrivals = by_key[emission.key].arrivals
            came = emission.at_ns + _way(params, draw) + _HOP_NS
            arrivals.append(max([came, *arrivals[-1:]]))
    return Load(seed, tuple(rows), {row.key: engine.pop_truth(row.key) for row in rows})


def _way(params: Params, draw: random.Random) -> int:
    """Over the relay, one way."""
    jitter = params.network_jitter_ms
    extra = draw.expovariate(1 / jitter) if jitter else 0.0
    return round((params.network_ms + extra) * 1e6)


# ---------------------------------------------------------------------- as a run
def save(load: Load, faults: Telemetry, path: Path) -> frozenset[str]:
    """The run; the requests of which every span came, by request id."""
    told = virtual.told(
        [(_context(row), _asked(row), load.truths[row.key]) for row in load.rows],
        faults,
        load.seed,
        _REAL_NS,
    )
    create_run(str(path), header(plan={"seed": load.seed}))
    writer = RunWriter(str(path), "w")
    rows = [_saved(row) for row in load.rows]
    writer.write_part({name: [row[name] for row in rows] for name in rows[0]})
    writer.write_evidence(_received(told))
    writer.write_state(state(pid=1))
    came: dict[str, set[str]] = {}
    for one in told:
        came.setdefault(one.record.trace_id, set()).add(one.part)
    return frozenset(
        row.key
        for row in load.rows
        if came.get(trace_id(row)) == {visit.part for visit in load.truths[row.key].visits}
    )


def trace_id(row: Row) -> str:
    return f"{int(row.key[1:]):032x}"


def _span_id(row: Row) -> str:
    return f"{int(row.key[1:]):016x}"


def _context(row: Row) -> spans.Context:
    return spans.Context(f"00-{trace_id(row)}-{_span_id(row)}-01")


def _asked(row: Row) -> spans.Asked:
    return spans.Asked(f"cmpl-{row.key}", chat=False, max_tokens=row.osl, temperature=0.0)


def _received(told: Sequence[virtual.Told]) -> dict[str, Any]:
    """As rows of evidence, in the order of arrival: a sender exports some spans at once."""
    rows = SpanRows(Keep.of(stacks()))
    for part, run in groupby(told, key=lambda one: one.part):
        mine = list(run)
        for place in range(0, len(mine), _EXPORT):
            some = mine[place : place + _EXPORT]
            raw = spans.export_request([one.record for one in some], f"server-{part}")
            request = ExportTraceServiceRequest.FromString(raw)
            assert rows.add(request, "otlp/http", some[-1].at_ns) == len(some)
    return rows.take()


def _saved(row: Row) -> dict[str, Any]:
    """A request on a kept-alive connection with kernel stamps."""
    arrivals = row.arrivals
    return {
        "request_id": row.key,
        "response_id": f"cmpl-{row.key}",
        "trace_id": trace_id(row),
        "span_id": _span_id(row),
        "attempt": 1,
        "clock_id": "client",
        "scenario": f"segment-{row.segment}",
        "stage": "load",
        "due_ns": row.begin,
        "sent_ns": row.begin,
        "written_ns": row.wire - 1000,
        "wire_ns": row.wire,
        "wire_last_ns": row.wire,
        "acked_ns": row.wire + 2 * _HOP_NS,
        "headers_ns": arrivals[0],
        "arrivals_ns": arrivals,
        "arrivals_user_ns": arrivals,
        "tokens": [1] * len(arrivals),
        "kinds": [int(Kind.ANSWER)] * len(arrivals),
        "censored": [False] * len(arrivals),
        "done_ns": row.done,
        "min_rtt_ns": 2 * _HOP_NS,
        "reused": True,
        "clock_step": False,
        "isl": row.isl,
        "isl_wanted": row.isl,
        "osl": row.osl,
        "osl_wanted": row.osl,
        "token_source": "ids",
        "stamp_source": "kernel",
        "outcome": Outcome.OK.value,
        "status": 200,
    }
