"""Files of traces as programs hand them out, whatever they are called.

Read are OTLP/JSON (of the Collector, a document a line or several one after the other), Jaeger's
API v3 (``result``) and v1 (``data``, also what its UI saves), Tempo's API (``batches``,
``trace``), and OTLP in protobuf: an export, or the Collector's file exporter (``format: proto``: a
length of four bytes before each). Each may be gzipped. A form that is not read is named.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latdiag.ingest.importers.lines import LINE_BYTES, WHOLE_BYTES, Skipped, lines, whole
from latdiag.ingest.importers.span_files import FileCounts, requests_of
from latdiag.ingest.otlp.limits import Budget, Refusal, done
from latdiag.ingest.otlp.protobuf import Protobuf
from latdiag.model.units import NS_PER_US

if TYPE_CHECKING:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTraceServiceRequest,
    )

#: For who gave another.
FORMS = "give traces of Jaeger, Tempo or the OpenTelemetry Collector, in JSON or OTLP protobuf"
#: Beginnings of files that are none of these forms, by what they are.
_OTHERS = {
    b"\x28\xb5\x2f\xfd": "it is compressed with zstd, which is not read: decompress it first",
    b"PK\x03\x04": "it is a zip archive, which is not read: unpack it first",
    b"PAR1": "it is a Parquet file, which is not read",
    b"\x1f\x8b": "it is gzipped: its name must end in .gz",
}
_OTHER_SIGNALS = ("resourceMetrics", "resource_metrics", "resourceLogs", "resource_logs")
#: Jaeger's tag of a span's kind, as OTLP numbers it.
_KINDS = {"internal": 1, "server": 2, "client": 3, "producer": 4, "consumer": 5}
_REFERENCES = 1000


def exports(path: Path, counts: FileCounts) -> Iterator[ExportTraceServiceRequest]:
    """The traces in a file. What cannot be read is counted; OSError where the file cannot be."""
    skipped = Skipped()
    data = whole(path, skipped)
    if data is None and "more than" not in skipped.stopped:
        counts.stopped = skipped.stopped
        return
    head = (data[:64] if data is not None else next(lines(path, Skipped()), b"")).lstrip()
    for magic, why in _OTHERS.items():
        if head.startswith(magic):
            counts.broke(why)
            return
    if not head:
        counts.broke("it is empty")
    elif data is None:  # too long for one document: a line each
        yield from requests_of(_bodies(_of_lines(path, counts)), counts)
    elif head[:1] in (b"{", b"["):
        yield from requests_of(_bodies(_documents(data, counts)), counts)
    else:
        yield from _of_protobuf(data, counts)


def _of_lines(path: Path, counts: FileCounts) -> Iterator[Any]:
    skipped = Skipped()
    for line in lines(path, skipped):
        try:
            yield json.loads(line)
        except (ValueError, RecursionError):
            what = f"a file of more than {WHOLE_BYTES >> 20} MiB must have a document in each line"
            counts.broke(what)
    if skipped.long:
        counts.broke(f"a line has more than {LINE_BYTES >> 20} MiB", skipped.long)
    counts.stopped = skipped.stopped


def _documents(data: bytes, counts: FileCounts) -> Iterator[Any]:
    """JSON documents one after the other."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        counts.broke("it is not JSON in UTF-8")
        return
    decoder, at = json.JSONDecoder(), 0
    while at < len(text):
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
        if at == len(text):
            return
        try:
            document, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            # A line of its own that is broken hides none of those after it.
            counts.broke("it is not JSON, or cut off")
            at = text.find("\n", at) + 1 or len(text)
            continue
        yield document


def _bodies(documents: Iterator[Any]) -> Iterator[Any]:
    """What each document has in the place of an export of OTLP/JSON; None of another signal."""
    for document in documents:
        for each in document if isinstance(document, list) else [document]:
            yield from _of_document(each)


def _of_document(document: Any) -> Iterator[Any]:
    if not isinstance(document, dict):
        yield document
        return
    for key in ("result", "trace", "body"):  # Jaeger's v3, Tempo's v2, recorders
        if isinstance(document.get(key), dict):
            yield from _of_document(document[key])
            return
    if isinstance(document.get("data"), list):  # Jaeger's v1
        for trace in document["data"]:
            yield _of_jaeger(trace)
    elif isinstance(document.get("spans"), list) and "processes" in document:
        yield _of_jaeger(document)
    elif isinstance(document.get("batches"), list):
        yield _modern({"resourceSpans": document["batches"]})
    elif any(name in document for name in _OTHER_SIGNALS) or document.get("signal") in (
        "metrics",
        "logs",
    ):
        yield None
    else:
        yield _modern(document)


def _modern(document: dict[str, object]) -> dict[str, object]:
    """With the names of today for those before OTLP 0.15: ``instrumentationLibrarySpans``."""
    blocks = document.get("resourceSpans")
    for block in blocks if isinstance(blocks, list) else ():
        if isinstance(block, dict) and "instrumentationLibrarySpans" in block:
            old = block.pop("instrumentationLibrarySpans")
            for each in old if isinstance(old, list) else ():
                if isinstance(each, dict) and "instrumentationLibrary" in each:
                    each["scope"] = each.pop("instrumentationLibrary")
            block.setdefault("scopeSpans", old)
    return document


