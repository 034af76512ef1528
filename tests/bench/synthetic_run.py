"""A run of any number of requests as an open-loop load would have left it, from a seed.

``python tests/bench/synthetic_run.py PATH [REQUESTS]`` writes one. Every column is filled. Output
lengths are 1 to 2,000 tokens, 200 in the mean; 1 % of the requests fail, half of these without
any arrival; some rows lack token counts, some arrivals bring two tokens or are censored.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latdiag.model.records import Kind, Outcome
from latdiag.store.batch import Ints, Lists
from latdiag.store.writer import RunWriter, create_run
from tests.run_documents import header, state

REQUESTS = 1_000_000
PARTS = 20
SEED = 20261123
WRITERS = ("reader-1", "reader-2")
#: Open loop, requests per second.
RATE = 2_000
CLOCK = "5f0e3a1c9d7b2468"
START_NS = 86_400_000_000_000

Columns = dict[str, Any]


def write(path: str, requests: int = REQUESTS, parts: int = PARTS, every: int = 1) -> str:
    """Write the run, or only every n-th request of the same run; returns its path."""
    create_run(path, header(plan={"seed": SEED}))
    writers = [RunWriter(path, name) for name in WRITERS]
    for number, columns in enumerate(_parts(requests, parts)):
        writers[number % len(writers)].write_part(thinned(columns, every))
    for writer in writers:
        writer.write_state(state("closed"))
    return path


def thinned(columns: Mapping[str, Any], every: int) -> Columns:
    """Every n-th row of ``columns``."""
    if every == 1:
        return dict(columns)
    return {name: _thin(column, every) for name, column in columns.items()}


def _thin(column: Any, every: int) -> Any:
    if isinstance(column, Ints):
        return Ints(column.values[::every], column.valid[::every])
    if not isinstance(column, Lists):
        return column[::every]
    starts, ends = column.offsets[:-1][::every], column.offsets[1:][::every]
    pieces = [column.values[a:b] for a, b in zip(starts, ends, strict=True)]
    offsets = np.concatenate(([0], np.cumsum(ends - starts)))
    valid = column.valid[::every]
    return Lists(np.concatenate(pieces), offsets, valid)


def _parts(requests: int, parts: int) -> Iterator[Columns]:
    edges = np.linspace(0, requests, parts + 1).astype(int)
    for number, (first, end) in enumerate(pairwise(edges)):
        yield _part(np.random.default_rng([SEED, number]), int(first), int(end))


def _part(draw: np.random.Generator, first: int, end: int) -> Columns:
    """Rows ``first`` to ``end`` of the run."""
    n = end - first
    outcome = _outcomes(draw, n)
    instants = _instants(draw, first, n)
    wanted = np.clip(np.rint(draw.gamma(1.2, 196 / 1.2, n)), 1, 1_950).astype(np.int64)
    alive = ~np.isin(outcome, [Outcome.RATE_LIMITED, Outcome.REFUSED])
    # A role event first and the usage last; whoever was cut off got a third of the answer.
    share = np.where(np.isin(outcome, [Outcome.TIMEOUT, Outcome.CUT]), 3, 1)
    counts = np.where(alive, -(-wanted // share) + 1 + (share == 1), 0)
    offsets = np.concatenate(([0], np.cumsum(counts)))
    streams = _streams(draw, offsets, instants["headers_ns"].values, share == 1)
    osl = _sums(streams["tokens"].values, offsets)
    ok = outcome == Outcome.OK
    last = streams["arrivals_ns"].values[np.maximum(offsets[1:] - 1, 0)]
    streams["tokens"] = _some_unknown(draw, streams["tokens"], n)
    return {
        **_texts(draw, first, n, outcome),
        **instants,
        **streams,
        **_figures(draw, n),
        "headers_ns": Ints(instants["headers_ns"].values, alive),
        "done_ns": Ints(np.where(ok, last, 0), ok),
        "osl": Ints(np.where(ok, osl, 0), ok),
        "osl_wanted": wanted,
        "status": np.where(alive, 200, np.where(outcome == Outcome.RATE_LIMITED, 429, 0)),
        "retry_after_s": [1.5 if o == Outcome.RATE_LIMITED else None for o in outcome],
        "error": [None if o == Outcome.OK else f"it ended as {o}" for o in outcome],
        "outcome": outcome,
    }


def _outcomes(draw: np.random.Generator, n: int) -> NDArray[np.object_]:
    words = (Outcome.OK, Outcome.RATE_LIMITED, Outcome.REFUSED, Outcome.TIMEOUT, Outcome.CUT)
    picks = draw.choice(len(words), n, p=(0.99, 0.003, 0.002, 0.003, 0.002))
    return np.array([str(word) for word in words], dtype=object)[picks]


def _instants(draw: np.random.Generator, first: int, n: int) -> Columns:
    """From due to the reply's headers, each stamp after the one before it."""
    due = START_NS + (first + np.arange(n)) * (1_000_000_000 // RATE)
    at = due
    columns: Columns = {"due_ns": due}
    steps = {
        "sent_ns": 60_000,
        "dns_ns": 20_000,
        "tcp_ns": 200_000,
        "tls_ns": 900_000,
        "written_ns": 15_000,
        "wire_ns": 12_000,
        "wire_last_ns": 8_000,
        "acked_ns": 250_000,
        "headers_ns": 120_000_000,
    }
    fresh = draw.random(n) < 0.1
    for name, mean in steps.items():
        at = at + np.rint(draw.gamma(2.0, mean / 2.0, n)).astype(np.int64)
        only_fresh = name in ("dns_ns", "tcp_ns", "tls_ns")
        columns[name] = Ints(at, fresh) if only_fresh else Ints(at, np.ones(n, dtype=bool))
    return {**columns, "reused": ~fresh}


def _streams(
    draw: np.random.Generator,
    offsets: NDArray[np.int64],
    began: NDArray[np.int64],
    complete: NDArray[np.bool_],
) -> Columns:
    """The list columns: a role event, answers, and in complete streams the usage."""
    total = int(offsets[-1])
    counts = np.diff(offsets)
    streaming = counts > 0
    firsts, lasts = offsets[:-1][streaming], offsets[1:][(counts > 0) & complete] - 1
    run = np.cumsum(draw.gamma(4.0, 5_000_000, total).astype(np.int64) + 1)
    arrivals = run + np.repeat(began[streaming] - run[firsts], counts[streaming])
    tokens = np.ones(total, dtype=np.int32)
    tokens[draw.random(total) < 0.02] = 2
    kinds = np.full(total, Kind.ANSWER, dtype=np.int8)
    # One stream in ten reasons for its first half.
    half = firsts + counts[streaming] // 2
    for start, middle in zip(firsts[::10], half[::10], strict=True):
        kinds[start:middle] = Kind.REASONING
    kinds[firsts], kinds[lasts] = Kind.ROLE, Kind.USAGE
    tokens[firsts] = tokens[lasts] = 0
    lag = np.repeat(draw.integers(5_000, 60_000, counts.size), counts)
    return {
        "arrivals_ns": Lists.whole(arrivals, offsets),
        "arrivals_user_ns": Lists.whole(arrivals + lag, offsets),
        "tokens": Lists.whole(tokens, offsets),
        "kinds": Lists.whole(kinds, offsets),
        "censored": Lists.whole(draw.random(total) < 0.003, offsets),
    }


def _sums(values: NDArray[np.int32], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sum of each row's values."""
    running = np.concatenate(([0], np.cumsum(values, dtype=np.int64)))
    return running[offsets[1:]] - running[offsets[:-1]]


def _some_unknown(draw: np.random.Generator, column: Lists, n: int) -> Lists:
    """``column`` with a null in place of one list in 200."""
    counts = np.diff(column.offsets)
    known = draw.random(n) >= 0.005
    values = column.values[np.repeat(known, counts)]
    offsets = np.concatenate(([0], np.cumsum(np.where(known, counts, 0))))
    return Lists(values, offsets, known)


def _texts(draw: np.random.Generator, first: int, n: int, outcome: NDArray[np.object_]) -> Columns:
    raw = draw.bytes(24 * n).hex()
    tokens = ("ids", "usage_continuous", "usage")
    return {
        "request_id": [f"req-{first + i:012d}" for i in range(n)],
        "attempt": np.ones(n, dtype=np.int64),
        "response_id": [f"chatcmpl-{raw[48 * i : 48 * i + 24]}" for i in range(n)],
        "trace_id": [raw[48 * i : 48 * i + 32] for i in range(n)],
        "span_id": [raw[48 * i + 32 : 48 * i + 48] for i in range(n)],
        "scenario": ["load"] * n,
        "stage": [f"stage-{(first + i) // 250_000}" for i in range(n)],
        "clock_id": [CLOCK] * n,
        "node": ["node-a"] * n,
        "worker": [WRITERS[i % 2] for i in range(n)],
        "token_source": [tokens[i] for i in draw.integers(0, 3, n)],
        "stamp_source": ["kernel"] * n,
        "reply_timings": ['{"queue_time":0.0123}' if o == Outcome.OK else None for o in outcome],
    }


def _figures(draw: np.random.Generator, n: int) -> Columns:
    isl = draw.integers(16, 4_096, n)
    cached = draw.random(n) < 0.1
    return {
        "isl": isl,
        "isl_wanted": isl,
        "cached_tokens": Ints(np.where(cached, isl // 2, 0), cached),
        "min_rtt_ns": draw.integers(80_000, 400_000, n),
        "retransmits": (draw.random(n) < 0.001).astype(np.int64),
        "resent_ns": Ints(np.zeros(n, dtype=np.int64), draw.random(n) < 0.001),
        "out_of_order": np.zeros(n, dtype=np.int64),
        "clock_step": draw.random(n) < 0.001,
    }


if __name__ == "__main__":
    print(write(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else REQUESTS))
