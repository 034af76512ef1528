"""Lines of a capture's client that are rows, and those that cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latdiag.ingest.importers.client_lines import ClientRows
from latdiag.model.records import Outcome
from latdiag.store.columns import arrow_batch, row_count
from latdiag.store.run import Run
from tests.profiles import examples

from .capture_lines import NS0, imported, line, make


def one_row(tmp_path: Path, capsys: pytest.CaptureFixture[str], **changed: Any) -> dict[str, Any]:
    """The row of a changed line."""
    out = tmp_path / "a.run"
    imported(capsys, make(tmp_path / "capture", [line(0, **changed)]), "--out", out)
    (row,) = Run.open(str(out)).frame().to_dict("records")
    return dict(row)


S = NS0
REJECTED = {
    "no JSON": "{",
    "no JSON, too deep": "[" * 100_000,
    "not a JSON object": "[1]",
    "no send_ns": line(1, send_ns=None),
    "instant: bool": line(1, send_ns=True),
    "instant: float": line(1, send_ns=float(S)),
    "instant: text": line(1, send_ns=str(S)),
    "instant: negative": line(1, send_ns=-S),
    "instant: NaN": line(1, done_ns=float("nan")),
    "instant: seconds": line(1, headers_ns=S // 10**9),
    "instant: huge": line(1, done_ns=10**30),
    "backwards: headers": line(1, headers_ns=S - 1),
    "backwards: done": line(1, done_ns=S),
    "backwards: chunks": line(1, chunks=[[S + 10**9, 1], [S + 10**9 - 1, 1]]),
    "more than 7 days": line(1, done_ns=S + 10**15),
    "chunks: no list": line(1, chunks={"a": 1}),
    "chunk: no pair": line(1, chunks=[[S + 10**9]]),
    "chunk: negative": line(1, chunks=[[S + 10**9, -1]]),
    "chunk: null": line(1, chunks=[[None, 1]]),
    "chunk: text": line(1, chunks=["ab"]),
    "scenario: number": line(1, scenario=7),
    "scenario: long": line(1, scenario="x" * 1000),
    "twice": line(0),
    "no id": line(1, id=None, trace_id="0" * 32),
}


@pytest.mark.parametrize("what", REJECTED)
def test_a_line_that_is_no_row_is_counted_and_the_others_stand(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make(tmp_path / "capture", [line(0), REJECTED[what], "", line(2)])
    said = imported(capsys, folder, "--out", tmp_path / "a.run")["imported"]
    assert said["requests"] == 2
    assert list(said["skipped"].values()) == [1]
    (why,) = said["skipped"]
    assert why.startswith("client line: ") and "Error" not in why


OUTCOMES: dict[str, tuple[dict[str, Any], str]] = {
    "ok": ({}, "ok"),
    "429": ({"status": 429, "chunks": []}, "rate_limited"),
    "503": ({"status": 503, "chunks": None}, "http_error"),
    "no status": ({"status": None}, "cut"),
    "status of another type": ({"status": "200"}, "cut"),
    "no end": ({"done_ns": None}, "cut"),
    "a note of an error": ({"error": "SECRET prompt"}, "cut"),
    "no content": ({"chunks": [[NS0 + 20, 0]]}, "protocol"),
}


@pytest.mark.parametrize("what", OUTCOMES)
def test_how_a_request_ended(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed, outcome = OUTCOMES[what]
    row = one_row(tmp_path, capsys, **changed)
    assert row["outcome"] == outcome
    assert (row["error"] is None or row["error"] != row["error"]) == (outcome == "ok")
    assert "SECRET" not in str(row)


@pytest.mark.parametrize(
    ("characters", "total", "tokens", "kinds"),
    [
        ([3, 4], 2, [1, 1], [3, 3]),
        ([3, 0, 4], 2, [1, 0, 1], [3, 0, 3]),
        ([3, 0, 4], 3, [1, 1, 1], [3, 3, 3]),  # a token without text
        ([0, 3, 4], 3, None, [0, 3, 3]),  # or the role, and two tokens in one chunk
        ([0, 3, 4], 2, [0, 1, 1], [0, 3, 3]),
        ([3, 4], 5, None, [3, 3]),
        ([3, 4], None, None, [3, 3]),
    ],
)
def test_tokens_are_told_only_where_chunks_are_tokens(
    characters: list[int],
    total: int | None,
    tokens: list[int] | None,
    kinds: list[int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    chunks = [[NS0 + 20 + i, n] for i, n in enumerate(characters)]
    row = one_row(tmp_path, capsys, chunks=chunks, usage={"completion_tokens": total})
    assert row["kinds"].tolist() == kinds
    assert (None if row["tokens"] is None else row["tokens"].tolist()) == tokens
    assert row["token_source"] == ("chunks" if total is None else "usage")


def test_fields_of_a_wrong_type_are_not_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strange = {"usage": {"prompt_tokens": -1, "completion_tokens": 1.5}, "isl": "8", "osl": True}
    row = one_row(tmp_path, capsys, **strange, span_id="xyz", trace_id=[1])
    for column in ("isl", "osl", "isl_wanted", "osl_wanted", "span_id", "trace_id"):
        assert row[column] is None or row[column] != row[column], column
    assert row["request_id"] == "r0"


def test_cached_tokens_are_kept_and_texts_are_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = {"completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 3}}
    row = one_row(tmp_path, capsys, usage=usage, prefill_reply="SECRET text", prompt="SECRET")
    assert row["cached_tokens"] == 3
    stored = b"".join(p.read_bytes() for p in (tmp_path / "a.run").rglob("*") if p.is_file())
    assert b"SECRET" not in stored


_INSTANTS = st.one_of(
    st.integers(NS0, NS0 + 10**6), st.integers(), st.floats(), st.none(), st.booleans()
)
_ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
_CHUNKS = st.lists(st.one_of(st.tuples(_INSTANTS, st.integers(-1, 10**20)), _ANYTHING), max_size=4)
_FIELDS = {
    "scenario": st.one_of(st.text(max_size=200), _ANYTHING),
    "trace_id": st.one_of(st.text("0123456789abcdefABCDEF", min_size=32, max_size=32), _ANYTHING),
    "headers_ns": _INSTANTS,
    "done_ns": _INSTANTS,
    "chunks": st.one_of(
        st.lists(st.integers(1, 9), max_size=5).map(
            lambda sizes: [[NS0 + 10**6 + i, n] for i, n in enumerate(sizes)]
        ),
        _CHUNKS,
        _ANYTHING,
    ),
    "status": st.one_of(st.integers(), st.just(200), _ANYTHING),
    "id": _ANYTHING,
    "rid": _ANYTHING,
    "usage": st.one_of(
        st.dictionaries(
            st.sampled_from(["prompt_tokens", "completion_tokens", "prompt_tokens_details"]),
            _ANYTHING,
        ),
        _ANYTHING,
    ),
    "isl": _ANYTHING,
    "error": _ANYTHING,
}


@given(
    st.lists(
        st.fixed_dictionaries({"send_ns": st.integers(NS0, NS0 + 99)}, optional=_FIELDS),
        max_size=5,
    )
)
def test_any_line_is_a_row_that_the_store_takes_or_is_counted(said: list[Any]) -> None:
    rows = ClientRows("capture:x", frozenset(), set())
    for one in said:
        rows.add(json.dumps(one).encode())
    assert rows.taken.total() + rows.rejected.total() == len(said)
    columns = rows.take()
    assert row_count(columns) == rows.taken.total()
    table = arrow_batch("requests", columns)
    assert table.num_rows == 0 or set(table["outcome"].to_pylist()) <= set(Outcome)
    assert rows.take() == {}


@examples(300)
@given(st.binary(max_size=40))
def test_any_bytes_are_counted(data: bytes) -> None:
    rows = ClientRows("capture:x", frozenset(), set())
    rows.add(data)
    assert rows.rejected.total() == 1
