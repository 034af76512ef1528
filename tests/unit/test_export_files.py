"""Files that other programs read: timelines without overlap, tables and metrics as they were."""

from __future__ import annotations

import csv
import io
import itertools
import json
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from latdiag.cli import run as verb
from latdiag.export.perfetto import lanes
from tests.exported_run import diagnose_once, diagnosis, recorded

SPANS = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 20)).map(lambda p: (p[0], sum(p))), max_size=60
)


@given(SPANS)
def test_lanes_never_overlap_and_are_as_few_as_can_be(spans: list[tuple[int, int]]) -> None:
    found = lanes(spans)
    wide = [(a, max(b, a + 1)) for a, b in spans]
    for lane in set(found):
        mine = sorted(span for span, own in zip(wide, found, strict=True) if own == lane)
        assert all(one[1] <= after[0] for one, after in itertools.pairwise(mine))
    deepest = max((sum(a <= at < b for a, b in wide) for at, _ in wide), default=0)
    assert max(found, default=0) == deepest


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    return recorded(tmp_path_factory)


@pytest.fixture(autouse=True)
def _once(monkeypatch: pytest.MonkeyPatch) -> None:
    diagnose_once(monkeypatch)


def written(run: str, form: str, path: Path, *more: str) -> str:
    assert verb(["export", run, "--to", form, str(path), *more]) == 0
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    return path.read_text(encoding="utf-8") if form != "parquet" else ""


def test_a_timeline_nests_and_says_what_the_table_says(run: str, tmp_path: Path) -> None:
    document = json.loads(written(run, "perfetto", tmp_path / "t.json"))
    events = document["traceEvents"]
    assert {event["ph"] for event in events} == {"M", "X", "C"}
    drawn = [event for event in events if event["ph"] == "X"]
    open_until: dict[int, list[float]] = {}
    for event in drawn:  # on each thread every event lies within those that are still open
        stack = open_until.setdefault(event["tid"], [])
        while stack and stack[-1] <= event["ts"]:
            stack.pop()
        assert event["dur"] >= 0
        assert not stack or event["ts"] + event["dur"] <= stack[-1]
        stack.append(event["ts"] + event["dur"])
    table = diagnosis(run).requests().set_index("request_id")
    requests = {e["args"]["request_id"]: e for e in drawn if e["cat"] == "request"}
    assert requests.keys() == set(table.index)
    mean = diagnosis(run).breakdowns["mean"]
    for name, share in mean.shares.items():
        if name not in ("unattributed", "queue", "interconnect"):
            label = " + ".join(share.members or (name,))
            assert sum(e["args"]["ns"] for e in drawn if e["name"] == label) == share.sum_ns
    counters = [event["args"] for event in events if event["ph"] == "C"]
    assert counters[-1] == {"waiting": 0, "streaming": 0}
    assert all(value >= 0 for each in counters for value in each.values())
    named = {e["tid"] for e in events if e["ph"] == "M" and e["name"] == "thread_name"}
    assert named == {event["tid"] for event in drawn}


def test_tables_are_those_of_requests(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for each in ("a", "b", "c"):
        (tmp_path / each).mkdir()
    table = diagnosis(run).requests()
    assert verb(["requests", run, "--csv"]) == 0
    as_csv = capsys.readouterr().out
    assert written(run, "csv", tmp_path / "a" / "t.csv") == as_csv
    lines = written(run, "jsonl", tmp_path / "b" / "t.jsonl").splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == len(table) and list(rows[0]) == list(table.columns)
    told = list(csv.DictReader(io.StringIO(as_csv)))
    assert [float(one["e2e_ms"]) for one in told] == [row["e2e_ms"] for row in rows]
    path = tmp_path / "c" / "t.parquet"
    written(run, "parquet", path)
    pd.testing.assert_frame_equal(pd.read_parquet(path), table, check_dtype=False)
    assert json.loads(pq.read_schema(path).metadata[b"latdiag.grades"]) == table.attrs["grades"]
    capsys.readouterr()
    assert verb(["export", run, "--to", "csv", "-", "--slowest", "2"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 3 and "2 requests (2 of" in err


def test_metrics_are_those_of_the_result(run: str, tmp_path: Path) -> None:
    text = written(run, "prometheus", tmp_path / "t.om")
    families = {each.name: each for each in text_string_to_metric_families(text)}
    result = diagnosis(run)
    samples = {(s.name, *sorted(s.labels.items())): s.value
               for family in families.values() for s in family.samples}  # fmt: skip
    p50 = result.metrics["ttft"].statistics["p50"]
    key = ("latdiag_ttft_seconds", ("bound", "value"), ("statistic", "p50"))
    assert samples[key] == p50.value / 1e9
    shares = [s for s in families["latdiag_component_seconds"].samples
              if s.labels["population"] == "mean"]  # fmt: skip
    assert sum(s.value for s in shares) == pytest.approx(result.breakdowns["mean"].total_ns / 1e9)
    told = {s.labels["statistic"] for s in families["latdiag_ttft_seconds"].samples}
    known = result.metrics["ttft"].statistics
    assert told == {name for name, one in known.items() if one.value is not None}


@pytest.mark.parametrize(
    ("place", "code", "words"),
    [
        ("here.csv", 2, "exists already"),
        ("nowhere/t.csv", 16, "cannot be written: no such file"),
        ("here.csv/t.csv", 16, "cannot be written: not a directory"),
    ],
)
def test_files_that_cannot_be_written(
    run: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    place: str,
    code: int,
    words: str,
) -> None:
    (tmp_path / "here.csv").write_text("mine")
    assert verb(["export", run, "--to", "csv", str(tmp_path / place)]) == code
    assert words in capsys.readouterr().err
    assert (tmp_path / "here.csv").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_leaves_no_file(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("latdiag.export.tables.write_jsonl", full)
    assert verb(["export", run, "--to", "jsonl", str(tmp_path / "t.jsonl")]) == 16
    assert "no space left" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_orders_that_contradict(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    for args, words in (
        (("parquet", "-"), "a Parquet file"),
        (("csv", "-", "--json"), "--json"),
        (("openmetrics", "-", "--slowest", "3"), "whole workload"),
    ):
        assert verb(["export", run, "--to", *args]) == 2
        assert words in capsys.readouterr().err
