"""What is written is read, however well it compresses: rows that differ in next to nothing."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from latdiag.ingest.otlp.keep import Keep
from latdiag.ingest.otlp.rows import SpanRows
from latdiag.stacks.catalogue import stacks
from latdiag.store import memory
from latdiag.store.batch import Lists
from latdiag.store.columns import GROUP_TEXT, arrow_batch, encoded, row_count
from latdiag.store.directory import RunDirectory
from latdiag.store.memory import TIMES_WRITTEN
from latdiag.store.schema import MAX_TEXT, TABLES
from latdiag.store.writer import RunWriter, create_run
from tests.profiles import examples
from tests.run_documents import header, state


def _spans(rows: int, text: str = "a-model") -> Mapping[str, Any]:
    """Equal spans, through what receives them."""
    request = ExportTraceServiceRequest()
    scoped = request.resource_spans.add().scope_spans.add()
    span = scoped.spans.add(name="llm_request", trace_id=b"t" * 16, span_id=b"s" * 8)
    attribute = span.attributes.add(key="gen_ai.response.model")
    attribute.value.string_value = text
    scoped.spans.extend([span] * (rows - 1))
    received = SpanRows(Keep.of(stacks()))
    assert received.add(request, "otlp/http", 1) == rows
    return received.take()


def _series(rows: int) -> Mapping[str, Any]:
    """The same histogram, scraped again and again."""
    bounds = [0.1, 1.0, float("inf")]
    return {
        "kind": ["histogram"] * rows,
        "foreign_name": ["vllm:e2e_request_latency_seconds"] * rows,
        "value": np.ones(rows),
        "bucket_le": [bounds] * rows,
        "bucket_count": [[0, 0, 0]] * rows,
        "labels": [{"model_name": "a-model"}] * rows,
    }


def _requests(rows: int, error: str = "timeout") -> Mapping[str, Any]:
    """Equal answers, event by event."""
    stamps = np.tile(np.arange(10**15, 10**15 + 100), rows)
    offsets = np.arange(rows + 1) * 100
    return {
        "request_id": ["r"] * rows,
        "attempt": np.ones(rows, np.int64),
        "outcome": ["ok"] * rows,
        "error": [error] * rows,
        "arrivals_ns": Lists.whole(stamps, offsets),
        "tokens": Lists.whole(np.ones(len(stamps), np.int32), offsets),
    }


SHAPES: dict[str, tuple[str, Callable[[], Mapping[str, Any]]]] = {
    "spans": ("evidence", lambda: _spans(20_002)),
    "spans of long texts": ("evidence", lambda: _spans(5000, "m" * 256)),
    "series": ("evidence", lambda: _series(5000)),
    "kinds alone": ("evidence", lambda: {"kind": ["span"] * 100_000}),
    "nothing but nulls": ("evidence", lambda: {"kind": [None] * 100_000}),
    "labels": ("evidence", lambda: {"labels": [{str(i): "v" * 99 for i in range(500)}] * 200}),
    "requests": ("requests", lambda: _requests(3000)),
    "errors at the bound": ("requests", lambda: _requests(500, "x" * MAX_TEXT)),
    "ids alone": ("requests", lambda: {"request_id": ["r"] * 100_000, "attempt": [1] * 100_000}),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_parts_that_compress_well_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: str
) -> None:
    """However many there are: each brings the budget that it takes."""
    monkeypatch.setattr(memory, "ROOM", 0)
    monkeypatch.setattr(memory, "FEW_ROWS", {"requests": 0, "evidence": 0})
    table, make = SHAPES[shape]
    columns = make()
    path = create_run(str(tmp_path / "a.run"), header())
    writer = RunWriter(path, "w")
    write = writer.write_part if table == "requests" else writer.write_evidence
    name, rows = write(columns), row_count(columns)
    writer.write_state(state())
    notes: list[str] = []
    directory = RunDirectory(path, notes.append)
    batches = directory.requests if table == "requests" else directory.evidence
    read = sum(batch.num_rows for batch in batches(list(TABLES[table]), 10_000))
    assert (read, notes) == (rows, [])
    # Nothing of ours is in the way of another reader.
    again = pq.read_table(Path(path, str(name)), columns=["request_id"])
    assert again.num_rows == rows


def test_what_does_not_compress_is_not_filled_up() -> None:
    draw = random.Random(1)
    rows = [draw.randbytes(16).hex() for _ in range(5000)]
    columns = {"kind": ["span"] * 5000, "trace_id": rows, "span_id": rows}
    file = encoded("evidence", columns)
    assert b"\0" * 1000 not in file.to_pybytes()


def test_a_group_of_rows_is_bounded_by_its_texts() -> None:
    file = encoded("requests", _requests(1200, "x" * MAX_TEXT))
    read = pq.ParquetFile(pa.BufferReader(file))
    rows = [read.metadata.row_group(n).num_rows for n in range(read.num_row_groups)]
    assert sum(rows) == 1200
    assert max(rows) * MAX_TEXT <= GROUP_TEXT < (max(rows) + 2) * MAX_TEXT


@given(
    st.integers(1, 1000),
    st.sampled_from(["requests", "evidence"]),
    st.sets(st.sampled_from(["text", "int", "float", "bool", "map"])),
    st.text(max_size=40),
)
@examples(40)
def test_a_file_has_a_byte_for_what_it_decodes_to(
    rows: int, table: str, kinds: set[str], text: str
) -> None:
    one = {"text": text, "int": 7, "float": 0.5, "bool": True, "map": {text: text}}
    words = {n: w for n, w in TABLES[table].items() if w in kinds}
    columns = {name: [one[word]] * rows for name, word in words.items()}
    columns = columns or {next(iter(TABLES[table])): [None] * rows}
    file = encoded(table, columns)
    assert len(file) >= arrow_batch(table, columns).nbytes // TIMES_WRITTEN
    assert pq.read_table(pa.BufferReader(file)).num_rows == rows
