"""OTLP/JSON: a document as an export request, and files of such documents.

Field names and their JSON forms are those of the OTLP specification (opentelemetry-proto, JSON
Protobuf encoding: ids in hex, 64-bit integers as decimal text, enums as numbers). What others
write is read as well: ids in base64 (protobuf's own JSON), enums by name, snake_case keys, nulls.
Events, links, flags and trace state are not read: no row of evidence holds them.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latdiag.ingest.importers.lines import LINE_BYTES, Skipped, lines, whole
from latdiag.model.text import shown

if TYPE_CHECKING:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTraceServiceRequest,
    )

#: Attributes of one span, scope or resource, and values of one array.
ATTRIBUTES = 10_000
#: Arrays and maps inside one another in an attribute's value.
DEPTH = 16
#: Spans, attributes and all else that becomes a message, of one document: messages take more
#: memory than their text. A batch of the SDKs has 512 spans.
PARTS = 1_000_000

_KINDS = {
    name: number
    for number, name in enumerate(
        ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
    )
}
_CODES = {"UNSET": 0, "OK": 1, "ERROR": 2}
#: What a line of a file may hold instead of spans.
_OTHER = ("resourceMetrics", "resource_metrics", "resourceLogs", "resource_logs")


# ---------------------------------------------------------------------- documents
def request_of(document: Any) -> ExportTraceServiceRequest:
    """The export request that ``document`` (parsed OTLP/JSON) states.

    Unknown fields are ignored, missing ones have protobuf's defaults. Raises ValueError, one
    sentence, for what is no export of traces, for a field of a wrong type, and for more than
    ``PARTS`` parts, ``ATTRIBUTES`` attributes in one place or ``DEPTH`` nested values.
    """
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTraceServiceRequest,
    )

    if not isinstance(document, dict):
        raise ValueError(f"an export is an object, not {_what(document)}")
    if "resourceSpans" not in document and "resource_spans" not in document:
        raise ValueError("there are no resourceSpans in it")
    made = _Build()
    blocks = made.counted(_get(document, "resourceSpans", "resource_spans"), "resourceSpans")
    return ExportTraceServiceRequest(resource_spans=[made.resource_spans(b) for b in blocks])


class _Build:
    """Makes messages out of one document. Holds the classes: looking them up costs per span."""

    def __init__(self) -> None:
        from opentelemetry.proto.common.v1 import common_pb2
        from opentelemetry.proto.resource.v1.resource_pb2 import Resource
        from opentelemetry.proto.trace.v1 import trace_pb2

        self._common, self._trace, self._resource = common_pb2, trace_pb2, Resource
        self._span, self._status = trace_pb2.Span, trace_pb2.Status
        self._key_value, self._value = common_pb2.KeyValue, common_pb2.AnyValue
        self._parts = 0

    def counted(self, value: Any, name: str) -> list[Any]:
        """A list whose entries become messages. ValueError for too many in all."""
        found = _list(value, name)
        self._parts += len(found)
        if self._parts > PARTS:
            raise ValueError(f"it has more than {PARTS:,} spans, attributes and the like")
        return found

    def resource_spans(self, block: Any) -> Any:
        block = _object(block, "an entry of resourceSpans")
        resource = _object(block.get("resource"), "resource")
        scopes = self.counted(_get(block, "scopeSpans", "scope_spans"), "scopeSpans")
        return self._trace.ResourceSpans(
            resource=self._resource(attributes=self._attributes(resource)),
            scope_spans=[self._scope_spans(entry) for entry in scopes],
        )

    def _scope_spans(self, block: Any) -> Any:
        block = _object(block, "an entry of scopeSpans")
        scope = _object(block.get("scope"), "scope")
        spans = self.counted(block.get("spans"), "spans")
        return self._trace.ScopeSpans(
            scope=self._common.InstrumentationScope(
                name=_text(scope.get("name"), "a scope's name"),
                version=_text(scope.get("version"), "a scope's version"),
                attributes=self._attributes(scope),
            ),
            spans=[self._one_span(span) for span in spans],
        )

    def _one_span(self, span: Any) -> Any:
        span = _object(span, "a span")
        status = span.get("status")
        return self._span(
            trace_id=_id(_get(span, "traceId", "trace_id"), 16, "traceId"),
            span_id=_id(_get(span, "spanId", "span_id"), 8, "spanId"),
            parent_span_id=_id(_get(span, "parentSpanId", "parent_span_id"), 8, "parentSpanId"),
            name=_text(span.get("name"), "a span's name"),
            kind=_enum(span.get("kind"), "SPAN_KIND_", _KINDS),
            start_time_unix_nano=_instant(
                _get(span, "startTimeUnixNano", "start_time_unix_nano"), "startTimeUnixNano"
            ),
            end_time_unix_nano=_instant(
                _get(span, "endTimeUnixNano", "end_time_unix_nano"), "endTimeUnixNano"
            ),
            attributes=self._attributes(span),
            status=self._status_of(_object(status, "status")) if status is not None else None,
        )

    def _status_of(self, status: dict[str, Any]) -> Any:
        return self._status(
            code=_enum(status.get("code"), "STATUS_CODE_", _CODES),
            message=_text(status.get("message"), "a status message"),
        )

    def _attributes(self, holder: dict[str, Any]) -> list[Any]:
        return self._pairs(self.counted(holder.get("attributes"), "attributes"), 0)

    def _pairs(self, pairs: list[Any], depth: int) -> list[Any]:
        if len(pairs) > ATTRIBUTES:
            raise ValueError(f"it has more than {ATTRIBUTES:,} attributes in one place")
        made = []
        for pair in pairs:
            pair = _object(pair, "an attribute")
            key = _text(pair.get("key"), "an attribute's key")
            value = _object(pair.get("value"), "an attribute's value")
            made.append(self._key_value(key=key, value=self._value(**self._any(value, depth))))
        return made

    def _any(self, value: dict[str, Any], depth: int) -> dict[str, Any]:
        """The one field of an AnyValue that is set; none where all are null or unknown."""
        for key, inner in value.items():
            if inner is None:
                continue
            if key in ("stringValue", "string_value"):
                return {"string_value": _text(inner, "a stringValue")}
            if key in ("intValue", "int_value"):
                return {"int_value": _integer(inner, "intValue", -(2**63), 2**63 - 1)}
            if key in ("doubleValue", "double_value"):
                return {"double_value": _double(inner)}
            if key in ("boolValue", "bool_value"):
                return {"bool_value": _bool(inner)}
            if key in ("bytesValue", "bytes_value"):
                return {"bytes_value": _base64(_text(inner, "a bytesValue"), "bytesValue")}
            if key in ("arrayValue", "array_value", "kvlistValue", "kvlist_value"):
                return self._nested(key, _object(inner, key), depth + 1)
        return {}

    def _nested(self, key: str, inner: dict[str, Any], depth: int) -> dict[str, Any]:
        if depth > DEPTH:
            raise ValueError(f"an attribute nests more than {DEPTH} values")
        values = self.counted(inner.get("values"), "values")
        if key.startswith("kvlist"):
            made = self._common.KeyValueList(values=self._pairs(values, depth))
            return {"kvlist_value": made}
        if len(values) > ATTRIBUTES:
            raise ValueError(f"an array has more than {ATTRIBUTES:,} values")
        items = [self._value(**self._any(_object(v, "a value"), depth)) for v in values]
        return {"array_value": self._common.ArrayValue(values=items)}


# ---------------------------------------------------------------------- values
def _get(holder: dict[str, Any], camel: str, snake: str) -> Any:
    found = holder.get(camel)
    return holder.get(snake) if found is None else found


def _what(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
    return "null" if value is None else names.get(type(value), "a number")


def _object(value: Any, name: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{name} is {_what(value)}, not an object")
    return value


def _list(value: Any, name: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise ValueError(f"{name} is {_what(value)}, not a list")
    return value


def _text(value: Any, name: str) -> str:
    """Text that UTF-8 can hold: half a surrogate pair, as JSON may bear, becomes ``?``."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{name} is {_what(value)}, not text")
    if value.isascii():
        return value
    return value.encode("utf-8", "replace").decode()


