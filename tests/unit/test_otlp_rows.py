"""Spans as rows: verbatim, bounded, and nothing that no stack names."""

from __future__ import annotations

import itertools
import string
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from latdiag.ingest.otlp.keep import Keep
from latdiag.ingest.otlp.rows import MAX_ATTRIBUTES, SpanRows
from latdiag.stacks.signal import Key, Mark, Role, Signal, Stack
from latdiag.store.columns import encoded
from tests.profiles import examples

STACK = Stack(
    name="made-up",
    title="Made Up",
    layer="engine",
    provenance="documented",
    versions="1",
    signals=(
        Signal("m.queue", "attribute", "own.queue_s", "s"),
        Signal("m.step", "attribute", "own.step_", "s", prefix=True),
        Signal("m.metric", "histogram", "own_metric", "s"),
    ),
    marks=(Mark("scope", "made\\.up"), Mark("span", "step [0-9]+")),
    roles=(Role("prefill", attribute=("own.role", "prefill")),),
    keys=(Key("own.request", "request_id"),),
    texts=("own.model",),
)
KEEP = Keep.of([STACK])
TRACE, SPAN, PARENT = bytes(range(16)), bytes(range(1, 9)), bytes(range(2, 10))


def request(resource: dict[str, Any] | None = None, scope: str = "made.up") -> Any:
    """(An export with one empty scope, that scope's spans)."""
    made = ExportTraceServiceRequest()
    group = made.resource_spans.add()
    for name, value in (resource or {}).items():
        put(group.resource.attributes, name, value)
    scoped = group.scope_spans.add()
    scoped.scope.name = scope
    return made, scoped.spans


def put(attributes: Any, name: str, value: Any) -> None:
    pair = attributes.add(key=name)
    kind = {bool: "bool_value", int: "int_value", float: "double_value", str: "string_value"}
    if value is None:
        return
    if isinstance(value, bytes):
        pair.value.bytes_value = value
    elif isinstance(value, list):
        pair.value.array_value.values.add().string_value = value[0]
    else:
        setattr(pair.value, kind[type(value)], value)


def add_span(spans: Any, attributes: dict[str, Any] | None = None, **fields: Any) -> Span:
    given: dict[str, Any] = {
        "trace_id": TRACE,
        "span_id": SPAN,
        "name": "step 1",
        "kind": Span.SPAN_KIND_SERVER,
        "start_time_unix_nano": 1_700_000_000_000_000_001,
        "end_time_unix_nano": 1_700_000_000_000_000_009,
    }
    span: Span = spans.add(**(given | fields))
    for name, value in (attributes or {}).items():
        put(span.attributes, name, value)
    return span


def table(rows: SpanRows) -> list[dict[str, Any]]:
    """The rows as they are read back from parquet; labels as a dict."""
    read = pq.read_table(pa.BufferReader(encoded("evidence", rows.take()))).to_pylist()
    for row in read:
        assert len(dict(row["labels"])) == len(row["labels"]), "a label stands twice"
        row["labels"] = dict(row["labels"])
    return read


def test_a_span_is_kept_verbatim() -> None:
    rows = SpanRows(KEEP)
    made, spans = request({"service.name": "engine", "host.name": "h1", "process.pid": 42})
    add_span(spans, {"own.queue_s": 0.1, "own.request": "cmpl-1"}, parent_span_id=PARENT)
    add_span(spans, kind=Span.SPAN_KIND_CLIENT, status=Status(code=Status.STATUS_CODE_ERROR))
    assert rows.add(made, "otlp/grpc", 77) == len(rows) == 2
    first, second = table(rows)
    assert {k: v for k, v in first.items() if v is not None} == {
        "kind": "span",
        "foreign_name": "step 1",
        "trace_id": TRACE.hex(),
        "span_id": SPAN.hex(),
        "parent_span_id": PARENT.hex(),
        "start_ns": 1_700_000_000_000_000_001,
        "end_ns": 1_700_000_000_000_000_009,
        "clock_id": "sender:engine/h1/42",
        "replica": "engine/h1/42",
        "source": "otlp/grpc",
        "window_start_ns": 77,
        "labels": {
            "own.queue_s": "0.1",
            "own.request": "cmpl-1",
            "otel.scope": "made.up",
            "service.name": "engine",
            "otel.kind": "SERVER",
        },
    }
    assert second["parent_span_id"] is None
    assert second["labels"]["otel.kind"] == "CLIENT"
    assert second["labels"]["otel.status"] == "ERROR"
    assert not len(rows)
    assert rows.take()["kind"] == []


