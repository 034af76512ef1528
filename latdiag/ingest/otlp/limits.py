"""Bounds on what a sender may make the receiver do, and the ways to say no."""

from __future__ import annotations

import zlib
from typing import NamedTuple

#: A body as it comes over the wire, and inflated; how many times longer inflating may make it.
MAX_BODY = 16 << 20
MAX_INFLATED = 64 << 20
MAX_RATIO = 100
#: Below this, inflating costs nothing that would have to be bounded.
_SMALL = 64 << 10
#: A JSON document costs some 20 times its length while it is parsed.
MAX_JSON = 16 << 20
#: Messages inside one export: a byte or two can each cost 100 bytes of memory when parsed.
MAX_MESSAGES = 1_000_000
#: Fields that are walked to count them; a second of work, and more than any SDK's export has.
MAX_FIELDS = 3_000_000
#: Bodies up to this length cannot hold so many messages that counting them first would pay.
_UNCOUNTED = 2 << 20
MAX_CONNECTIONS = 64
#: For a whole request, from its first byte; and for a connection on which nothing comes.
REQUEST_S = 10.0
IDLE_S = 60.0
RETRY_S = 1


class Refusal(Exception):
    """An export that is not taken. ``reason``: the key that it is counted under; ``text``: one
    sentence for the sender; ``retry``: it may come again; ``spans``: how many it held, where
    that is known."""

    def __init__(self, reason: str, text: str, *, retry: bool = False, spans: int = 0) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text
        self.retry = retry
        self.spans = spans


def too_large(size: int, limit: int) -> Refusal:
    """The refusal of a body of at least ``size`` bytes."""
    return Refusal("too_large", f"a body of {size} bytes; at most {limit} are taken")


def inflated(body: bytes, wrapping: str) -> bytes:
    """``body`` inflated. ``wrapping``: gzip or deflate (with zlib's header).

    Raises Refusal for what is no such stream or ends early, and, before it is in memory, for
    what would be longer than ``MAX_INFLATED`` or than ``MAX_RATIO`` times the body.
    """
    limit = min(MAX_INFLATED, max(_SMALL, MAX_RATIO * len(body)))
    window = 31 if wrapping == "gzip" else 15
    found, rest = b"", body
    while rest:  # a gzip stream may have several members
        machine = zlib.decompressobj(window)
        try:
            found += machine.decompress(rest, limit + 1 - len(found))
        except zlib.error:
            raise Refusal("malformed", f"the body is not {wrapping}") from None
        if len(found) > limit:
            raise Refusal("bomb", f"a body of {len(body)} bytes inflates to more than {limit}")
        if not machine.eof:
            raise Refusal("malformed", f"the {wrapping} body ends early")
        rest = machine.unused_data
        if len(rest) == len(body):
            break
    return found


class _Shape(NamedTuple):
    """Which fields of a message are messages, and of which shape."""

    inner: dict[int, str]


#: Shapes of opentelemetry/proto/{collector/trace,trace,common,resource}/v1: field numbers.
_SHAPES = {
    "request": _Shape({1: "resource_spans"}),
    "resource_spans": _Shape({1: "resource", 2: "scope_spans"}),
    "resource": _Shape({1: "pair", 3: "entity"}),
    "entity": _Shape({3: "text", 4: "text"}),
    "scope_spans": _Shape({1: "scope", 2: "span"}),
    "scope": _Shape({3: "pair"}),
    "span": _Shape({9: "pair", 11: "event", 13: "link", 15: "text"}),
    "event": _Shape({3: "pair"}),
    "link": _Shape({4: "pair"}),
    "pair": _Shape({2: "value"}),
    "value": _Shape({5: "values", 6: "pairs"}),
    "values": _Shape({1: "value"}),
    "pairs": _Shape({1: "pair"}),
    "text": _Shape({}),
}


def check_messages(body: bytes) -> None:
    """Refusal if ``body``, an export in protobuf, holds more than ``MAX_MESSAGES`` messages or
    ``MAX_FIELDS`` fields.

    Small bodies pass uncounted. What cannot be walked is refused, too: groups, which no version
    of the protocol has, would be skipped by the parser, and what follows them never counted.
    """
    if len(body) <= _UNCOUNTED:
        return
    found = fields = 0
    waiting = [(0, len(body), "request")]
    while waiting:
        at, end, shape = waiting.pop()
        inner = _SHAPES[shape].inner
        while at < end:
            try:
                key, at = _varint(body, at)
                at, length = _past(body, at, key & 7)
            except (IndexError, ValueError):
                text = "the body is not an ExportTraceServiceRequest"
                raise Refusal("malformed", text) from None
            fields += 1
            name = inner.get(key >> 3) if key & 7 == 2 else None
            if name is not None:
                found += 1
                if name != "text":
                    waiting.append((at - length, min(at, end), name))
            if found > MAX_MESSAGES or fields > MAX_FIELDS:
                raise Refusal("too_many", f"more than {MAX_MESSAGES} messages in one export")


def _past(body: bytes, at: int, wire: int) -> tuple[int, int]:
    """(The place behind the field that begins at ``at``, the length of its payload)."""
    if wire == 0:
        _, behind = _varint(body, at)
        return behind, behind - at
    if wire == 2:
        length, at = _varint(body, at)
        return at + length, length
    if wire in (1, 5):
        return at + (8 if wire == 1 else 4), 8
    raise ValueError("groups are not used")


def _varint(body: bytes, at: int) -> tuple[int, int]:
    """(The number at ``at``, the place behind it). IndexError or ValueError where none is."""
    number = shift = 0
    while True:
        byte = body[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
