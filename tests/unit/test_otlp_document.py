"""OTLP/JSON read by hand against protobuf's own reader, and against what no file should hold."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from latdiag.ingest.importers.span_files import FileCounts, exports
from latdiag.ingest.otlp import document
from latdiag.ingest.otlp.document import request_of
from tests.profiles import examples

CAPTURES = Path(__file__).parent.parent / "captures"
TRACE, SPAN = "0123456789abcdef0123456789ABCDEF", "00ff00ff00ff00ff"
#: Of a span only; resources and scopes have what is read of them.
_UNREAD = ("events", "links", "flags", "traceState", "droppedAttributesCount")
_IDS = ("traceId", "spanId", "parentSpanId")


def recordings() -> list[Path]:
    found = sorted(CAPTURES.rglob("*spans.otlp.jsonl.gz")) + sorted(CAPTURES.rglob("otlp*.gz"))
    assert len(found) >= 8
    return found


def oracle(document: dict[str, Any]) -> ExportTraceServiceRequest:
    """What protobuf's reader makes of an export, once ids are in base64 as that wants them."""
    plain = json.loads(json.dumps(document))
    for block in plain["resourceSpans"]:
        block.pop("schemaUrl", None)  # nobody reads it
        for scoped in block["scopeSpans"]:
            scoped.pop("schemaUrl", None)
            for span in scoped["spans"]:
                for name in _UNREAD:
                    span.pop(name, None)
                for name in _IDS:
                    if span.get(name):
                        span[name] = base64.b64encode(bytes.fromhex(span[name])).decode()
    request = ExportTraceServiceRequest()
    json_format.ParseDict(plain, request, ignore_unknown_fields=True)
    return request


def export(**span: Any) -> dict[str, Any]:
    """An export of one span with the given fields."""
    return {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}


def one_span(**fields: Any) -> Any:
    return request_of(export(**fields)).resource_spans[0].scope_spans[0].spans[0]


@pytest.mark.parametrize("path", recordings(), ids=lambda p: "-".join(p.parts[-3:]))
def test_what_real_servers_sent_reads_as_protobuf_reads_it(path: Path) -> None:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        said = [json.loads(line) for line in file] if ".jsonl" in path.name else [json.load(file)]
    bodies = [one.get("body", one) for one in said]
    counts = FileCounts()
    read = list(exports(path, counts))
    assert (counts.exports, counts.other, counts.broken) == (len(bodies), 0, 0)
    step = max(1, len(bodies) // 20)  # protobuf's reader takes 20 times as long
    for index in range(0, len(bodies), step):
        assert read[index] == oracle(bodies[index]), index
    spans = [s for r in read for b in r.resource_spans for c in b.scope_spans for s in c.spans]
    assert len(spans) == sum(
        len(c["spans"]) for b in bodies for r in b["resourceSpans"] for c in r["scopeSpans"]
    )


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_INT = st.integers(-(2**63), 2**63 - 1)
_VALUES = st.recursive(
    st.one_of(
        st.builds(lambda v: {"stringValue": v}, _TEXT),
        st.builds(lambda v: {"intValue": v}, st.one_of(_INT, _INT.map(str))),
        st.builds(lambda v: {"doubleValue": v}, st.floats(allow_nan=False, allow_infinity=False)),
        st.builds(lambda v: {"boolValue": v}, st.booleans()),
        st.builds(lambda v: {"bytesValue": base64.b64encode(v).decode()}, st.binary(max_size=9)),
        st.just({}),
    ),
    lambda inner: st.one_of(
        st.builds(lambda v: {"arrayValue": {"values": v}}, st.lists(inner, max_size=3)),
        st.builds(
            lambda v: {"kvlistValue": {"values": v}},
            st.lists(st.fixed_dictionaries({"key": _TEXT, "value": inner}), max_size=3),
        ),
    ),
    max_leaves=5,
)
_ATTRIBUTES = st.lists(st.fixed_dictionaries({"key": _TEXT, "value": _VALUES}), max_size=4)
_INSTANT = st.integers(0, 2**64 - 1)
_SPANS = st.fixed_dictionaries(
    {
        "traceId": st.binary(min_size=16, max_size=16).map(bytes.hex),
        "spanId": st.binary(min_size=8, max_size=8).map(bytes.hex),
        "name": _TEXT,
        "startTimeUnixNano": st.one_of(_INSTANT, _INSTANT.map(str)),
        "attributes": _ATTRIBUTES,
    },
    optional={
        "parentSpanId": st.one_of(st.just(""), st.binary(min_size=8, max_size=8).map(bytes.hex)),
        "kind": st.one_of(
            st.integers(0, 5), st.sampled_from(["SPAN_KIND_SERVER", "SPAN_KIND_CLIENT"])
        ),
        "endTimeUnixNano": _INSTANT,
        "status": st.fixed_dictionaries(
            {}, optional={"code": st.integers(0, 2), "message": _TEXT}
        ),
        "unknown": st.just([{"a": 1}]),
    },
)


@given(st.lists(_SPANS, max_size=4), _ATTRIBUTES, _TEXT)
def test_any_export_reads_as_protobuf_reads_it(
    spans: list[Any], resource: list[Any], scope: str
) -> None:
    scoped = {"scope": {"name": scope, "attributes": resource}, "spans": spans}
    document = {"resourceSpans": [{"resource": {"attributes": resource}, "scopeSpans": [scoped]}]}
    assert request_of(document) == oracle(document)


_KEYS = [
    "resourceSpans",
    "scopeSpans",
    "scope_spans",
    "spans",
    "resource",
    "scope",
    "name",
    "attributes",
    "key",
    "value",
    "values",
    "kind",
    "status",
    "code",
    "traceId",
    "spanId",
    "startTimeUnixNano",
    "intValue",
    "stringValue",
    "doubleValue",
    "boolValue",
    "bytesValue",
    "arrayValue",
    "kvlistValue",
]
_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(_KEYS),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=25,
)


