"""The stages of a workload, each by the mechanism of the whole: a row for a run or scenario."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from latdiag.cli import run as command
from latdiag.diagnosis.diagnose import result_of
from latdiag.diagnosis.result import Result, StageResult
from latdiag.measurement import by_stage
from latdiag.measurement.digest import digest
from latdiag.report.console import compose
from latdiag.report.stages import short
from latdiag.report.tables import csv_of, markdown_of
from latdiag.store.run import Run
from tests.profiles import examples
from tests.schema import validate

from .compared_runs import load, with_header
from .golden import CAPTURES
from .split_rows import Row, any_rows, batch, row


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of a capture of seven scenarios: all of them, and two alone."""
    folder = tmp_path_factory.mktemp("captured")
    (folder / "capture").symlink_to(CAPTURES / "vllm-0.24.0-h200" / "tp1")
    source = str(folder / "capture")
    for name in ("all", "c64", "overload"):
        only = () if name == "all" else ("--scenario", name)
        out = str(folder / f"{name}.run")
        assert command(["import", source, "--out", out, *only, "--quiet", "--json"]) == 0
    return folder


@pytest.fixture(scope="module")
def whole(capture: Path) -> Result:
    return result_of(Run.open(str(capture / "all.run")), "diagnose")


# ---------------------------------------------------------------------- one mechanism
@pytest.mark.parametrize("name", ["c64", "overload"])
def test_a_stage_says_what_its_requests_alone_say(capture: Path, whole: Result, name: str) -> None:
    alone = result_of(Run.open(str(capture / f"{name}.run")), "diagnose")
    stage = next(each for each in whole.stages if each.name == name)
    assert alone.stages == () and alone.load is not None
    assert (stage.requests, stage.ok) == (alone.load.requests, alone.load.ok)
    for metric, found in stage.metrics.items():
        assert found == alone.metrics[metric]
    mine, theirs = stage.breakdowns["mean"], alone.breakdowns["mean"]
    assert (mine.n, mine.total_ns, mine.left_out) == (theirs.n, theirs.total_ns, theirs.left_out)
    # Spans alone decide here. Roles and clocks are found from all requests: it is a little else.
    for component, share in theirs.shares.items():
        assert mine.shares[component].share == pytest.approx(share.share, abs=0.01)
    assert stage.verdict is not None and alone.verdict is not None
    assert stage.verdict.dominant == alone.verdict.dominant


def test_the_stages_add_up_to_the_whole(whole: Result) -> None:
    assert whole.load is not None and len(whole.stages) == 7
    assert sum(stage.requests for stage in whole.stages) == whole.load.requests
    mean = whole.breakdowns["mean"]
    parts = [stage.breakdowns["mean"] for stage in whole.stages]
    assert sum(each.n for each in parts) == mean.n
    assert sum(each.total_ns for each in parts) == mean.total_ns
    for component, share in mean.shares.items():
        assert sum(each.shares[component].sum_ns for each in parts) == share.sum_ns


@examples(60)
@given(st.data())
def test_the_metrics_of_a_stage_are_those_of_its_rows_alone(data: st.DataObject) -> None:
    """Whatever the batches are: those before the second stage came are counted too."""
    rows: list[Row] = data.draw(any_rows(1, 14))
    for number, one in enumerate(rows):
        one["request_id"] = str(number)
        one["scenario"] = data.draw(st.sampled_from([None, "", "a", "b", "c"]))
        one["stage"] = data.draw(st.sampled_from(["load", "load", "load", "warmup"]))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(rows)))) | {0, len(rows)})
    found = digest([batch(rows[a:b]) for a, b in pairwise(cuts)])
    of = [one["scenario"] or "" if one["stage"] == "load" else None for one in rows]
    names = [name for name in dict.fromkeys(of) if name is not None]
    if len(names) < 2:
        assert not found.stages
        return
    assert [stage.scenario for stage in found.stages] == names
    for stage in found.stages:
        mine = [n for n, name in enumerate(of) if name == stage.scenario]
        assert stage.rows.tolist() == mine
        alone = digest([batch([rows[n] for n in mine])]).measurement
        assert stage.measurement.counts.requests == alone.counts.requests
        assert stage.measurement.metrics().keys() == alone.metrics().keys()
        for metric in ("ttft", "tpot", "e2e"):
            assert stage.measurement.metrics()[metric] == alone.metrics()[metric]


def test_more_stages_than_are_told_apart_are_none() -> None:
    rows = any_rows_of(by_stage.MOST)
    assert len(digest([batch(rows)]).stages) == by_stage.MOST
    more = [*rows, {**rows[0], "scenario": "one more"}]
    assert not digest([batch(more)]).stages
    assert not digest([batch(rows), batch(more[-1:]), batch(rows)]).stages


def any_rows_of(n: int) -> list[Row]:
    return [row(scenario=f"s{place}") for place in range(n)]


def test_repetitions_of_a_probes_workload_are_no_stages() -> None:
    rows = [{**one, "stage": "S10"} for one in any_rows_of(4)]
    assert not digest([batch(rows)]).stages


# ---------------------------------------------------------------------- runs
@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("sweep")
    return [
        with_header(
            *(folder, f"base-c{n}.run", load(150, queue=20.0 * n, seed=n)),
            plan__rate=None, plan__arrivals="closed", plan__concurrency=n, target__url=URL,
        )
        for n in (1, 4, 16)
    ]  # fmt: skip


URL = "http://127.0.0.1:8000/v1"


