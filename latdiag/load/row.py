"""One attempt as the writer process sees it: bytes with stamps in, a row of the run out."""

from __future__ import annotations

import json
import re
import zlib
from array import array
from collections.abc import Callable, Mapping
from typing import Any

from latdiag.load.dialects import Event
from latdiag.load.dialects.sse import EventStream, SseFault
from latdiag.load.growing import Growing
from latdiag.load.plan import BUSY, TOO_MANY
from latdiag.load.redact import clean, error_text, repeats
from latdiag.load.refusals import no_stream, refused
from latdiag.load.scalars import Scalars
from latdiag.load.tokens import token_counts
from latdiag.load.wire.exchange import Ended
from latdiag.model.records import OUTPUT_KINDS, Kind, Outcome
from latdiag.model.text import shown

#: An overwritten stamp is kept while its arrival is known to have come within this time before
#: it. Two such ends make an interval wrong by 2 ms at most, and hardly any is: the usual case is
#: a last token and the end of its stream, written a moment apart and read together.
TOLERANCE_NS = 1_000_000
#: Events of one reply that are kept: a million tokens, twice.
_ARRIVALS = 2_000_000
_INFLATED = 16 << 20
_ERROR_BODY = 64 << 10
_TIMINGS = 4096
_TIMING_HEADER = 512
_ID_LIMIT = 128

_OUTPUT = frozenset(int(k) for k in OUTPUT_KINDS)
#: How an event stream begins: with a field, or a comment.
_FIELDS = re.compile(rb"(?:data|event|id|retry|:)(?::|\s|$)?")
#: Faults that take nothing from a stream whose end mark has come.
_AFTER_ALL = frozenset({Outcome.CUT.value, Outcome.RESET.value, Outcome.TIMEOUT.value})
#: What is known of the exchange of an attempt that has not ended: nothing.
UNDER_WAY = Ended()


