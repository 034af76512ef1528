"""What hostile senders do, once more: five and more of every kind of ``abuse.py``, by kind."""

from __future__ import annotations

import contextlib
import gzip
import socket
import time
from collections.abc import Callable

from tests.loopback.hostile_bytes import (
    HEAD,
    JSON_HEAD,
    MIB,
    PREFACE,
    Calls,
    at_once,
    called,
    connected,
    frame,
    framed,
    headers,
    held_open,
    hpack,
    in_export,
    message,
    posted,
    sent_until_cut,
    span,
)
from tests.loopback.strangers import ONE, WHOLE, churn

Abuse = Callable[[str, str], object]
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
GZIP = b"Content-Encoding: gzip\r\n"
_LONG = b"Content-Length: 16777216\r\n\r\n"
#: A field of 4 kB in HPACK's table, and a byte for each time that it is meant again.
_HPACK_BOMB = (
    headers(1)[9:] + b"\x40" + hpack(1) + b"a" + hpack(4000) + b"x" * 4000 + b"\xbe" * 10_000
)


def _both(first: bytes) -> Abuse:
    """Says this at both doors, and reads the answers."""

    def say(grpc: str, http: str) -> None:
        for address in (grpc, http):
            with connected(address) as peer, contextlib.suppress(OSError):
                peer.sendall(first)
                peer.recv(1000)

    return say


def _many(first: bytes, seconds: float, halves: bool = False, buffer: int = 0) -> Abuse:
    """64 at the HTTP door that begin so and stay; ``halves``: they send nothing more."""

    def stay(_grpc: str, http: str) -> None:
        peers = []
        for _ in range(64):
            with contextlib.suppress(OSError):
                peer = connected(http)
                peers.append(peer)
                if buffer:
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
                peer.settimeout(1.0)
                peer.sendall(first)
                if halves:
                    peer.shutdown(socket.SHUT_WR)
        time.sleep(seconds)
        for peer in peers:
            peer.close()

    return stay


def _ahead(address: str) -> None:
    """Whole exports of 15 MB, one after the other, without waiting for an answer."""
    body = in_export(span(b"\x4a\x00" * 100) * 60_000)
    with connected(address, 40.0) as peer, contextlib.suppress(OSError):
        for _ in range(12):
            peer.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)


def _open_calls(address: str) -> None:
    body = b"\x00" + (2 * MIB).to_bytes(4, "big") + bytes(MIB)
    with connected(address) as peer:
        Calls(peer, [body] * 16).run(5.0, end=False)


def _chunked(address: str) -> None:
    chunk = b"%x\r\n" % MIB + bytes(MIB) + b"\r\n"
    with connected(address) as peer:
        peer.sendall(CHUNKED + chunk * 15)
        time.sleep(4)


def _returning(address: str) -> None:
    """64 that come again as soon as they are cut off."""
    at_once(64, lambda _: churn(address, HEAD + b"X: y\r\n", seconds=4.0))


def _json(inside: bytes) -> Abuse:
    return lambda _g, h: posted(h, inside, JSON_HEAD)