def test_each_run_of_several_has_its_own_load(sweep: list[str]) -> None:
    result = result_of(Run.open(*sweep), "diagnose")
    assert [stage.name for stage in result.stages] == ["base-c1", "base-c4", "base-c16"]
    assert [stage.concurrency for stage in result.stages] == [1, 4, 16]
    assert [stage.run for stage in result.stages] == sweep
    medians = [stage.metrics["ttft"].statistics["p50"].value or 0.0 for stage in result.stages]
    assert medians[0] < medians[1] < medians[2]
    # Without the servers' words nothing is said of where the time of one of them goes.
    assert all(stage.verdict is None and not stage.breakdowns for stage in result.stages)
    assert result.load is not None and result.load.concurrency is None
    assert result.load.arrivals == "closed"
    lines = _lines(result)
    assert not any("at a time" in line for line in lines)
    shown = [line.split() for line in lines if "-c " in line]
    assert [line[:4] for line in shown] == [[f"c{n}", "150", "-c", str(n)] for n in (1, 4, 16)]


@pytest.mark.parametrize(
    ("places", "says"), [([0], "One request at a time"), ([0, 1], "Compare TPOT"),
                         ([1], "`latdiag load URL --concurrency 1`")],
)  # fmt: skip
def test_advice_on_decode_knows_the_loads(sweep: list[str], places: list[int], says: str) -> None:
    result = result_of(Run.open(*(sweep[place] for place in places)), "diagnose")
    assert result.verdict is not None and result.verdict.dominant == "decode"
    assert says in result.verdict.next


def test_pauses_between_runs_are_of_none_of_them() -> None:
    """One run, another an hour later, and another at the same time."""
    one = digest([replace(batch(any_rows_of(3)), run=0)]).measurement
    hour = 3600 * 10**9
    late = [{**r, "sent_ns": r["sent_ns"] + hour, "done_ns": r["done_ns"] + hour}
            for r in any_rows_of(3)]  # fmt: skip
    both = digest([batch(any_rows_of(3)), replace(batch(late), run=1)]).measurement
    assert both.span_ns == 2 * one.span_ns
    same = digest([batch(any_rows_of(3)), replace(batch(any_rows_of(3)), run=1)]).measurement
    assert same.span_ns == one.span_ns
    assert both.totals["request_rate"].value == one.totals["request_rate"].value


def test_one_run_has_no_rows(sweep: list[str]) -> None:
    result = result_of(Run.open(sweep[0]), "diagnose")
    assert result.stages == () and "stages" not in result.to_json()


# ---------------------------------------------------------------------- shown
def _lines(result: Result, ascii_only: bool = True, view: str = "screen") -> list[str]:
    page = compose(result, ascii_only, view)
    return ["".join(span.text for span in line) for line in page.lines]


def _many(whole: Result, names: Sequence[str]) -> Result:
    def stage(place: int, name: str) -> StageResult:
        like = whole.stages[place % len(whole.stages)]
        return replace(like, name=name, offered_rate=1e9 / 7, failed={"timeout": 10**7})

    return replace(whole, stages=tuple(stage(n, name) for n, name in enumerate(names)))


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("name", ["x" * 400, "some words " * 40, "模型" * 200, "e\u0301" * 400])
@pytest.mark.parametrize("n", [2, 6, 7, 100])
def test_the_worst_case_fits(whole: Result, n: int, name: str, ascii_only: bool) -> None:
    result = _many(whole, [f"{name}{place}" for place in range(n)])
    lines = _lines(result, ascii_only)
    assert len(lines) <= 24 and max(map(cell_len, lines)) <= 79
    head = next(at for at, line in enumerate(lines) if "TTFT p50" in line)
    rows = [line for line in lines[head + 1 :] if "/s " in line]
    assert 2 <= len(rows) <= 6
    more = [line for line in lines if line.endswith("more stages: --full")]
    assert more == ([f"and {n - len(rows)} more stages: --full"] if n > len(rows) else [])
    full = _lines(result, ascii_only, "full")
    assert max(map(cell_len, full)) <= 79
    assert sum("/s " in line for line in full) >= n


def test_a_refused_percentile_says_what_it_needs(whole: Result) -> None:
    line = next(line for line in _lines(whole) if line.startswith("c16 "))
    assert "n<130" in line and line.endswith("decode")


def test_what_all_names_have_in_common_is_left_out() -> None:
    stamps = ["20261130T094838Z-load-vm", "20261130T095838Z-load-vm"]
    assert short(stamps) == ["20261130T094838Z", "20261130T095838Z"]
    assert short(["a-c1", "a-c4"]) == ["c1", "c4"]
    assert short(["c1", "c1-load"]) == ["c1", "c1-load"]
    assert short(["same", "same"]) == ["same", "same"]


def test_every_number_of_a_stage_is_in_every_form(whole: Result) -> None:
    document = json.loads(json.dumps(whole.to_json()))
    validate(document)
    rows = list(csv.DictReader(io.StringIO(csv_of(whole))))
    for told in document["stages"]:
        mine = [one for one in rows if one["stage"] == told["name"]]
        metrics = [one for one in mine if one["kind"] == "metric"]
        assert {one["name"] for one in metrics} == {"ttft", "tpot", "e2e"}
        for of in metrics:
            value = told["metrics"][of["name"]][of["statistic"]]["value"]
            assert (float(of["value"]) if of["value"] else None) == (
                None if value is None else pytest.approx(value, rel=1e-8)
            )
        (verdict,) = (one for one in mine if one["kind"] == "verdict")
        assert verdict["name"] == (told["verdict"]["dominant"] or "")
    marked = [line for line in markdown_of(whole).splitlines() if line.startswith("| overload ")]
    assert marked and marked[0].endswith("| queue |")
