"""What is written is what is read: every column, every kind of null, any rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latdiag.store import columns as columns_module
from latdiag.store.arrays import cuts, to_batch
from latdiag.store.batch import Batch, Ints, Lists
from latdiag.store.columns import arrow_batch
from latdiag.store.directory import RunDirectory
from latdiag.store.run import Run
from latdiag.store.schema import EVIDENCE, REQUESTS
from latdiag.store.writer import RunWriter, create_run
from tests.profiles import examples
from tests.run_documents import header

Rows = list[dict[str, Any]]
I64 = st.integers(-(2**63), 2**63 - 1)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int": I64,
    "float": st.floats(allow_nan=False),
    "bool": st.booleans(),
    "text": st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
}
ITEMS: dict[str, st.SearchStrategy[Any]] = {
    "list<int64>": I64,
    "list<int32>": st.integers(-(2**31), 2**31 - 1),
    "list<int8>": st.integers(-128, 127),
    "list<bool>": st.booleans(),
}


def run_of(path: Path) -> str:
    return create_run(str(path / "a.run"), header())


def columns_from(rows: Rows) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in REQUESTS}


def rows_of(batches: Sequence[Batch]) -> Rows:
    """Batches as rows of plain Python values."""
    rows: Rows = []
    for batch in batches:
        columns: dict[str, list[Any]] = {}
        for name, ints in batch.ints.items():
            pairs = zip(ints.values.tolist(), ints.valid.tolist(), strict=True)
            columns[name] = [value if valid else None for value, valid in pairs]
        for name, bools in batch.bools.items():
            columns[name] = bools.tolist()
        for name, texts in batch.texts.items():
            columns[name] = texts.tolist()
        for name, lists in batch.lists.items():
            columns[name] = unfolded(lists)
        rows += [{n: c[i] for n, c in columns.items()} for i in range(batch.n)]
    return rows


def unfolded(lists: Lists) -> list[list[Any] | None]:
    assert lists.offsets[0] == 0
    assert lists.offsets[-1] == len(lists.values)
    return [
        lists.values[a:b].tolist() if valid else None
        for a, b, valid in zip(lists.offsets, lists.offsets[1:], lists.valid, strict=False)
    ]


def as_batches_give(rows: Rows) -> Rows:
    """What a Batch can say of rows: no floats, a null boolean is False."""
    bools = {name for name, word in REQUESTS.items() if word == "bool"}
    floats = {name for name, word in REQUESTS.items() if word == "float"}
    return [
        {
            name: bool(value) if name in bools else value
            for name, value in row.items()
            if name not in floats
        }
        for row in rows
    ]


@st.composite
def any_row(draw: st.DrawFn) -> dict[str, Any]:
    length = draw(st.integers(0, 4))
    row: dict[str, Any] = {}
    for name, word in REQUESTS.items():
        if word in ITEMS:
            items = st.lists(ITEMS[word], min_size=length, max_size=length)
            row[name] = draw(st.none() | items)
        else:
            row[name] = draw(st.none() | VALUES[word])
    return row


@examples(60)
@given(parts=st.lists(st.lists(any_row(), min_size=1, max_size=4), min_size=1, max_size=3))
def test_any_rows_come_back_as_they_were_written(
    parts: list[Rows], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = run_of(tmp_path_factory.mktemp("any"))
    writer = RunWriter(path, "w")
    for rows in parts:
        writer.write_part(columns_from(rows))
    written = [row for rows in parts for row in rows]
    run = Run.open(path)
    # As they lie on disk: reading a run leaves rows out that nothing can have seen.
    names = [name for name, word in REQUESTS.items() if word != "float"]
    raw = RunDirectory(path, lambda _: None).requests(names, 10_000)
    assert rows_of([to_batch(batch) for batch in raw]) == as_batches_give(written)
    assert run.caveats == []
    frame = run.frame(["retry_after_s", "sent_ns"])
    floats = [None if math.isnan(v) else v for v in frame["retry_after_s"].tolist()]
    assert floats == [row["retry_after_s"] for row in written]
    exact = [None if v is not v or str(v) == "<NA>" else v for v in frame["sent_ns"].tolist()]
    assert exact == [row["sent_ns"] for row in written]


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 100])
def test_batches_of_any_size_hold_the_same_rows(tmp_path: Path, rows: int) -> None:
    path = run_of(tmp_path)
    writer = RunWriter(path, "w")
    for part in range(3):
        writer.write_part(
            {
                "request_id": [f"{part}-{i}" for i in range(5)],
                "attempt": [1] * 5,
                "arrivals_ns": [list(range(i)) for i in range(5)],
                "censored": [[i % 2 == 0] * i for i in range(5)],
            }
        )
    names = ["request_id", "arrivals_ns", "censored", "wire_ns"]
    batches = list(Run.open(path).batches(names, rows=rows))
    assert max(batch.n for batch in batches) <= rows
    # Small parts are joined: no batch could have taken in the one after it.
    for one, next_one in pairwise(batches):
        assert one.n + next_one.n > rows or 2 * max(one.n, next_one.n) > rows
    found = rows_of(batches)
    assert [row["request_id"] for row in found] == [f"{p}-{i}" for p in range(3) for i in range(5)]
    assert all(row["arrivals_ns"] == list(range(i % 5)) for i, row in enumerate(found))
    assert all(row["censored"] == [i % 5 % 2 == 0] * (i % 5) for i, row in enumerate(found))
    assert {row["wire_ns"] for row in found} == {None}


def test_an_all_null_column_keeps_its_type_from_part_to_part(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    from latdiag.store.arrays import arrow_schema

    path = run_of(tmp_path)
    writer = RunWriter(path, "w")
    key = {"request_id": ["a"], "attempt": [1]}
    writer.write_part(key)
    writer.write_part(key | {name: [None] for name in REQUESTS if name not in key})
    writer.write_part(key | {"tokens": [[1]], "due_ns": [5], "error": ["x"], "reused": [True]})
    for part in sorted(Path(path, "requests").iterdir()):
        assert pq.read_schema(part).equals(arrow_schema("requests"))
    found = rows_of(list(Run.open(path).batches(["tokens", "due_ns", "error", "reused"])))
    empty = {"tokens": None, "due_ns": None, "error": None, "reused": False}
    full = {"tokens": [1], "due_ns": 5, "error": "x", "reused": True}
    assert found == [empty, empty, full]


def test_every_column_of_evidence_comes_back(tmp_path: Path) -> None:
    row: dict[str, Any] = {
        name: {"text": f"{name}-ü", "int": 2**62 + 1, "float": 0.1}.get(word)
        for name, word in EVIDENCE.items()
    }
    row |= {"bucket_le": [0.5, math.inf], "bucket_count": [3, 4], "labels": {"le": "1", "b": "ü"}}
    nothing = dict.fromkeys(EVIDENCE) | {"evidence_id": "2", "labels": {}}
    path = run_of(tmp_path)
    RunWriter(path, "w").write_evidence({name: [row[name], nothing[name]] for name in EVIDENCE})
    frame = Run.open(path).evidence()
    assert list(frame.columns) == list(EVIDENCE)
    first = frame.iloc[0].to_dict()
    lists = {name: first.pop(name).tolist() for name in ("bucket_le", "bucket_count")}
    assert first | lists == row
    assert frame["labels"].tolist() == [row["labels"], {}]
    assert frame["start_ns"].isna().tolist() == [False, True]
    assert frame["bucket_le"].tolist()[1] is None


def test_columns_may_be_given_as_arrays(tmp_path: Path) -> None:
    offsets = np.array([3, 5, 5, 6])
    valid = np.array([True, False, True])
    path = run_of(tmp_path)
    RunWriter(path, "w").write_part(
        {
            "request_id": np.array(["a", "b", "c"], dtype=object),
            "attempt": np.array([1, 2, 3], dtype=np.int16),
            "due_ns": Ints(np.array([7, 0, 9]), valid),
            "reused": np.array([True, False, True]),
            "retry_after_s": np.array([0.5, 1.0, math.nan]),
            "arrivals_ns": Lists.whole(np.arange(10) * 10, offsets),
            "tokens": Lists(np.arange(10), offsets, valid),
            "censored": Lists(np.ones(10, dtype=bool), offsets, valid),
        }
    )
    run = Run.open(path)
    columns = ["request_id", "attempt", "due_ns", "reused", "arrivals_ns", "tokens", "censored"]
    rows = rows_of(list(run.batches(columns)))
    assert [list(row.values()) for row in zip_rows(rows, columns)] == [
        ["a", 1, 7, True, [30, 40], [3, 4], [True, True]],
        ["b", 2, None, False, [], None, None],
        ["c", 3, 9, True, [50], [5], [True]],
    ]
    seconds = run.frame(["retry_after_s"])["retry_after_s"].tolist()
    assert seconds[:2] == [0.5, 1.0]
    assert math.isnan(seconds[2])


def zip_rows(rows: Rows, columns: list[str]) -> Rows:
    return [{name: row[name] for name in columns} for row in rows]


def test_half_a_surrogate_from_foreign_json_is_replaced(tmp_path: Path) -> None:
    path = run_of(tmp_path)
    RunWriter(path, "w").write_part(
        {"request_id": ["a"], "attempt": [1], "error": ["bad \ud800 text"]}
    )
    assert rows_of(list(Run.open(path).batches(["error"]))) == [{"error": "bad ? text"}]


KEY: dict[str, Any] = {"request_id": ["a", "b"], "attempt": [1, 1]}


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"tokens": [[1], [1]], "kinds": [[3], [3, 3]]}, "row 1 differ in length"),
        ({"censored": [[True], None], "kinds": [[], [3]]}, "row 0 differ in length"),
        ({"colour": ["red", "blue"]}, "no column colour"),
        ({"due_ns": [1]}, "different lengths"),
        ({"due_ns": [1.5, 2.0]}, "due_ns"),
        ({"due_ns": [2**63, 0]}, "due_ns"),
        ({"due_ns": [True, False]}, "due_ns"),
        ({"due_ns": ["1", "2"]}, "due_ns"),
        ({"reused": [0, 1]}, "reused"),
        ({"error": [1, 2]}, "error"),
        ({"error": [b"x", None]}, "error"),
        ({"tokens": [[2**31], []]}, "tokens: a value does not fit int32"),
        ({"kinds": [[-129], []]}, "kinds: a value does not fit int8"),
        ({"kinds": [[1.0], []]}, "kinds"),
        ({"censored": [[1], []]}, "censored"),
        ({"tokens": Lists.whole(np.arange(3), np.array([0, 2, 4]))}, "offsets"),
        ({"tokens": Lists.whole(np.arange(3), np.array([2, 1, 3]))}, "offsets"),
        (
            {"tokens": Lists(np.arange(3), np.array([0, 1, 3]), np.array([True, False]))},
            "a null list that holds items",
        ),
    ],
)
def test_what_the_schema_cannot_hold_is_refused_by_name(
    columns: dict[str, Any], says: str, tmp_path: Path
) -> None:
    path = run_of(tmp_path)
    with pytest.raises(ValueError, match=says):
        RunWriter(path, "w").write_part(KEY | columns)
    assert list(Path(path, "requests").iterdir()) == []


def test_a_part_of_more_than_two_billion_items_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns_module, "_MAX_ITEMS", 5)
    with pytest.raises(ValueError, match="more than 5 items"):
        arrow_batch("requests", KEY | {"error": ["abc", "def"]})


@given(
    lengths=st.lists(st.integers(0, 9), max_size=30),
    rows=st.integers(1, 8),
    items=st.integers(1, 20),
)
def test_row_groups_cover_every_row_once_within_both_bounds(
    lengths: list[int], rows: int, items: int
) -> None:
    table = arrow_batch(
        "requests",
        {
            "request_id": ["r"] * len(lengths),
            "tokens": [[1] * length for length in lengths],
            "censored": [None] * len(lengths),
        },
    )
    groups = cuts(table, rows, items)
    assert [i for start, n in groups for i in range(start, start + n)] == [*range(len(lengths))]
    for start, n in groups:
        assert 1 <= n <= rows
        assert n == 1 or sum(lengths[start : start + n]) <= items
        # No group is cut earlier than a bound asks for.
        if start + n < len(lengths):
            assert n == rows or sum(lengths[start : start + n + 1]) > items
