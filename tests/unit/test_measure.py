"""``measure`` against a slow, per-row reference, and the edges of its definitions."""

from __future__ import annotations

import itertools
import json
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latdiag.attribute.measure import COLUMNS, Tally, measure
from latdiag.attribute.measurement import Measurement
from latdiag.attribute.slo import parse_slos
from latdiag.attribute.streams import pieces
from latdiag.model.metrics import METRICS
from latdiag.model.records import ANSWER_KINDS, OUTPUT_KINDS, Kind, Outcome
from latdiag.stats import Estimate
from latdiag.store.batch import Batch, Ints, Lists

MS = 1_000_000
INT_COLUMNS = (
    "due_ns", "sent_ns", "wire_ns", "done_ns", "isl", "osl", "isl_wanted", "osl_wanted",
    "cached_tokens",
)  # fmt: skip
TEXT_COLUMNS = ("clock_id", "outcome", "token_source", "stamp_source")
LIST_COLUMNS = {
    "arrivals_ns": np.int64,
    "tokens": np.int32,
    "kinds": np.int8,
    "censored": np.bool_,
}


@dataclass
class Row:
    """One request as a person would write it down; None is null."""

    due_ns: int | None = None
    sent_ns: int | None = 0
    wire_ns: int | None = None
    done_ns: int | None = None
    isl: int | None = None
    osl: int | None = None
    isl_wanted: int | None = None
    osl_wanted: int | None = None
    cached_tokens: int | None = None
    clock_step: bool = False
    clock_id: str | None = "c"
    outcome: str | None = "ok"
    token_source: str | None = "ids"
    stamp_source: str | None = "kernel"
    arrivals_ns: list[int] | None = field(default_factory=list)
    tokens: list[int] | None = field(default_factory=list)
    kinds: list[int] | None = field(default_factory=list)
    censored: list[bool] | None = field(default_factory=list)


def answer(sent: int, *gaps: int, **more: Any) -> Row:
    """A clean request: a role event after 1 ms, then one token after each of ``gaps`` ms."""
    stamps = [sent + MS]
    for gap in gaps:
        stamps.append(stamps[-1] + gap * MS)
    n = len(gaps)
    row = Row(
        sent_ns=sent,
        done_ns=stamps[-1],
        osl=n,
        arrivals_ns=stamps,
        tokens=[0] + [1] * n,
        kinds=[Kind.ROLE] + [Kind.ANSWER] * n,
        censored=[False] * (n + 1),
    )
    for name, value in more.items():
        setattr(row, name, value)
    return row


def batch_of(rows: Sequence[Row]) -> Batch:
    n = len(rows)

    def ints(name: str) -> Ints:
        told = [getattr(row, name) for row in rows]
        values = np.array([0 if v is None else v for v in told], dtype=np.int64)
        return Ints(values, np.array([v is not None for v in told], dtype=np.bool_))

    def texts(name: str) -> Any:
        column = np.empty(n, dtype=object)
        column[:] = [getattr(row, name) for row in rows]
        return column

    def lists(name: str, kind: Any) -> Lists:
        told = [getattr(row, name) for row in rows]
        flat = [item for items in told for item in items or []]
        offsets = np.cumsum([0, *(len(items or []) for items in told)]).astype(np.int64)
        valid = np.array([items is not None for items in told], dtype=np.bool_)
        return Lists(np.array(flat, dtype=kind), offsets, valid)

    return Batch(
        n,
        {name: ints(name) for name in INT_COLUMNS},
        {"clock_step": np.array([row.clock_step for row in rows], dtype=np.bool_)},
        {name: texts(name) for name in TEXT_COLUMNS},
        {name: lists(name, kind) for name, kind in LIST_COLUMNS.items()},
    )


def measured(rows: Sequence[Row], *slos: str) -> Measurement:
    return measure([batch_of(rows)], parse_slos(slos))


# --- the reference: one row at a time, in words as close to the definitions as can be ---------