# ---------------------------------------------------------------------- Jaeger's own JSON
def _of_jaeger(trace: Any) -> Any:
    """A trace of Jaeger's API v1, whose times are us, as OTLP/JSON."""
    if not isinstance(trace, dict) or not isinstance(trace.get("spans"), list):
        return trace  # no export, and refused as such
    processes = trace.get("processes")
    blocks: dict[str, list[object]] = {}
    for span in trace["spans"]:
        process = str(span.get("processID", "")) if isinstance(span, dict) else ""
        blocks.setdefault(process, []).append(_span(span))
    return {
        "resourceSpans": [
            {"resource": _resource(processes, name), "scopeSpans": _scoped(spans)}
            for name, spans in blocks.items()
        ]
    }


def _scoped(spans: list[object]) -> list[dict[str, object]]:
    """Spans by their scope, which Jaeger keeps in tags."""
    scopes: dict[tuple[str, str], list[object]] = {}
    for span in spans:
        scope = span.pop("scope") if isinstance(span, dict) else ("", "")
        scopes.setdefault(scope, []).append(span)
    return [
        {"scope": {"name": name, "version": version}, "spans": held}
        for (name, version), held in scopes.items()
    ]


def _resource(processes: object, name: str) -> dict[str, object]:
    found = processes.get(name) if isinstance(processes, Mapping) else None
    if not isinstance(found, Mapping):
        return {}
    service = {"key": "service.name", "value": {"stringValue": str(found.get("serviceName", ""))}}
    return {"attributes": [service, *_attributes(found.get("tags"))]}


def _span(span: Any) -> object:
    if not isinstance(span, dict):
        return span
    tags = {t.get("key"): t.get("value") for t in _listed(span.get("tags")) if isinstance(t, dict)}
    times = _times(span.get("startTime"), span.get("duration"))
    references = _listed(span.get("references"))[:_REFERENCES]
    parents = [
        each.get("spanID")
        for each in references
        if isinstance(each, dict)
        and each.get("refType") == "CHILD_OF"
        and each.get("traceID") == span.get("traceID")
    ]
    return {
        "traceId": str(span.get("traceID", "")).rjust(32, "0"),
        "spanId": str(span.get("spanID", "")).rjust(16, "0"),
        "parentSpanId": str(parents[0]).rjust(16, "0") if parents else "",
        "name": span.get("operationName"),
        "kind": _KINDS.get(str(tags.get("span.kind")), 0),
        "startTimeUnixNano": times[0],
        "endTimeUnixNano": times[1],
        "attributes": _attributes(span.get("tags")),
        "status": {"code": 2} if tags.get("error") is True else {},
        "scope": tuple(
            str(tags.get(f"otel.{a}.{b}") or "")[:200]
            for a, b in (("scope", "name"), ("scope", "version"))
        ),
    }


def _times(start: object, length: object) -> tuple[int | str, int | str]:
    """Start and end in ns; a text, which what reads OTLP/JSON refuses alone, for what is none."""
    if type(start) is not int or type(length) is not int or start < 0 or length < 0:
        return "no us since 1970", ""
    return start * NS_PER_US, (start + length) * NS_PER_US


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _attributes(tags: object) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for tag in _listed(tags):
        if not isinstance(tag, dict):
            continue
        kind, value = tag.get("type"), tag.get("value")
        if kind == "bool" or isinstance(value, bool):
            told: dict[str, object] = {"boolValue": value}
        elif kind == "int64" or isinstance(value, int):
            told = {"intValue": str(value)}
        elif kind == "float64" or isinstance(value, float):
            told = {"doubleValue": value}
        else:
            told = {"stringValue": str(value)}
        found.append({"key": tag.get("key"), "value": told})
    return found


# ---------------------------------------------------------------------- protobuf
def _of_protobuf(data: bytes, counts: FileCounts) -> Iterator[ExportTraceServiceRequest]:
    """One export, or several, each after its length."""
    pieces = _lengths(data)
    for piece in pieces if pieces is not None else [data]:
        request = _decoded(piece)
        if request is None:
            counts.broke("it is neither JSON nor OTLP in protobuf, or cut off")
            return
        counts.exports += 1
        yield request


def _decoded(piece: bytes) -> ExportTraceServiceRequest | None:
    """None for what is no export with spans, and for one with more in it than is read."""
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTraceServiceRequest,
    )

    try:
        # Looked over first: a few bytes become a message of hundreds.
        done(Protobuf(piece, Budget()).outline())
        request = ExportTraceServiceRequest.FromString(piece)
    except (Refusal, DecodeError):
        return None
    return request if request.resource_spans else None


def _lengths(data: bytes) -> list[bytes] | None:
    """The messages of the Collector's file exporter; None where the file has no such form. A last
    one that is cut off stays in the list, and cannot be read."""
    found, at = [], 0
    while at + 4 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        # An export begins with its first field, 0x0a: no length below 16 MiB does.
        if size >= LINE_BYTES:
            return None
        found.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return found or None
