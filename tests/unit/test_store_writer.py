"""Making runs: names, what is never overwritten, what a failure leaves, what importing costs."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from latdiag.model.errors import LocalFault, RunFault
from latdiag.store.place import ArrowPlace, LocalPlace, displayed, place_of
from latdiag.store.run import Run
from latdiag.store.schema import SCHEMA_VERSION, part_of
from latdiag.store.writer import RunWriter, create_run, default_run_path
from tests.run_documents import header, state

ROW = {"request_id": ["a"], "attempt": [1], "arrivals_ns": [[1, 2]]}


def seed(of: Any) -> Any:
    return of["plan"]["seed"]


def files(path: str | Path) -> list[str]:
    root = Path(path)
    return sorted(str(f.relative_to(root)) for f in root.rglob("*") if f.is_file())


def test_a_run_begins_with_its_header(tmp_path: Path) -> None:
    path = create_run(str(tmp_path / "deep" / "a.run") + "/", header() | {"schema": 99})
    assert path == str(tmp_path / "deep" / "a.run")
    assert files(path) == ["run.json"]
    written = json.loads(Path(path, "run.json").read_text())
    assert written == header() | {"schema": SCHEMA_VERSION}
    assert Run.open(path).header == written


@pytest.mark.parametrize("there", ["run", "other", "file", "below a file"])
def test_what_is_there_is_never_overwritten(tmp_path: Path, there: str) -> None:
    path = tmp_path / "a.run"
    if there == "run":
        create_run(str(path), header(plan={"seed": 1}))
    elif there == "other":
        path.mkdir()
        (path / "notes.txt").write_text("mine")
    else:
        path.write_text("mine")
    before = {f: (tmp_path / f).read_bytes() for f in files(tmp_path)}
    wanted = path / "b.run" if there == "below a file" else path
    with pytest.raises(RunFault, match="exists already") as caught:
        create_run(str(wanted), header(plan={"seed": 2}))
    assert caught.value.exit_code == 2
    assert "--out" in caught.value.remedy
    assert {f: (tmp_path / f).read_bytes() for f in files(tmp_path)} == before


def test_an_empty_directory_may_be_there(tmp_path: Path) -> None:
    assert Run.open(create_run(str(tmp_path), header())).header["schema"] == SCHEMA_VERSION


def test_of_two_that_want_one_path_one_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "a.run")
    make = LocalPlace.make

    def other_first(place: LocalPlace) -> None:
        make(place)
        monkeypatch.setattr(LocalPlace, "make", make)
        create_other()

    def create_other() -> None:
        # The other process got past the look for files at the same instant.
        winner = header(command="winner") | {"schema": 1}
        LocalPlace(path).put("run.json", json.dumps(winner).encode(), exclusive=True)

    monkeypatch.setattr(LocalPlace, "make", other_first)
    with pytest.raises(RunFault, match="exists already"):
        create_run(path, header())
    assert Run.open(path).header["command"] == "winner"


def test_a_header_that_json_cannot_say_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        create_run(str(tmp_path / "a.run"), {"rate": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_the_default_path_says_when_what_and_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "no de/../\x1b[1m7")
    monkeypatch.chdir(tmp_path)
    now = datetime(2026, 11, 23, 8, 13, 5, tzinfo=timezone(timedelta(hours=1)))
    first = default_run_path("load", now)
    assert first == "./latdiag-runs/20261123T071305Z-load-node..1m7.run"
    create_run(first, header())
    second = default_run_path("load", now)
    assert second == "./latdiag-runs/20261123T071305Z-load-node..1m7-2.run"
    create_run(second, header())
    assert default_run_path("load", now).endswith("-3.run")
    monkeypatch.setattr(socket, "gethostname", lambda: "...")
    assert default_run_path("probe", now.astimezone(UTC)).endswith("Z-probe-host.run")


def test_parts_are_numbered_and_nobody_writes_anothers(tmp_path: Path) -> None:
    path = create_run(str(tmp_path / "a.run"), header())
    one, two = RunWriter(path, "w"), RunWriter(path, "w-1")
    assert one.write_part(ROW) == "requests/part-w-000001.parquet"
    assert two.write_part(ROW) == "requests/part-w-1-000001.parquet"
    assert one.write_part(ROW) == "requests/part-w-000002.parquet"
    assert one.write_evidence({"evidence_id": ["e"]}) == "evidence/part-w-000001.parquet"
    assert one.write_part({}) is None
    assert one.write_part({"request_id": [], "attempt": []}) is None
    # A process of the same name that starts again goes on counting.
    assert RunWriter(path, "w").write_part(ROW) == "requests/part-w-000003.parquet"
    assert part_of("part-w-1-000001.parquet") == ("w-1", 1)
    assert part_of("open-w.parquet") is None
    assert part_of(".part-w-000001.parquet.77") is None


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a b", "x" * 65, "a\n"])
def test_a_writer_name_must_be_part_of_a_file_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="file name"):
        RunWriter(str(tmp_path), name)


def test_open_rows_are_replaced_and_go(tmp_path: Path) -> None:
    path = create_run(str(tmp_path / "a.run"), header())
    writer = RunWriter(path, "w")
    writer.write_open({})
    for ids in (["a", "b"], ["b"], ["c"]):
        writer.write_open({"request_id": ids, "attempt": [1] * len(ids)})
        assert files(path) == ["requests/open-w.parquet", "run.json"]
        batches = list(Run.open(path).batches(["request_id"]))
        assert [b.texts["request_id"].tolist() for b in batches] == [ids]
    writer.write_open({"request_id": [], "attempt": []})
    assert files(path) == ["run.json"]


def test_state_is_replaced(tmp_path: Path) -> None:
    path = create_run(str(tmp_path / "a.run"), header())
    writer = RunWriter(path, "w")
    writer.write_state(state("open", clock=[[1, 2, 3]]))
    writer.write_state(state("closed"))
    assert files(path) == ["run.json", "writers/w.json"]
    assert json.loads(Path(path, "writers/w.json").read_text()) == state("closed")
    with pytest.raises(ValueError, match="Out of range"):
        writer.write_state({"lag": float("inf")})
    assert json.loads(Path(path, "writers/w.json").read_text()) == state("closed")


@pytest.mark.parametrize(
    ("number", "says", "remedy"),
    [
        (errno.ENOSPC, "No space left", "free some space"),
        (errno.EDQUOT, "quota", "quota"),
        (errno.EMFILE, "Too many open files", "ulimit -n"),
        (errno.EACCES, "Permission denied", "permissions"),
        (errno.EROFS, "Read-only", "read-only"),
        (errno.EIO, "Input/output", "this disk"),
    ],
)
def test_a_disk_that_says_no_is_a_local_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, says: str, remedy: str
) -> None:
    path = create_run(str(tmp_path / "a.run"), header())
    writer = RunWriter(path, "w")
    writer.write_part(ROW)
    writer.write_open(ROW)
    writer.write_state(state("open"))
    before = {name: Path(path, name).read_bytes() for name in files(path)}

    def refuse(handle: int, data: Any) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "write", refuse)
    writes: list[Callable[[], object]] = [
        lambda: writer.write_part(ROW),
        lambda: writer.write_open(ROW),
        lambda: writer.write_state(state("closed")),
    ]
    for write in writes:
        with pytest.raises(LocalFault, match=says) as caught:
            write()
        assert caught.value.exit_code == 16
        assert remedy in caught.value.remedy
        assert caught.value.run == path
    monkeypatch.undo()
    # The run is as it was, without a trace of what failed, and it can go on.
    assert {name: Path(path, name).read_bytes() for name in files(path)} == before
    assert writer.write_part(ROW) == "requests/part-w-000002.parquet"


def test_a_write_that_takes_a_little_at_a_time_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = create_run(str(tmp_path / "a.run"), header())
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:100]))
    RunWriter(path, "w").write_part(ROW)
    monkeypatch.undo()
    assert [b.n for b in Run.open(path).batches()] == [1]


def test_importing_is_cheap_and_rows_need_no_pandas(tmp_path: Path) -> None:
    code = f"""
