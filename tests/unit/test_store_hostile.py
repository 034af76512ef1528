"""A run directory is hostile input: what is wrong is refused or left out, and named."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latdiag.model.errors import LatdiagError, RunFault
from latdiag.store import documents, parts, place
from latdiag.store.run import Run
from latdiag.store.writer import RunWriter, create_run
from tests.profiles import repetitions
from tests.run_documents import header, state

PART = "requests/part-w-000001.parquet"


@pytest.fixture
def run(tmp_path: Path) -> str:
    """Two parts of three rows each, and one attempt in flight."""
    path = create_run(str(tmp_path / "a.run"), header())
    writer = RunWriter(path, "w")
    for first in (0, 3):
        ids = [f"r{first + i}" for i in range(3)]
        writer.write_part(
            {"request_id": ids, "attempt": [1] * 3, "tokens": [[1] * i for i in range(3)]}
            | {"error": ["e" * 50] * 3, "outcome": ["ok"] * 3, "sent_ns": [1, 2, 3]}
        )
    writer.write_open({"request_id": ["open"], "attempt": [1], "tokens": [[1, 1]]})
    writer.write_state(state("closed"))
    return path


def ids(run: Run) -> list[str]:
    batches = run.batches(["request_id", "tokens", "error", "sent_ns"])
    return [i for batch in batches for i in batch.texts["request_id"].tolist()]


def write_table(run: str, columns: dict[str, Any], **options: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    key = {"request_id": pa.array(["x", "y"]), "attempt": pa.array([1, 1])}
    arrays = key | columns
    table = pa.Table.from_arrays(list(arrays.values()), names=list(arrays))
    pq.write_table(table, Path(run, PART), **options)


@pytest.mark.parametrize(
    ("there", "says"),
    [
        (lambda p: None, "does not exist"),
        (lambda p: p.mkdir(), "is an empty directory"),
        (lambda p: p.write_text("PAR1"), "is a file, and a run is a directory"),
        (lambda p: (p / "x\x1b]0;.txt").mkdir(parents=True), "without run.json (it holds x]0;"),
        (lambda p: (p / "requests").mkdir(parents=True), "has the folders of a run but no run"),
        (
            lambda p: create_run(str(p / "b.run"), header()),
            "is a directory of 1 run; name",
        ),
    ],
)
def test_what_is_no_run_is_said_to_be_what_it_is(
    tmp_path: Path, there: Callable[[Path], object], says: str
) -> None:
    there(tmp_path / "a.run")
    with pytest.raises(RunFault, match=re.escape(says)) as caught:
        Run.open(str(tmp_path / "a.run"))
    assert caught.value.exit_code == 2
    assert "\x1b" not in caught.value.text


DEEP = 100_000


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "Expecting value"),
        (b'{"schema": 1', "Expecting"),
        (b"[1]", "not a JSON object"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b'{"schema": 1, "x": NaN}', "NaN is not JSON"),
        (b'{"schema": 1, "x": -Infinity}', "-Infinity is not JSON"),
        (b'{"schema": 1, "x": 1e999}', "a number is too large"),
        (b'{"schema": 1, "x": ' + b"9" * 5000 + b"}", "cannot be read"),
        (b'{"schema": 1, "x": ' + b"[" * DEEP + b"]" * DEEP + b"}", "nested more than 64 deep"),
        (b'{"schema": 1, "x": ' + b"[" * 64 + b"]" * 64 + b"}", "nested more than 64 deep"),
    ],
)
def test_a_header_that_is_no_header(run: str, content: bytes, says: str) -> None:
    Path(run, "run.json").write_bytes(content)
    with pytest.raises(RunFault, match=re.escape(says)) as caught:
        Run.open(run)
    assert f"{run}/run.json" in caught.value.text
    assert len(caught.value.text) < 500


def test_a_header_may_be_deep_and_large_within_bounds(
    run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, deep = Path(run, "run.json"), b'{"x": ' + b"[" * 63 + b"]" * 63 + b", "
    file.write_bytes(deep + file.read_bytes()[1:])
    assert Run.open(run).header["schema"] == 1
    size = Path(run, "run.json").stat().st_size
    monkeypatch.setattr(documents, "MAX_BYTES", size)
    Run.open(run)
    monkeypatch.setattr(documents, "MAX_BYTES", size - 1)
    with pytest.raises(RunFault, match=f"has {size} bytes, and at most {size - 1} are read"):
        Run.open(run)


def test_links_that_leave_the_run_are_refused(run: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    Path(run, PART).rename(outside)
    Path(run, PART).symlink_to(outside)
    with pytest.raises(RunFault, match=r"000001\.parquet is a link that leads out of the run"):
        ids(Run.open(run))
    Path(run, "run.json").rename(tmp_path / "run.json")
    Path(run, "run.json").symlink_to("../run.json")
    with pytest.raises(RunFault, match=r"run\.json is a link that leads out"):
        Run.open(run)


def test_a_folder_that_is_a_link_out_of_the_run_is_refused(run: str, tmp_path: Path) -> None:
    Path(run, "requests").rename(tmp_path / "elsewhere")
    Path(run, "requests").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunFault, match="leads out of the run"):
        ids(Run.open(run))


@pytest.mark.parametrize("name", [PART, "run.json", "writers/w.json"])
def test_a_link_that_leads_to_itself_is_the_run_s_fault(run: str, name: str) -> None:
    Path(run, name).unlink()
    Path(run, name).symlink_to(Path(name).name)
    with pytest.raises(RunFault):
        opened = Run.open(run)
        assert opened.writers
        ids(opened)


def test_links_within_and_to_the_run_are_followed(run: str, tmp_path: Path) -> None:
    Path(run, PART).rename(Path(run, "moved"))
    Path(run, PART).symlink_to("../moved")
    (tmp_path / "link.run").symlink_to(run)
    assert ids(Run.open(str(tmp_path / "link.run"))) == [*(f"r{i}" for i in range(6)), "open"]


@pytest.mark.parametrize("name", [PART, "requests/open-w.parquet", "run.json", "writers/w.json"])
def test_a_pipe_or_directory_in_the_place_of_a_file_is_refused(run: str, name: str) -> None:
    file = Path(run, name)
    file.unlink()
    for make in (os.mkfifo, os.mkdir):
        make(file)
        with pytest.raises(RunFault, match=f"{re.escape(name)} is not a regular file"):
            opened = Run.open(run)
            ids(opened)
            opened.cut_short  # noqa: B018 -- reads the writers
        file.unlink() if make is os.mkfifo else file.rmdir()


def test_other_files_are_ignored(run: str) -> None:
    for name in (".part-w-000003.parquet.99", "notes.txt", "part-w-3.parquet", "part--.parquet"):
        Path(run, "requests", name).write_bytes(b"PAR1")
    opened = Run.open(run)
    assert len(ids(opened)) == 7
    assert opened.caveats == []


def test_more_files_than_any_run_has(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "MAX_FILES", 2)
    with pytest.raises(RunFault, match="holds more than 2 files"):
        ids(Run.open(run))


def test_a_part_cut_at_any_byte_is_named_and_the_rest_is_read(run: str) -> None:
    file = Path(run, PART)
    whole = file.read_bytes()
    for size in range(0, len(whole), 97):
        file.write_bytes(whole[:size])
        opened = Run.open(run)
        assert ids(opened) == ["r3", "r4", "r5", "open"]
        assert opened.caveats == [f"{run}/{PART} is damaged; all of it is lost"]


def test_a_cut_open_file_is_named_and_the_parts_are_read(run: str) -> None:
    file = Path(run, "requests/open-w.parquet")
    file.write_bytes(file.read_bytes()[:-9])
    opened = Run.open(run)
    assert ids(opened) == [f"r{i}" for i in range(6)]
    assert opened.caveats == [f"{run}/requests/open-w.parquet is damaged; all of it is lost"]


def test_damage_in_the_midst_loses_only_what_follows(run: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [f"{i}-{random.Random(i).getrandbits(200):x}" for i in range(300)]
    table = pa.table({"request_id": names, "attempt": [1] * 300})
    file = Path(run, PART)
    pq.write_table(table, file, row_group_size=100, use_dictionary=False, compression="lz4")
    meta = pq.ParquetFile(file).metadata
    start = meta.row_group(1).column(0).data_page_offset
    raw = bytearray(file.read_bytes())
    raw[start : start + 40] = b"\xff" * 40
    file.write_bytes(raw)
    opened = Run.open(run)
    assert ids(opened)[:100] == names[:100]
    assert len(ids(opened)) == 104
    assert opened.caveats == [f"{run}/{PART} is damaged; its rows from 100 on are lost"]


def test_text_that_is_not_utf8_is_damage(run: str) -> None:
    import pyarrow as pa

    bytes_ = [pa.py_buffer(raw) for raw in (b"\0\0\0\0\2\0\0\0\3\0\0\0", b"\xff\xfex")]
    write_table(run, {"error": pa.Array.from_buffers(pa.string(), 2, [None, *bytes_])})
    opened = Run.open(run)
    assert ids(opened) == ["r3", "r4", "r5", "open"]
    assert opened.caveats == [f"{run}/{PART} is damaged; its rows from 0 on are lost"]


@pytest.mark.repeated
def test_flipped_bytes_never_end_in_anything_but_a_word_about_them(run: str) -> None:
    file = Path(run, PART)
    whole = file.read_bytes()
    draw = random.Random(20261123)
    refused = damaged = 0
    for _ in range(repetitions(400)):
        raw = bytearray(whole)
        for _ in range(draw.randint(1, 3)):
            raw[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
        file.write_bytes(raw)
        opened = Run.open(run)
        try:
            assert ids(opened)[-4:] == ["r3", "r4", "r5", "open"]
        except LatdiagError as fault:
            assert fault.exit_code == 2
            refused += 1
        damaged += bool(opened.caveats)
    assert damaged + refused  # which of the two depends on where the flips fall


def test_lists_of_different_lengths_name_file_and_row(run: str) -> None:
    import pyarrow as pa

    write_table(
        run,
        {
            "arrivals_ns": pa.array([[1, 2], [3]], pa.list_(pa.int64())),
            "tokens": pa.array([[1, 1], [1, 1]], pa.list_(pa.int32())),
        },
    )
    with pytest.raises(RunFault, match=f"{PART} holds lists of different lengths in row 1$"):
        list(Run.open(run).batches(["arrivals_ns", "tokens"]))
    with pytest.raises(RunFault, match=r"in row 1$"):
        Run.open(run).frame()
    # Whoever reads one of the columns only cannot see it.
    assert len(list(Run.open(run).batches(["tokens"]))) > 0


@pytest.mark.parametrize(
    ("column", "values", "kind", "says"),
    [
        ("arrivals_ns", [[1.0], []], "list<double>", r"list<.*double> in the column arrivals_ns"),
        ("arrivals_ns", [1, 2], "int64", "int64 in the column arrivals_ns, which is list"),
        ("tokens", [[1], [2]], "list<int64>", "which is list<element: int32"),
        ("sent_ns", ["1", "2"], "string", "string in the column sent_ns, which is int64"),
        ("sent_ns", [1.0, 2.0], "double", "double in the column sent_ns"),
        ("reused", [0, 1], "int8", "int8 in the column reused, which is bool"),
        ("error", [b"a", b"b"], "binary", "binary in the column error"),
        ("sent_ns", [None, None], "null", "null in the column sent_ns, which is int64"),
    ],
)
def test_wrong_types_are_refused_by_name(
    run: str, column: str, values: list[Any], kind: str, says: str
) -> None:
    import pyarrow as pa

    types = {
        "list<double>": pa.list_(pa.float64()),
        "list<int64>": pa.list_(pa.int64()),
        "double": pa.float64(),
        "null": pa.null(),
    }
    kinds = types.get(kind) or getattr(pa, kind)()
    write_table(run, {column: pa.array(values, kinds)})
    with pytest.raises(RunFault, match=says) as caught:
        list(Run.open(run).batches())
    assert f"{run}/{PART}" in caught.value.text


def test_a_null_within_a_list_is_damage(run: str) -> None:
    import pyarrow as pa

    write_table(run, {"tokens": pa.array([[1], [None]], pa.list_(pa.int32()))})
    opened = Run.open(run)
    assert ids(opened) == ["r3", "r4", "r5", "open"]
    assert "is damaged" in opened.caveats[0]


def test_lists_whose_items_may_be_null_by_type_are_read(run: str) -> None:
    import pyarrow as pa

    write_table(run, {"tokens": pa.array([None, [4, 5]], pa.list_(pa.int32()))}, row_group_size=1)
    lists = [b.lists["tokens"] for b in Run.open(run).batches(["tokens"], rows=2)]
    assert [(x.values.tolist(), x.valid.tolist()) for x in lists[:1]] == [([4, 5], [False, True])]


def test_a_part_without_its_key_or_with_a_column_twice(run: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = Path(run, PART)
    pq.write_table(pa.table({"request_id": ["a"]}), file)
    with pytest.raises(RunFault, match="has no column attempt"):
        ids(Run.open(run))
    arrays = [pa.array(["a"]), pa.array([1]), pa.array([1])]
    pq.write_table(pa.Table.from_arrays(arrays, names=["request_id", "attempt", "attempt"]), file)
    with pytest.raises(RunFault, match="has the column attempt twice"):
        ids(Run.open(run))


@pytest.mark.parametrize(
    ("bound", "says"),
    [
        ("MAX_FILE_BYTES", "bytes, and at most 1 are read"),
        ("MAX_FILE_ROWS", "claims 3 rows"),
        ("MAX_LIST", "holds a list of 2 items in row 2"),
        ("MAX_GROUP_BYTES", "bytes in one group of rows"),
    ],
)
def test_absurd_sizes_are_refused(
    run: str, monkeypatch: pytest.MonkeyPatch, bound: str, says: str
) -> None:
    Path(run, "requests/open-w.parquet").unlink()
    monkeypatch.setattr(parts, bound, 1)
    with pytest.raises(RunFault, match=says):
        ids(Run.open(run))


@pytest.mark.parametrize("length", [10, 100, 1000])
def test_long_answers_make_small_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    """A reader's memory does not grow with the length of the answers."""
    path = create_run(str(tmp_path / "b.run"), header())
    stamps = [[i + 20_000_000 * j for j in range(length)] for i in range(90)]
    RunWriter(path, "w").write_part(
        {"request_id": [str(i) for i in range(90)], "attempt": [1] * 90}
        | {"arrivals_ns": stamps, "arrivals_user_ns": stamps, "tokens": [[1] * length] * 90}
    )
    monkeypatch.setattr(parts, "BATCH_ITEMS", 3000)
    monkeypatch.setattr(parts, "BATCH_BYTES", 24 * 3000)
    batches = list(Run.open(path).batches(["request_id", "tokens"]))
    items = [len(b.lists["tokens"].values) for b in batches]
    assert max(items) <= 3000
    assert sum(items) == 90 * length
    assert (len(items) == 1) == (length == 10)
    assert [i for b in batches for i in b.texts["request_id"]] == [str(i) for i in range(90)]


def test_a_part_that_vanishes_is_named(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read_part = parts.read_part

    def gone(place: Any, name: str, *rest: Any) -> Any:
        if name == PART:
            Path(run, PART).unlink()
        return read_part(place, name, *rest)

    monkeypatch.setattr("latdiag.store.directory.read_part", gone)
    opened = Run.open(run)
    assert ids(opened) == ["r3", "r4", "r5", "open"]
    assert opened.caveats == [f"{run}/{PART} vanished while the run was read"]


@pytest.mark.parametrize("name", [PART, "requests/open-w.parquet"])
def test_a_file_may_go_between_the_look_at_it_and_its_opening(
    run: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    source = place.LocalPlace.source

    def gone(here: place.LocalPlace, wanted: str) -> tuple[Any, int]:
        found = source(here, wanted)
        if wanted == name:
            Path(run, name).unlink()
        return found

    monkeypatch.setattr(place.LocalPlace, "source", gone)
    opened = Run.open(run)
    left = ["r3", "r4", "r5", "open"] if name == PART else [f"r{i}" for i in range(6)]
    assert ids(opened) == left
    # A writer deletes its open file when nothing is in flight any more: no word about that.
    assert len(opened.caveats) == (name == PART)
