"""What hostile senders do to a receiver.

An abuse is a function of the addresses of the gRPC and the HTTP door; it returns when it is done.
``python -m tests.loopback.abuse NAME GRPC HTTP`` does one in a process of its own.
"""

from __future__ import annotations

import contextlib
import gzip
import sys
import time
from collections.abc import Callable

from tests.loopback.hostile_bytes import (
    HEAD,
    JSON_HEAD,
    MIB,
    PREFACE,
    Calls,
    at_once,
    attribute,
    called,
    connected,
    frame,
    framed,
    headers,
    held_open,
    in_export,
    posted,
    sent_until_cut,
    span,
    varint,
)
from tests.loopback.otlp_sender import export
from tests.loopback.strangers import STRANGERS
from tests.loopback.visitors import VISITORS

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
    """Goes before a request is too late (10 s), however slow the machine: it is to be refused for
    its size alone."""
    with connected(address, 4.0) as peer:
        with contextlib.suppress(TimeoutError):  # of all that is sent
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
    **STRANGERS,
    **{name: abuse for kind in VISITORS.values() for name, abuse in kind.items()},
}


def _said(address: str, first: bytes) -> bytes:
    with connected(address) as peer:
        peer.sendall(first)
        return peer.recv(1000)


if __name__ == "__main__":
    ABUSES[sys.argv[1]](*sys.argv[2:])
