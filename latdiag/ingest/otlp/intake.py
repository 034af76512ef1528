"""What both doors of the receiver have in common: an export's bytes in, rows and counts out."""

from __future__ import annotations

import hmac
import json
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from latdiag.ingest.otlp.decode import Export, decoding
from latdiag.ingest.otlp.doors import Doors
from latdiag.ingest.otlp.keep import Keep
from latdiag.ingest.otlp.lane import Lane
from latdiag.ingest.otlp.limits import RETRY_S, SMALL, SMALL_SPANS, Refusal
from latdiag.ingest.otlp.room import Claim, Room
from latdiag.ingest.otlp.rows import MAX_ATTRIBUTES, SpanRows
from latdiag.ingest.otlp.turns import Turns

#: Rows, and about the bytes that they take in memory, that may wait to be written.
MAX_WAITING_ROWS = 100_000
MAX_WAITING_BYTES = 80 << 20
#: Of both, what large exports may fill where others wait too: small ones find room beside them.
_FOR_LARGE = 0.75
#: Frames of a fault that are told.
_FRAMES = 8
#: Paths of the HTTP protocol and services of the gRPC protocol, by what is exported there.
SIGNALS = {"traces": "TraceService", "metrics": "MetricsService", "logs": "LogsService"}


@dataclass(slots=True)
class Tally:
    """Counts since the receiver began. Spans: ``accepted`` and ``refused`` (by reason) are all
    that was sent and could be counted; ``refused_exports``: exports that were not taken, by
    reason, of which the spans are in ``refused`` where they could be counted; ``wrong_doors``:
    connections that spoke something else than their door, by the words for that."""

    exports: int = 0
    accepted: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    refused_exports: dict[str, int] = field(default_factory=dict)
    other_signals: dict[str, int] = field(default_factory=dict)
    wrong_doors: dict[str, int] = field(default_factory=dict)


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
        self.doors = Doors()
        self.room = Room()
        self.lane = Lane()
        self.turns = Turns()
        #: rows and bytes that were taken out of ``rows`` and are not written yet
        self.writing_rows = self.writing_bytes = 0
        #: what is decoded of exports that are not whole yet
        self._staged: list[SpanRows] = []
        #: called with the place in the code where latdiag itself failed on an export
        self.on_bug: Callable[[str], None] = lambda _where: None
        self._token = token
        self._on_export = on_export
        self._proto = trace_service_pb2

    def may_come_in(self, authorization: str | None, origin: str | None) -> Refusal | None:
        """Why a request is turned away before its body is read; None if it is not.

        A request with an Origin comes from a web page: no exporter sends one.
        """
        if origin is not None:
            return self.turned_away(Refusal("origin", "requests from web pages are not accepted"))
        if self._token is None:
            return None
        scheme, _, shown = (authorization or "").partition(" ")
        right = hmac.compare_digest(shown.strip().encode(), self._token.encode())
        if scheme.lower() == "bearer" and right:
            return None
        return self.turned_away(Refusal("token", "a valid bearer token is required"))

    def turned_away(self, refusal: Refusal) -> Refusal:
        """Count an export that is not taken."""
        tally = self.tally
        if refusal.reason == "wrong_door":
            tally.wrong_doors[refusal.text] = tally.wrong_doors.get(refusal.text, 0) + 1
            return refusal
        tally.refused_exports[refusal.reason] = tally.refused_exports.get(refusal.reason, 0) + 1
        if refusal.spans:
            tally.refused[refusal.reason] = tally.refused.get(refusal.reason, 0) + refusal.spans
        return refusal

    def bug(self, fault: Exception) -> Refusal:
        """The refusal (counted) of an export that latdiag itself failed on. Where it failed is
        told; not the words of the fault, which may be the sender's."""
        frames = traceback.extract_tb(fault.__traceback__)
        places = [f"{Path(one.filename).name}:{one.lineno} {one.name}" for one in frames]
        name = type(fault).__name__
        self.on_bug(f"{name} at {' > '.join(places[-_FRAMES:])}")
        return self.turned_away(Refusal("bug", f"a bug in latdiag: {name}"))

    def other(self, export: Export) -> bool:
        """Metrics or logs came: count them; whether somebody takes them (the forwarding)."""
        counts = self.tally.other_signals
        counts[export.signal] = counts.get(export.signal, 0) + 1
        if self._on_export is None:
            return False
        self._on_export(export)
        return True

    async def take(self, export: Export, claim: Claim) -> bytes:
        """Take an export of spans; the reply's body, in the form of the export.

        ``claim`` holds its bytes already, and is released. Raises Refusal (counted) if the whole
        export is not taken; spans of it that are malformed or break a bound are told in the
        reply's partial_success.
        """
        staged = self.rows.staged()
        self._staged.append(staged)
        spans = 0

        def check_spans(found: int) -> None:
            nonlocal spans
            spans = found
            self._check_room(found, 0)

        steps = decoding(
            export,
            staged,
            hold=claim.grow,
            check_spans=check_spans,
            check_rows=lambda: self._check_room(0, staged.size()),
        )
        claim.whole()
        try:
            await self.lane.result(steps, len(export.body))
            self._check_room(spans, staged.size())
        except Refusal as refusal:
            refusal.spans = refusal.spans or spans
            raise self.turned_away(refusal) from None
        finally:
            self._staged.remove(staged)
            claim.release()
        now = time.monotonic_ns()
        self.tally.exports += 1
        taken = self.rows.absorb(staged, export.source, now)
        self.tally.accepted += taken
        if taken:
            self.last_ns = now
        if self._on_export is not None:
            self._on_export(export)
        return self._reply(export.form, staged.refused)

    def refused(self) -> dict[str, int]:
        """Spans that were refused, by reason: with their export, or one by one."""
        both = dict(self.tally.refused)
        for reason, spans in self.rows.refused.items():
            both[reason] = both.get(reason, 0) + spans
        return both

    def _check_room(self, spans: int, size: int) -> None:
        """Refusal where an export of ``spans``, of which rows of ``size`` bytes are staged, finds
        no place."""
        if self.closed is not None:
            closed = self.closed
            raise Refusal(closed.reason, closed.text, retry=closed.retry, spans=spans)
        if spans > MAX_WAITING_ROWS or size > MAX_WAITING_BYTES:
            text = f"{spans} spans of {size} bytes in one export: more than are taken"
            if spans > MAX_WAITING_ROWS:
                text = f"{spans} spans in one export; at most {MAX_WAITING_ROWS} are taken"
            raise Refusal("too_many", text, spans=spans)
        rows = len(self.rows) + self.writing_rows
        held = self.rows.size() + self.writing_bytes + sum(one.size() for one in self._staged)
        share = 1.0
        if (spans > SMALL_SPANS or size > SMALL) and (rows or held > size):
            share = _FOR_LARGE
        if rows + spans > share * MAX_WAITING_ROWS or held > share * MAX_WAITING_BYTES:
            text = f"{rows} spans wait to be written; send again in {RETRY_S} s"
            raise Refusal("busy", text, retry=True, spans=spans)

    def _reply(self, form: str, refused: dict[str, int]) -> bytes:
        rejected = sum(refused.values())
        reasons = ", ".join(f"{spans} for {_WHY[why]}" for why, spans in sorted(refused.items()))
        text = f"{rejected} spans were rejected: {reasons}"
        if form == "json":
            # 64-bit integers are text in the JSON form of protobuf.
            partial = {"rejectedSpans": str(rejected), "errorMessage": text}
            return json.dumps({"partialSuccess": partial} if rejected else {}).encode()
        if not rejected:
            return b""
        partial = self._proto.ExportTracePartialSuccess(
            rejected_spans=rejected, error_message=text
        )
        reply = self._proto.ExportTraceServiceResponse(partial_success=partial)
        return bytes(reply.SerializeToString())


#: Why a span is refused alone, for its sender.
_WHY = {
    "attributes": f"more than {MAX_ATTRIBUTES:,} attributes",
    "ids": "an invalid id",
    "malformed": "something that is not a Span",
    "times": "a time beyond 63 bits",
}