import os, sys
import latdiag.store.clock, latdiag.store.place
from latdiag.store.writer import RunWriter, create_run
heavy = ("numpy", "pyarrow", "pandas", "scipy")
path = create_run({str(tmp_path / "a.run")!r}, {header()!r})
writer = RunWriter(path, "w")
assert not [m for m in heavy if m in sys.modules], "before the first rows"
row = {ROW!r}
writer.write_part(row)
writer.write_open({{**row, "request_id": ["b"]}})
from latdiag.store.run import Run
assert sum(b.n for b in Run.open(path).batches()) == 2
writer.write_evidence({{"evidence_id": ["e"], "kind": ["span"], "foreign_name": ["a"],
    "value": [0.5], "labels": [{{"k": "v"}}]}})
class Spans:
    columns, kinds, rows = ["value", "labels"], ["span"], []
    def wanted(self, name):
        return True
    def add(self, said):
        self.rows.append(said)
Run.open(path).read_evidence(Spans())
(rows,) = Spans.rows
assert (rows.n, rows.floats["value"].tolist(), rows.labels.of("k").tolist()) == (1, [0.5], ["v"])
assert "pyarrow" in sys.modules
assert "pandas" not in sys.modules and "scipy" not in sys.modules, "after reading and writing"
assert "ARROW_DEFAULT_MEMORY_POOL" not in os.environ
"""
    clean = {k: v for k, v in os.environ.items() if k != "ARROW_DEFAULT_MEMORY_POOL"}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=clean)


def test_a_process_that_writes_runs_stays_small(tmp_path: Path) -> None:
    """25,000 arrivals a part is 100 streams of 50 tokens/s, flushed every five seconds."""
    code = f"""
