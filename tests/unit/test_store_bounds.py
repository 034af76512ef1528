"""What a hostile run may take: decoded bytes count, whatever its files say of themselves."""

from __future__ import annotations

import contextlib
import json
import mmap
import random
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from latdiag.model.errors import RunFault
from latdiag.store import memory
from latdiag.store.batch import Lists
from latdiag.store.run import Run
from latdiag.store.schema import MAX_LIST, MAX_MAP, MAX_TEXT
from latdiag.store.writer import RunWriter, create_run
from tests.run_documents import header, state

N = 20_000


def repeated(text: str, n: int = N) -> Any:
    """``text`` in every row, stored once."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * n, pa.int32()), pa.array([text]))


def ids(n: int) -> Any:
    draw = random.Random(1)
    return pa.array([draw.randbytes(13).hex() for _ in range(n)])


def repeated_one(n: int) -> Any:
    return pa.array(np.ones(n, np.int64))


def requests(n: int = N, **columns: Any) -> Any:
    arrays = {
        "request_id": pa.array([f"r{i}" for i in range(n)]),
        "attempt": pa.array([1] * n, pa.int64()),
        "sent_ns": pa.array(range(10**15, 10**15 + n), pa.int64()),
        "outcome": pa.array(["timeout"] * n),
    }
    return pa.table(arrays | columns)


def evidence(**columns: Any) -> Any:
    ids = pa.array([f"e{i}" for i in range(10)])
    kinds = pa.array(["gauge"] * 10)
    return pa.table({"evidence_id": ids, "kind": kinds, "foreign_name": kinds} | columns)


_LABELS = pa.map_(pa.string(), pa.string())
BOMBS: dict[str, tuple[str, Callable[[], Any], str]] = {
    "a text of 1 MiB in 20,000 rows": (
        "requests", lambda: requests(error=repeated("x" * 2**20)), "takes more than 256 MiB"),
    "a text of 10 MB": (
        "requests", lambda: requests(error=repeated("x" * 10**7, N)), "takes more than 256 MiB"),
    "a text of 100 kB in one row": (
        "requests", lambda: requests(1, error=["x" * 10**5]), "holds a text of 100000 bytes"),
    "texts at the bound in 20,000 rows": (
        "requests", lambda: requests(error=repeated("x" * MAX_TEXT)), "takes more than 256 MiB"),
    "texts of 7 kB in 57,000 rows": (
        "requests", lambda: requests(
        57_000, request_id=ids(57_000), error=repeated("x" * 7400, 57_000)),
        "holds far more than its"),
    "rows of a few bytes each": (
        "requests", lambda: requests(100_000), "claims 100000 rows in"),
    "more rows than bytes": (
        "requests", lambda: pa.table({"request_id": repeated("r", 10**6),
        "attempt": pa.array([1] * 10**6, pa.int64())}), "claims 1000000 rows in"),
    "a list of 5 million": (
        "requests", lambda: requests(1, arrivals_ns=[[1] * (MAX_LIST + 1)]), "holds a list of"),
    "a list of 40 million": (
        "requests", lambda: requests(1, arrivals_ns=pa.array([np.ones(4 * 10**7, np.int64)])),
        "more than 256 MiB"),
    "a map of 100,000 keys": (
        "evidence", lambda: evidence(
        labels=pa.array([[(str(i), "") for i in range(10**5)]] + [[]] * 9, _LABELS)),
        "holds a map of 100000 entries"),
    "a label of 100 kB": (
        "evidence",
        lambda: evidence(labels=pa.array([[("k", "v" * 10**5)]] + [[]] * 9, _LABELS)),
        "holds a text of 100000 bytes"),
}  # fmt: skip
#: Prints how latdiag diagnose ends for each run, what it says, and the largest size of its
#: process: one that is forked when all is loaded.
_ASK = """
import contextlib, io, json, os, sys
import latdiag.diagnosis.several
from latdiag.cli import run
for path in sys.argv[1:]:
    if not os.fork():
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            code = run(["diagnose", path])
        peak = open("/proc/self/status").read().split("VmHWM:")[1].split()[0]
        print(json.dumps([path, code, said.getvalue(), int(peak)]), flush=True)
        os._exit(0)
    os.wait()
