"""Reading runs: one, several, a glob; writers, clocks, attempts in flight, versions."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from latdiag.model.errors import RunFault, UsageFault
from latdiag.store import directory, schema
from latdiag.store.arrays import arrow_schema
from latdiag.store.place import LocalPlace
from latdiag.store.run import Run
from latdiag.store.schema import REQUESTS, SCHEMA_VERSION
from latdiag.store.writer import RunWriter, create_run
from tests.run_documents import header, state

from .split_rows import clocks


def rows(*ids: str, **columns: Any) -> dict[str, Any]:
    """Columns of finished attempts with these ids."""
    fixed = {"attempt": 1, "clock_id": "c1", "outcome": "ok", "arrivals_ns": [1, 2]} | columns
    return {"request_id": list(ids)} | {name: [value] * len(ids) for name, value in fixed.items()}


def outcomes(run: Run) -> list[tuple[str, int, str]]:
    found: list[tuple[str, int, str]] = []
    for batch in run.batches(["request_id", "attempt", "outcome"]):
        ids, words = batch.texts["request_id"].tolist(), batch.texts["outcome"].tolist()
        found += zip(ids, batch.ints["attempt"].values.tolist(), words, strict=True)
    return found


def new_run(tmp_path: Path, name: str = "a.run", seed: int = 1) -> str:
    return create_run(str(tmp_path / name), header(plan={"seed": seed}))


def seed(of: Any) -> Any:
    return of["plan"]["seed"]


def test_rows_of_all_writers(tmp_path: Path) -> None:
    path = new_run(tmp_path)
    one, two = RunWriter(path, "one"), RunWriter(path, "two")
    one.write_part(rows("a", "b"))
    two.write_part(rows("c"))
    one.write_part(rows("d"))
    two.write_state(state(pid=2))
    one.write_state(state(pid=1))
    run = Run.open(path)
    assert sorted(r[0] for r in outcomes(run)) == ["a", "b", "c", "d"]
    assert run.writers == [
        state(pid=1, writer="one", run=path),
        state(pid=2, writer="two", run=path),
    ]
    assert run.cut_short == []
    assert run.caveats == []
    assert run.open_rows == 0


def test_several_runs_read_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, name in enumerate(["b.run", "a.run"]):
        path = new_run(tmp_path, name, seed=number)
        RunWriter(path, "w").write_part(rows("x", clock_id=f"clock-{name}"))
        RunWriter(path, "w").write_state(state("open" if number else "closed"))
    run = Run.open(str(tmp_path / "b.run"), str(tmp_path / "a.run"))
    assert [seed(h) for h in run.headers] == [0, 1]
    assert seed(run.header) == 0
    assert clocks(run) == ["clock-a.run", "clock-b.run"]
    assert run.cut_short == [f"{tmp_path}/a.run: writer w never closed"]
    assert [w["run"] for w in run.writers] == run.paths
    # The same request_id in two runs is two requests.
    assert outcomes(run) == [("x", 1, "ok"), ("x", 1, "ok")]
    monkeypatch.chdir(tmp_path)
    for pattern in ("*.run", f"{tmp_path}/?.run", f"file://{tmp_path}/[ab].run"):
        assert [seed(h) for h in Run.open(pattern).headers] == [1, 0]
    assert len(Run.open("a.run", "*.run").headers) == 3
    with pytest.raises(RunFault, match=re.escape("nothing matches *.ran")):
        Run.open("a.run", "*.ran")
    with pytest.raises(RunFault, match="no run was named"):
        Run.open()


def test_a_name_with_wildcards_in_it_is_a_name_first(tmp_path: Path) -> None:
    path = new_run(tmp_path, "[2026].run", seed=4)
    assert seed(Run.open(path).header) == 4


def test_attempts_in_flight_are_cut_by_client(tmp_path: Path) -> None:
    path = new_run(tmp_path)
    writer = RunWriter(path, "w")
    writer.write_open(rows("a", "b", outcome=None, arrivals_ns=[7, 8, 9]))
    run = Run.open(path)
    assert outcomes(run) == [("a", 1, "cut_by_client"), ("b", 1, "cut_by_client")]
    assert run.open_rows == 2
    # Their arrivals are there, and the columns that were asked for alone.
    (batch,) = run.batches(["arrivals_ns"])
    assert batch.lists["arrivals_ns"].values.tolist() == [7, 8, 9, 7, 8, 9]
    assert [*batch.texts, *batch.ints] == []
    assert run.frame(["outcome"])["outcome"].tolist() == ["cut_by_client"] * 2
    assert run.cut_short == ["writer w left rows but no summary"]


def test_a_part_wins_over_an_open_file(tmp_path: Path) -> None:
    path = new_run(tmp_path)
    one, two = RunWriter(path, "one"), RunWriter(path, "two")
    one.write_part(rows("a", "b", outcome="ok"))
    # Killed between the part and the open file: b is in both. Another attempt of a is not.
    one.write_open(rows("b", outcome=None) | {"attempt": [1]})
    two.write_open(rows("a", outcome=None) | {"attempt": [2]})
    run = Run.open(path)
    found = [("a", 1, "ok"), ("b", 1, "ok"), ("a", 2, "cut_by_client")]
    assert outcomes(run) == found
    assert run.open_rows == 1
    assert outcomes(Run.open(path, path)) == found * 2
    assert [b.n for b in run.batches(["due_ns"])] == [2, 1]
    assert [b.n for b in run.batches([])] == [2, 1]


@pytest.mark.parametrize("meets", ["requests", "open"])
def test_a_run_may_be_read_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meets: str
) -> None:
    """An attempt that finishes while the reader goes from file to file is read exactly once."""
    path = new_run(tmp_path)
    writer = RunWriter(path, "w")
    writer.write_part(rows("a"))
    writer.write_open(rows("b", outcome=None))
    listed: Counter[str] = Counter()
    names = LocalPlace.names

    def finish_now(place: LocalPlace, folder: str) -> list[str]:
        found = names(place, folder)
        listed[folder] += 1
        if folder == "requests" and listed[folder] == (1 if meets == "open" else 2):
            writer.write_part(rows("b"))
            writer.write_open({})
        return names(place, folder) if meets == "requests" else found

    monkeypatch.setattr(LocalPlace, "names", finish_now)
    run = Run.open(path)
    assert outcomes(run) == [("a", 1, "ok"), ("b", 1, "ok")]
    assert run.caveats == []
    assert listed["requests"] == 2


def test_a_run_that_never_got_going(tmp_path: Path) -> None:
    run = Run.open(new_run(tmp_path))
    assert run.cut_short == ["no writer process started: there is only run.json"]
    assert list(run.batches()) == []
    assert clocks(run) == []
    frame = run.frame()
    assert list(frame.columns) == list(REQUESTS)
    assert len(frame) == 0
    assert len(run.evidence()) == 0


def test_writers_that_did_not_close(tmp_path: Path) -> None:
    path = new_run(tmp_path)
    RunWriter(path, "closed").write_state(state("closed"))
    RunWriter(path, "open").write_state(state("open"))
    RunWriter(path, "parts-only").write_part(rows("a"))
    RunWriter(path, "evidence-only").write_evidence({"evidence_id": ["e"]})
    Path(path, "writers", "broken.json").write_text('{"state": "clo')
    Path(path, "writers", ".tmp.json.7").write_text("{")
    Path(path, "writers", "README").write_text("not a writer")
    run = Run.open(path)
    assert run.cut_short == [
        "writer broken never closed",
        "writer open never closed",
        "writer evidence-only left rows but no summary",
        "writer parts-only left rows but no summary",
    ]
    assert len(run.caveats) == 1
    assert run.caveats[0].startswith(f"{path}/writers/broken.json cannot be read")


def test_a_frame_keeps_every_nanosecond(tmp_path: Path) -> None:
    path = new_run(tmp_path)
    RunWriter(path, "w").write_part(
        {
            "request_id": ["a", "b"],
            "attempt": [1, 1],
            "due_ns": [2**62 + 1, None],
            "reused": [None, True],
            "tokens": [None, [1, 2]],
        }
    )
    frame = Run.open(path).frame(["due_ns", "reused", "tokens", "request_id"])
    assert list(frame.columns) == ["due_ns", "reused", "tokens", "request_id"]
    assert str(frame["due_ns"].dtype) == "Int64"
    assert int(frame["due_ns"][0]) == 2**62 + 1
    assert frame["due_ns"].isna().tolist() == [False, True]
    assert frame["reused"].isna().tolist() == [True, False]
    assert frame["tokens"][0] is None
    assert frame["tokens"][1].tolist() == [1, 2]


def test_a_column_that_is_none_is_a_usage_fault(tmp_path: Path) -> None:
    run = Run.open(new_run(tmp_path))
    with pytest.raises(UsageFault, match="requests has no column ttft") as caught:
        list(run.batches(["ttft"]))
    assert "arrivals_ns" in caught.value.remedy
    with pytest.raises(UsageFault, match="evidence has no column arrivals_ns"):
        run.evidence(["arrivals_ns"])


def test_a_float_is_not_a_number_where_it_is_null(tmp_path: Path) -> None:
    run = Run.open(new_run(tmp_path))
    RunWriter(run.paths[0], "w").write_part(rows("a", "b") | {"retry_after_s": [2.5, None]})
    (batch,) = run.batches(["retry_after_s"])
    assert batch.floats["retry_after_s"][0] == 2.5 and np.isnan(batch.floats["retry_after_s"][1])
    assert np.isnan(batch.select(np.array([False, True])).floats["retry_after_s"]).tolist() == [
        True
    ]


def with_schema(path: str, version: Any) -> None:
    file = Path(path, "run.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"schema": version}))


def test_a_newer_schema_is_refused_with_both_versions(tmp_path: Path) -> None:
    path = new_run(tmp_path)
    with_schema(path, SCHEMA_VERSION + 1)
    says = f"is of schema {SCHEMA_VERSION + 1}, but this latdiag reads up to {SCHEMA_VERSION}"
    with pytest.raises(RunFault, match=says) as caught:
        Run.open(path)
    assert caught.value.exit_code == 2
    assert caught.value.run == path


@pytest.mark.parametrize("version", [None, "1", True, 0, -1, 1.0])
def test_a_run_without_a_version_is_refused(tmp_path: Path, version: Any) -> None:
    path = new_run(tmp_path)
    with_schema(path, version)
    with pytest.raises(RunFault, match="names no schema version"):
        Run.open(path)


def test_an_older_run_lacks_columns_and_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two versions on, a column has been added: this version's runs read it as null."""
    path = new_run(tmp_path)
    RunWriter(path, "w").write_part(rows("a"))
    RunWriter(path, "w").write_open(rows("b", outcome=None))
    monkeypatch.setitem(schema.REQUESTS, "added_ns", "int")
    monkeypatch.setitem(schema.REQUESTS, "added_list", "list<int32>")
    monkeypatch.setattr(directory, "SCHEMA_VERSION", SCHEMA_VERSION + 2)
    run = Run.open(path)
    first, second = run.batches(["request_id", "added_ns", "added_list"])
    assert first.ints["added_ns"].valid.tolist() == [False]
    assert first.lists["added_list"].valid.tolist() == [False]
    assert second.texts["request_id"].tolist() == ["b"]
    assert run.frame(["added_ns"])["added_ns"].isna().all()
    assert [b.n for b in run.batches(["added_ns"])] == [1, 1]