import numpy as np
from latdiag.store.batch import Lists
from latdiag.store.writer import RunWriter, create_run
writer = RunWriter(create_run({str(tmp_path / "a.run")!r}, {{}}), "w")
n, each = 125, 200
offsets = np.arange(n + 1) * each
stamps = Lists.whole(np.arange(n * each) * 20_000_000, offsets)
ones = Lists.whole(np.ones(n * each, dtype=np.int8), offsets)
columns = {{"request_id": [str(i) for i in range(n)], "attempt": [1] * n, "arrivals_ns": stamps,
    "arrivals_user_ns": stamps, "tokens": ones, "kinds": ones}}
for _ in range(20):
    writer.write_part(columns)
    writer.write_open(columns)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(int(status["VmHWM"].split()[0]) // 1024)
"""
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc")
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=60, capture_output=True, text=True
    )
    # Measured: 70 MiB, of which 47 are pyarrow's and numpy's own pages.
    assert int(done.stdout) <= 80


def test_other_filesystems_hold_runs_too(tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/a%20b.run"
    path = create_run(uri, header(plan={"seed": 3}))
    RunWriter(path, "w").write_part(ROW)
    RunWriter(path, "w").write_state(state("closed"))
    assert Path(tmp_path, "a b.run", "requests", "part-w-000001.parquet").exists()
    run = Run.open(uri)
    assert seed(run.header) == 3
    assert run.cut_short == []
    with pytest.raises(RunFault, match="another host"):
        create_run("file://elsewhere/a.run", header())


@pytest.fixture
def in_memory(monkeypatch: pytest.MonkeyPatch) -> str:
    """The root of a filesystem that exists in this process only; pyarrow's own for tests."""
    from pyarrow.fs import _MockFileSystem

    held = _MockFileSystem()

    def place(path: str) -> ArrowPlace:
        return ArrowPlace(held, path.removeprefix("mock:/").rstrip("/"), path)

    for module in ("writer", "directory", "place"):
        monkeypatch.setattr(f"latdiag.store.{module}.place_of", place)
    return "mock:/runs"


def test_a_run_on_a_remote_filesystem(in_memory: str) -> None:
    path = create_run(f"{in_memory}/a.run", header(plan={"seed": 5}))
    with pytest.raises(RunFault, match="exists already"):
        create_run(path, header())
    writer = RunWriter(path, "w")
    writer.write_part(ROW)
    writer.write_state(state("open"))
    writer.write_open({"request_id": ["b"], "attempt": [1]})
    run = Run.open(path)
    assert [b.texts["request_id"].tolist() for b in run.batches(["request_id"])] == [["a"], ["b"]]
    assert run.open_rows == 1
    assert run.cut_short == ["writer w never closed"]
    writer.write_open({})
    writer.write_open({})
    writer.write_state(state("closed"))
    assert RunWriter(path, "w").write_part(ROW) == "requests/part-w-000002.parquet"
    again = Run.open(path)
    assert again.cut_short == []
    assert [b.n for b in again.batches(["attempt"])] == [2]
    create_run(f"{in_memory}/b.run", header(plan={"seed": 6}))
    assert [seed(h) for h in Run.open(f"{in_memory}/*.run").headers] == [5, 6]


def test_what_a_remote_directory_is_instead_of_a_run(in_memory: str) -> None:
    path = create_run(f"{in_memory}/a.run", header())
    for wrong, says in [
        (in_memory, "is a directory of 1 run; name one, such as a.run"),
        (f"{in_memory}/b.run", "does not exist"),
        (f"{path}/run.json", "is a file"),
        (f"{path}/writers", "is an empty directory"),
        (f"{in_memory}/*.ran", "nothing matches"),
    ]:
        with pytest.raises(RunFault, match=re.escape(says)):
            Run.open(wrong)


@pytest.mark.parametrize(
    "uri",
    ["nosuch://bucket/a.run", "s3://", "s3://[bad/x", "s3://h:99999/x", "file://[x/y", "a\0b"],
)
def test_a_uri_that_pyarrow_does_not_know_is_a_run_fault(uri: str) -> None:
    with pytest.raises(
        RunFault, match=r"cannot be opened|is not a run|cannot be a path|another host"
    ) as caught:
        Run.open(uri)
    assert caught.value.exit_code == 2


def test_credentials_in_a_uri_are_not_shown() -> None:
    with pytest.raises(RunFault, match="nosuch://host/a") as caught:
        Run.open("nosuch://KEYID:SECRET@host/a.run?token=SECRET")
    everything = "".join(traceback.format_exception(caught.value))
    assert "SECRET" not in everything.replace(
        '"nosuch://KEYID:SECRET@host/a.run?token=SECRET"', ""
    )
    uri = "s3://KEYID:SECRET@bucket/runs/a.run?endpoint_override=http://u:p@h"
    assert displayed(uri) == "s3://bucket/runs/a.run"
    assert displayed("s3://KEYID:SECRET[@bucket/a.run") == "s3:… (not a URI)"
    assert displayed("/tmp/a\x1b[31m.run") == "/tmp/a[31m.run"
    assert place_of("plain.run").name == "plain.run"
