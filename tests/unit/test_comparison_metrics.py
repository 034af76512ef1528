"""Metrics of two sides compared: rows, gaps of rows, and totals over runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from latdiag.diagnosis.difference import RunRows, SideRows
from latdiag.diagnosis.metric_comparison import compare_metric
from latdiag.measurement.metric_rows import read_rows
from tests.profiles import repetitions

from .comparison_sides import (
    NO_ROWS,
    assert_swapped,
    compared,
    partition,
    series,
)
from .split_rows import MS, Row, batch, row

ALL = 200
RUNS = repetitions(ALL)
LEAST, MOST = (0.90, 0.99) if RUNS >= ALL else (0.95 - 3 * (0.95 * 0.05 / RUNS) ** 0.5, 1.0)


# ---------------------------------------------------------------------- metrics
def rows_of(rng: np.random.Generator, n: int, shift: float, phi: float = 0.0) -> list[Row]:
    """Requests of six tokens with a TTFT of 50 ms and gaps of 10 ms in the mean; ms."""
    slow = series(rng, n, phi)
    found = []
    for place in range(n):
        first = 50 + 4 * slow[place] + shift
        gaps = np.exp(0.2 * slow[place] + 0.1 * rng.normal(size=5)) * 10 + shift / 10
        arrivals = [first, *(first + np.cumsum(gaps)), first + gaps.sum() + 1]
        found.append(
            row(
                sent_ns=10**15 + place * 10**8,
                due_ns=-0.2,
                done_ns=arrivals[-1],
                arrivals=arrivals,
                osl=6,
                isl=100,
                scenario="",
            )
        )
    return found


def metric_side(rows: list[Row]) -> SideRows:
    made = batch(rows)
    made.texts["scenario"] = np.array([one["scenario"] for one in rows], dtype=object)
    return SideRows([RunRows(partition(np.ones(40), np.ones(40)), read_rows([made]))])


@pytest.mark.repeated
@pytest.mark.parametrize(("metric", "truth"), [("ttft", 3.0), ("itl", 0.3)])
def test_intervals_of_metrics_cover(metric: str, truth: float) -> None:
    """Values of rows, and gaps that are slow together within a row. Measured 0.96 and 0.97."""
    rng = np.random.default_rng(17)
    hits: dict[str, list[bool]] = {"mean": [], "p95": []}
    for number in range(RUNS):
        a, b = (quick_side(rng, 400, shift, number) for shift in (0.0, 3.0))
        for each in compare_metric(metric, a, b, number, None):
            lo, hi = each.difference.lo, each.difference.hi
            if lo is not None and hi is not None:
                hits[each.statistic].append(lo <= truth <= hi)
    for statistic, held in hits.items():
        assert len(held) > 0.75 * RUNS and LEAST <= np.mean(held) <= MOST, statistic


def quick_side(rng: np.random.Generator, n: int, shift: float, number: int) -> SideRows:
    """As ``metric_side`` of ``rows_of`` with phi 0.5, without the detour through rows."""
    from latdiag.measurement.metric_rows import MetricRows

    slow = series(rng, n, 0.5)
    ttft = np.rint((50 + 4 * slow + shift) * MS).astype(np.int64)
    gaps = np.exp(0.2 * slow[:, None] + 0.1 * rng.normal(size=(n, 5))) * 10 + shift / 10
    itl = np.rint(gaps.ravel() * MS).astype(np.int64)
    metrics = dict.fromkeys(NO_ROWS.metrics, (MetricRows(np.zeros(0, dtype=np.int64), None),))
    metrics |= {
        "ttft": (MetricRows(ttft, None),),
        "itl": (MetricRows(itl, np.full(n, 5, dtype=np.int64)),),
    }
    sending = (("c", "", number, int(shift), n),)
    return SideRows([RunRows(PART, replace(NO_ROWS, metrics=metrics, sending=sending))])


PART = partition(np.ones(40), np.ones(40))


def test_metrics_are_those_of_the_run_and_do_not_depend_on_the_order_of_rows() -> None:
    from latdiag.measurement.measure import measure

    rng = np.random.default_rng(21)
    rows = [rows_of(rng, 200, 0.0, 0.5), rows_of(rng, 250, 2.0, 0.5)]
    names = ("ttft", "tpot", "itl", "e2e", "output_throughput")
    expected = compared(*(metric_side(each) for each in rows), names, 0)
    shuffled = [[each[i] for i in rng.permutation(len(each))] for each in rows]
    assert compared(*(metric_side(each) for each in shuffled), names, 0) == expected
    measured = measure([batch(rows[0])])
    for name in ("ttft", "tpot", "itl", "e2e"):
        for statistic in ("mean", "p95"):
            said = expected["metrics"][name][statistic]["a"]["value"]
            reading = measured.reading(name, statistic).value
            assert reading is not None and said == pytest.approx(reading / MS, rel=1e-12)
    total = measured.reading("output_throughput").value
    assert expected["metrics"]["output_throughput"]["a"]["value"] == pytest.approx(total)
    assert assert_swapped(*(metric_side(each) for each in rows)) >= 4


def test_percentiles_of_too_few_are_refused_and_totals_need_runs() -> None:
    rng = np.random.default_rng(22)
    a, b = (metric_side(rows_of(rng, n, 0.0)) for n in (100, 300))
    found = compared(a, b, ("ttft", "output_throughput"), 0)["metrics"]
    p95 = found["ttft"]["p95"]["difference"]
    assert p95["value"] is None and "A: p95 needs at least 130 samples" in p95["refused"]
    assert found["ttft"]["mean"]["difference"]["lo"] is not None
    total = found["output_throughput"]["difference"]
    assert total["value"] is not None and "A: 1 run, 4 are needed" in total["method"]


def test_a_total_of_several_runs_has_an_interval() -> None:
    rng = np.random.default_rng(23)

    def runs(seconds: float) -> SideRows:
        made = [
            replace(NO_ROWS, total={"output_throughput": (1000, seconds + rng.normal(0, 0.05))},
                    sending=(("c", "", k, round(seconds), k),))
            for k in range(6)
        ]  # fmt: skip
        return SideRows(RunRows(PART, rows) for rows in made)

    found = compared(runs(10.0), runs(8.0), ("output_throughput",), 0)["metrics"]
    apart = found["output_throughput"]["difference"]
    assert apart["lo"] < 25.0 < apart["hi"] and apart["contains_zero"] is False


def test_a_metric_that_a_run_lacks_says_why() -> None:
    rng = np.random.default_rng(24)
    rows = [{**one, "due_ns": None} for one in rows_of(rng, 50, 0.0)]
    found = compared(metric_side(rows), metric_side(rows_of(rng, 50, 0.0)), ("ttft_from_due",), 0)
    apart = found["metrics"]["ttft_from_due"]["mean"]["difference"]
    assert apart["refused"].startswith("A: no request has a due time")