"""


def bomb(path: str, name: str) -> str:
    """A run with it."""
    table, make, _ = BOMBS[name]
    run = create_run(path, header())
    RunWriter(run, "w").write_state(state())
    file = Path(run, table, "part-w-000001.parquet")
    pq.write_table(make(), file, compression="zstd", store_schema=False)
    assert file.stat().st_size < 2**20
    return run


@pytest.fixture(scope="module")
def diagnosed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """How it ends with each."""
    folder = tmp_path_factory.mktemp("bombs")
    runs = {bomb(str(folder / f"{n}.run"), name): name for n, name in enumerate(BOMBS)}
    done = subprocess.run(
        [sys.executable, "-c", _ASK, *runs],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=600,
    )
    lines = map(json.loads, done.stdout.splitlines())
    return {runs[path]: ended for path, *ended in lines}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_in_little_room(diagnosed: dict[str, list[Any]], name: str) -> None:
    code, said, peak_kb = diagnosed[name]
    assert code == 2 and BOMBS[name][2] in said, said
    assert "part-w-000001.parquet" in said and "Traceback" not in said
    assert peak_kb < 700_000


def test_the_largest_rows_that_are_written_are_read(tmp_path: Path) -> None:
    """Texts, maps and lists at their bounds, and a whole group of rows at its own."""
    path = create_run(str(tmp_path / "a.run"), header())
    writer = RunWriter(path, "w")
    stamps = Lists.whole(np.arange(MAX_LIST) + 10**15, np.array([0, MAX_LIST]))
    ones = Lists.whole(np.ones(MAX_LIST, np.int8), np.array([0, MAX_LIST]))
    columns: dict[str, Any] = {"arrivals_ns": stamps, "arrivals_user_ns": stamps}
    columns |= {"tokens": ones, "kinds": ones}
    writer.write_part({"request_id": ["a"], "attempt": [1], "error": ["x" * MAX_TEXT]} | columns)
    labels = [{str(i): "v" for i in range(MAX_MAP)}]
    writer.write_evidence({"evidence_id": ["e"], "labels": labels})
    writer.write_state(state())
    run = Run.open(path)
    (batch,) = run.batches()
    assert len(batch.lists["arrivals_ns"].values) == MAX_LIST
    assert len(batch.texts["error"][0]) == MAX_TEXT
    assert len(run.evidence()["labels"][0]) == MAX_MAP


def test_nothing_longer_is_written(tmp_path: Path) -> None:
    writer = RunWriter(create_run(str(tmp_path / "a.run"), header()), "w")
    writer.write_part({"request_id": ["a"], "attempt": [1], "error": ["é" * MAX_TEXT]})
    (batch,) = Run.open(str(tmp_path / "a.run")).batches(["error"])
    text = batch.texts["error"][0]
    assert text.endswith("é...") and MAX_TEXT - 2 <= len(text.encode()) <= MAX_TEXT
    with pytest.raises(ValueError, match=f"a map of more than {MAX_MAP} entries"):
        writer.write_evidence({"labels": [{str(i): "" for i in range(MAX_MAP + 1)}]})
    with pytest.raises(ValueError, match=r"a map of more than \d+ bytes"):
        writer.write_evidence({"labels": [{str(i): "v" * MAX_TEXT for i in range(600)}]})
    with pytest.raises(ValueError, match=f"a list of more than {MAX_LIST} items"):
        writer.write_part({"arrivals_ns": [np.ones(MAX_LIST + 1, np.int64)]})


def test_many_small_files_have_one_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = create_run(str(tmp_path / "a.run"), header())
    for part in range(1, 6):
        table = requests(50, error=repeated("x" * 60_000, 50))
        file = Path(path, "requests", f"part-w-{part:06d}.parquet")
        pq.write_table(table, file, store_schema=False)
    assert sum(batch.n for batch in Run.open(path).batches()) == 250
    monkeypatch.setattr(memory, "ROOM", 8_000_000)
    with pytest.raises(RunFault, match=r"part-w-00000[34]\.parquet holds far more than its"):
        list(Run.open(path).batches())


def test_many_small_files_have_one_budget_of_rows(tmp_path: Path) -> None:
    path = create_run(str(tmp_path / "a.run"), header())
    rows = memory.FEW_ROWS["requests"] // 2 - 100
    table = pa.table({"request_id": repeated("r", rows), "attempt": repeated_one(rows)})
    for part in range(1, 4):
        file = Path(path, "requests", f"part-w-{part:06d}.parquet")
        pq.write_table(table, file, compression="zstd", store_schema=False)
        assert file.stat().st_size < 1000
    with pytest.raises(RunFault, match=rf"part-w-000003\.parquet claims {rows} rows in"):
        list(Run.open(path).batches())


def test_the_bound_ends_with_the_batch() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(MemoryError), memory.bounded():
        assert resource.getrlimit(resource.RLIMIT_AS) != before
        np.ones(2 * memory.BATCH_MEMORY, np.int8)
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    np.ones(memory.BATCH_MEMORY, np.int8)


def test_what_others_reserve_meanwhile_refuses_no_sound_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that begins, or an allocator that grows, reserves 128 MiB and keeps them."""
    path = create_run(str(tmp_path / "a.run"), header())
    writer = RunWriter(path, "w")
    ids = [f"r{i}" for i in range(N)]
    writer.write_part({"request_id": ids, "attempt": [1] * N, "error": ["x" * 2000] * N})
    writer.write_state(state())
    kept: list[mmap.mmap] = []
    calls: list[int] = []
    late: set[int] = set()
    real = memory.bounded

    @contextlib.contextmanager
    def beside() -> Iterator[None]:
        with real():
            calls.append(1)
            if len(calls) in late:
                # All but what Python itself needs to go on.
                kept.append(mmap.mmap(-1, memory.BATCH_MEMORY - 2**20, mmap.MAP_PRIVATE))
            yield

    monkeypatch.setattr(memory, "bounded", beside)
    for number in (1, 2, 3):
        calls.clear()
        late = {number}
        assert sum(batch.n for batch in Run.open(path).batches(["error"], rows=N // 4)) == N
    assert len(kept) == 3
    # What is too large for itself is refused, whatever others do.
    with pytest.raises(MemoryError):
        memory.within(lambda: np.ones(2 * memory.BATCH_MEMORY, np.int8))
    calls.clear()
    late = {1, 2, 3}
    with pytest.raises(MemoryError):
        memory.within(lambda: np.ones(2 * memory.BATCH_MEMORY, np.int8))
    assert len(calls) == 3