def _id(value: Any, size: int, name: str) -> bytes:
    """An id of ``size`` bytes, in hex or in base64 as its length tells; empty for none."""
    if value is None or value == "":
        return b""
    if isinstance(value, str):
        try:
            found = bytes.fromhex(value) if len(value) == 2 * size else _base64(value, name)
        except ValueError:
            found = b""
        if len(found) == size:
            return found
    raise ValueError(f"{name} is no id of {size} bytes")


def _base64(value: str, name: str) -> bytes:
    """Either alphabet, with or without padding."""
    try:
        plain = value.rstrip("=").replace("-", "+").replace("_", "/")
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except ValueError:
        raise ValueError(f"{name} is no base64") from None


def _instant(value: Any, name: str) -> int:
    return 0 if value is None or value == "" else _integer(value, name, 0, 2**64 - 1)


def _integer(value: Any, name: str, least: int, most: int) -> int:
    """A 64-bit integer as number or as decimal text."""
    number: int | None = None
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, float) and value.is_integer():
        number = int(value)
    elif isinstance(value, str) and len(value) <= 20 and value.isascii():
        digits = value[1:] if value.startswith("-") else value
        number = int(value) if digits.isdigit() else None
    if number is None or not least <= number <= most:
        raise ValueError(f"{name} is not an integer of 64 bits")
    return number