@pytest.mark.parametrize(
    ("said", "sender"),
    [
        ({"service.instance.id": "i-1", "service.name": "engine"}, "i-1"),
        ({"service.name": "engine", "process.pid": 7}, "engine/7"),
        ({"host.name": "h"}, "h"),
        ({"service.name": ["no text"]}, "unknown"),
        ({}, "unknown"),
        ({"service.instance.id": "x" * 1000}, "x" * 200),
    ],
)
def test_a_sender_has_a_name(said: dict[str, Any], sender: str) -> None:
    rows = SpanRows(KEEP)
    made, spans = request(said)
    add_span(spans)
    rows.add(made, "otlp/http", None)
    (row,) = table(rows)
    assert (row["replica"], row["clock_id"]) == (sender, f"sender:{sender}")
    assert row["window_start_ns"] is None
    assert rows.senders.seen[sender].spans == 1


def test_only_what_a_stack_names_is_kept() -> None:
    kept = {
        "own.queue_s": "1.5",
        "own.step_7": "2",
        "own.role": "decode",
        "own.request": "r",
        "own.model": "m",
        "gen_ai.latency.anything": "0.25",
        "gen_ai.usage.prompt_tokens": "9",
        "llm_d.flag": "true",
        "http.status_code": "200",
    }
    given = {
        "own.queue_s": 1.5,
        "own.step_7": 2,
        "own.role": "decode",
        "own.request": "r",
        "own.model": "m",
        "gen_ai.latency.anything": 0.25,
        "gen_ai.usage.prompt_tokens": 9,
        "llm_d.flag": True,
        "http.status_code": 200,
        "gen_ai.prompt": "a secret",
        "gen_ai.latency.text": "a secret",
        "gen_ai.request.id": "nobody names it here",
        "gen_ai.request.stop": ["a secret"],
        "own.model.bytes": b"a secret",
        "db.rows": 5,
        "own.empty": None,
    }
    rows = SpanRows(KEEP)
    made, spans = request()
    for _ in range(2):  # what is decided of a name is remembered
        add_span(spans, given).events.add(name="a secret")
    rows.add(made, "otlp/grpc", 1)
    parquet = encoded("evidence", rows.take())
    assert b"a secret" not in parquet.to_pybytes()
    for row in pq.read_table(pa.BufferReader(parquet)).to_pylist():
        assert dict(row["labels"]) == kept | {"otel.scope": "made.up", "otel.kind": "SERVER"}
    assert rows.dropped_attributes == 2 * 7


def test_text_is_bounded() -> None:
    rows = SpanRows(KEEP)
    made, spans = request(scope="s" * 300)
    add_span(spans, {"own.model": "é" * 256, "own.role": "r" * 257}, name="n" * 300)
    rows.add(made, "otlp/grpc", 1)
    (row,) = table(rows)
    assert row["labels"]["own.model"] == "é" * 256
    assert "own.role" not in row["labels"]
    assert rows.dropped_attributes == 1
    # Of a name that no stack has, the first word is kept.
    assert (row["foreign_name"], row["labels"]["otel.scope"]) == ("n" * 64, "s" * 256)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("Authorization: Bearer SECRET", "Authorization:"),
        ("call tool(password=hunter2)", "call"),
        ("GET https://user:pass@host/", "GET"),
        ("", "?"),
        ("\x1b[31mred", "?"),
        ("step 12", "step 12"),
    ],
)
def test_of_a_name_that_no_stack_has_its_first_word_is_kept(name: str, kept: str) -> None:
    rows = SpanRows(KEEP)
    made, spans = request()
    add_span(spans, name=name)
    rows.add(made, "otlp/grpc", 1)
    (row,) = table(rows)
    assert row["foreign_name"] == kept


def test_an_attribute_that_comes_twice_is_one_label() -> None:
    rows = SpanRows(Keep(frozenset({"service.name", "own.queue_s"})))
    made, spans = request({"service.name": "resource"})
    span = add_span(spans, {"own.queue_s": 1, "service.name": "span"})
    put(span.attributes, "own.queue_s", 2)
    add_span(spans, {"own.queue_s": 3})
    rows.add(made, "otlp/grpc", 1)
    first, second = table(rows)
    assert first["labels"]["own.queue_s"] == "2"
    assert first["labels"]["service.name"] == "resource"
    assert second["labels"]["own.queue_s"] == "3"


def test_what_breaks_a_bound_is_counted() -> None:
    rows = SpanRows(KEEP)
    made, spans = request()
    add_span(spans, trace_id=b"")
    add_span(spans, trace_id=bytes(16))
    add_span(spans, span_id=bytes(8))
    add_span(spans, span_id=b"123456789")
    add_span(spans, parent_span_id=b"1")
    add_span(spans, start_time_unix_nano=2**63)
    full = add_span(spans)
    for number in range(MAX_ATTRIBUTES):
        full.attributes.add(key=f"llm_d.{number}").value.int_value = number
    over = add_span(spans)
    over.CopyFrom(full)
    over.attributes.add(key="one more")
    assert rows.add(made, "otlp/grpc", 1) == 1
    assert rows.refused == {"ids": 5, "times": 1, "attributes": 1}
    (row,) = table(rows)
    assert len(row["labels"]) == MAX_ATTRIBUTES + 2


