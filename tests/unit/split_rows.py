"""Rows for the tests of the split and the breakdown, as batches of columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from latdiag.measurement import digest, frame, measure, ttft_split
from latdiag.model.records import Kind, Outcome
from latdiag.store.batch import Batch, Ints, Lists
from latdiag.store.run import Run

MS = 1_000_000
#: Columns that are no integers.
_TEXTS = (
    "outcome",
    "stage",
    "error",
    "token_source",
    "stamp_source",
    "clock_id",
    "request_id",
    "scenario",
)
_LISTS = {"arrivals_ns": np.int64, "tokens": np.int32, "kinds": np.int8, "censored": np.bool_}
COLUMNS = tuple(
    dict.fromkeys((*measure.COLUMNS, *ttft_split.COLUMNS, *digest.COLUMNS, *frame.IDS))
)

Row = dict[str, Any]


def row(**given: Any) -> Row:
    """A request on a kept-alive connection: 1 ms of client, 2 ms of round trip, first token at
    53 ms, three tokens 10 ms apart, the last byte at 75 ms. Instants in ms from sent."""
    sent = given.pop("sent_ns", 10**15)
    instants = {
        "written_ns": 0.9,
        "wire_ns": 1.0,
        "wire_last_ns": 1.0,
        "acked_ns": 3.1,
        "due_ns": None,
        "dns_ns": None,
        "tcp_ns": None,
        "tls_ns": None,
        "done_ns": 75.0,
    }
    if given.pop("stamped", True) is False:  # by the user, not by the kernel
        given |= dict.fromkeys(("wire_ns", "wire_last_ns", "acked_ns"))
    found: Row = {"sent_ns": sent}
    for name, default in instants.items():
        at = given.pop(name, default)
        found[name] = None if at is None else sent + round(at * MS)
    arrivals = given.pop("arrivals", [53.0, 63.0, 73.0, 75.0])
    found["arrivals_ns"] = [sent + round(at * MS) for at in arrivals]
    answers = [Kind.ANSWER] * (len(arrivals) - 1) + [Kind.USAGE] * bool(arrivals)
    found |= {
        "kinds": [int(kind) for kind in answers],
        "censored": [False] * len(arrivals),
        "tokens": [1] * (len(arrivals) - 1) + [0] * bool(arrivals),
        "min_rtt_ns": 2 * MS,
        "resent_ns": None,
        "clock_step": False,
        "outcome": Outcome.OK.value,
        "stage": "load",
        "clock_id": "c",
        "token_source": "usage",
        "stamp_source": "kernel",
    }
    return found | given


def batch(rows: Sequence[Row]) -> Batch:
    """Rows as the store hands them out; what a row does not hold is null."""
    ints, bools, texts, lists = {}, {}, {}, {}
    for name in COLUMNS:
        values = [one.get(name) for one in rows]
        if name in _LISTS:
            flat = [item for value in values for item in value or ()]
            sizes = [len(value or ()) for value in values]
            offsets = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
            valid = np.array([value is not None for value in values], dtype=bool)
            lists[name] = Lists(np.array(flat, dtype=_LISTS[name]), offsets, valid)
        elif name in _TEXTS or name in frame.IDS:
            texts[name] = np.array(values, dtype=object)
        elif name in ("clock_step", "reused"):
            bools[name] = np.array([bool(value) for value in values], dtype=bool)
        else:
            valid = np.array([value is not None for value in values], dtype=bool)
            ints[name] = Ints(np.array([v or 0 for v in values], dtype=np.int64), valid)
    return Batch(len(rows), ints, bools, texts, lists)


def clocks(run: Run) -> list[str]:
    """The clocks of a run's instants."""
    return frame.frame(run.batches([*frame.COLUMNS, *frame.IDS])).clocks


_at = st.none() | st.floats(-5, 200)


@st.composite
def any_rows(draw: st.DrawFn, least: int = 0, most: int = 12) -> list[Row]:
    """Rows with instants in any order, missing ones, and nonsense among them."""
    return [
        row(
            sent_ns=10**15 + draw(st.integers(0, 10**9)),
            wire_ns=draw(_at),
            wire_last_ns=draw(_at),
            acked_ns=draw(_at),
            due_ns=draw(_at),
            tcp_ns=draw(_at),
            tls_ns=draw(_at),
            done_ns=draw(_at),
            arrivals=draw(st.lists(st.floats(-5, 300), max_size=6)),
            min_rtt_ns=draw(st.none() | st.integers(-MS, 300 * MS)),
            resent_ns=draw(st.none() | st.integers(-MS, 300 * MS)),
            retry_ns=draw(st.none() | st.integers(-MS, 300 * MS)),
            clock_step=draw(st.booleans()),
            outcome=draw(st.sampled_from([Outcome.OK.value] * 3 + [Outcome.CUT.value])),
        )
        for _ in range(draw(st.integers(least, most)))
    ]
