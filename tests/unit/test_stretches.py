"""A change that was seen is no chance: intervals hold for as many requests on its two sides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from latdiag.attribution.parts import Parts, Source
from latdiag.diagnosis.breakdown import breakdown, leads
from latdiag.diagnosis.over_time import stretches
from latdiag.measurement.changes import Change
from latdiag.measurement.course import Course

from .probe_rows import MS, reply, seen

N = 100


def parts(slow: slice, seed: int = 1) -> Parts:
    """Requests of 300 ms of decode, that wait for 1,200 ms in ``slow`` and else for 30 ms."""
    random = np.random.default_rng(seed)
    wait = random.integers(20 * MS, 40 * MS, N)
    wait[slow] = random.integers(1150 * MS, 1250 * MS, N)[slow]
    columns = {"queue": wait, "decode": random.integers(290 * MS, 310 * MS, N)}
    sources = {name: Source("C", "a test") for name in columns}
    total = wait + columns["decode"]
    none = np.zeros(N, dtype=bool)
    return Parts(total, wait, columns, none, 0, sources, row=np.arange(N))


def width(of: Parts) -> float:
    found = breakdown(of, "client_e2e", "mean")
    assert found is not None
    share = found.shares["queue"]
    assert share.lo is not None and share.hi is not None
    return share.hi - share.lo


def of_change(kind: str, since: float, until: float) -> Course:
    """In requests, which are sent once a second."""
    ends = (since, since, since, until)
    return Course(None, (Change(kind, "ttft", False, *ends, 30.0, 900.0, 30.0, 29.0, 31.0, N),))


def sent() -> list[float]:
    return [1000.0 * k for k in range(N)]


def test_a_seen_spell_is_no_part_of_what_other_requests_would_have_shown() -> None:
    slow = slice(50, 80)
    unaware = parts(slow)
    rows = seen([reply("S10", 100, at + 1, 10, [10.0] * 4) for at in sent()])
    course = of_change("spell", 49.5, 79.5)
    aware = replace(unaware, stretch=stretches(course, rows, unaware.row))
    assert aware.stretch is not None and np.flatnonzero(aware.stretch).tolist() == list(
        range(50, 80)
    )
    assert width(aware) < width(unaware) / 5
    before, after = (leads(each, "queue", "mean") for each in (unaware, aware))
    assert before is not None and after is not None and before < 0.9 < after


def test_without_a_change_nothing_is_narrower() -> None:
    even = parts(slice(0, 0))
    assert width(replace(even, stretch=np.zeros(N, dtype=np.int64))) == pytest.approx(width(even))
    rows = seen([reply("S10", 100, at + 1, 10, [10.0] * 4) for at in sent()])
    assert stretches(Course(), rows, even.row) is None
    drift = of_change("drift", 0.0, 99.0)
    assert stretches(drift, rows, even.row) is None, "it changes all the time"


def test_a_stretch_of_a_few_requests_has_no_spread_of_its_own() -> None:
    rows = seen([reply("S10", 100, at + 1, 10, [10.0] * 4) for at in sent()])
    at_the_end = of_change("step", 96.5, 99.0)
    assert stretches(at_the_end, rows, np.arange(N)) is None
    assert stretches(of_change("step", 60.0, 99.0), rows, np.arange(N)) is not None
    assert stretches(of_change("step", 60.0, 99.0), rows, None) is None
