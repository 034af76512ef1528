"""OTLP in protobuf: an export walked by hand down to its spans, each parsed by itself.

No parser sees more than a few kilobytes at once. What lies around the spans is walked here with
a budget, and what cannot be walked is refused whole: a parser is laxer than any check before it
(one that skipped a group let 8 million messages pass). A span that is malformed is refused alone.

Field numbers are those of opentelemetry/proto/{collector/trace,trace,common,resource}/v1. A key
is ``number << 3 | wire type``.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from latdiag.ingest.otlp.limits import Budget, Refusal, Steps
from latdiag.ingest.otlp.outline import (
    MOST_PLACES,
    PLACE_BYTES,
    SCOPE_BYTES,
    Form,
    Group,
    Malformed,
    Place,
    Scoped,
)

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

#: Messages up to this length are parsed as they are: it cannot hold what would take a millisecond.
_SHORT = 8 << 10
#: An attribute longer than this is never kept (a name and a text of 256 characters each).
_LONGEST_ATTRIBUTE = 4 << 10
#: An attribute up to this length is parsed whatever it holds.
_ANY_ATTRIBUTE = 256
#: Bytes of a text of which 256 characters at most are kept.
_TEXT = 1 << 10
_ID = 64
#: First bytes of an AnyValue that is a text, a boolean, an integer or a double.
_SCALAR = frozenset((0x0A, 0x10, 0x18, 0x21))
_ATTRIBUTE, _STATUS = "attribute", "status"
#: What is read of a long message: by key a text or an id to be cut, numbers, attributes, status.
_SPAN: dict[int, int | str] = {
    0x0A: _ID,
    0x12: _ID,
    0x22: _ID,
    0x2A: _TEXT,
    0x30: 0,
    0x39: 0,
    0x41: 0,
    0x4A: _ATTRIBUTE,
    0x7A: _STATUS,
}
_RESOURCE: dict[int, int | str] = {0x0A: _ATTRIBUTE}
_SCOPE: dict[int, int | str] = {0x0A: _TEXT}
_CODE: dict[int, int | str] = {0x18: 0}


class Protobuf:
    """An export in protobuf. ``outline`` first; then its spans, one by one.

    Every message of it that a Group or Scoped names is a list of places: pieces of one message
    that came in several are one (the rule of protobuf for a field that does not repeat).
    """

    def __init__(self, body: bytes | bytearray, budget: Budget) -> None:
        from google.protobuf.message import DecodeError
        from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
        from opentelemetry.proto.resource.v1.resource_pb2 import Resource
        from opentelemetry.proto.trace.v1.trace_pb2 import Span

        self.groups: list[Group] = []
        self.spans = 0
        self._body = body
        self._budget = budget
        self._fault: type[Exception] = DecodeError
        self._span, self._resource, self._scope = Span, Resource, InstrumentationScope

    def outline(self) -> Steps[None]:
        """Find the spans. Refusal for what cannot be walked, and beyond the budget."""
        try:
            yield from self._request()
        except (IndexError, ValueError):
            text = "the body is not an ExportTraceServiceRequest"
            raise Refusal("malformed", text) from None

    def _request(self) -> Steps[None]:
        for key, start, end in _fields(self._body, 0, len(self._body)):
            self._budget.spend()
            if key == 0x0A:
                group = yield from self._group(start, end)
                if group.scopes:
                    self.groups.append(group)
            yield

    def _group(self, start: int, end: int) -> Steps[Group]:
        group = Group([], [])
        for key, at, stop in _fields(self._body, start, end):
            self._budget.spend()
            if key == 0x0A:
                group.resource.append((at, stop))
            elif key == 0x12:
                scoped = yield from self._scoped(at, stop)
                if scoped:
                    self._budget.hold(SCOPE_BYTES)
                    group.scopes.append(scoped)
            yield
        return group

    def _scoped(self, start: int, end: int) -> Steps[Scoped]:
        scoped = Scoped([], array("Q"))
        spend = self._budget.spend
        for key, at, stop in _fields(self._body, start, end):
            spend()
            if key == 0x12:
                self.spans += 1
                if self.spans <= MOST_PLACES:
                    scoped.bounds.extend((at, stop))
                if not self.spans & 63:
                    self._budget.hold(64 * PLACE_BYTES)
                    yield
            else:
                if key == 0x0A:
                    scoped.scope.append((at, stop))
                yield
        return scoped

    # ------------------------------------------------------------------ messages
    def resource(self, group: Group) -> Steps[Any]:
        """The attributes of a resource. Malformed for what is none."""
        made, dropped = yield from self._parsed(self._resource, group.resource, _RESOURCE)
        return made.attributes, dropped

    def scope(self, scoped: Scoped) -> Steps[InstrumentationScope]:
        """A scope. Malformed for what is none."""
        made, _ = yield from self._parsed(self._scope, scoped.scope, _SCOPE)
        scope: InstrumentationScope = made
        return scope

    def short(self, place: Place) -> Span | None:
        """A span; None if it is too long to be parsed at once. Malformed for what is none."""
        start, end = place
        if end - start > _SHORT:
            return None
        try:
            span: Span = self._span.FromString(self._body[start:end])
        except self._fault:
            raise Malformed from None
        return span

    def long(self, place: Place) -> Steps[tuple[Span, int]]:
        """A span, and how many attributes of it were left out. Malformed for what is none."""
        span, dropped = yield from self._parsed(self._span, (place,), _SPAN)
        return span, dropped

    def _parsed(self, kind: Any, places: Any, read: dict[int, int | str]) -> Steps[Any]:
        dropped = 0
        pieces = []
        for start, end in places:
            if end - start <= _SHORT:
                pieces.append(self._body[start:end])
            else:
                try:
                    piece, left_out = yield from self._shortened(start, end, read)
                except (IndexError, ValueError):
                    raise Malformed from None
                pieces.append(piece)
                dropped += left_out
        try:
            return kind.FromString(pieces[0] if len(pieces) == 1 else b"".join(pieces)), dropped
        except self._fault:
            raise Malformed from None

    def _shortened(self, start: int, end: int, read: dict[int, int | str]) -> Steps[Any]:
        """What is read of a long message: (its bytes, attributes that were left out)."""
        body, kept, dropped, attributes = self._body, bytearray(), 0, 0
        begun = start
        for number, (key, at, stop) in enumerate(_fields(body, start, end)):
            self._budget.spend()
            how = read.get(key)
            if how == _ATTRIBUTE:
                if _is_kept(body, at, stop):
                    kept += body[begun:stop]
                else:
                    dropped += 1
                attributes += 1
            elif how == _STATUS:
                inner, _ = yield from self._shortened(at, stop, _CODE)
                kept += b"\x7a" + _length(len(inner)) + inner
            elif how == 0 or (isinstance(how, int) and stop - at <= how):
                kept += body[begun:stop]
            elif isinstance(how, int):
                cut = bytes(body[at : at + how])
                if how == _TEXT:
                    cut = cut.decode("utf-8", "ignore").encode()
                kept += bytes((key,)) + _length(len(cut)) + cut
            begun = stop
            if not number & 255:
                yield
        return bytes(kept), dropped


def _is_kept(body: bytes | bytearray, at: int, end: int) -> bool:
    """Whether an attribute of a long message is parsed: any that is small, else a scalar."""
    if end - at <= _ANY_ATTRIBUTE:
        return True
    if end - at > _LONGEST_ATTRIBUTE or body[at] != 0x0A:
        return False
    size, at = _varint(body, at + 1)
    at += size
    if at >= end or body[at] != 0x12:
        return False
    _, at = _varint(body, at + 1)
    return at < end and body[at] in _SCALAR


def repacking(form: Form) -> Steps[bytearray]:
    """An export of another form in protobuf. What is malformed in it is left out."""
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource

    yield from form.outline()
    made = bytearray()
    for group in form.groups:
        block = bytearray()
        with suppress(Malformed):
            attributes, _ = yield from form.resource(group)
            _put(block, 0x0A, Resource(attributes=attributes).SerializeToString())
            for scoped in group.scopes:
                with suppress(Malformed):
                    _put(block, 0x12, (yield from _repacked(form, scoped)))
            _put(made, 0x0A, block)
    return made


def _repacked(form: Form, scoped: Scoped) -> Steps[bytearray]:
    made = bytearray()
    _put(made, 0x0A, (yield from form.scope(scoped)).SerializeToString())
    for place in scoped.places():
        with suppress(Malformed):
            span = form.short(place)
            if span is None:
                span, _ = yield from form.long(place)
            _put(made, 0x12, span.SerializeToString())
        yield
    return made


def _put(message: bytearray, key: int, field: bytes | bytearray) -> None:
    message += bytes((key,)) + _length(len(field)) + field


# ---------------------------------------------------------------------- the wire
def _fields(body: bytes | bytearray, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(key, begin and end of its payload) of the fields of a message.

    IndexError or ValueError where it cannot be walked: groups, which no version of the protocol
    has, numbers too long, lengths beyond the message.
    """
    while at < end:
        key = body[at]
        at += 1
        if key > 127:
            key, at = _varint(body, at - 1, 35)
        wire = key & 7
        if wire == 2:
            length = body[at]
            at += 1
            if length > 127:
                length, at = _varint(body, at - 1, 35)
            start, at = at, at + length
        elif wire == 0:
            start = at
            _, at = _varint(body, at)
        elif wire == 1 or wire == 5:
            start, at = at, at + (8 if wire == 1 else 4)
        else:
            raise ValueError("groups are not used")
        if at > end or not 8 <= key < 1 << 32:
            raise ValueError("a field that goes beyond its message, or has no number")
        yield key, start, at


def _varint(body: bytes | bytearray, at: int, bits: int = 70) -> tuple[int, int]:
    """(The number at ``at``, the place behind it). IndexError or ValueError where none is.

    ``bits``: 70 for a value, which has 10 bytes at most; 35 for a key or a length.
    """
    number = shift = 0
    while True:
        byte = body[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7
        if shift >= bits:
            raise ValueError("a number that is too long")


def _length(number: int) -> bytes:
    """A length as it stands on the wire."""
    made = bytearray()
    while number > 127:
        made.append(number & 127 | 128)
        number >>= 7
    made.append(number)
    return bytes(made)
