"""Bounds on what a sender may make the receiver do, and the ways to say no."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator
from typing import TypeVar

#: A body as it comes over the wire, and inflated; how many times longer inflating may make it.
MAX_BODY = 16 << 20
MAX_INFLATED = 32 << 20
MAX_RATIO = 100
#: Below this, inflating costs nothing that would have to be bounded.
_SMALL = 64 << 10
MAX_JSON = 16 << 20
#: Members of a gzip stream: each costs as much as 10 kB of text.
MAX_MEMBERS = 1000
#: What one export may make the decoder look at: fields and spans around the spans, attributes in
#: them. The largest export that is taken (100,000 spans of 16 attributes) has 1.7 million.
MAX_ITEMS = 2_000_000
#: CPU seconds that one body may take; all else is bounded so that none comes near.
DECODE_S = 10.0
#: Seconds after which the sender has given up on an export that waits for its turn.
PATIENCE_S = 30.0
#: Bytes of bodies that are not decoded yet, over all connections: as they come, and beyond that
#: what decoding adds (inflated, as text, places of spans).
MAX_READ, MAX_HELD = 64 << 20, 112 << 20
#: A body up to this length finds room where larger ones do not: all that may come at once do.
SMALL, FOR_SMALL = 512 << 10, 48 << 20
#: Spans of a small export; the SDKs send 512.
SMALL_SPANS = 1000
MAX_CONNECTIONS = 64
#: For a whole request, from its first byte; for a connection on which nothing comes; for a reply
#: that nobody reads.
REQUEST_S = 10.0
IDLE_S = 60.0
WRITE_S = 5.0
#: Where all connections are taken, one gives way: bodies that come slower than this count as no
#: progress, and who is younger had no time to show any.
FLOOR_BYTES_PER_S = 64 << 10
YOUNG_S = 1.0
RETRY_S = 1
#: Connections that wait to be let in.
BACKLOG = 512

_STEP_IN, _STEP_OUT = 64 << 10, 256 << 10
_Result = TypeVar("_Result")
#: Work in small steps: it yields after each, and returns what it made.
Steps = Generator[None, None, _Result]


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


class Budget:
    """Items that a body may still make the decoder look at. ``hold``: called with every number of
    bytes that are held for it from then on; raises Refusal where they find no room."""

    __slots__ = ("_left", "_most", "hold")

    def __init__(
        self, items: int | None = None, hold: Callable[[int], None] = lambda _size: None
    ) -> None:
        self._most = self._left = MAX_ITEMS if items is None else items
        self.hold = hold

    def spend(self, items: int = 1) -> None:
        """Refusal where there are too many."""
        self._left -= items
        if self._left < 0:
            text = f"more than {self._most:,} spans, attributes and other fields in one export"
            raise Refusal("too_many", text)


def too_large(size: int, limit: int) -> Refusal:
    """The refusal of a body of at least ``size`` bytes."""
    return Refusal("too_large", f"a body of {size} bytes; at most {limit} are taken")


def crowded() -> Refusal:
    """The refusal of what was under way on a connection that made way for another."""
    text = f"more than {MAX_CONNECTIONS} connections, and this one gave least; send again"
    return Refusal("crowded", text, retry=True)


def done(steps: Steps[_Result]) -> _Result:
    """The result of steps that are taken one after the other, at once."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: _Result = end.value
            return result


def inflated(body: bytes, wrapping: str) -> bytes:
    """``body`` inflated at once; see ``inflating``."""
    return bytes(done(inflating(body, wrapping)))


def inflating(
    body: bytes | bytearray, wrapping: str, grow: Callable[[int], None] = lambda _size: None
) -> Steps[bytearray]:
    """``body`` inflated. ``wrapping``: gzip or deflate (with zlib's header). ``grow``: called
    with every number of bytes before they are held.

    Raises Refusal for what is no such stream or ends early, and, before it is in memory, for
    what would be longer than ``MAX_INFLATED`` or than ``MAX_RATIO`` times the body.
    """
    limit = min(MAX_INFLATED, max(_SMALL, MAX_RATIO * len(body)))
    window = 31 if wrapping == "gzip" else 15
    plain = bytearray()
    machine, members = zlib.decompressobj(window), 1
    view = memoryview(body)
    for start in range(0, len(body), _STEP_IN):
        rest: bytes | memoryview = view[start : start + _STEP_IN]
        full = False
        while rest or full:
            if machine.eof:  # a gzip stream may have several members
                if wrapping != "gzip":
                    raise _not_whole(wrapping)
                members += 1
                if members > MAX_MEMBERS:
                    raise Refusal("bomb", f"a gzip body of more than {MAX_MEMBERS} members")
                machine = zlib.decompressobj(window)
            most = min(_STEP_OUT, limit + 1 - len(plain))
            try:
                piece = machine.decompress(rest, most)
            except zlib.error:
                raise _not_whole(wrapping) from None
            grow(len(piece))
            plain += piece
            if len(plain) > limit:
                raise Refusal("bomb", f"a body of {len(body)} bytes inflates to more than {limit}")
            rest = machine.unconsumed_tail or machine.unused_data
            full = len(piece) == most and not machine.eof
            yield
    if not machine.eof:
        raise Refusal("malformed", f"the {wrapping} body ends early")
    return plain


def _not_whole(wrapping: str) -> Refusal:
    return Refusal("malformed", f"the body is not {wrapping}")
