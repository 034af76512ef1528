"""What both doors of the receiver have in common: an export's bytes in, rows and counts out."""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from latdiag.ingest.otlp.keep import Keep
from latdiag.ingest.otlp.limits import (
    MAX_BODY,
    MAX_JSON,
    RETRY_S,
    Refusal,
    check_messages,
    inflated,
    too_large,
)
from latdiag.ingest.otlp.rows import SpanRows

if TYPE_CHECKING:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTraceServiceRequest,
    )

#: Rows, and (inflated) bytes of the exports that they came in, that may wait to be written.
MAX_WAITING_ROWS = 100_000
MAX_WAITING_BYTES = 64 << 20
#: Paths of the HTTP protocol and services of the gRPC protocol, by what is exported there.
SIGNALS = {"traces": "TraceService", "metrics": "MetricsService", "logs": "LogsService"}


@dataclass(frozen=True, slots=True)
class Export:
    """An export as it was received: ``body`` as on the wire, ``wrapping`` empty, gzip or
    deflate, ``form`` protobuf or json, ``source`` otlp/grpc or otlp/http."""

    body: bytes
    wrapping: str
    form: str
    source: str
    signal: str = "traces"


@dataclass(slots=True)
class Tally:
    """Counts since the receiver began. Spans: ``accepted`` and ``refused`` (by reason) are all
    that was sent and could be counted; ``refused_exports``: exports that were not taken, by
    reason, of which the spans are in ``refused`` where they could be counted."""

    exports: int = 0
    accepted: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    refused_exports: dict[str, int] = field(default_factory=dict)
    other_signals: dict[str, int] = field(default_factory=dict)


class Intake:
    """Takes exports; holds the rows until the collector writes them.

    ``token``: the bearer token that senders must show, None for none. ``on_export`` is called
    with every export that was accepted. ``closed``: a refusal for all that still comes.
    """

    def __init__(
        self, keep: Keep, token: str | None, on_export: Callable[[Export], None] | None = None
    ) -> None:
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

        self.rows = SpanRows(keep)
        self.tally = Tally()
        self.closed: Refusal | None = None
        self.last_ns = 0
        self.waiting_bytes = 0
        #: rows and bytes that were taken out of ``rows`` and are not written yet
        self.writing_rows = self.writing_bytes = 0
        self._token = token
        self._on_export = on_export
        self._proto = trace_service_pb2

    def may_come_in(self, authorization: str | None, origin: str | None) -> Refusal | None:
        """Why a request is turned away before its body is read; None if it is not.

        A request with an Origin comes from a web page: no exporter sends one.
        """
        if origin is not None:
            return self.turned_away(Refusal("origin", "requests of web pages are not taken"))
        if self._token is None:
            return None
        scheme, _, shown = (authorization or "").partition(" ")
        right = hmac.compare_digest(shown.strip().encode(), self._token.encode())
        if scheme.lower() == "bearer" and right:
            return None
        return self.turned_away(Refusal("token", "a bearer token is needed, and this is not it"))

    def turned_away(self, refusal: Refusal) -> Refusal:
        """Count an export that is not taken."""
        tally = self.tally
        tally.refused_exports[refusal.reason] = tally.refused_exports.get(refusal.reason, 0) + 1
        if refusal.spans:
            tally.refused[refusal.reason] = tally.refused.get(refusal.reason, 0) + refusal.spans
        return refusal

    def other(self, export: Export) -> bool:
        """Metrics or logs came: count them; whether somebody takes them (the forwarding)."""
        counts = self.tally.other_signals
        counts[export.signal] = counts.get(export.signal, 0) + 1
        if self._on_export is None:
            return False
        self._on_export(export)
        return True

    def take(self, export: Export) -> bytes | str:
        """Take an export of spans; the reply's body, in the form of the export.

        Raises Refusal (counted) if the whole export is not taken; spans of it that break a
        bound are told in the reply's partial_success.
        """
        try:
            request, size = self._request(export)
            self._check_room(request)
        except Refusal as refusal:
            raise self.turned_away(refusal) from None
        self.tally.exports += 1
        before = sum(self.rows.refused.values())
        now = time.monotonic_ns()
        taken = self.rows.add(request, export.source, now)
        self.tally.accepted += taken
        self.waiting_bytes += size
        if taken:
            self.last_ns = now
        if self._on_export is not None:
            self._on_export(export)
        return self._reply(export.form, sum(self.rows.refused.values()) - before)

    def refused(self) -> dict[str, int]:
        """Spans that were refused, by reason: with their export, or one by one."""
        both = dict(self.tally.refused)
        for reason, spans in self.rows.refused.items():
            both[reason] = both.get(reason, 0) + spans
        return both

    def _request(self, export: Export) -> tuple[ExportTraceServiceRequest, int]:
        """The request of an export, and how long its body is, inflated."""
        if len(export.body) > MAX_BODY:
            raise too_large(len(export.body), MAX_BODY)
        body = inflated(export.body, export.wrapping) if export.wrapping else export.body
        if export.form == "json":
            return _of_json(body), len(body)
        check_messages(body)
        from google.protobuf.message import DecodeError

        try:
            request: ExportTraceServiceRequest = self._proto.ExportTraceServiceRequest.FromString(
                body
            )
            return request, len(body)
        except DecodeError:
            raise Refusal("malformed", "the body is not an ExportTraceServiceRequest") from None

    def _check_room(self, request: ExportTraceServiceRequest) -> None:
        spans = sum(len(s.spans) for r in request.resource_spans for s in r.scope_spans)
        if self.closed is not None:
            closed = self.closed
            raise Refusal(closed.reason, closed.text, retry=closed.retry, spans=spans)
        if spans > MAX_WAITING_ROWS:
            text = f"{spans} spans in one export; at most {MAX_WAITING_ROWS} are taken"
            raise Refusal("too_many", text, spans=spans)
        rows = len(self.rows) + self.writing_rows
        full = rows + spans > MAX_WAITING_ROWS
        if full or self.waiting_bytes + self.writing_bytes > MAX_WAITING_BYTES:
            text = f"{rows} spans wait to be written; send again in {RETRY_S} s"
            raise Refusal("busy", text, retry=True, spans=spans)

    def _reply(self, form: str, rejected: int) -> bytes | str:
        text = f"{rejected} spans broke a bound of the receiver"
        if form == "json":
            # 64-bit integers are text in the JSON form of protobuf.
            partial = {"rejectedSpans": str(rejected), "errorMessage": text}
            return json.dumps({"partialSuccess": partial} if rejected else {})
        if not rejected:
            return b""
        partial = self._proto.ExportTracePartialSuccess(
            rejected_spans=rejected, error_message=text
        )
        reply = self._proto.ExportTraceServiceResponse(partial_success=partial)
        return bytes(reply.SerializeToString())


def _of_json(body: bytes) -> ExportTraceServiceRequest:
    """The request of an OTLP/JSON document; Refusal for what is none."""
    from latdiag.ingest.otlp.document import request_of

    if len(body) > MAX_JSON:
        raise too_large(len(body), MAX_JSON)
    try:
        document: Any = json.loads(body)
        return request_of(document)
    except (ValueError, RecursionError) as fault:
        text = "it is nested too deep" if isinstance(fault, RecursionError) else str(fault)[:200]
        raise Refusal("malformed", f"the body is not an export in OTLP/JSON: {text}") from None
