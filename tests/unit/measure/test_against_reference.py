"""``measure`` against a slow, per-row reference, on rows of every kind."""

from __future__ import annotations

import itertools
import statistics
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latdiag.measurement.measure import Tally, measure
from latdiag.measurement.slo import parse_slos
from latdiag.measurement.streams import pieces
from latdiag.model.records import Kind, Outcome
from tests.profiles import examples

from .reference import outputs_of, slow_rows
from .rows import Row, batch_of


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
@examples(300)
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
@examples(150)
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
@examples(50)
def test_any_split_into_batches_gives_the_same(rows: list[Row], data: st.DataObject) -> None:
    rows = rows * 3  # enough that percentiles are not all refused
    whole = measure([batch_of(rows)], SLOS)
    assert measure([batch_of([row]) for row in rows], SLOS) == whole
    cuts = sorted({0, len(rows), *data.draw(st.lists(st.integers(0, len(rows)), max_size=4))})
    parts = [batch_of(rows[a:b]) for a, b in itertools.pairwise(cuts)]
    assert measure([*parts, batch_of([])], SLOS) == whole


@given(ROWS, st.integers(1, 12))
@examples(100)
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