def _double(value: Any) -> float:
    """A double as number or as text (protobuf writes NaN and infinities so)."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    if isinstance(value, str) and len(value) <= 400:
        try:
            return float(value)
        except ValueError:
            pass
    raise ValueError("doubleValue is no number")


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError(f"boolValue is {_what(value)}, not true or false")


def _enum(value: Any, prefix: str, names: dict[str, int]) -> Any:
    """An enum by number or by name, with or without its prefix; 0 for a name not known."""
    if isinstance(value, str):
        if value.isascii() and value.isdigit() and len(value) < 10:
            return int(value)
        return names.get(value.removeprefix(prefix), 0)
    if isinstance(value, int) and not isinstance(value, bool):
        return value if 0 <= value < 2**31 else 0
    if value is None:
        return 0
    raise ValueError(f"an enum is {_what(value)}")


# ---------------------------------------------------------------------- files
@dataclass(slots=True)
class FileCounts:
    """What a file held: exports of traces, lines of other signals, and lines that are neither.

    ``fault``: why the first broken line is broken. ``stopped``: why the rest was not read.
    """

    exports: int = 0
    other: int = 0
    broken: int = 0
    fault: str = ""
    stopped: str = ""
    _skipped: Skipped = field(default_factory=Skipped, repr=False)

    def broke(self, why: str, rows: int = 1) -> None:
        """``rows`` more broken lines."""
        self.broken += rows
        self.fault = self.fault or shown(why, 200)


def exports(
    path: str | Path, counts: FileCounts | None = None
) -> Iterator[ExportTraceServiceRequest]:
    """The exports of traces in a file: ``.jsonl`` (a line each) or ``.json``, or ``.gz`` of them.

    A line or document is an export, or bears one: as ``body`` beside a ``signal`` or as
    ``result`` (Jaeger's reply); a document may be a list of such. Metrics, logs and broken lines
    are skipped and counted in ``counts``. Raises OSError where the file cannot be read.
    """
    counts = FileCounts() if counts is None else counts
    for document in _documents(Path(path), counts):
        try:
            body = _body(document)
            if body is None:
                counts.other += 1
                continue
            request = request_of(body)
        except ValueError as fault:
            counts.broke(str(fault))
            continue
        counts.exports += 1
        yield request


def _documents(path: Path, counts: FileCounts) -> Iterator[Any]:
    """Parsed JSON of the file, line by line or as a whole."""
    skipped = counts._skipped
    if path.name.removesuffix(".gz").endswith(".json"):
        try:
            document = _parsed(whole(path, Skipped()) or b"")
        except ValueError:  # some write a line per export under this name
            pass
        else:
            yield from document if isinstance(document, list) else [document]
            return
    for line in lines(path, skipped):
        try:
            document = _parsed(line)
        except ValueError as fault:
            counts.broke(str(fault))
        else:
            yield document
    if skipped.long:
        counts.broke(f"a line has more than {LINE_BYTES >> 20} MiB", skipped.long)
    counts.stopped = skipped.stopped


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError too
        raise ValueError("it is no JSON") from None


def _body(document: Any) -> Any:
    """The export in ``document``, None for that of another signal. ValueError for neither."""
    if not isinstance(document, dict):
        raise ValueError(f"an export is an object, not {_what(document)}")
    if "signal" in document and document["signal"] != "traces":
        return None
    for key in ("body", "result"):
        if isinstance(document.get(key), dict):
            document = document[key]
            break
    return None if any(name in document for name in _OTHER) else document