@dataclass
class Slow:
    values: dict[str, list[int]] = field(default_factory=dict)
    left_out: Counter[tuple[str, str]] = field(default_factory=Counter)
    verdicts: list[bool | None] = field(default_factory=list)

    def put(self, name: str, value: int) -> None:
        self.values.setdefault(name, []).append(value)


def slow_rows(rows: Sequence[Row], bounds: dict[str, int]) -> Slow:
    slow = Slow()
    for row in rows:
        slow_row(row, slow, bounds)
    return slow


def outputs_of(
    row: Row, wanted: Sequence[int] = OUTPUT_KINDS
) -> list[tuple[int, int | None, bool]]:
    """(stamp, tokens or None, censored) of each arrival whose kind is wanted."""
    found = []
    for i, stamp in enumerate(row.arrivals_ns or []):
        kind = row.kinds[i] if row.kinds is not None else Kind.OTHER
        if kind in wanted:
            tokens = row.tokens[i] if row.tokens is not None else None
            found.append((stamp, tokens, row.censored[i] if row.censored is not None else False))
    return found


def slow_row(row: Row, slow: Slow, bounds: dict[str, int]) -> None:
    ok = row.outcome == "ok"
    out, ans = outputs_of(row), outputs_of(row, ANSWER_KINDS)
    known: dict[str, tuple[int, bool]] = {}  # value, whether it is only an upper bound
    never: set[str] = set()
    for name, start, end in (
        ("ttft", row.sent_ns, out),
        ("ttft_from_due", row.due_ns, out),
        ("ttft_wire", row.wire_ns, out),
        ("ttft_answer", row.sent_ns, ans),
    ):
        if not end:
            never.add(name)
        elif start is not None:
            known[name] = (end[0][0] - start, end[0][2])
    if ok and row.done_ns is not None:
        for name, start in (("e2e", row.sent_ns), ("response_time", row.due_ns)):
            if start is not None:
                known[name] = (row.done_ns - start, False)
    if row.due_ns is not None and row.sent_ns is not None:
        known["schedule_lag"] = (row.sent_ns - row.due_ns, False)
    unbreakable = False
    if ok and row.osl is not None:
        first_tokens = out[0][1] if out and out[0][1] is not None else 1
        later = row.osl - first_tokens
        if row.osl >= 2 and len(out) >= 2 and later > 0:
            span = out[-1][0] - out[0][0]
            known["tpot"] = ((span + later // 2) // later, False)
        else:
            unbreakable = True
    for name, (value, bound) in known.items():
        if row.clock_step and name != "schedule_lag":
            slow.left_out[name, "clock_step"] += 1
        elif bound:
            slow.left_out[name, "censored"] += 1
        else:
            slow.put(name, value)
    slow_gaps(row, out, slow)
    slow.verdicts.append(slow_verdict(row, ok, known, never, unbreakable, bounds))


def slow_gaps(row: Row, out: list[tuple[int, int | None, bool]], slow: Slow) -> None:
    for (before, _, doubt), (after, tokens, doubt_too) in itertools.pairwise(out):
        reason = "clock_step" if row.clock_step else "censored" if doubt or doubt_too else ""
        if reason:
            slow.left_out["icl", reason] += 1
            slow.left_out["itl", reason] += 1
            continue
        slow.put("icl", after - before)
        if tokens == 1:
            slow.put("itl", after - before)
        else:
            why = "tokens_unknown" if tokens is None else "multi_token" if tokens else "zero_token"
            slow.left_out["itl", why] += 1


def slow_verdict(
    row: Row,
    ok: bool,
    known: dict[str, tuple[int, bool]],
    never: set[str],
    unbreakable: bool,
    bounds: dict[str, int],
) -> bool | None:
    """True, False, or None: whether the row keeps all of ``bounds`` (metric -> less than)."""
    if not ok:
        return False
    told: list[bool | None] = []
    for name, limit in bounds.items():
        if name in never:
            told.append(False)
        elif name == "tpot" and unbreakable:
            told.append(True)
        elif name not in known or (row.clock_step and name != "schedule_lag"):
            told.append(None)
        elif known[name][0] < limit:
            told.append(True)
        else:
            told.append(None if known[name][1] else False)
    return False if False in told else None if None in told else True


# --- rows of every kind ---------------------------------------------------------------------


@st.composite
def row_strategy(draw: st.DrawFn) -> Row:
    n = draw(st.sampled_from([0, 0, 1, 2, 3, 5]))
    start = draw(st.integers(0, 50))
    gaps = draw(st.lists(st.integers(0, 6), min_size=n, max_size=n))
    stamps = [start + sum(gaps[: i + 1]) for i in range(n)]
    maybe = st.one_of(st.none(), st.integers(0, 60))
    lengths = st.one_of(st.none(), st.integers(0, 6))

    def column(items: st.SearchStrategy[Any], null: float = 0.1) -> Any:
        if draw(st.floats(0, 1)) < null:
            return None
        return draw(st.lists(items, min_size=n, max_size=n))

    arrivals = None if n == 0 and draw(st.booleans()) else stamps
    return Row(
        due_ns=draw(maybe),
        sent_ns=draw(st.one_of(st.just(start), maybe)),
        wire_ns=draw(maybe),
        done_ns=draw(st.one_of(st.just(start + 30), maybe)),
        isl=draw(lengths),
        osl=draw(lengths),
        isl_wanted=draw(lengths),
        osl_wanted=draw(lengths),
        cached_tokens=draw(lengths),
        clock_step=draw(st.sampled_from([False, False, False, True])),
        clock_id=draw(st.sampled_from(["c", "c", "d", None])),
        outcome=draw(st.sampled_from(["ok", "ok", "ok", *Outcome, None])),
        token_source=draw(st.sampled_from(["ids", "usage", None])),
        stamp_source=draw(st.sampled_from(["kernel", "user", None])),
        arrivals_ns=arrivals,
        tokens=column(st.sampled_from([0, 1, 1, 1, 2, 5]), null=0.3),
        kinds=column(st.sampled_from([*Kind, Kind.ANSWER, Kind.REASONING]).map(int)),
        censored=column(st.sampled_from([False, False, False, True])),
    )


BOUNDS = {"ttft": 10, "tpot": 3, "e2e": 40, "schedule_lag": 20, "ttft_answer": 12}
SLOS = parse_slos([f"{name}.p95<{limit}ns" for name, limit in BOUNDS.items()])
ROWS = st.lists(row_strategy(), max_size=25)


@given(ROWS)
@settings(deadline=None, max_examples=300)
def test_every_value_is_that_of_the_reference(rows: list[Row]) -> None:
    tally = Tally(SLOS)
    tally.add(batch_of(rows))
    slow = slow_rows(rows, BOUNDS)
    for name, sample in tally.samples.items():
        held = sample.exact()[0].tolist() if sample.n else []
        assert held == slow.values.get(name, []), name
    found = tally.result()
    left_out = {
        (name, why): n for name, of in found.counts.left_out.items() for why, n in of.items()
    }
    assert left_out == dict(slow.left_out)
    for name, values in slow.values.items():
        assert found.reading(name, "mean").value == pytest.approx(statistics.fmean(values))
        assert found.reading(name, "mean").n == len(values)
    decided = [verdict for verdict in slow.verdicts if verdict is not None]
    assert found.counts.undecided == len(rows) - len(decided)
    if decided:
        assert found.reading("slo_attainment").value == pytest.approx(statistics.fmean(decided))
    else:
        assert found.reading("slo_attainment").refused


@given(ROWS)
@settings(deadline=None, max_examples=150)
def test_every_count_is_that_of_the_reference(rows: list[Row]) -> None:
    found = measure([batch_of(rows)])
    counts = found.counts
    good = [row for row in rows if row.outcome == "ok"]
    assert (counts.requests, counts.ok) == (len(rows), len(good))
    bad = Counter(row.outcome or "unknown" for row in rows if row.outcome != "ok")
    assert counts.failed == dict(bad)
    outputs = [one for row in rows for one in outputs_of(row)]
    assert counts.output_arrivals == len(outputs)
    assert counts.censored_arrivals == sum(doubt for _, _, doubt in outputs)
    assert counts.multi_token_arrivals == sum((k or 0) > 1 for _, k, _ in outputs)
    assert counts.zero_token_arrivals == sum(k == 0 for _, k, _ in outputs)
    assert counts.tokens_unknown == sum(
        row.tokens is None and bool(outputs_of(row)) for row in rows
    )
    assert counts.clock_step == sum(row.clock_step for row in rows)
    assert counts.token_source == dict(Counter(row.token_source or "unknown" for row in rows))
    assert counts.stamp_source == dict(Counter(row.stamp_source or "unknown" for row in rows))
    assert counts.output_tokens_ok == sum(row.osl or 0 for row in good)
    assert counts.osl_unknown_ok == sum(row.osl is None for row in good)
    assert counts.cached_tokens == sum(row.cached_tokens or 0 for row in rows)
    for lengths, got, wanted in (
        (counts.isl, "isl", "isl_wanted"),
        (counts.osl, "osl", "osl_wanted"),
    ):
        pairs = [(getattr(row, got), getattr(row, wanted)) for row in rows]
        both = [(g, w) for g, w in pairs if g is not None and w is not None]
        assert lengths.rows == sum(g is not None for g, _ in pairs)
        assert lengths.got == sum(g or 0 for g, _ in pairs)
        assert lengths.compared == len(both)
        assert lengths.compared_got == sum(g for g, _ in both)
        assert lengths.compared_wanted == sum(w for _, w in both)
        assert lengths.unlike == sum(g != w for g, w in both)
    if rows:
        assert found.reading("errors").value == pytest.approx(1 - len(good) / len(rows))


@given(ROWS, st.data())
@settings(deadline=None, max_examples=50)
def test_any_split_into_batches_gives_the_same(rows: list[Row], data: st.DataObject) -> None:
    rows = rows * 3  # enough that percentiles are not all refused
    whole = measure([batch_of(rows)], SLOS)
    assert measure([batch_of([row]) for row in rows], SLOS) == whole
    cuts = sorted({0, len(rows), *data.draw(st.lists(st.integers(0, len(rows)), max_size=4))})
    parts = [batch_of(rows[a:b]) for a, b in itertools.pairwise(cuts)]
    assert measure([*parts, batch_of([])], SLOS) == whole


@given(ROWS, st.integers(1, 12))
@settings(deadline=None, max_examples=100)
def test_pieces_hold_every_row_once_and_no_more_arrivals_than_asked(
    rows: list[Row], most: int
) -> None:
    tally, whole = Tally(SLOS), Tally(SLOS)
    whole.add(batch_of(rows))
    seen = 0
    for piece in pieces(batch_of(rows), most):
        seen += piece.n
        assert piece.n == 1 or piece.lists["arrivals_ns"].values.size <= most
        tally.add(piece)
    assert seen == len(rows)
    assert tally.result() == whole.result()


# --- definitions, one by one ----------------------------------------------------------------


def only(found: Measurement, name: str) -> float:
    """The one value of a metric, in ms."""
    reading = found.reading(name, "mean")
    assert reading.n == 1 and reading.value is not None
    return reading.value / MS


def test_one_clean_request() -> None:
    row = answer(10 * MS, 20, 5, 7, due_ns=4 * MS, wire_ns=11 * MS, isl=8)
    found = measured([row])
    assert only(found, "ttft") == 21
    assert only(found, "ttft_from_due") == 27
    assert only(found, "ttft_wire") == 20
    assert only(found, "ttft_answer") == 21
    assert only(found, "tpot") == 6
    assert only(found, "e2e") == 33
    assert only(found, "response_time") == 39
    assert only(found, "schedule_lag") == 6
    assert found.reading("itl", "mean").n == 2 == found.reading("icl", "mean").n
    assert found.reading("itl", "mean").value == 6 * MS
    assert found.reading("request_rate").value == pytest.approx(1 / 0.033)
    assert found.reading("output_throughput").value == pytest.approx(3 / 0.033)
    assert found.span_ns == 33 * MS
    assert found.reading("errors").value == 0.0


def test_every_metric_of_the_table_is_computed_from_clean_rows() -> None:
    """That a name is there is not enough: each must get its values from somewhere."""
    rows = [answer(i * MS, 20, 5, 7, due_ns=i * MS - 2, wire_ns=i * MS + 3) for i in range(20)]
    found = measured(rows, "ttft.p95<1s")
    for m in METRICS:
        reading = found.reading(m.name, "" if m.per == "run" else "mean")
        assert reading.value is not None and reading.n >= 20, m.name


def test_role_and_usage_events_bear_no_tokens() -> None:
    row = answer(0, 10, 10)
    assert row.arrivals_ns is not None and row.kinds is not None
    row.arrivals_ns.append(500 * MS)
    row.kinds.append(Kind.USAGE)
    assert row.tokens is not None and row.censored is not None
    row.tokens.append(0)
    row.censored.append(False)
    found = measured([row])
    assert only(found, "ttft") == 11 and only(found, "itl") == 10


def test_only_role_events_is_no_first_token() -> None:
    row = Row(
        done_ns=9 * MS, osl=0, arrivals_ns=[MS], tokens=[0], kinds=[Kind.ROLE], censored=[False]
    )
    found = measured([row], "ttft.p95<1s")
    assert found.reading("ttft", "mean").n == 0
    assert only(found, "e2e") == 9
    assert found.reading("slo_attainment").value == 0.0


def test_gaps_are_between_outputs_across_other_events() -> None:
    row = answer(0, 10, 10, 10)
    assert row.kinds is not None and row.tokens is not None
    row.kinds[2], row.tokens[2] = Kind.OTHER, 0
    found = measured([row])
    assert found.reading("icl", "mean").n == 1 and only(found, "icl") == 20


def test_reasoning_ends_ttft_but_not_ttft_answer() -> None:
    row = answer(0, 10, 10, 10)
    row.kinds = [Kind.ROLE, Kind.REASONING, Kind.REASONING, Kind.TOOL]
    found = measured([row])
    assert only(found, "ttft") == 11 and only(found, "ttft_answer") == 31
    row.kinds = [Kind.ROLE] + [Kind.REASONING] * 3
    assert measured([row]).reading("ttft_answer", "mean").n == 0


def test_gaps_do_not_cross_requests() -> None:
    found = measured([answer(0, 10, 10), answer(900 * MS, 10, 10), Row(), answer(1800 * MS, 10)])
    assert found.reading("icl", "mean").n == 2
    assert found.reading("icl", "mean").value == 10 * MS


def test_several_tokens_in_one_arrival_are_no_itl_but_count_for_tpot() -> None:
    row = answer(0, 10, 30, 10, osl=6)
    row.tokens = [0, 2, 3, 1]
    found = measured([row])
    assert only(found, "itl") == 10
    assert found.reading("icl", "mean").n == 2
    assert only(found, "tpot") == 10  # 40 ms for the four tokens after the first arrival
    assert found.counts.multi_token_arrivals == 2
    assert found.counts.left_out["itl"] == {"multi_token": 1}


def test_unknown_tokens_refuse_itl_and_leave_icl_and_tpot() -> None:
    found = measured([answer(0, 10, 30, 10, tokens=None, osl=5)] * 40)
    itl = found.reading("itl", "mean")
    assert itl.n == 0 and itl.value is None and itl.refused is not None
    assert "how many tokens" in itl.refused
    assert found.reading("icl", "mean").n == 80
    assert found.reading("tpot", "p50").value == 10 * MS
    assert found.counts.tokens_unknown == 40


@pytest.mark.parametrize(
    ("osl", "gaps", "n"),
    [(0, [], 0), (1, [10], 0), (None, [10, 10], 0), (2, [10, 10], 1), (5, [10], 0)],
)
def test_tpot_needs_two_tokens_in_two_arrivals(osl: int | None, gaps: list[int], n: int) -> None:
    assert measured([answer(0, *gaps, osl=osl)]).reading("tpot", "mean").n == n


def test_tpot_of_an_answer_whose_first_chunk_says_it_all() -> None:
    row = answer(0, 10, 10, osl=5)
    row.tokens = [0, 5, 0]
    assert measured([row]).reading("tpot", "mean").n == 0


def test_a_censored_first_arrival_is_no_ttft() -> None:
    row = answer(0, 10, 10, 10, due_ns=0, wire_ns=0)
    row.censored = [False, True, False, False]
    found = measured([row])
    for name in ("ttft", "ttft_from_due", "ttft_wire", "ttft_answer"):
        assert found.reading(name, "mean").n == 0
        assert found.counts.left_out[name] == {"censored": 1}
    refused = found.reading("ttft", "p50").refused
    assert refused is not None and "censored" in refused
    assert found.reading("itl", "mean").n == 1
    assert found.counts.left_out["itl"] == {"censored": 1}
    assert only(found, "e2e") == 31 and only(found, "tpot") == 10


def test_a_censored_arrival_spoils_the_gaps_on_both_sides() -> None:
    row = answer(0, 10, 10, 10, 10)
    row.censored = [False, False, True, False, False]
    found = measured([row])
    assert found.reading("itl", "mean").n == 1
    assert found.counts.left_out["icl"] == {"censored": 2}


def test_a_clock_step_spoils_every_kernel_interval_and_no_other() -> None:
    found = measured([answer(0, 10, 10, 10, due_ns=0, wire_ns=0, clock_step=True)])
    for m in METRICS:
        if m.per != "run" and m.name != "schedule_lag":
            assert found.reading(m.name, "mean").n == 0, m.name
            left = 2 if m.per == "gap" else 1
            assert found.counts.left_out[m.name] == {"clock_step": left}
    assert only(found, "schedule_lag") == 0


def test_failed_requests_are_counted_and_their_stream_still_seen() -> None:
    cut = answer(0, 10, 10, 10, outcome="cut")
    found = measured([cut, answer(0, 10, 10), Row(outcome="dns", arrivals_ns=None)])
    assert found.counts.failed == {"cut": 1, "dns": 1}
    assert found.reading("errors").value == pytest.approx(2 / 3)
    assert found.reading("ttft", "mean").n == 2
    assert found.reading("itl", "mean").n == 3
    assert found.reading("e2e", "mean").n == 1 == found.reading("tpot", "mean").n
    assert found.reading("request_rate").n == 1
    assert found.reading("output_throughput").value == pytest.approx(2 / 0.031)


def test_all_failed() -> None:
    found = measured([Row(outcome="refused", arrivals_ns=None)] * 30, "ttft.p95<1s", "errors<1%")
    assert found.reading("errors").value == 1.0
    assert found.reading("slo_attainment").value == 0.0
    for name in ("ttft", "e2e", "tpot", "itl"):
        assert found.reading(name, "p95").refused
    assert found.reading("request_rate").refused
    assert found.reading("goodput").refused  # no span: nothing ever ended


def test_no_rows() -> None:
    for batches in ([], [batch_of([])]):
        found = measure(batches, parse_slos(["ttft.p95<1s"]))
        document = found.to_json()
        assert document["counts"]["requests"] == 0  # type: ignore[index]
        for m in METRICS:
            assert found.reading(m.name, "" if m.per == "run" else "p95").refused, m.name


def test_closed_loop_says_why_there_is_no_time_from_schedule() -> None:
    found = measured([answer(0, 10)])
    for name in ("ttft_from_due", "response_time", "schedule_lag"):
        assert "closed loop" in (found.reading(name, "p50").refused or "")
    assert "transmit stamp" in (found.reading("ttft_wire", "p50").refused or "")


def test_nulls_everywhere() -> None:
    row = Row(
        sent_ns=None, clock_id=None, outcome=None, token_source=None, stamp_source=None,
        arrivals_ns=None, tokens=None, kinds=None, censored=None,
    )  # fmt: skip
    found = measured([row] * 20, "ttft.p95<1s", "response_time.p95<1s")
    assert found.counts.failed == {"unknown": 20}
    assert found.counts.token_source == {"unknown": 20}
    json.dumps(found.to_json(), allow_nan=False)


def test_throughput_without_every_count_is_a_lower_bound() -> None:
    rows = [answer(0, 10, 10), answer(0, 10, 10, osl=None)]
    reading = measured(rows).reading("output_throughput")
    assert reading.value == pytest.approx(2 / 0.021) and "lower bound" in reading.method
    assert measured([answer(0, 10, osl=None)]).reading("output_throughput").refused


def test_instants_of_different_clocks_are_never_subtracted() -> None:
    far = 10**15
    rows = [answer(0, 9), answer(far, 9, clock_id="d"), answer(far + 40 * MS, 9, clock_id="d")]
    found = measured(rows)
    assert found.counts.clocks == 2
    assert found.span_ns == 50 * MS
    assert found.reading("request_rate").value == pytest.approx(3 / 0.050)


# --- objectives -----------------------------------------------------------------------------


def test_goodput_counts_what_meets_all_bounds() -> None:
    rows = [
        answer(0, 10, 10, 10),
        answer(0, 10, 90, 90),  # TPOT too slow
        answer(0, 400, 10, 10),  # TTFT too late
        answer(0, 10, 10, 10, outcome="cut"),
        answer(0, 10, osl=1),  # one token: no TPOT to break
    ]
    found = measured(rows, "ttft.p95<100ms", "tpot.p99<50ms", "errors<1%")
    assert found.reading("slo_attainment").value == pytest.approx(2 / 5)
    assert found.span_ns == 421 * MS
    goodput = found.reading("goodput")
    assert goodput.value == pytest.approx(2 / 0.421)
    assert goodput.lo is not None and goodput.hi is not None
    assert goodput.lo < 2 / 0.421 < goodput.hi


def test_a_censored_first_token_decides_only_where_it_can() -> None:
    """Its stamp is an upper bound: early enough is met, too late proves nothing."""
    early, late = answer(0, 10, 10), answer(0, 200, 10)
    for row in (early, late):
        row.censored = [False, True, False]
    found = measured([early, late], "ttft.p95<100ms")
    assert found.counts.undecided == 1
    assert found.reading("slo_attainment").value == 1.0
    assert found.reading("slo_attainment").n == 1


def test_a_bound_that_no_row_can_answer() -> None:
    found = measured([answer(0, 10)], "response_time.p95<1s")
    assert found.counts.undecided == 1
    assert "for no request" in (found.reading("slo_attainment").refused or "")
    assert found.reading("goodput").refused


def test_goodput_needs_a_bound_on_requests() -> None:
    found = measured([answer(0, 10)], "errors<1%", "itl.p99<1s")
    assert "no objective" in (found.reading("goodput").refused or "")


def test_a_percentile_that_only_an_objective_names_is_computed() -> None:
    rows = [answer(i * 7 * MS, 10 + i % 7, 5) for i in range(200)]
    found = measured(rows, "ttft.p75<1s", "itl.p80<1s")
    assert found.reading("ttft", "p75").value is not None
    assert found.reading("itl", "p80").value is not None
    assert found.reading("e2e", "p75").refused == "e2e.p75 was not computed"
    judged = [slo.judge(found) for slo in parse_slos(["ttft.p75<1s", "ttft.p99<1s"])]
    assert [one.met for one in judged] == [True, None]


# --- statistics and JSON --------------------------------------------------------------------


def test_percentiles_are_in_time_order_of_sending_not_of_reading() -> None:
    """Two parts of interleaved requests: the wave in time shows only after sorting by sent."""
    waves = [
        answer(i * 10 * MS, 100 + (80 if i // 100 % 2 else 0) + (i * 7919) % 13)
        for i in range(1000)
    ]
    in_time = measure([batch_of(waves)])
    parts = measure([batch_of(waves[::2]), batch_of(waves[1::2])])
    shuffled = [waves[i] for i in np.random.default_rng(0).permutation(1000)]
    blind = measured(shuffled)
    worth = in_time.reading("ttft", "mean").n_effective
    assert worth < 100
    assert parts.reading("ttft", "mean").n_effective == worth
    assert blind.reading("ttft", "mean").n_effective == worth


def test_gaps_are_worth_less_than_their_number_where_requests_differ() -> None:
    rows = [answer(i * 10 * MS, 10, *[10 + (i * 7919) % 11] * 20) for i in range(300)]
    reading = measured(rows).reading("itl", "p50")
    assert reading.n == 6000
    assert 100 <= reading.n_effective <= 600


def test_itl_and_icl_part_where_chunks_bring_more() -> None:
    """They share a sample until then: what came before must be in both, what came after not."""
    single, double = answer(0, 10, 20), answer(0, 10, 40)
    double.tokens = [0, 1, 2]
    for batches in (
        [batch_of([single, double, single])],
        [batch_of([single]), batch_of([double]), batch_of([single])],
    ):
        found = measure(batches)
        assert found.reading("itl", "mean").n == 2
        assert found.reading("itl", "mean").value == 20 * MS
        assert found.reading("icl", "mean").n == 3
        assert found.reading("icl", "mean").value == pytest.approx(80 / 3 * MS)


def test_json_of_a_measurement() -> None:
    rows = [answer(i * 7 * MS, 10 + i % 5, 5, 6, isl=9, isl_wanted=8) for i in range(100)]
    rows[3].censored = [False, False, True, False]
    document: Any = measured(rows, "ttft.p90<50ms").to_json()
    json.dumps(document, allow_nan=False)
    ttft = document["metrics"]["ttft"]
    assert list(ttft) == ["p50", "p90", "p95", "p99", "mean"]
    assert set(ttft["p50"]) == {"value", "lo", "hi", "unit", "n", "n_effective", "method"}
    assert ttft["p50"]["value"] == 13.0 and ttft["p50"]["unit"] == "ms"
    assert ttft["p99"]["value"] is None
    assert "662" in ttft["p99"]["refused"] and ttft["p99"]["needs"] == 662
    assert document["metrics"]["itl"]["left_out"] == {"censored": 2}
    assert "closed loop" in document["metrics"]["response_time"]["refused"]
    assert document["metrics"]["output_throughput"]["unit"] == "tok/s"
    assert document["metrics"]["errors"]["value"] == 0.0
    assert document["counts"]["isl"] == {
        "rows": 100, "got": 900, "compared": 100, "compared_wanted": 800, "compared_got": 900,
        "unlike": 100,
    }  # fmt: skip


def test_the_columns_are_those_of_the_reference_rows() -> None:
    assert set(COLUMNS) == {*INT_COLUMNS, *TEXT_COLUMNS, *LIST_COLUMNS, "clock_step"}


def test_a_reading_is_an_estimate_in_raw_units() -> None:
    reading = measured([answer(0, 10)]).reading("ttft", "mean")
    assert isinstance(reading, Estimate) and reading.value == 11.0 * MS