class Row:
    """An attempt under way. ``take`` for every read, ``end`` once; then ``scalars``."""

    __slots__ = (
        "_body",
        "_cached_tokens",
        "_completion_tokens",
        "_continuous",
        "_decoder",
        "_document",
        "_error",
        "_fault",
        "_finish",
        "_growing",
        "_headers",
        "_ids",
        "_last_output",
        "_last_real_ns",
        "_last_stamp_ns",
        "_last_user_ns",
        "_looked",
        "_prompt_tokens",
        "_read",
        "_reasoning_tokens",
        "_response_id",
        "_saw_done",
        "_secrets",
        "_status",
        "_stream",
        "_timings",
        "_type",
        "_unreadable",
        "_width_ns",
        "begun",
        "censored",
        "ended",
        "kinds",
        "real_ns",
        "unreadable",
        "user_ns",
    )

    def __init__(
        self,
        begun: tuple[Any, ...],
        read: Callable[[bytes], Event],
        secrets: tuple[str, ...],
        headers: tuple[bytes, ...] = (),
    ) -> None:
        self.begun = begun
        self._body: bytes = begun[10]
        self._read = read
        self._secrets = secrets
        self._headers = headers
        self.real_ns, self.user_ns, self.kinds = array("q"), array("q"), array("b")
        self.censored = bytearray()
        self._ids: list[int | None] = []
        self._continuous: list[int | None] = []
        self._prompt_tokens: int | None = None
        self._completion_tokens: int | None = None
        self._cached_tokens: int | None = None
        self._reasoning_tokens = 0
        #: the first that an event bears; empty where that one is not kept
        self._response_id: str | None = None
        self._stream = EventStream()
        self._decoder: Any = None
        self._document: bytearray | None = None
        self._looked = False
        self._status = 0
        self._type = b""
        self._error = self._unreadable = self._fault = ""
        self._finish: str | None = None
        self._saw_done = False
        self._timings: Mapping[str, object] | None = None
        self._last_stamp_ns = begun[9]
        self._last_real_ns = self._last_user_ns = self._width_ns = 0
        #: events that are none of this dialect, left out
        self.unreadable = 0
        self._last_output = False
        self._growing = Growing()
        self.ended: Ended | None = None

    # ------------------------------------------------------------------ in
    def head(self, status: int, encoding: str, content_type: bytes) -> None:
        """The reply's status line and headers are there; its body follows."""
        self._status, self._type = status, content_type
        if encoding in ("gzip", "x-gzip", "deflate"):
            self._decoder = zlib.decompressobj(47)
        elif encoding not in ("", "identity"):
            named = shown(self._clean(encoding[:_ID_LIMIT]), 40)
            self._fault = f"the reply is encoded as {named}, which was not requested"
        if status != 200:
            self._document = bytearray()

    def take(self, real_ns: int, user_ns: int, floor_ns: int, data: bytes, offset_ns: int) -> None:
        """One read. ``offset_ns``: REALTIME minus MONOTONIC, good enough to compare instants."""
        if self._fault:
            return
        if self._decoder is not None:
            data = self._inflate(data)
        if not self._looked and data:
            self._look(data)
        if self._document is not None:
            if len(self._document) < _ERROR_BODY:
                self._document += data[: _ERROR_BODY - len(self._document)]
            return
        try:
            events = self._stream.feed(data)
        except SseFault as fault:
            self._fault = str(fault)
            events = fault.completed
        stamp_ns = real_ns - offset_ns if real_ns else user_ns
        # What came before the end of this read came after the read before, and after the floor.
        self._width_ns = stamp_ns - max(floor_ns, self._last_stamp_ns)
        last = len(events) - 1
        for place, event in enumerate(events):
            self._event(self._read(event), real_ns, user_ns)
            if place < last and self._last_output:
                # A later event came in the same read: the kernel kept that one's stamp.
                self._overwritten()
        if events and self._last_output and self._stream.pending:
            self._overwritten()  # by the beginning of the next event
        self._last_stamp_ns, self._last_user_ns = stamp_ns, user_ns
        self._last_real_ns = real_ns

    def _look(self, data: bytes) -> None:
        """Whether this is a stream of events: its first bytes tell, not its label."""
        start = data.lstrip(b"\xef\xbb\xbf \t\r\n")[:6]
        self._looked = bool(start)
        if self._document is not None or not start:
            return
        labelled = b"json" in self._type or b"html" in self._type
        if start[:1] in b"{[<" or (labelled and not _FIELDS.match(start)):
            self._document = bytearray()

    def _event(self, event: Event, real_ns: int, user_ns: int) -> None:
        self._last_output = False
        if event.done:
            self._saw_done = True
            return
        if event.unreadable:
            self._unreadable = self._unreadable or event.error or ""
            self.unreadable += 1
            return
        if event.kind == Kind.ERROR:
            self._error = self._error or self._clean(event.error or "") or "an error event"
        if event.kind != Kind.OTHER or event.ids or event.unlisted:
            self._arrived(event, real_ns, user_ns)
            if event.unlisted and not self._fault:
                self._growing.note(event.unlisted, len(self.kinds) - 1, self.kinds)
        self._last_output = event.kind in _OUTPUT or bool(event.unlisted)
        self._note(event)

    def _arrived(self, event: Event, real_ns: int, user_ns: int) -> None:
        if len(self.kinds) >= _ARRIVALS:
            self._fault = f"the reply has more than {_ARRIVALS:,} events"
            return
        self.real_ns.append(real_ns)
        self.user_ns.append(user_ns)
        self.kinds.append(event.kind)
        self.censored.append(0)
        self._ids.append(event.ids)
        self._continuous.append(event.completion_tokens)

    def _note(self, event: Event) -> None:
        """What an event says about the reply as a whole."""
        if event.finish is not None:
            self._finish = event.finish
        if event.timings is not None:
            self._timings = event.timings
        if event.response_id is not None and self._response_id is None:
            name = event.response_id  # whole or not at all: a cut could hide half a secret
            known = len(name) <= _ID_LIMIT and not self._repeats(name)
            self._response_id = name if known else ""
        if event.prompt_tokens is not None:
            self._prompt_tokens = event.prompt_tokens
        if event.completion_tokens is not None:
            self._completion_tokens = event.completion_tokens
        if event.reasoning_tokens is not None:
            self._reasoning_tokens = event.reasoning_tokens
        if event.cached_tokens is not None:
            self._cached_tokens = event.cached_tokens

    def _overwritten(self) -> None:
        """The newest arrival bears the stamp of what came after it in the same read."""
        if self._width_ns > TOLERANCE_NS:
            self.censored[-1] = 1

    def _inflate(self, data: bytes) -> bytes:
        try:
            plain: bytes = self._decoder.decompress(data, _INFLATED)
        except zlib.error:
            self._fault = "the reply says that it is compressed, but it is not"
            return b""
        if self._decoder.unconsumed_tail:
            self._fault = "the compressed reply inflates beyond 16 MiB in one read"
            return b""
        return plain

    # ------------------------------------------------------------------ out
    @property
    def succeeded(self) -> bool:
        return self._verdict()[0] is Outcome.OK

    @property
    def shed(self) -> bool:
        """Whether the server refused it as too many."""
        return self._status in BUSY or self._verdict()[0] is Outcome.RATE_LIMITED

    @property
    def last_ns(self) -> int:
        """The newest instant (MONOTONIC) that this row bears."""
        done_ns = (self.ended or UNDER_WAY).done_ns
        return max(done_ns, self._last_user_ns, int(self.begun[9]))

    @property
    def scenario(self) -> str | None:
        """The row's own, where that is not the one of the whole load."""
        return None

    def end(self, ended: Ended) -> None:
        """The transport's account of the attempt, after its last byte."""
        self.ended = ended
        self._status = ended.status
        rest = self._stream.rest() if self._document is None and not self._fault else None
        if rest is not None and not (event := self._read(rest)).unreadable:
            self._event(event, self._last_real_ns, self._last_user_ns)
        if self._last_output and ended.done_ns == self._last_user_ns and self.kinds:
            # The end of the framing came in the same read as the last token.
            self._overwritten()
        if ended.stamped_each:  # what came in one read left in one segment, however late the read
            self.censored = bytearray(len(self.censored))

    def scalars(self) -> Scalars:
        """What the row states, as far as the reply has come."""
        _, _, request_id, trace_id, span_id, due_ns, isl, osl, stage, sent_ns, _ = self.begun
        total, unseen = self._completion_tokens, self._reasoning_tokens
        counted = token_counts(self.kinds, self._ids, self._continuous, total, unseen)
        self.kinds = array("b", counted.kinds)
        outcome, error = self._verdict()
        ended, known = self.ended or UNDER_WAY, self.ended is not None
        return Scalars(
            request_id=request_id.decode(),
            attempt=1,
            response_id=self._response_id or None,
            trace_id=trace_id.decode(),
            span_id=span_id.decode(),
            stage=stage,
            due_ns=due_ns or None,
            sent_ns=sent_ns,
            dns_ns=ended.dns_ns or None,
            tcp_ns=ended.tcp_ns or None,
            tls_ns=ended.tls_ns or None,
            written_ns=ended.written_ns or None,
            reused=ended.reused if known else None,
            tokens=counted.counts,
            isl=self._prompt_tokens,
            osl=counted.osl,
            isl_wanted=isl or None,
            osl_wanted=osl or None,
            cached_tokens=self._cached_tokens,
            token_source=counted.source.value,
            min_rtt_ns=ended.min_rtt_ns or None,
            retransmits=ended.retransmits if known else None,
            out_of_order=ended.out_of_order if known else None,
            resent_ns=ended.resent_ns or None,
            retry_ns=ended.retry_ns or None,
            retry_after_s=_seconds(ended.headers.get(b"retry-after")),
            reply_timings=self._foreign_timings(),
            outcome=outcome.value,
            status=self._status or None,
            error=error or None,
        )

    def _verdict(self) -> tuple[Outcome, str]:
        """How the attempt ended, and the sentence for it."""
        ended = self.ended
        if ended is None:
            return Outcome.CUT_BY_CLIENT, "under way when the record ends"
        if self._fault and self._status == 200:  # it came before whatever ended the reply
            return Outcome.PROTOCOL, self._fault
        lost = ended.fault
        over = self._saw_done or (self._finish is not None and lost == Outcome.TIMEOUT.value)
        if lost and not (over and lost in _AFTER_ALL):
            return Outcome(lost), self._clean(ended.fault_text)
        if self._status != 200 or self._document is not None:
            document = bytes(self._document or b"")
            said = error_text(document, self._body, self._secrets)
            if self._status != 200:
                return refused(self._status, said, ended.headers, self._clean)
            return no_stream(document, said, b"html" in self._type)
        if self._error:
            begun = any(kind in _OUTPUT for kind in self.kinds)
            limited = not begun and TOO_MANY.search(self._error)
            outcome = Outcome.RATE_LIMITED if limited else Outcome.HTTP_ERROR
            return outcome, f"error in the stream: {self._error}"
        if not self.kinds and not self._saw_done:
            return Outcome.PROTOCOL, self._unreadable or "the reply held no event"
        if self._finish is None and not any(kind in _OUTPUT for kind in self.kinds):
            text = "the stream ended without a token or a finish_reason"
            return Outcome.PROTOCOL, self._unreadable or text
        if not self._saw_done and self._finish is None:
            return Outcome.CUT, "the stream ended without finish_reason or [DONE]"
        return Outcome.OK, ""

    @property
    def refusal(self) -> str:
        """All that the server said in refusing, unclean: to look names up in, and no more."""
        return self._document.decode("utf-8", "replace") if self._document else self._error

    @property
    def odd_label(self) -> str:
        """The media type of a stream of events that bears the label of something else."""
        odd = self._status == 200 and self._looked and self._document is None
        if not odd or not self._type or b"event-stream" in self._type:
            return ""
        return shown(self._clean(self._type.partition(b";")[0].decode("latin-1")), 60)

    def _clean(self, text: str) -> str:
        return clean(text, self._body, self._secrets)

    def _repeats(self, text: str) -> bool:
        return repeats(text, self._body, self._secrets)

    def _foreign_timings(self) -> str | None:
        """Timings that the server stated, unread: from the stream's end and from headers."""
        stated: dict[str, object] = {}
        if self._timings is not None:
            stated["body"] = self._own_names(self._timings)
        headers = (self.ended or UNDER_WAY).headers
        for name in self._headers:
            value = headers.get(name)
            if not value or len(value) > _TIMING_HEADER:
                continue
            text = shown(value.decode("latin-1"), _TIMING_HEADER)
            if not self._repeats(text):
                stated[name.decode()] = text
        if not stated:
            return None
        text = json.dumps(stated, separators=(",", ":"))
        return text if len(text) <= _TIMINGS else None

    def _own_names(self, figures: Mapping[str, object]) -> dict[str, object]:
        """Figures without those that are an echo of the request."""
        return {
            name: self._own_names(value) if isinstance(value, dict) else value
            for name, value in figures.items()
            if not self._repeats(name) and not (isinstance(value, str) and self._repeats(value))
        }


def _seconds(value: bytes | None) -> float | None:
    try:
        return min(86400.0, max(0.0, float(value))) if value is not None else None
    except ValueError:
        return None
