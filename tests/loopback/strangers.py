"""What hostile senders do, continued: of each kind of ``abuse.py`` instances that the receiver was
not built against."""

from __future__ import annotations

import contextlib
import json
import socket
import time
import zlib
from collections.abc import Callable

from tests.loopback.hostile_bytes import (
    HEAD,
    JSON_HEAD,
    MIB,
    PREFACE,
    at_once,
    attribute,
    called,
    connected,
    frame,
    framed,
    headers,
    held_open,
    in_export,
    message,
    posted,
    sent_until_cut,
    span,
    varint,
)
from tests.loopback.otlp_sender import export

DEFLATE = b"Content-Encoding: deflate\r\n"
ONE = export(1).SerializeToString()
WHOLE = HEAD + b"Content-Length: " + str(len(ONE)).encode() + b"\r\n\r\n" + ONE


def _text(name: bytes, value: bytes) -> bytes:
    return attribute(name, framed(value, 0x0A))


def _resource(attributes: bytes, spans: bytes) -> bytes:
    return framed(
        framed(attributes.replace(b"\x4a", b"\x0a", 1), 0x0A) + framed(spans, 0x12), 0x0A
    )


def _deflated(size: int) -> bytes:
    packer = zlib.compressobj(9)
    made = b"".join(packer.compress(bytes(MIB)) for _ in range(size // MIB))
    return made + packer.flush()


def _json_spans(inside: str) -> bytes:
    text = '{"resourceSpans":[{"scopeSpans":[{"spans":[' + inside + "]}]}]}"
    return text.encode()


# ---------------------------------------------------------------------- many, and again
def churn(address: str, first: bytes, seconds: float = 4.0) -> None:
    """Connections that come and go as fast as one thread makes them; 64 are open at a time."""
    until = time.monotonic() + seconds
    peers: list[socket.socket] = []
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            peer = connected(address)
            peers.append(peer)
            peer.sendall(first)
        if len(peers) > 64:
            peers.pop(0).close()
    for peer in peers:
        peer.close()


def dripping(address: str, first: bytes, piece: bytes, every_s: float, seconds: float) -> None:
    """64 connections that send a piece now and then."""
    peers = []
    for _ in range(64):
        with contextlib.suppress(OSError):
            peer = connected(address)
            peer.sendall(first)
            peers.append(peer)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for peer in peers:
            with contextlib.suppress(OSError):
                peer.send(piece, socket.MSG_DONTWAIT)
        time.sleep(every_s)
    for peer in peers:
        peer.close()


def sipping(address: str, seconds: float = 6.0) -> None:
    """64 that send whole exports without end, and read a byte of the answers now and then."""
    peers = [connected(address) for _ in range(64)]
    until = time.monotonic() + seconds
    for peer in peers:
        peer.setblocking(False)
    while time.monotonic() < until:
        for peer in peers:
            with contextlib.suppress(OSError):
                peer.send(WHOLE * 100)
            with contextlib.suppress(OSError):
                peer.recv(1)
        time.sleep(0.05)
    for peer in peers:
        peer.close()


def gave_once(address: str, seconds: float = 4.0) -> None:
    """64 that sent an export, and hold their places from then on."""
    peers = []
    for _ in range(64):
        with contextlib.suppress(OSError):
            peer = connected(address)
            peer.sendall(WHOLE)
            peer.recv(1000)
            peers.append(peer)
    time.sleep(seconds)
    for peer in peers:
        peer.close()


def bombs(address: str, body: bytes) -> None:
    at_once(60, lambda _: posted(address, body, extra=DEFLATE))


def _reset_calls() -> bytes:
    return b"".join(headers(n) + frame(3, 0, n, b"\0\0\0\x08") for n in range(1, 4001, 2))


def _by_bytes() -> bytes:
    return headers(1) + frame(0, 0, 1, b"\0\0\xf0\0\0") + frame(0, 0, 1, b"\x0a") * 60_000


def _slow_body(address: str, seconds: float = 6.0) -> None:
    """A body that comes at 100 kB a second."""
    with connected(address) as peer:
        peer.sendall(HEAD + b"Content-Length: 16777216\r\n\r\n")
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            peer.sendall(bytes(10_000))
            time.sleep(0.1)


def _said(address: str, first: bytes) -> bytes:
    with connected(address) as peer:
        peer.sendall(first)
        with contextlib.suppress(OSError):
            return peer.recv(1000)
    return b""


STRANGERS: dict[str, Callable[[str, str], object]] = {
    # one body that costs much
    "a service name of 15 MB": lambda g, h: posted(
        h, _resource(_text(b"service.name", b"n" * (15 * MIB)), span())
    ),
    "60,000 resources of a span each": lambda g, h: posted(
        h, _resource(_text(b"service.name", b"n"), span()) * 60_000
    ),
    "text attributes that are kept, 40 x 9,000": lambda g, h: posted(
        h, in_export(span(_text(b"gen_ai.request.id", b"sk" * 20) * 9000) * 25)
    ),
    "a span with 8 M empty events": lambda g, h: posted(
        h, in_export(span(b"\x5a\x00" * (8 * MIB - 100)))
    ),
    "deflate of 1 GB of nothing": lambda g, h: posted(h, _deflated(1024 * MIB), extra=DEFLATE),
    "900,000 scopes without spans by gRPC": lambda g, h: called(
        g, framed(b"\x12\x00" * 900_000, 0x0A) * 8
    ),
    # JSON
    "a span of a million keys in JSON": lambda g, h: posted(
        h, _json_spans("{" + ",".join(f'"{n}":0' for n in range(1_000_000)) + "}"), JSON_HEAD
    ),
    "objects nested 3 million deep": lambda g, h: posted(
        h, b'{"resourceSpans":' + b'{"a":' * (3 * MIB), JSON_HEAD
    ),
    "a text without end in JSON": lambda g, h: posted(
        h, b'{"resourceSpans":"' + b"x" * (15 * MIB), JSON_HEAD
    ),
    "9 attributes of 1.5 MB in JSON": lambda g, h: posted(
        h,
        _json_spans(
            json.dumps(
                {
                    "traceId": "1" * 32,
                    "spanId": "2" * 16,
                    "attributes": [
                        {"key": "gen_ai.request.id", "value": {"stringValue": "\x00é" * 200_000}}
                    ]
                    * 9,
                }
            )
        ),
        JSON_HEAD,
    ),
    "5 million numbers in JSON": lambda g, h: posted(
        h, b'{"resourceSpans":[' + b"1," * (5 * MIB) + b"1]}", JSON_HEAD
    ),
    # framing
    "calls begun and reset": lambda g, h: sent_until_cut(g, PREFACE, _reset_calls(), 20 * MIB),
    "windows without end": lambda g, h: sent_until_cut(
        g, PREFACE, frame(8, 0, 0, b"\0\0\0\x01") * 20_000, 20 * MIB
    ),
    "a call byte by byte": lambda g, h: sent_until_cut(g, PREFACE, _by_bytes(), 20 * MIB),
    "priorities and empty data": lambda g, h: sent_until_cut(
        g,
        PREFACE + headers(1),
        (frame(2, 0, 1, b"\0\0\0\0\x01") + frame(0, 0, 1, b"")) * 9000,
        20 * MIB,
    ),
    "100,000 small requests that are wrong": lambda g, h: sent_until_cut(
        h, b"", b"GET /v1/traces HTTP/1.1\r\nHost: h\r\n\r\n" * 10_000, 20 * MIB
    ),
    # many at once
    "connections that come and go": lambda g, h: churn(h, HEAD[:20]),
    "the same at the gRPC port": lambda g, h: churn(g, PREFACE),
    "60 deflated bombs": lambda g, h: bombs(h, _deflated(64 * MIB)),
    "60 slow bodies above the floor": lambda g, h: at_once(60, lambda _: _slow_body(h)),
    "60 calls of 9,000 texts": lambda g, h: at_once(
        60, lambda n: called(g, in_export(span(_text(b"llm_d.%d" % n, b"v") * 9000) * 9))
    ),
    # those that stay
    "64 that send and never read": lambda g, h: held_open(h, [WHOLE * 20_000] * 64, 5.0),
    "64 that send and sip": lambda g, h: sipping(h),
    "64 that drip a byte": lambda g, h: dripping(
        h, HEAD + b"Content-Length: 9999\r\n\r\n", b"x", 0.2, 5.0
    ),
    "64 that ping now and then": lambda g, h: dripping(
        g, PREFACE, frame(6, 0, 0, b"12345678"), 0.2, 5.0
    ),
    "64 that gave once": lambda g, h: gave_once(h),
    "64 calls that stand still": lambda g, h: held_open(
        g, [PREFACE + headers(1) + frame(0, 0, 1, message(ONE)[:50])] * 64, 5.0
    ),
    # wrong doors
    "SSH at both": lambda g, h: [_said(a, b"SSH-2.0-OpenSSH_9.6\r\n") for a in (g, h)],
    "64 times TLS at once": lambda g, h: at_once(
        64, lambda n: _said((g, h)[n % 2], b"\x16\x03\x01\x02\x00\x01" + bytes(500))
    ),
    "an upgrade to HTTP/2": lambda g, h: _said(
        h, HEAD + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n"
    ),
    "noise at both": lambda g, h: [
        _said(a, bytes(n % 256 for n in range(70, 4000, 7))) for a in (g, h)
    ],
    "60 calls of gRPC at the HTTP port": lambda g, h: at_once(60, lambda _: called(h, ONE)),
    "a call of another service": lambda g, h: _other(g),
    "numbers that are too long": lambda g, h: posted(h, b"\x0a" + varint(2**63)[:-1] + b"\xff"),
}


def _other(address: str) -> None:
    head = headers(1).replace(b"TraceService", b"TraceServ1ce")
    with connected(address) as peer, contextlib.suppress(OSError):
        peer.sendall(PREFACE + head + frame(0, 1, 1, message(ONE)))
        peer.settimeout(2)
        while peer.recv(4000):
            pass