@examples(400)
@given(_JSON, st.integers(0, 4))
def test_any_json_is_an_export_or_a_value_error(inner: Any, depth: int) -> None:
    """The random value in the place of the whole, of a block, of a scope, of a span, ..."""
    document = inner
    for name in ("attributes", "spans", "scopeSpans", "resourceSpans")[4 - depth :]:
        document = {name: [document] if isinstance(document, dict) else document}
    try:
        made = request_of(document)
    except ValueError as fault:
        assert 0 < len(str(fault)) < 200 and "\n" not in str(fault)
    else:
        assert made.SerializeToString() is not None


def test_ids_in_base64_are_the_ids_in_hex() -> None:
    hexed = one_span(traceId=TRACE, spanId=SPAN, parentSpanId="")
    told = {
        "traceId": base64.b64encode(bytes.fromhex(TRACE)).decode(),
        "spanId": base64.urlsafe_b64encode(bytes.fromhex(SPAN)).decode().rstrip("="),
    }
    assert one_span(**told) == hexed
    assert hexed.trace_id.hex() == TRACE.lower() and hexed.span_id.hex() == SPAN
    assert hexed.parent_span_id == b""


@pytest.mark.parametrize("bad", ["0" * 31, "z" * 32, "0" * 33, " " * 32, 7, ["a"], "é" * 32])
def test_what_is_no_id_is_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match="traceId is not an id of 16 bytes"):
        one_span(traceId=bad)


def test_enums_by_number_by_name_and_unknown() -> None:
    kinds = [one_span(kind=k).kind for k in (2, "SPAN_KIND_SERVER", "SERVER", "2", "NEW", 77, -1)]
    assert kinds == [2, 2, 2, 2, 0, 77, 0]
    codes = [one_span(status={"code": c}).status.code for c in (2, "STATUS_CODE_ERROR", "ERROR")]
    assert codes == [2, 2, 2]


def test_integers_of_64_bits_as_text_and_number() -> None:
    most = 2**64 - 1
    assert one_span(startTimeUnixNano=str(most)).start_time_unix_nano == most
    assert one_span(start_time_unix_nano=most).start_time_unix_nano == most
    for bad in (2**64, -1, "-1", "1e3", "", True, 1.5, "9" * 50, [], {"a": 1}):
        if bad == "":
            assert one_span(startTimeUnixNano=bad).start_time_unix_nano == 0
            continue
        with pytest.raises(ValueError, match="not an integer of 64 bits"):
            one_span(startTimeUnixNano=bad)


def test_snake_case_and_alternatives_that_are_null() -> None:
    """As one store of spans writes them: every value with all its forms."""
    blank = dict.fromkeys(
        ("array_value", "bool_value", "bytes_value", "double_value", "int_value", "kvlist_value")
    )
    span = {
        "trace_id": TRACE,
        "span_id": SPAN,
        "parent_span_id": None,
        "start_time_unix_nano": 1795418521869785088,
        "end_time_unix_nano": "1795418521947320064",
        "attributes": [
            {"key": "a", "value": {**blank, "string_value": "b"}},
            {"key": "c", "value": {**blank, "double_value": "NaN", "string_value": None}},
        ],
        "status": {"code": 0, "message": None},
        "events": None,
    }
    read = request_of({"resource_spans": [{"scope_spans": [{"spans": [span]}]}]})
    found = read.resource_spans[0].scope_spans[0].spans[0]
    assert found.start_time_unix_nano == 1795418521869785088
    assert found.attributes[0].value.string_value == "b"
    assert found.attributes[1].value.double_value != found.attributes[1].value.double_value


def test_half_a_surrogate_pair_does_not_stop_an_export() -> None:
    assert one_span(name=json.loads('"a\\ud800b"')).name == "a?b"


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {"intValue": 1}
    for _ in range(depth):
        value = {"arrayValue": {"values": [value]}}
    return value


def test_nesting_and_counts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    fine = [{"key": "k", "value": nested(document.DEPTH)}]
    assert len(one_span(attributes=fine).attributes) == 1
    with pytest.raises(ValueError, match="nests more than"):
        one_span(attributes=[{"key": "k", "value": nested(document.DEPTH + 1)}])
    with pytest.raises(ValueError, match="attributes in one place"):
        one_span(attributes=[{}] * (document.ATTRIBUTES + 1))
    monkeypatch.setattr(document, "PARTS", 12)
    assert len(one_span(attributes=[{}] * 9).attributes) == 9
    with pytest.raises(ValueError, match="more than 12 spans"):
        one_span(attributes=[{}] * 10)


@pytest.mark.parametrize("bad", [None, 1, "x", [], {}, {"resourceMetrics": []}])
def test_what_is_no_export_is_a_value_error(bad: Any) -> None:
    with pytest.raises(ValueError, match=r"an export|no resourceSpans"):
        request_of(bad)


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_spellings_of_a_key_that_of_otlp_counts(order: int) -> None:
    both = [("resourceSpans", [{}]), ("resource_spans", [])]
    assert len(request_of(dict(both[::order])).resource_spans) == 1
