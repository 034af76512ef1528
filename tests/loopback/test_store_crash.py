"""What a run is worth after kill -9, a full disk, or limits of the system: real processes."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from latdiag.model.errors import LocalFault, RunFault
from latdiag.store.run import Run
from latdiag.store.writer import RunWriter, create_run
from tests.run_documents import header, state

ROOT = Path(__file__).parents[2]

#: Attempt i goes into the open file, then into part i // 3; every step is told when it is done.
_WRITER = """
import sys
from latdiag.store.writer import RunWriter
from tests.run_documents import state
writer = RunWriter(sys.argv[1], "w")
writer.write_state(state("open"))
ids = lambda first, n: [f"r{i}" for i in range(first, first + n)]
def rows(first, n):
    return {"request_id": ids(first, n), "attempt": [1] * n, "outcome": ["ok"] * n,
        "arrivals_ns": [list(range(i)) for i in range(first, first + n)]}
for step in range(int(sys.argv[2])):
    writer.write_open(rows(3 * step, 3))
    print("open", 3 * step + 3, flush=True)
    writer.write_part(rows(3 * step, 3))
    print("part", 3 * step + 3, flush=True)
"""


@contextlib.contextmanager
def writing(path: str, steps: int = 100_000) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITER, path, str(steps)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=30)


def read(run: Run) -> dict[str, tuple[str, list[int]]]:
    """request_id -> outcome and arrivals; every id must be there once."""
    found: dict[str, tuple[str, list[int]]] = {}
    for batch in run.batches(["request_id", "outcome", "arrivals_ns"]):
        lists = batch.lists["arrivals_ns"]
        for i in range(batch.n):
            key = batch.texts["request_id"][i]
            assert key not in found
            arrivals = lists.values[lists.offsets[i] : lists.offsets[i + 1]].tolist()
            found[key] = (batch.texts["outcome"][i], arrivals)
    return found


@pytest.mark.parametrize("after", [1, 2, 7, 20, 41])
def test_kill_loses_nothing_that_was_written(tmp_path: Path, after: int) -> None:
    path = create_run(str(tmp_path / "a.run"), header())
    told: list[list[str]] = []
    with writing(path) as process:
        assert process.stdout
        while len(told) < after:
            told.append(process.stdout.readline().split())
        # It is in the midst of the next step, whatever that is.
        process.send_signal(signal.SIGKILL)
        told += [line.split() for line in process.stdout]
        assert process.wait(30) == -signal.SIGKILL
    run = Run.open(path)
    found = read(run)
    finished = max((int(n) for step, n in told if step == "part"), default=0)
    known = max(int(n) for _, n in told)
    assert known - 3 <= len(found) <= known + 3
    for i in range(len(found)):
        outcome, arrivals = found[f"r{i}"]
        assert arrivals == list(range(i))
        if i < finished:
            assert outcome == "ok"
        elif i >= finished + 3:
            assert outcome == "cut_by_client"
    assert set(found) >= {f"r{i}" for i in range(known)}
    assert run.caveats == []
    assert run.cut_short == ["writer w never closed"]


def test_a_run_is_read_while_it_is_written(tmp_path: Path) -> None:
    path = create_run(str(tmp_path / "a.run"), header())
    with writing(path, steps=60) as process:
        assert process.stdout
        known = 0
        for line in process.stdout:
            known = int(line.split()[1])
            if known % 30:
                continue
            run = Run.open(path)
            assert len(read(run)) >= known
            assert run.caveats == []
    assert len(read(Run.open(path))) == known == 180


def _fill(path: str, parts: int = 10_000) -> LocalFault:
    """Write parts until the system says no."""
    writer = RunWriter(path, "w")
    writer.write_state(state("open"))
    for part in range(parts):
        ids = [f"{part}-{i}" for i in range(100)]
        # Bytes that cannot be packed.
        noise = [os.urandom(100).hex() for _ in ids]
        try:
            writer.write_part({"request_id": ids, "attempt": [1] * 100, "error": noise})
        except LocalFault as fault:
            return fault
    raise AssertionError("nothing said no")


def _whole_parts(path: str) -> int:
    run = Run.open(path)
    rows = sum(batch.n for batch in run.batches(["request_id", "error"]))
    assert run.caveats == []
    assert rows % 100 == 0
    hidden = [f.name for f in Path(path).rglob(".*")]
    assert hidden == [], "a failed write leaves nothing that takes space"
    return rows // 100


def _last_word(disk: Path, path: str) -> None:
    """Where not a byte is left, a writer still says how it ended, in the place of what it said."""
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", 0) as file:
        while file.write(bytes(4096)):
            pass
    writer = RunWriter(path, "w")
    with pytest.raises(LocalFault):
        writer.write_part({"request_id": ["r"], "attempt": [1]})
    for said in ("closed", "open"):
        writer.write_state(state(said))
        assert json.loads(Path(path, "writers", "w.json").read_bytes())["state"] == said
    with pytest.raises(LocalFault):  # what is longer than its place is not written by halves
        writer.write_state({**state("closed"), "more": "x" * 9000})
    assert json.loads(Path(path, "writers", "w.json").read_bytes())["state"] == "open"
    ballast.unlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_full_disk_keeps_what_was_written(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this container may not mount")
    try:
        path = create_run(str(disk / "a.run"), header())
        fault = _fill(path)
        assert fault.exit_code == 16
        assert fault.run == path
        assert "No space left on device" in fault.text
        assert "--out" in fault.remedy
        parts = _whole_parts(path)
        assert parts >= 10
        _last_word(disk, path)
        # What there was room for is not only there: with space again, the run goes on.
        Path(path, "requests", "part-w-000001.parquet").unlink()
        writer = RunWriter(path, "w")
        writer.write_part({"request_id": ["last"] * 100, "attempt": [1] * 100})
        writer.write_state(state("closed"))
        assert _whole_parts(path) == parts
        assert Run.open(path).cut_short == []
        with contextlib.suppress(OSError), (disk / "ballast").open("wb", 0) as ballast:
            while ballast.write(bytes(4096)):
                pass
        with pytest.raises(LocalFault, match="No space left"):
            create_run(str(disk / "b.run"), {"long": "x" * 9000})
    finally:
        subprocess.run(["umount", str(disk)], check=True)


_LIMITED = """
import resource, sys
from latdiag.model.errors import LocalFault
from latdiag.store.writer import RunWriter
writer = RunWriter(sys.argv[1], "w")
row = {"request_id": ["a"], "attempt": [1]}
writer.write_part(row)
resource.setrlimit(getattr(resource, sys.argv[2]), (int(sys.argv[3]),) * 2)
try:
    writer.write_part({**row, "error": ["x" * 100_000]})
