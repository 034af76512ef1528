"""Differences between scrapes: resets, restarts, replicas, ranks; and claims out of them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latdiag.attribution.metrics.claims import aggregates
from latdiag.attribution.metrics.deltas import (
    PROCESS_START,
    Sample,
    deltas,
    sum_bounds,
)
from latdiag.attribution.metrics.traffic import Own, totals
from latdiag.stacks.signal import HIDDEN, Signal, of
from tests.profiles import examples

BOUNDS = (0.1, 1.0, math.inf)


def hist(
    name: str, edge: str, at: int, values: list[float], replica: str = "r", **more: Any
) -> Sample:
    """A histogram that has seen ``values`` since its process started."""
    counts = tuple(sum(1 for v in values if v <= bound) for bound in BOUNDS)
    labels = tuple(sorted(more.pop("labels", {}).items()))
    return Sample(
        replica, more.get("role", ""), name, "histogram", labels, at, edge, sum(values), BOUNDS,
        counts,
    )  # fmt: skip


def level(name: str, edge: str, at: int, value: float, kind: str = "gauge") -> Sample:
    return Sample("r", "", name, kind, (), at, edge, value)


# --- differences


def test_a_window_is_what_came_between_its_scrapes() -> None:
    rows = [
        hist("q", "begin", 10, [0.05, 5.0]),
        hist("q", "end", 20, [0.05, 5.0, 0.5, 0.5, 7.0]),
        level("done_total", "begin", 10, 4, "counter"),
        level("done_total", "end", 20, 9, "counter"),
        level("running", "begin", 10, 2),
        level("running", "end", 20, 3),
    ]
    found = deltas(rows)
    q, done, running = (
        next(r for r in found.rows if r.name == n) for n in ("q", "done_total", "running")
    )
    assert (q.n, q.counts, q.begin_ns, q.end_ns) == (3, (0, 2, 3), 10, 20)
    assert q.total == pytest.approx(8.0) and q.mean == pytest.approx(8 / 3)
    assert done.total == 5 and (running.first, running.total) == (2, 3)
    assert found.whole and found.replicas == ("r",)


def test_a_series_that_appears_in_the_window_began_at_nothing() -> None:
    rows = [level("x", "begin", 1, 0), level("x", "end", 2, 0), hist("q", "end", 2, [0.5])]
    found = deltas(rows)
    assert [row.n for row in found.rows if row.name == "q"] == [1]


def test_the_last_window_counts_and_scrapes_between_are_looked_at() -> None:
    rows = [
        hist("q", "begin", 1, []),
        hist("q", "end", 2, [0.5]),
        hist("q", "begin", 5, [0.5]),
        hist("q", "periodic", 6, [0.5, 0.5]),
        hist("q", "end", 7, [0.5, 0.5, 0.5]),
        hist("q", "periodic", 9, [0.5] * 9),
    ]
    (only,) = deltas(rows).rows
    assert (only.begin_ns, only.end_ns, only.n) == (5, 7, 2)


def start(edge: str, at: int, value: float, replica: str = "r") -> Sample:
    return Sample(replica, "", PROCESS_START, "gauge", (), at, edge, value)


def test_a_restart_leaves_the_replica_out_and_no_other() -> None:
    rows = []
    for replica, second in (("a", 1000.0), ("b", 1500.0)):
        rows += [start("begin", 1, 1000.0, replica), start("end", 2, second, replica)]
        # It grew past its old value: only the start time tells.
        rows += [
            hist("q", "begin", 1, [0.5], replica),
            hist("q", "end", 2, [0.5, 0.5, 0.5], replica),
        ]
    found = deltas(rows)
    assert found.replicas == ("a",) and not found.whole
    assert [(one.replica, one.name) for one in found.left] == [("b", "")]
    assert "restarted during the window" in found.left[0].why


def test_a_value_that_fell_is_a_reset_even_between_the_edges() -> None:
    rows = [
        hist("q", "begin", 1, [0.5] * 3),
        hist("q", "periodic", 2, [0.5]),
        hist("q", "end", 3, [0.5] * 5),
        level("done_total", "begin", 1, 3, "counter"),
        level("done_total", "end", 3, 8, "counter"),
    ]
    alone = deltas(rows)
    assert alone.rows == () and "may have restarted" in alone.left[0].why
    # With a start time that stood still, the other series can be trusted.
    told = deltas([*rows, start("begin", 1, 5.0), start("periodic", 2, 5.4), start("end", 3, 5.0)])
    assert [row.name for row in told.rows] == ["done_total"]
    assert [one.name for one in told.left] == ["q"]


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        (hist("q", "begin", 1, [0.5]), None, "missing at the end"),
        (
            replace(hist("q", "begin", 1, [0.5]), bounds=(0.2, 1.0, math.inf)),
            hist("q", "end", 2, [0.5]),
            "buckets changed",
        ),
        (
            hist("q", "begin", 1, [0.5]),
            replace(hist("q", "end", 2, [0.5, 0.5]), value=0.1),
            "negative values",
        ),
        (
            hist("q", "begin", 1, []),
            replace(hist("q", "end", 2, []), counts=(2, 2, 3), value=1.0),
            "",
        ),
        (
            replace(hist("q", "begin", 1, []), counts=(0, 2, 2)),
            replace(hist("q", "end", 2, []), counts=(3, 3, 4)),
            "at the same time",
        ),
    ],
)
def test_series_that_cannot_be_subtracted_say_why(
    first: Sample, second: Sample | None, why: str
) -> None:
    rows = [first, start("begin", 1, 5.0), start("end", 2, 5.0)] + ([second] if second else [])
    found = deltas(rows)
    assert [row.name for row in found.rows] == ([] if why else ["q"])
    assert all(why in one.why for one in found.left) and bool(found.left) == bool(why)


def test_a_replica_without_both_scrapes_is_said() -> None:
    rows = [hist("q", "begin", 1, []), hist("q", "end", 2, [], "b"), hist("q", "end", 3, [], "c")]
    rows.append(hist("q", "begin", 4, [], "c"))
    found = deltas(rows)
    assert found.rows == ()
    assert {one.replica: one.why for one in found.left} == {
        "r": "it was not scraped at the end of the window (end)",
        "b": "it was not scraped at the start of the window (begin)",
        "c": "it was not scraped at the start of the window (begin)",
    }


SPAN = st.lists(st.lists(st.floats(0, 100), max_size=8), min_size=2, max_size=6)


@examples(200)
@given(SPAN, st.randoms(use_true_random=False))
def test_a_difference_is_what_was_observed_in_the_window(
    steps: list[list[float]], order: Any
) -> None:
    """Whatever order the rows come in, and however often one looks in between."""
    seen: list[float] = []
    rows = []
    for at, step in enumerate(steps):
        seen = seen + step
        edge = "begin" if at == 0 else "end" if at == len(steps) - 1 else "periodic"
        rows.append(hist("q", edge, at, seen))
    order.shuffle(rows)
    (only,) = deltas(rows).rows
    inside = [value for step in steps[1:] for value in step]
    assert only.n == len(inside) and only.total == pytest.approx(sum(inside), abs=1e-9)
    assert only.counts == tuple(sum(1 for v in inside if v <= bound) for bound in BOUNDS)


# --- buckets


@examples(300)
@given(
    st.lists(st.floats(0, 100), min_size=1, max_size=40),
    st.integers(0, 40),
    st.randoms(use_true_random=False),
)
def test_bounds_of_sums_hold(values: list[float], chosen: int, order: Any) -> None:
    counts = tuple(sum(1 for v in values if v <= bound) for bound in BOUNDS)
    some = list(values)
    order.shuffle(some)
    some = some[:chosen]
    lo, hi = sum_bounds(BOUNDS, counts, sum(values), chosen)
    assert lo - 1e-6 <= sum(some) <= hi + 1e-6
    assert hi <= sum(values) + 1e-6


# --- claims

QUEUE = Signal("s.queue", "histogram", "queue_seconds", "s", of("queue"), "queue.admission")
PREFILL = Signal(
    "s.prefill", "histogram", "prefill_ms", "ms", of("prefill") | HIDDEN, "prefill.own"
)
DECODE = Signal("s.decode", "histogram", "decode_seconds", "s", of("decode"), "decode.base")
E2E = Signal(
    "s.e2e",
    "histogram",
    "e2e_seconds",
    "s",
    of("frontend", "queue", "prefill", "decode") | HIDDEN,
    "frontend.parse",
)
RUNNING = Signal("s.running", "gauge", "running", "1")
ALL = (E2E, QUEUE, PREFILL, DECODE, RUNNING)


def scrapes(n: int = 10, running: tuple[int, int] = (0, 0)) -> list[Sample]:
    """``n`` requests of queue 0.5, prefill 200 ms, decode 2, e2e 3 s; so 0.3 s of frontend."""
    rows = []
    for edge, at, many in (("begin", 1, 0), ("end", 2, n)):
        rows += [
            hist("queue_seconds", edge, at, [0.5] * many),
            hist("prefill_ms", edge, at, [200.0] * many),
            hist("decode_seconds", edge, at, [2.0] * many),
            hist("e2e_seconds", edge, at, [3.0] * many),
            level("running", edge, at, running[at - 1]),
        ]
    return rows


def seconds(rows: list[Sample], signals: tuple[Signal, ...] = ALL, own: Own | None = None) -> Any:
    found = aggregates(deltas(rows), signals, own or Own(10))
    return {
        one.components: None if one.sum_ns is None else round(one.sum_ns / 1e9, 6)
        for one in found.claims
    }


def test_what_is_inside_is_taken_away_whatever_the_order() -> None:
    want = {("queue",): 5.0, ("prefill",): 2.0, ("decode",): 20.0, ("frontend",): 3.0}
    assert seconds(scrapes()) == want
    assert seconds(scrapes()[::-1], ALL[::-1]) == want


def test_what_nothing_tells_apart_is_one_claim() -> None:
    assert seconds(scrapes(), (E2E, QUEUE)) == {
        ("queue",): 5.0,
        ("decode", "frontend", "prefill"): 25.0,
    }


def test_overlaps_that_nothing_settles_are_not_claimed_twice() -> None:
    before = replace(E2E, name="s.before", foreign="queue_seconds", covers=of("queue", "prefill"))
    after = replace(E2E, name="s.after", foreign="decode_seconds", covers=of("prefill", "decode"))
    found = aggregates(deltas(scrapes()), (E2E, before, after), Own(10))
    assert [(one.components, one.sum_ns) for one in found.claims] == [
        (("decode", "frontend", "prefill", "queue"), 30 * 10**9),
    ]
    assert any("overlaps" in doubt for doubt in found.doubts)


def test_two_signals_of_one_interval_count_once() -> None:
    again = replace(DECODE, name="s.steps", foreign="decode_seconds")
    assert seconds(scrapes(), (*ALL, again))[("decode",)] == 20.0


def test_parts_longer_than_the_whole_are_said() -> None:
    rows = scrapes()
    rows[-2] = hist("e2e_seconds", "end", 2, [1.0] * 10)
    found = aggregates(deltas(rows), ALL, Own(10))
    assert any("shorter than what it contains by 17.000 s" in doubt for doubt in found.doubts)
    assert all(one.lo_ns >= 0 for one in found.claims)


def test_requests_at_the_edges_widen_every_claim() -> None:
    found = aggregates(deltas(scrapes(running=(1, 1))), ALL, Own(9))
    assert found.traffic.verdict == "own"
    assert (found.traffic.in_flight, found.traffic.bias) == (2, 0.2)
    queue = next(one for one in found.claims if one.components == ("queue",))
    assert (queue.lo_ns, queue.sum_ns, queue.hi_ns) == (4 * 10**9, 5 * 10**9, 6 * 10**9)
    # As many finished as one's own, of which none was under way at an edge: a gauge is stale.
    found = aggregates(deltas(scrapes(running=(1, 1))), ALL, Own(10))
    assert (found.traffic.verdict, found.traffic.bias) == ("own", 0.0)
    # What the client knows of its own counts where no gauge is scraped.
    found = aggregates(deltas(scrapes()), (E2E, QUEUE), Own(9, in_flight=1))
    assert (found.traffic.verdict, found.traffic.bias) == ("own", 0.1)


def test_without_a_count_of_requests_there_are_only_bounds() -> None:
    found = aggregates(deltas(scrapes()), (QUEUE,), Own(10))
    assert found.traffic.verdict == "uncounted"
    (only,) = found.claims
    assert (only.sum_ns, only.lo_ns, only.hi_ns) == (None, 0, 5 * 10**9)


def test_replicas_are_added_and_ranks_are_not() -> None:
    rows = []
    for replica in ("a", "b"):
        for rank, wait in (("0", 0.5), ("1", 0.25)):
            for edge, at, many in (("begin", 1, 0), ("end", 2, 5)):
                labels = {"tp_rank": rank, "engine": "0"}
                rows.append(hist("queue_seconds", edge, at, [wait] * many, replica, labels=labels))
    (one,) = totals(deltas(rows), (QUEUE,), ("tp_rank",))
    assert (one.n, one.sum_ns, one.lo_ns, one.replicas) == (10, 5e9, 2.5e9, ("a", "b"))
    assert one.buckets == (BOUNDS, (0, 10, 10))
    (added,) = totals(deltas(rows), (QUEUE,))  # engines that are not ranks of one
    assert (added.n, added.sum_ns) == (20, 7.5e9)


def test_a_family_is_asked_for_by_its_labels_and_by_role() -> None:
    rows = []
    for stage, wait in (("prefill", 0.5), ("decode", 0.25)):
        for edge, at, many in (("begin", 1, 0), ("end", 2, 4)):
            rows.append(hist("stage_seconds", edge, at, [wait] * many, labels={"stage": stage}))
    signal = replace(QUEUE, foreign='stage_seconds{stage="decode"}')
    assert [one.sum_ns for one in totals(deltas(rows), (signal,))] == [1e9]
    assert totals(deltas(rows), (replace(signal, roles=("decode",)),)) == []
    assert len(totals(deltas(rows), (replace(signal, roles=("unified",)),))) == 1


def test_transfers_at_once_are_bounded_by_their_share() -> None:
    moved = Signal(
        "s.kv", "histogram", "kv_seconds", "s", of("interconnect.kv"), "interconnect.kv"
    )
    rows = scrapes()
    for edge, at, many in (("begin", 1, 0), ("end", 2, 40)):  # four ranks
        rows.append(hist("kv_seconds", edge, at, [0.05] * many))
    found = aggregates(deltas(rows), (*ALL, moved), Own(10))
    kv = next(one for one in found.claims if one.components == ("interconnect",))
    assert (kv.lo_ns, kv.hi_ns) == (500_000_000, 2_000_000_000)


def test_a_signal_known_from_documents_is_a_grade_lower() -> None:
    found = aggregates(deltas(scrapes()), (E2E, replace(QUEUE, documented=True)), Own(10))
    assert {one.signal: one.grade for one in found.claims} == {"s.queue": "C", "s.e2e": "B"}
