"""Whether an open loop asks more than a server finishes."""

from __future__ import annotations

import numpy as np

from latdiag.measurement.backlog import Rows, backlog_of

MS = 1_000_000


def rows(begin: np.ndarray, pace_ms: float) -> Rows:
    """Requests that a server finishes one after the other, each in ``pace_ms``."""
    begin = begin.astype(np.int64)
    done = np.zeros(len(begin), np.int64)
    free = 0
    for at, came in enumerate(begin):
        free = max(free, int(came)) + round(pace_ms * MS)
        done[at] = free
    return Rows(begin, done - round(pace_ms / 2 * MS), done, done, np.full(len(begin), 8))


def test_requests_of_one_instant_have_no_rate() -> None:
    assert backlog_of([rows(np.full(1000, 5 * MS), 0.01)]) is None


def test_twice_what_is_served_is_more_than_is_finished() -> None:
    asked = rows(np.arange(600) * 50 * MS, 100)
    found = backlog_of([asked])
    assert found is not None
    assert backlog_of([rows(np.arange(600) * 50 * MS, 10)]) is None
