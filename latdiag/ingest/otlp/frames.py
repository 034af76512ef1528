"""Heads of HTTP/2 frames (RFC 9113): enough to count what a connection holds, and to refuse."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import quote

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEAD = 9
DATA, HEADERS, RST_STREAM, SETTINGS, CONTINUATION = 0, 1, 3, 4, 9
END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
#: Code of gRPC: who comes to the wrong door shall not come again.
_UNIMPLEMENTED = 12


class Frame(NamedTuple):
    """A frame without its payload, which has ``length`` bytes. ``begin``: where that begins in the
    bytes that were fed."""

    kind: int
    flags: int
    stream: int
    length: int
    begin: int


class Frames:
    """Bytes of one direction in, in pieces as they come; frames out as soon as they begin.

    ``preface``: bytes that come before the first.
    """

    def __init__(self, preface: int = 0) -> None:
        self._skip = preface
        self._head = b""

    def feed(self, data: bytes) -> Iterator[Frame]:
        at, size = 0, len(data)
        while at < size:
            if self._skip:
                step = min(self._skip, size - at)
                self._skip -= step
                at += step
                continue
            piece = data[at : at + _HEAD - len(self._head)]
            head = self._head + piece
            at += len(piece)
            if len(head) < _HEAD:
                self._head = head
                return
            self._head = b""
            length = self._skip = int.from_bytes(head[:3], "big")
            stream = int.from_bytes(head[5:], "big") & 0x7FFFFFFF
            yield Frame(head[3], head[4], stream, length, at)


class Toll:
    """What frames of a sender cost: one each, whatever its kind. Bytes of bodies pay for them,
    answers and time; who sends frames for their own sake (pings, settings, windows, calls begun
    and reset, bodies byte by byte) runs out."""

    MOST = 2000
    _BYTES, _ANSWER, _PER_S = 256, 16, 20

    def __init__(self) -> None:
        self._left = float(self.MOST)
        self._paid_s = time.monotonic()

    def frames(self, count: int, body: int) -> bool:
        """``count`` frames came, with ``body`` bytes of bodies; whether they are paid for."""
        now = time.monotonic()
        self._pay(body / self._BYTES + (now - self._paid_s) * self._PER_S - count)
        self._paid_s = now
        return self._left >= 0

    def answered(self) -> None:
        self._pay(self._ANSWER)

    def _pay(self, frames: float) -> None:
        self._left = min(self.MOST, self._left + frames)


class Refusing:
    """The other end of an HTTP/2 connection of which every call is refused with ``text``."""

    def __init__(self, text: str) -> None:
        self._frames = Frames(len(PREFACE))
        self._begun = False
        self._answer = _fields(
            [
                ("content-type", "application/grpc"),
                ("grpc-status", str(_UNIMPLEMENTED)),
                ("grpc-message", quote(text, safe=" !\"#$&'()*+,-./:;<=>?@[]^_`{|}~")),
            ]
        )

    def feed(self, data: bytes) -> bytes:
        """What is answered to ``data``."""
        made = b"" if self._begun else _frame(SETTINGS, 0, 0, b"")
        self._begun = True
        for frame in self._frames.feed(data):
            if frame.kind == SETTINGS and not frame.flags & _ACK:
                made += _frame(SETTINGS, _ACK, 0, b"")
            elif frame.kind == HEADERS:
                made += _frame(HEADERS, END_STREAM | _END_HEADERS, frame.stream, self._answer)
        return made


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
    return head + payload


def _fields(fields: list[tuple[str, str]]) -> bytes:
    """A block of header fields (RFC 7541): status 200 of the static table, then literals."""
    made = b"\x88"
    for name, value in fields:
        made += b"\x00" + _string(name) + _string(value)
    return made


def _string(text: str) -> bytes:
    data = text.encode("ascii")
    if len(data) < 127:
        return bytes((len(data),)) + data
    rest, size = len(data) - 127, b"\x7f"
    while rest > 127:
        size += bytes((rest & 127 | 128,))
        rest >>= 7
    return size + bytes((rest,)) + data
