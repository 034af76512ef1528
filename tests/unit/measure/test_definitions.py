"""What each metric is, one case at a time; what is left out, and what is said then."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from latdiag.measurement.measure import COLUMNS, measure
from latdiag.measurement.measurement import Measurement
from latdiag.measurement.slo import parse_slos
from latdiag.model.document import document
from latdiag.model.metrics import METRICS
from latdiag.model.records import Kind
from latdiag.stats import Estimate

from .rows import INT_COLUMNS, LIST_COLUMNS, MS, TEXT_COLUMNS, Row, answer, batch_of, measured


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
    row.kinds = [int(k) for k in (Kind.ROLE, Kind.REASONING, Kind.REASONING, Kind.TOOL)]
    found = measured([row])
    assert only(found, "ttft") == 11 and only(found, "ttft_answer") == 31
    row.kinds[3] = Kind.REASONING
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


@pytest.mark.parametrize(("span", "osl", "tpot"), [(5, 3, 3), (4, 3, 2), (4, 4, 1), (5, 4, 2)])
def test_tpot_is_rounded_to_the_nearest_nanosecond(span: int, osl: int, tpot: int) -> None:
    row = answer(0, 10, 0, osl=osl)
    assert row.arrivals_ns is not None
    row.arrivals_ns[-1] += span
    row.tokens = None  # only their total is known
    assert measured([row]).reading("tpot", "mean").value == tpot


def test_tokens_that_never_came_do_not_divide_the_time_between_those_that_did() -> None:
    """Of a total of 220, 200 were thought and not sent: 20 arrivals 10 ms apart."""
    row = answer(0, *([10] * 20), osl=220)
    assert measured([row]).reading("tpot", "mean").value == 10 * MS


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
    assert found.reading("tpot", "mean").n == 0
    assert only(found, "e2e") == 31


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
        assert found.counts.requests == 0
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
    json.dumps([document(found.metrics()), asdict(found.counts)], allow_nan=False)


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


def test_the_columns_are_those_of_the_reference_rows() -> None:
    assert set(COLUMNS) == {*INT_COLUMNS, *TEXT_COLUMNS, *LIST_COLUMNS, "clock_step"}


def test_a_reading_is_an_estimate_in_raw_units() -> None:
    reading = measured([answer(0, 10)]).reading("ttft", "mean")
    assert isinstance(reading, Estimate) and reading.value == 11.0 * MS