except LocalFault as fault:
    print(fault.exit_code, fault.text, "|", fault.remedy)
"""


@pytest.mark.parametrize(
    ("limit", "value", "says", "remedy"),
    [
        ("RLIMIT_FSIZE", 600, "File too large", "ulimit -f"),
        ("RLIMIT_NOFILE", 3, "Too many open files", "ulimit -n"),
    ],
)
def test_limits_of_the_system_are_local_faults(
    tmp_path: Path, limit: str, value: int, says: str, remedy: str
) -> None:
    path = create_run(str(tmp_path / "a.run"), header())
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, path, limit, str(value)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith("16 cannot write")
    assert says in done.stdout
    assert remedy in done.stdout
    assert [b.texts["request_id"].tolist() for b in Run.open(path).batches(["request_id"])] == [
        ["a"]
    ]


_FORBIDDEN = """
import os, sys
from latdiag.model.errors import LatdiagError
from latdiag.store.run import Run
from latdiag.store.writer import RunWriter, create_run
from tests.run_documents import header
row = {"request_id": ["a"], "attempt": [1]}
# Once with all rights: afterwards this Python may be out of reach.
RunWriter(create_run(sys.argv[1] + "/a.run", header()), "first").write_part(row)
assert sum(batch.n for batch in Run.open(sys.argv[1] + "/a.run").batches()) == 1
os.chmod(sys.argv[1] + "/a.run/run.json", 0o600)
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for act in (
    lambda: create_run(sys.argv[1] + "/new.run", header()),
    lambda: RunWriter(sys.argv[1] + "/a.run", "w").write_part(row),
    lambda: Run.open(sys.argv[1] + "/a.run"),
):
    try:
        act()
        print("allowed")
    except LatdiagError as fault:
        print(fault.exit_code, fault.text)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_permissions_are_local_faults() -> None:
    import shutil
    import tempfile

    # Not below tmp_path: others cannot even look into that.
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o755)
        done = subprocess.run(
            [sys.executable, "-c", _FORBIDDEN, str(folder)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=60,
            check=True,
        )
        lines = done.stdout.splitlines()
        assert [line.split()[0] for line in lines] == ["16", "16", "16"]
        assert all("Permission denied" in line for line in lines)
    finally:
        shutil.rmtree(folder)


def test_reading_does_not_need_more_descriptors_than_files_at_once(tmp_path: Path) -> None:
    path = create_run(str(tmp_path / "a.run"), header())
    writer = RunWriter(path, "w")
    for part in range(300):
        writer.write_part({"request_id": [str(part)], "attempt": [1]})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = os.dup(0)
    os.close(highest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 16, hard))
    try:
        assert len(read(Run.open(path))) == 300
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_two_processes_that_want_one_run(tmp_path: Path) -> None:
    """However they race, one gets it and the other is told; the header is the winner's."""
    code = """
import sys
from latdiag.model.errors import RunFault
from latdiag.store.writer import create_run
from tests.run_documents import header
sys.stdin.readline()
try:
    create_run(sys.argv[1], header(command=sys.argv[2]))
    print("mine")
except RunFault as fault:
    print("taken" if "exists already" in fault.text else fault.text)
"""
    for attempt in range(5):
        path = str(tmp_path / f"{attempt}.run")
        both = [
            subprocess.Popen(
                [sys.executable, "-c", code, path, str(who)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
            )
            for who in range(2)
        ]
        for process in both:
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
        said = [process.communicate(timeout=30)[0].strip() for process in both]
        assert sorted(said) == ["mine", "taken"]
        assert Run.open(path).header["command"] == str(said.index("mine"))
    with pytest.raises(RunFault, match="exists already"):
        create_run(path, header())
