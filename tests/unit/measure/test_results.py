"""Goodput, what samples are worth in a run, and the measurement as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from latdiag.measurement.measure import measure
from latdiag.measurement.slo import parse_slos
from latdiag.model.document import document

from .rows import MS, answer, batch_of, measured


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
    assert "not known for any request" in (found.reading("slo_attainment").refused or "")
    assert found.reading("goodput").refused


def test_goodput_needs_a_bound_on_requests() -> None:
    found = measured([answer(0, 10)], "errors<1%", "itl.p99<1s")
    assert "no SLO" in (found.reading("goodput").refused or "")


def test_a_percentile_that_only_an_objective_names_is_computed() -> None:
    rows = [answer(i * 7 * MS, 10 + i % 7, 5) for i in range(200)]
    found = measured(rows, "ttft.p75<1s", "itl.p80<1s")
    assert found.reading("ttft", "p75").value is not None
    assert found.reading("itl", "p80").value is not None
    assert found.reading("e2e", "p75").refused == "e2e.p75 was not computed"
    judged = [slo.judge(found) for slo in parse_slos(["ttft.p75<1s", "ttft.p99<1s"])]
    assert [one.met for one in judged] == [True, None]


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
    found = measured(rows, "ttft.p90<50ms")
    metrics: Any = document(found.metrics())
    json.dumps([metrics, asdict(found.counts)], allow_nan=False)
    ttft = metrics["ttft"]
    assert list(ttft) == ["p50", "p90", "p95", "p99", "mean"]
    assert set(ttft["p50"]) == {"value", "lo", "hi", "unit", "n", "n_effective", "method"}
    assert ttft["p50"]["value"] == 13.0 and ttft["p50"]["unit"] == "ms"
    assert ttft["p99"]["value"] is None
    assert "662" in ttft["p99"]["refused"] and ttft["p99"]["needs"] == 662
    assert metrics["itl"]["left_out"] == {"censored": 2}
    assert "closed loop" in metrics["response_time"]["refused"]
    assert metrics["output_throughput"]["unit"] == "tok/s"
    assert metrics["errors"]["value"] == 0.0
    assert asdict(found.counts.isl) == {
        "rows": 100, "got": 900, "compared": 100, "compared_wanted": 800, "compared_got": 900,
        "unlike": 100,
    }  # fmt: skip


def test_rows_of_two_clocks_stand_side_by_side_in_time() -> None:
    """Two nodes that began together see the same wave: half each, it shows only interleaved."""
    rows = [answer(i * 10 * MS, 100 + (80 if i % 2 else 0)) for i in range(400)]
    lone = measured(rows).reading("ttft", "mean").n_effective
    far = 10**15
    two = [
        answer(i * 10 * MS + (far if i % 2 else 0), 100 + (80 if i % 2 else 0)) for i in range(400)
    ]
    for row in two[1::2]:
        row.clock_id = "d"
    # One after the other, the fast node and the slow node would be one huge step in time.
    assert measured(two).reading("ttft", "mean").n_effective == lone == 400
