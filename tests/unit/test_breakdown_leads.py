"""The breakdown: what is insufficient, what settles, what laws leave open, and who leads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from latdiag.attribution.client_only import partition
from latdiag.attribution.parts import Parts, Source
from latdiag.diagnosis.breakdown import TAIL_ROWS, breakdown, leads, leaves
from latdiag.diagnosis.result import Breakdown
from latdiag.measurement.frame import frame

SOURCES = partition(frame([])).sources

MS = 1_000_000
NAMES = ("client", "network", "queue", "decode", "unattributed")


# ---------------------------------------------------------------------- by hand
def made(
    columns: dict[str, list[int] | np.ndarray],
    sources: dict[str, Source] | None = None,
    **more: Any,
) -> Parts:
    """Parts of these columns, ms; those that are not named are nothing."""
    n = len(next(iter(columns.values())))
    parts = {name: np.zeros(n, dtype=np.int64) for name in NAMES}
    parts |= {name: np.asarray(values, dtype=np.int64) * MS for name, values in columns.items()}
    total = np.sum(list(parts.values()), axis=0)
    known = {name: SOURCES.get(name, Source("C", "a test")) for name in parts} | (sources or {})
    flags = np.zeros(n, dtype=bool)
    fine = dict.fromkeys(more.get("leaves", ()), Source("C", "a law"))
    return Parts(total, total, parts, flags, 0, known, leaf_sources=fine, **more)


def said(parts: Parts, population: str = "mean") -> Breakdown:
    entry = breakdown(parts, "client_e2e", population)
    assert entry is not None
    return entry


# ---------------------------------------------------------------------- what is insufficient
@pytest.mark.parametrize(("n", "enough"), [(29, False), (30, True)])
def test_fewer_than_thirty_requests_bear_no_interval_and_say_so(n: int, enough: bool) -> None:
    entry = said(made({"queue": np.arange(n) % 7, "decode": np.full(n, 20)}))
    assert (entry.insufficient is None) == enough
    if not enough:
        assert entry.insufficient.startswith("29 requests; 30 are needed")
        assert all(entry.shares[name].lo is None for name in NAMES)


def waves(n: int = 800) -> np.ndarray:
    """A queue that builds up and goes away twenty times."""
    return np.rint(500 + 400 * np.sin(np.arange(n) * 2 * np.pi / (n / 20)))


@pytest.mark.parametrize(
    ("segments", "mixed", "enough"),
    [(1, False, False), (3, False, False), (4, False, True), (1, True, True)],
)
def test_a_tail_that_depends_on_itself_is_insufficient_unless_it_comes_in_segments(
    segments: int, mixed: bool, enough: bool
) -> None:
    """The same 800 requests: in the order in which they queued, or in none."""
    waits = np.random.default_rng(1).permutation(waves()) if mixed else waves()
    segment = np.arange(800) * segments // 800
    parts = made({"queue": waits, "decode": np.full(800, 20)}, segment=segment)
    tail = said(parts, "p95_tail")
    assert tail.n >= TAIL_ROWS and tail.segments == segments
    assert (tail.insufficient is None) == enough
    assert (tail.shares["queue"].lo is None) == (not enough)
    if not enough:
        assert f"{segments} independent segments; 4 are needed" in tail.insufficient
    assert said(parts).insufficient is None


@pytest.mark.parametrize("segments", [1, 4])
def test_a_tail_of_one_busy_spell_is_one_observation(segments: int) -> None:
    """A queue that only grew: its slowest requests all follow each other."""
    segment = np.arange(800) * segments // 800
    parts = made({"queue": np.arange(800) * 2, "decode": np.full(800, 20)}, segment=segment)
    tail = said(parts, "p95_tail")
    assert "40 requests, in 1 separate periods" in tail.insufficient
    assert tail.shares["queue"].lo is None and said(parts).insufficient is None


# ---------------------------------------------------------------------- sums that settle
def test_what_a_difference_lacks_is_taken_where_it_was_put() -> None:
    sources = {"prefill": Source("C", "laws"), "queue": Source("C", "rest", settles="prefill")}
    parts = made({"prefill": [60] * 40, "queue": [-20] * 40, "decode": [160] * 40}, sources)
    entry = said(parts)
    assert (entry.shares["queue"].sum_ns, entry.shares["prefill"].sum_ns) == (0, 40 * 40 * MS)
    assert entry.shares["prefill"].share == pytest.approx(0.2)
    assert sum(entry.shares[name].sum_ns for name in (*NAMES, "prefill")) == entry.total_ns


def test_positive_and_negative_rows_of_a_difference_cancel_in_the_sum_not_in_the_row() -> None:
    """Cutting each row at nothing would make 20 ms of queue from noise alone."""
    sources = {"prefill": Source("C", "laws"), "queue": Source("C", "rest", settles="prefill")}
    parts = made({"prefill": [60] * 40, "queue": [-20, 20] * 20, "decode": [160] * 40}, sources)
    assert said(parts).shares["queue"].sum_ns == 0


def test_a_measured_part_below_nothing_is_a_bug_and_not_hidden() -> None:
    with pytest.raises(ValueError, match="decode is negative"):
        said(made({"queue": [50] * 40, "decode": [-1] * 40}))


def test_leaves_are_shares_of_the_whole_and_add_up_to_their_part() -> None:
    fine = {
        "decode.base": np.full(40, 90) * MS,
        "decode.batch": np.full(40, 15) * MS,
        "decode.interference": np.full(40, -5) * MS,
    }
    parts = made({"queue": [100] * 40, "decode": [100] * 40}, leaves=fine)
    found = leaves(parts, "mean")
    assert [found[name].share for name in fine] == pytest.approx([0.45, 0.05, 0.0])
    assert sum(each.sum_ns for each in found.values()) == 40 * 100 * MS
    assert leaves(made({"queue": [1] * 40}), "mean") == {}


# ---------------------------------------------------------------------- laws and leaders
def test_laws_that_may_be_off_widen_the_intervals_of_what_rests_on_them() -> None:
    random = np.random.default_rng(1)
    columns = {"prefill": np.full(100, 40), "queue": np.full(100, 20), "decode": np.full(100, 40)}
    sharp = said(made(columns))
    off = random.normal(0, 4.0 * MS, 200)[:, None] * np.ones(100)
    draws = {"prefill": 40.0 * MS + off, "queue": 20.0 * MS - off}
    wide = said(made(columns, draws=draws))
    for name in ("prefill", "queue"):
        half = wide.shares[name].hi - wide.shares[name].share
        assert half == pytest.approx(1.96 * 0.04, rel=0.15), name
        assert sharp.shares[name].hi == pytest.approx(sharp.shares[name].share)
    assert wide.shares["decode"] == sharp.shares["decode"]


def test_who_leads_is_certain_where_rows_agree_and_open_where_they_do_not() -> None:
    random = np.random.default_rng(2)
    even = made({"queue": random.gamma(2, 20, 200), "decode": random.gamma(2, 20, 200)})
    clear = made({"queue": random.gamma(2, 20, 200), "decode": random.gamma(2, 40, 200)})
    assert leads(clear, "decode", "mean") == 1.0
    assert leads(clear, "queue", "mean") == 0.0
    one, other = leads(even, "queue", "mean"), leads(even, "decode", "mean")
    assert one is not None and other is not None
    assert one + other == pytest.approx(1.0, abs=0.01) and 0.0 < one < 1.0
    assert leads(made({"queue": [9] * 29}), "queue", "mean") is None
    assert leads(made({"queue": [0] * 40}), "queue", "mean") is None


def test_a_leader_must_lead_over_all_others_at_once() -> None:
    """It is clearly ahead of the second by name, and not of the third."""
    random = np.random.default_rng(5)
    columns = {name: random.gamma(2, scale, 200) for name, scale in
               (("queue", 20), ("decode", 8), ("network", 20))}  # fmt: skip
    ahead = leads(made(columns), "queue", "mean")
    assert ahead is not None and 0.02 < ahead < 0.98


@pytest.mark.parametrize("memory", [0.0, 0.7])
def test_of_two_equal_components_one_is_seldom_said_to_lead(memory: float) -> None:
    """Nominally once in ten (each side once in twenty), dependent rows or not."""
    random, wrong = np.random.default_rng(3), 0
    for _ in range(150):
        z = np.empty((2, 240))
        for k in range(240):
            fresh = random.normal(size=2)
            z[:, k] = fresh if k == 0 else memory * z[:, k - 1] + np.sqrt(1 - memory**2) * fresh
        parts = made({"queue": 100 + 30 * z[0], "decode": 100 + 30 * z[1]})
        ahead = leads(parts, "queue", "mean")
        assert ahead is not None
        wrong += not 0.05 < ahead < 0.95
    assert wrong / 150 < (0.16 if memory == 0 else 0.24)


def test_laws_that_may_be_off_count_against_the_leader() -> None:
    n = 100
    columns = {"network": np.full(n, 55), "prefill": np.full(n, 45)}
    assert leads(made(columns), "network", "mean") == 1.0
    off = np.random.default_rng(4).normal(0, 20.0 * MS, 300)[:, None] * np.ones(n)
    shaky = made(columns, draws={"prefill": 45.0 * MS + off})
    ahead = leads(shaky, "network", "mean")
    assert ahead is not None and 0.55 < ahead < 0.85


@pytest.mark.parametrize(("open_ms", "certain"), [(4, 1.0), (6, 0.0)])
def test_what_the_stamps_leave_open_leaves_one_part_and_enters_the_other(
    open_ms: int, certain: float
) -> None:
    """55 against 45: 6 ms less of network are 6 ms more of what is behind it, 49 against 51."""
    parts = made({"network": np.full(100, 55), "prefill": np.full(100, 45)})
    none, some = np.zeros(100), np.full(100, open_ms * MS)
    open_ = replace(parts, slack={"network": (some, none), "prefill": (none, some)})
    assert leads(open_, "network", "mean") == certain
    entry = said(open_)
    assert (entry.shares["network"].lo > entry.shares["prefill"].hi) == bool(certain)


def test_what_evidence_leaves_open_beside_widens_its_own_side_only() -> None:
    parts = made({"network": np.full(100, 40), "decode": np.full(100, 60)})
    entry = said(replace(parts, slack={"network": (np.zeros(100), np.full(100, 5.0 * MS))}))
    assert entry.shares["network"].hi == pytest.approx(0.45)
    assert entry.shares["network"].lo == pytest.approx(0.40)