#: By kind: one body that costs much, in protobuf and in JSON; bytes around bodies; memory over all
#: connections; those that read nothing, or stay; those at the wrong door.
VISITORS: dict[str, dict[str, Abuse]] = {
    "protobuf": {
        "8 M empty links of a span": lambda g, h: posted(
            h, in_export(span(b"\x6a\x00" * (8 * MIB - 100)))
        ),
        "a status in 8 M pieces": lambda g, h: posted(
            h, in_export(span(b"\x7a\x00" * (8 * MIB - 100)))
        ),
        "a resource in 8 M pieces": lambda g, h: posted(
            h, framed(b"\x0a\x00" * (8 * MIB - 100) + framed(span(), 0x12), 0x0A)
        ),
        "a scope in 8 M pieces by gRPC": lambda g, h: called(
            g, in_export(b"\x0a\x00" * (8 * MIB - 100) + span())
        ),
        "a schema URL of 15 MB": lambda g, h: posted(
            h, framed(framed(b"u" * (15 * MIB), 0x1A) + framed(span(), 0x12), 0x0A)
        ),
        "100,000 spans with names of their own": lambda g, h: posted(
            h, in_export(b"".join(span(framed(b"name.%d" % n, 0x2A)) for n in range(100_000)))
        ),
        "gzip within gzip within gzip": lambda g, h: posted(
            h, gzip.compress(gzip.compress(gzip.compress(bytes(64 * MIB)))), extra=GZIP
        ),
    },
    "JSON": {
        "5 million resources in JSON": _json(b'{"resourceSpans":[' + b"{}," * (5 * MIB) + b"{}]}"),
        "a key of 15 MB in JSON": _json(b'{"' + b"k" * (15 * MIB) + b'":1}'),
        "900,000 times the same key in JSON": _json(
            b"{" + b'"resourceSpans":[],' * 800_000 + b'"resourceSpans":[]}'
        ),
        "15 MB of blanks in JSON": _json(b'{"resourceSpans":' + b" " * (15 * MIB) + b"[]}"),
        "JSON in UTF-16": _json('{"resourceSpans":[]}'.encode("utf-16") * 400_000),
        "2.6 million halves of characters in JSON": _json(
            b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"'
            + b"\\ud800" * 2_600_000
            + b'"}]}]}]}'
        ),
    },
    "framing": {
        "lines of a header that go on": lambda g, h: sent_until_cut(
            h, HEAD + b"X: y\r\n", b" more\r\n" * 10_000, 100 * MIB
        ),
        "a size of a chunk without end": lambda g, h: sent_until_cut(
            h, CHUNKED, b"0" * 65_536, 100 * MIB
        ),
        "one field of 4 kB, 10,000 times by a byte each": lambda g, h: sent_until_cut(
            g, PREFACE + frame(1, 5, 1, _HPACK_BOMB), frame(6, 0, 0, bytes(8)), 4 * MIB
        ),
        "frames that nobody knows": lambda g, h: sent_until_cut(
            g, PREFACE, frame(0xFE, 0, 0, b"") * 10_000, 20 * MIB
        ),
        "goodbyes without end": lambda g, h: sent_until_cut(
            g, PREFACE, frame(7, 0, 0, bytes(8)) * 10_000, 20 * MIB
        ),
        "bodies of padding": lambda g, h: sent_until_cut(
            g, PREFACE + headers(1), frame(0, 8, 1, b"\xff" + bytes(255)) * 1000, 100 * MIB
        ),
    },
    "memory": {
        "60 bodies in chunks that do not end": lambda g, h: at_once(60, lambda _: _chunked(h)),
        "60 bodies that inflate to 30 MB": lambda g, h: at_once(
            60, lambda _: posted(h, gzip.compress(in_export(span() * 700_000), 1), extra=GZIP)
        ),
        "60 texts of 15 MB in JSON": lambda g, h: at_once(
            60, lambda _: posted(h, b'{"x":"' + b"x" * (15 * MIB) + b'"}', JSON_HEAD)
        ),
        "64 heads of 60 kB that do not end": lambda g, h: held_open(
            h, [HEAD + b"X: " + b"x" * 60_000] * 64, 4.0
        ),
        "960 calls of a MB that do not end": lambda g, h: at_once(60, lambda _: _open_calls(g)),
        "12 exports of 15 MB ahead of their answers": lambda g, h: _ahead(h),
    },
    "peers": {
        "64 half bodies that stand still": _many(HEAD + _LONG + bytes(1000), 5.0),
        "64 that expect 100 and say nothing": _many(
            HEAD + b"Expect: 100-continue\r\n" + _LONG, 4.0
        ),
        "64 that send no more after a head": _many(HEAD + _LONG, 4.0, halves=True),
        "64 that can receive next to nothing": _many(WHOLE * 2000, 5.0, buffer=1),
        "64 that come again at once": lambda g, h: _returning(h),
        "64 whole calls that are not read": lambda g, h: held_open(
            g,
            [
                PREFACE
                + b"".join(headers(n) + frame(0, 1, n, message(ONE)) for n in range(1, 400, 2))
            ]
            * 64,
            5.0,
        ),
    },
    "doors": {
        "PROXY's line at both": _both(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"),
        "Redis at both": _both(b"*1\r\n$4\r\nPING\r\n"),
        "SMTP at both": _both(b"EHLO example.org\r\n"),
        "HTTP/0.9 at both": _both(b"GET /\r\n\r\n"),
        "a WebSocket at the HTTP port": lambda g, h: _both(
            b"GET /v1/traces HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )(h, h),
        "gRPC-Web at the HTTP port": lambda g, h: posted(
            h, message(ONE), HEAD.replace(b"x-protobuf", b"grpc-web+proto")
        ),
        "a page by HTTP/2 at the gRPC port": lambda g, h: _both(
            PREFACE + frame(1, 5, 1, b"\x82\x84\x86\x01" + hpack(1) + b"h")
        )(g, g),
    },
}
