"""What hostile senders do to a receiver, and a receiver that is watched meanwhile.

An abuse is a function of the two addresses; it returns when it has done what it does. Everything
is sent by hand over sockets: what forks must have no threads of gRPC.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .otlp_sender import export

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


# ---------------------------------------------------------------------- the watched receiver
@dataclass
class Watched:
    """A ``latdiag collect`` that runs, and what was seen of it. Memory: of its largest process."""

    grpc: str
    http: str
    run: Path
    process: subprocess.Popen[str]
    rss_mb: list[float] = field(default_factory=list)
    behaved: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    stderr: str = ""

    @property
    def code(self) -> int | None:
        return self.process.returncode

    def tree(self) -> list[int]:
        """It and its children."""
        found = [self.process.pid]
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{found[0]}/task/{found[0]}/children").read_text()
            found += map(int, text.split())
        return found


@contextlib.contextmanager
def watched(folder: Path, name: str, *options: str) -> Iterator[Watched]:
    """A real ``latdiag collect``, with one that behaves beside whatever the block does. At the
    end it is asked to end; then its result, its words and its exit code are there."""
    run = folder / f"{name}.run"
    command = [sys.executable, "-m", "latdiag", "collect", "--json", "--duration", "1h"]
    command += ["--otlp", "127.0.0.1:0", "--otlp-http", "127.0.0.1:0", "--wait", "0s"]
    process = subprocess.Popen(
        [*command, "--out", str(run), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    doors = re.findall(r"127\.0\.0\.1:\d+", line)
    assert len(doors) == 2, line
    found = Watched(doors[0], doors[1], run, process)
    beside = subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "otlp_watch.py"), *doors],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    over = threading.Event()
    looking = threading.Thread(target=_look, args=(found, over))
    looking.start()
    try:
        assert beside.stdout is not None
        beside.stdout.readline()  # it has begun
        yield found
        time.sleep(0.5)
    finally:
        found.behaved = json.loads(beside.communicate(input="")[0])
        over.set()
        looking.join()
        process.send_signal(signal.SIGINT)
        out, found.stderr = process.communicate(timeout=60)
        with contextlib.suppress(ValueError):
            found.result = json.loads(out)


def _look(found: Watched, over: threading.Event) -> None:
    page = os.sysconf("SC_PAGE_SIZE") / 1e6
    while not over.wait(0.02):
        total = 0.0
        for pid in found.tree():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/statm").read_text().split()
                total = max(total, int(fields[1]) * page)
        found.rss_mb.append(total)


# ---------------------------------------------------------------------- abuses
Abuse = Callable[[str, str], object]
EMPTY_GROUPS = b"\x7b\x7c" + b"\x0a\x00" * (8 * MIB - 8)


def json_export(spans: bytes) -> bytes:
    return b'{"resourceSpans":[{"scopeSpans":[{"spans":[' + spans + b"]}]}]}"


def many_names(number: int) -> bytes:
    """6 MB of attributes that are kept, each with a name of its own."""
    pairs = [
        attribute(b"llm_d.%d.%d" % (number, n), b"\x18" + varint(n + 1000)) for n in range(9000)
    ]
    return in_export(b"".join(span(b"".join(pairs)) for _ in range(24)))


def _unfinished(address: str, size: int) -> None:
    with connected(address) as peer:
        peer.sendall(HEAD + b"Content-Length: 16777216\r\n\r\n" + bytes(size))
        time.sleep(4)


def _unfinished_calls(address: str, calls: int, size: int) -> None:
    body = b"\x00" + (16 * MIB - 8).to_bytes(4, "big") + bytes(size)
    with connected(address) as peer:
        Calls(peer, [body] * calls).run(6.0, end=False)


ABUSES: dict[str, Abuse] = {
    # one body that costs much
    "a group, then 8.4 M messages": lambda g, h: posted(h, EMPTY_GROUPS),
    "the same by gRPC": lambda g, h: called(g, EMPTY_GROUPS),
    "8.4 M messages": lambda g, h: posted(h, EMPTY_GROUPS[2:]),
    "8 M empty spans": lambda g, h: posted(h, in_export(b"\x12\x00" * (8 * MIB - 100))),
    "8 M empty spans by gRPC": lambda g, h: called(g, in_export(b"\x12\x00" * (8 * MIB - 100))),
    "a span with 8 M empty attributes": lambda g, h: posted(
        h, in_export(span(b"\x4a\x00" * (8 * MIB - 100)))
    ),
    "a resource of 8 M attributes": lambda g, h: posted(
        h, framed(framed(b"\x0a\x00" * (8 * MIB - 100), 0x0A) + framed(span(), 0x12), 0x0A)
    ),
    "4,000 spans of 2,000 nested values": lambda g, h: posted(
        h, in_export(span(framed(b"\x0a\x00" * 2000, 0x2A, 0x12, 0x4A)) * 4000)
    ),
    "a text of 16 MB": lambda g, h: posted(
        h, in_export(span(attribute(b"gen_ai.prompt", framed(b"x" * (15 * MIB), 0x0A))))
    ),
    "values nested 5 million deep": lambda g, h: posted(
        h, in_export(span(framed(b"\x2a\x80" * (7 * MIB), 0x12, 0x4A)))
    ),
    "16 MB of unknown fields": lambda g, h: posted(h, b"\xf8\x07\x01" * (5 * MIB)),
    "numbers of 10 bytes": lambda g, h: posted(h, (b"\x78" + b"\xff" * 9 + b"\x01") * 1_400_000),
    "gzip of a million members": lambda g, h: posted(
        h, gzip.compress(b"") * 800_000, extra=b"Content-Encoding: gzip\r\n"
    ),
    "gzip of 60 MB of spans": lambda g, h: posted(
        h, gzip.compress(in_export(span() * 1_900_000), 1), extra=b"Content-Encoding: gzip\r\n"
    ),
    # JSON
    "900,000 empty spans in JSON": lambda g, h: posted(
        h, json_export(b"{}," * 900_000 + b"{}"), JSON_HEAD
    ),
    "JSON nested 8 million deep": lambda g, h: posted(
        h, b'{"resourceSpans":' + b"[" * (15 * MIB), JSON_HEAD
    ),
    "5 million lists in JSON": lambda g, h: posted(
        h, b'{"x":[' + b"[]," * (5 * MIB) + b'[]],"resourceSpans":[]}', JSON_HEAD
    ),
    "a span of 5 million values in JSON": lambda g, h: posted(
        h,
        json_export(
            b'{"attributes":[{"key":"a","value":{"arrayValue":{"values":['
            + b"{}," * (5 * MIB)
            + b"{}]}}}]}"
        ),
        JSON_HEAD,
    ),
    "a text of escapes in JSON": lambda g, h: posted(
        h, json_export(b'{"name":"' + b"\\u00e9" * 2_600_000 + b'"}'), JSON_HEAD
    ),
    "a number of 15 million digits in JSON": lambda g, h: posted(
        h, json_export(b'{"kind":' + b"9" * (15 * MIB) + b"}"), JSON_HEAD
    ),
    # framing
    "trailers without end": lambda g, h: sent_until_cut(
        h,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n",
        b"X-Trailer: " + b"x" * 60_000 + b"\r\n",
        400 * MIB,
    ),
    "one trailer without end": lambda g, h: sent_until_cut(
        h, HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: ", b"x" * MIB, 400 * MIB
    ),
    "chunks of a byte": lambda g, h: sent_until_cut(
        h, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 10_000, 400 * MIB
    ),
    "extensions of chunks": lambda g, h: sent_until_cut(
        h,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
        b"1;" + b"e" * 60_000 + b"\r\nx\r\n",
        400 * MIB,
    ),
    "a head without end": lambda g, h: sent_until_cut(h, HEAD, b"X: y\r\n" * 10_000, 400 * MIB),
    "metadata without end": lambda g, h: sent_until_cut(
        g,
        PREFACE + headers(1)[:4] + b"\x00" + headers(1)[5:],
        frame(9, 0, 1, b"\x00\x01a\x7f\x81\x7c" + b"x" * 16000),
        400 * MIB,
    ),
    "a million settings": lambda g, h: sent_until_cut(
        g, PREFACE, frame(4, 0, 0, b"") * 10_000, 20 * MIB
    ),
    # many at once
    "60 bodies of 16 MB that do not end": lambda g, h: at_once(
        60, lambda _: _unfinished(h, 16 * MIB - 9)
    ),
    "240 calls of 15 MB that do not end": lambda g, h: at_once(
        60, lambda _: _unfinished_calls(g, 4, 15 * MIB)
    ),
    "60 whole exports of 15 MB": lambda g, h: at_once(
        60, lambda n: posted(h, in_export(span(b"\x4a\x00" * 100) * 60_000))
    ),
    "30 bodies with names of their own": lambda g, h: at_once(
        30, lambda n: posted(h, many_names(n))
    ),
    "60 costly JSON bodies": lambda g, h: at_once(
        60, lambda n: posted(h, json_export(b"{}," * 900_000 + b"{}"), JSON_HEAD)
    ),
    # those that stay
    "64 that never read": lambda g, h: held_open(
        h, [(HEAD + b"Content-Length: 0\r\n\r\n") * 40_000] * 64, 8.0
    ),
    "64 that never read at the gRPC port": lambda g, h: held_open(
        g, [PREFACE + frame(6, 0, 0, b"12345678") * 60_000] * 64, 8.0
    ),
    "64 that say nothing": lambda g, h: held_open(h, [b""] * 64, 4.0),
    "64 that say nothing at the gRPC port": lambda g, h: held_open(g, [PREFACE] * 64, 4.0),
    "64 with half a head": lambda g, h: held_open(h, [HEAD[:30]] * 64, 4.0),
    "half a preface": lambda g, h: held_open(g, [PREFACE[:9]] * 64, 4.0),
    # wrong doors
    "TLS at both": lambda g, h: [
        _said(a, b"\x16\x03\x01\x02\x00\x01" + bytes(99)) for a in (g, h)
    ],
    "HTTP/1.1 at the gRPC port": lambda g, h: _said(g, HEAD + b"\r\n"),
    "gRPC at the HTTP port": lambda g, h: called(h, export(3).SerializeToString()),
}


def _said(address: str, first: bytes) -> bytes:
    with connected(address) as peer:
        peer.sendall(first)
        return peer.recv(1000)


def good_post(address: str, spans: int) -> int:
    """Status of an export of good spans."""
    connection = http.client.HTTPConnection(address, timeout=30)
    kind = {"Content-Type": "application/x-protobuf"}
    connection.request("POST", "/v1/traces", export(spans).SerializeToString(), kind)
    status = connection.getresponse().status
    connection.close()
    return status