def test_a_resource_with_too_many_attributes_loses_its_spans_only() -> None:
    rows = SpanRows(KEEP)
    made, spans = request({f"a{n}": n for n in range(MAX_ATTRIBUTES + 1)})
    add_span(spans)
    add_span(spans)
    add_span(made.resource_spans.add().scope_spans.add().spans)
    assert rows.add(made, "otlp/grpc", 1) == 1
    assert rows.refused == {"attributes": 2}


def test_instants_that_were_left_out_are_null() -> None:
    rows = SpanRows(KEEP)
    made, spans = request()
    add_span(spans, start_time_unix_nano=0, end_time_unix_nano=0, parent_span_id=bytes(8))
    rows.add(made, "otlp/grpc", 1)
    (row,) = table(rows)
    assert row["start_ns"] is None
    assert row["end_ns"] is None
    assert row["parent_span_id"] is None


@pytest.mark.parametrize(
    ("scope", "name", "known"),
    [("made.up", "x", True), ("other", "step 12", True), ("made.up.not", "step x", False)],
)
def test_a_sender_is_known_by_a_mark(scope: str, name: str, known: bool) -> None:
    rows = SpanRows(KEEP)
    made, spans = request({"service.name": "s"}, scope)
    add_span(spans, name=name)
    rows.add(made, "otlp/grpc", 1)
    seen = rows.senders.seen["s"]
    assert seen.known is known
    assert seen.names == {name if known and name != "x" else name.split()[0]: 1}
    assert seen.first_ns <= seen.last_ns


def test_names_that_are_made_up_fill_nothing() -> None:
    rows = SpanRows(KEEP)
    for number in range(5000):
        made, spans = request({"service.name": f"s{number}"}, f"scope {number}")
        add_span(spans, {f"made up {number}": 1})
        rows.add(made, "otlp/grpc", 1)
    assert len(rows.senders.seen) == 4097
    assert rows.senders.seen["others"].spans == 5000 - 4096
    assert sum(seen.spans for seen in rows.senders.seen.values()) == len(rows) == 5000
    assert rows.dropped_attributes == 5000


NAMES = st.sampled_from(["own.queue_s", "own.model", "own.step_a", "prompt", "llm_d.x"])
VALUES = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.floats(), st.booleans(), st.text(max_size=300), st.none()
)
SPANS = st.lists(
    st.tuples(
        st.binary(max_size=17),
        st.binary(max_size=9),
        st.text(string.printable, max_size=300),
        st.lists(st.tuples(NAMES, VALUES), max_size=6),
        st.integers(0, 2**64 - 1),
    ),
    max_size=8,
)


@examples(60)
@given(SPANS)
def test_taken_and_refused_are_all(drawn: list[Any]) -> None:
    rows = SpanRows(KEEP)
    made, spans = request()
    for trace_id, span_id, name, attributes, start in drawn:
        ids = {
            "trace_id": (trace_id * 16)[:16] if len(trace_id) % 2 else trace_id,
            "span_id": (span_id * 8)[:8] if len(span_id) % 2 else span_id,
        }
        span = add_span(spans, name=name, start_time_unix_nano=start, **ids)
        for key, value in attributes:
            put(span.attributes, key, value)
    taken = rows.add(made, "otlp/grpc", 1)
    assert taken + sum(rows.refused.values()) == len(drawn)
    read = table(rows)
    assert len(read) == taken
    assert not any("prompt" in row["labels"] for row in read)


def test_values_of_every_kind_keep_their_text() -> None:
    """What is 0, false or empty is read by another way than what is not."""
    values: list[Any] = [0.0, -0.0, 1.5, float("nan"), float("inf"), 5e-324, 0, -1, 2**63 - 1]
    values += [-(2**63), False, True, "", "é", b"", b"x"]
    made = ExportTraceServiceRequest()
    spans = made.resource_spans.add().scope_spans.add().spans
    for value in values:
        add_span(spans, {"own.model": value})
    add_span(spans, {"own.model": None})
    rows = SpanRows(KEEP)
    rows.add(made, "otlp/http", 1)
    columns = rows.take()
    labels = columns["labels"]
    ends = labels.offsets.tolist()
    kept = [
        dict(zip(labels.keys[a:b], labels.values[a:b], strict=True)).get("own.model")
        for a, b in itertools.pairwise(ends)
    ]
    texts: list[str | None] = ["0.0", "-0.0", "1.5", "nan", "inf", "5e-324", "0", "-1"]
    texts += [str(2**63 - 1), str(-(2**63)), "false", "true", "", "é", None, None, None]
    assert kept == texts
