"""Senders by hand: bytes of exports, HTTP, HTTP/2 frames at the pace of its windows, sockets.

What forks must have no threads of gRPC, so nothing here is of grpcio.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable

HEAD = b"POST /v1/traces HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-protobuf\r\n"
JSON_HEAD = HEAD.replace(b"x-protobuf", b"json")
MIB = 1 << 20


# ---------------------------------------------------------------------- bytes
def varint(number: int) -> bytes:
    made = bytearray()
    while number > 127:
        made.append(number & 127 | 128)
        number >>= 7
    made.append(number)
    return bytes(made)


def framed(body: bytes, *tags: int) -> bytes:
    """``body`` in messages inside each other, the innermost field first."""
    for tag in tags:
        body = bytes((tag,)) + varint(len(body)) + body
    return body


def span(extra: bytes = b"") -> bytes:
    """A span with ids and ``extra`` fields, as a field of a ScopeSpans."""
    ids = framed(b"t" * 16, 0x0A) + framed(b"s" * 8, 0x12)
    return framed(ids + extra, 0x12)


def in_export(spans: bytes) -> bytes:
    return framed(spans, 0x12, 0x0A)


def attribute(name: bytes, value: bytes) -> bytes:
    return framed(framed(name, 0x0A) + framed(value, 0x12), 0x4A)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
    return head + payload


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")


def headers(stream: int, extra: list[tuple[bytes, bytes]] | None = None) -> bytes:
    """The head of a call to the export of spans (literals of RFC 7541)."""
    fields = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/opentelemetry.proto.collector.trace.v1.TraceService/Export"),
        (b":authority", b"h"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        *(extra or []),
    ]
    block = b"".join(
        b"\x00" + hpack(len(name)) + name + hpack(len(value)) + value for name, value in fields
    )
    made, first = b"", True
    while first or block:
        piece, block = block[:16000], block[16000:]
        made += frame(1 if first else 9, 0 if block else 4, stream, piece)
        first = False
    return made


def hpack(size: int) -> bytes:
    return bytes((size,)) if size < 127 else b"\x7f" + varint(size - 127)


def message(body: bytes) -> bytes:
    return b"\x00" + len(body).to_bytes(4, "big") + body


# ---------------------------------------------------------------------- sockets
def connected(address: str, timeout: float = 20.0) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=timeout)


def posted(address: str, body: bytes, head: bytes = HEAD, extra: bytes = b"") -> bytes:
    """The first bytes of the answer to one request; empty where there is none."""
    with connected(address, 40.0) as peer:
        length = b"Content-Length: " + str(len(body)).encode() + b"\r\n\r\n"
        with contextlib.suppress(OSError):
            peer.sendall(head + extra + length + body)
        try:
            return peer.recv(1000)
        except OSError:
            return b""


def called(address: str, body: bytes) -> bytes:
    """One call by gRPC; waits until the server has answered it. The last bytes of the answer."""
    with connected(address) as peer, contextlib.suppress(OSError):
        return Calls(peer, [message(body)]).run(40.0, end=True)
    return b""


class Calls:
    """Calls on one connection, a message each, at the pace that the server's windows allow."""

    def __init__(self, peer: socket.socket, bodies: list[bytes]) -> None:
        self._peer = peer
        self._left = {2 * n + 1: memoryview(body) for n, body in enumerate(bodies)}
        self._room = dict.fromkeys([0, *self._left], 65_535)
        self._unread = self._said = b""
        self._open = set(self._left)

    def run(self, seconds: float, end: bool) -> bytes:
        """Send all, ended or not, until all are answered, or for so long."""
        until = time.monotonic() + seconds
        self._peer.sendall(PREFACE + b"".join(map(headers, self._left)))
        self._peer.setblocking(False)
        waiting = memoryview(b"")
        while self._open and time.monotonic() < until:
            if not waiting:
                waiting = memoryview(self._next(end))
            write = [self._peer] if waiting else []
            reading, writing, _ = select.select([self._peer], write, [], 0.2)
            if reading and not self._read():
                break
            if writing:
                waiting = waiting[self._peer.send(waiting) :]
        return self._said[-2000:]

    def _next(self, end: bool) -> bytes:
        made = b""
        for stream, left in self._left.items():
            size = min(16_384, len(left), self._room[0], self._room[stream])
            if not size:
                continue
            self._room[0] -= size
            self._room[stream] -= size
            self._left[stream] = left[size:]
            made += frame(0, int(end and size == len(left)), stream, bytes(left[:size]))
        return made

    def _read(self) -> bool:
        data = self._peer.recv(1 << 16)
        self._unread += data
        self._said = (self._said + data)[-4000:]
        while len(self._unread) >= 9:
            length = int.from_bytes(self._unread[:3], "big")
            if len(self._unread) < 9 + length:
                break
            kind, flags = self._unread[3], self._unread[4]
            stream = int.from_bytes(self._unread[5:9], "big")
            payload, self._unread = self._unread[9 : 9 + length], self._unread[9 + length :]
            if kind == 8 and stream in self._room:
                self._room[stream] += int.from_bytes(payload, "big")
            elif kind == 4 and not flags & 1:
                self._settled(payload)
            elif kind == 6 and not flags & 1:
                self._peer.sendall(frame(6, 1, 0, payload))
            elif kind == 3 or (kind == 1 and flags & 1):
                self._open.discard(stream)
        return bool(data)

    def _settled(self, payload: bytes) -> None:
        for at in range(0, len(payload), 6):
            if payload[at : at + 2] == b"\x00\x04":
                more = int.from_bytes(payload[at + 2 : at + 6], "big") - 65_535
                for stream in self._left:
                    self._room[stream] += more
        self._peer.sendall(frame(4, 1, 0, b""))


def at_once(count: int, work: Callable[[int], object]) -> None:
    """``work`` in many threads; waits for all."""

    def quietly(number: int) -> None:
        with contextlib.suppress(OSError):
            work(number)

    threads = [threading.Thread(target=quietly, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def sent_until_cut(address: str, first: bytes, piece: bytes, most: int) -> int:
    """Send ``piece`` again and again until the receiver cuts it off; bytes that went."""
    gone = 0
    with connected(address) as peer:
        try:
            peer.sendall(first)
            while gone < most:
                peer.sendall(piece)
                gone += len(piece)
        except OSError:
            pass
    return gone


def held_open(address: str, starts: list[bytes], seconds: float) -> None:
    """Connections that send these, read nothing, and stay."""
    peers = []
    for start in starts:
        with contextlib.suppress(OSError):
            peer = connected(address)
            peers.append(peer)
            peer.setblocking(False)
            view = memoryview(start)
            until = time.monotonic() + 1.0
            while view and time.monotonic() < until:
                try:
                    view = view[peer.send(view) :]
                except BlockingIOError:
                    time.sleep(0.005)
    time.sleep(seconds)
    for peer in peers:
        peer.close()