def test_columns_of_a_newer_writer_are_ignored(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = new_run(tmp_path)
    RunWriter(path, "w").write_part(rows("a"))
    part = Path(path, "requests", "part-w-000001.parquet")
    table = pq.read_table(part).append_column("later", pa.array([[{"x": 1}]]))
    pq.write_table(table, part)
    run = Run.open(path)
    assert outcomes(run) == [("a", 1, "ok")]
    assert run.frame()["arrivals_ns"][0].tolist() == [1, 2]
    assert run.caveats == []


def test_the_history_of_the_schema_ends_with_this_version() -> None:
    assert [v.number for v in schema.HISTORY] == list(range(1, SCHEMA_VERSION + 1))
    assert all(v.changed and v.read_today for v in schema.HISTORY)


def test_the_declared_schemas() -> None:
    import pyarrow as pa

    requests, evidence = arrow_schema("requests"), arrow_schema("evidence")
    assert requests.names == list(REQUESTS)
    assert requests.field("arrivals_ns").type == pa.list_(
        pa.field("element", pa.int64(), nullable=False)
    )
    assert requests.field("kinds").type.value_type == pa.int8()
    assert requests.field("censored").type.value_type == pa.bool_()
    assert requests.field("tokens").type.value_type == pa.int32()
    assert requests.field("request_id").type == pa.string()
    instants = [n for n in requests.names if n.endswith("_ns") and not n.startswith("arrivals")]
    assert {requests.field(n).type for n in instants} == {pa.int64()}
    assert evidence.field("labels").type == pa.map_(pa.string(), pa.string())
    assert evidence.field("bucket_le").type.value_type == pa.float64()
    assert schema.UNIQUE_TEXTS.issubset({*REQUESTS, *schema.EVIDENCE})
