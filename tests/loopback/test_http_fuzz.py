"""The HTTP reader against a slow, obviously right one, on real sockets cut at arbitrary places.

The peer lives on the client's own event loop: after each piece it lets the client read, so that
a piece is a read, and the same example always cuts at the same places.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import httpx
from hypothesis import given
from hypothesis import strategies as st

from latdiag.load.wire.exchange import Exchange
from latdiag.load.wire.transport import StampedTransport
from tests.profiles import examples

from .test_transport import Taken

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain"


class Reply(NamedTuple):
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


# ---------------------------------------------------------------------- the slow reader
def read_slowly(raw: bytes, to_head: bool) -> Reply:
    """The first real reply in ``raw``, which is valid. RFC 9112, in the order of its sections."""
    status = 100
    while 100 <= status < 200:
        head, _, raw = raw.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        status = int(first.split(b" ")[1])
    headers = []
    for line in lines:
        name, _, value = line.partition(b":")
        headers.append((name.lower(), value.strip(b" \t")))
    if to_head or status in (204, 304):
        return Reply(status, headers, b"")
    fields = dict(headers)
    if fields.get(b"transfer-encoding", b"").lower() == b"chunked":
        return Reply(status, headers, _unchunked(raw))
    if b"content-length" in fields:
        return Reply(status, headers, raw[: int(fields[b"content-length"])])
    return Reply(status, headers, raw)


def _unchunked(raw: bytes) -> bytes:
    body = b""
    while True:
        line, _, raw = raw.partition(b"\r\n")
        size = int(line.partition(b";")[0], 16)
        if size == 0:
            return body
        body += raw[:size]
        assert raw[size : size + 2] == b"\r\n"
        raw = raw[size + 2 :]


# ---------------------------------------------------------------------- valid replies
@dataclass(frozen=True, slots=True)
class Example:
    """``closes``: the peer closes after it. ``kept``: the connection may serve a second one."""

    raw: bytes
    to_head: bool
    closes: bool
    kept: bool


TOKEN = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789-_!#", min_size=1, max_size=12)
VALUE = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20)
SPACE = st.text(" \t", max_size=3)
_FRAMING = {"content-length", "transfer-encoding", "connection", "content-encoding", "upgrade"}


@st.composite
def field_lines(draw: st.DrawFn) -> list[bytes]:
    """Header lines without meaning, in every form that is allowed."""
    names = draw(st.lists(TOKEN, max_size=4))
    return [
        f"X{name}:{draw(SPACE)}{draw(VALUE)}{draw(SPACE)}".encode()
        for name in names
        if f"x{name}".lower() not in _FRAMING
    ]


@st.composite
def chunks(draw: st.DrawFn, body: bytes) -> bytes:
    """The body in chunks, with extensions, zeros before the sizes, and trailers."""
    out = b""
    while body:
        size = draw(st.integers(1, len(body)))
        form = draw(st.sampled_from(["{:x}", "{:X}", "{:05x}", '{:x};a=1;b="c"']))
        out += form.format(size).encode() + b"\r\n" + body[:size] + b"\r\n"
        body = body[size:]
    trailers = draw(field_lines())
    last = draw(st.sampled_from([b"0", b"000", b"0;last"]))
    return out + b"\r\n".join([last, *trailers]) + b"\r\n\r\n"


@st.composite
def replies(draw: st.DrawFn) -> Example:
    raw = b""
    for _ in range(draw(st.integers(0, 2))):
        status = draw(st.sampled_from([100, 102, 103]))
        raw += b"\r\n".join([b"HTTP/1.1 %d X" % status, *draw(field_lines())]) + b"\r\n\r\n"
    body = draw(st.binary(max_size=200))
    status = draw(st.sampled_from([200, 204, 206, 304, 404, 429, 500, 599]))
    framing = draw(st.sampled_from(["length", "chunked", "close"]))
    to_head = draw(st.booleans())
    bodiless = to_head or status in (204, 304)
    old, says_close = draw(st.booleans()), draw(st.booleans())
    lines = draw(field_lines())
    if framing == "length":
        lines.append(b"Content-Length:%d " % len(body))
    elif framing == "chunked":
        old = False
        lines.append(
            draw(st.sampled_from([b"Transfer-Encoding: chunked", b"transfer-encoding:Chunked"]))
        )
    if says_close:
        lines.append(b"Connection: close")
    lines = draw(st.permutations(lines))
    version = b"HTTP/1.0" if old else b"HTTP/1.1"
    reason = draw(st.sampled_from([b" OK", b" ", b"", b" Very Well: indeed"]))
    raw += b"\r\n".join([version + b" %d" % status + reason, *lines]) + b"\r\n\r\n"
    if not bodiless:
        raw += draw(chunks(body)) if framing == "chunked" else body
    framed = framing != "close" or bodiless
    closes = says_close or old or not framed
    return Example(raw, to_head, closes, framing != "close" and not closes)


def cut(raw: bytes, places: Sequence[int]) -> list[bytes]:
    """``raw`` in pieces, cut at these places (modulo its length)."""
    at = sorted({place % len(raw) for place in places} | {0, len(raw)})
    return [raw[a:b] for a, b in itertools.pairwise(at)]


CUTS = st.lists(st.integers(0, 2000), max_size=12)


# ---------------------------------------------------------------------- both ends on one loop
class ScriptedPeer:
    """Answers the first request with the pieces given, each later one with ``PLAIN``."""

    def __init__(self, pieces: Sequence[bytes], closes: bool) -> None:
        self._pieces, self._closes = pieces, closes
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self._answered = 0
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._tasks = {asyncio.ensure_future(self._accept())}

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(self._listener)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._tasks.add(asyncio.ensure_future(self._serve(sock)))

    async def _serve(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with sock:
            held = b""
            while True:
                while b"\r\n\r\n" not in held:
                    data = await loop.sock_recv(sock, 1 << 16)
                    if not data:
                        return
                    held += data
                held = b""
                first, self._answered = self._answered == 0, self._answered + 1
                try:
                    for piece in self._pieces if first else [PLAIN]:
                        await loop.sock_sendall(sock, piece)
                        for _ in range(3):  # the loop polls, and the client reads
                            await asyncio.sleep(0)
                except OSError:
                    return
                if first and self._closes:
                    return

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._listener.close()


async def ask(client: httpx.AsyncClient, url: str, method: str, by_sink: bool) -> Reply | str:
    """The reply as the client sees it, or the name of the exception of httpx's."""
    exchange, sink = Exchange(), Taken()
    extensions = {"latdiag.exchange": exchange, "timeout": {"connect": 5, "read": 5}}
    if by_sink:
        extensions["latdiag.sink"] = sink
    try:
        request = client.build_request(method, url, extensions=extensions)
        response = await client.send(request, stream=True)
        body = sink.body if by_sink else b"".join([p async for p in response.aiter_raw()])
        await response.aclose()
    except httpx.TransportError as fault:
        assert exchange.fault, "an exchange knows how it failed"
        return type(fault).__name__
    assert not exchange.fault and exchange.status == response.status_code
    headers = [(name.lower(), value) for name, value in exchange.headers]
    return Reply(response.status_code, headers, body)


async def exchanged(
    pieces: Sequence[bytes], closes: bool, to_head: bool, by_sink: bool
) -> tuple[Reply | str, Reply | str, int]:
    """Two replies, and how many connections it took."""
    peer = ScriptedPeer(pieces, closes)
    async with httpx.AsyncClient(transport=StampedTransport()) as client:
        first = await ask(client, peer.url, "HEAD" if to_head else "GET", by_sink)
        second = await ask(client, peer.url, "GET", by_sink)
    connections = len(peer._tasks) - 1
    await peer.close()
    return first, second, connections


def run(*given_: object) -> tuple[Reply | str, Reply | str, int]:
    return asyncio.run(asyncio.wait_for(exchanged(*given_), 20))  # type: ignore[arg-type]


# ---------------------------------------------------------------------- the properties
@examples(250)
@given(replies(), CUTS, st.booleans())
def test_a_valid_reply_is_read_alike_wherever_it_is_cut(
    example: Example, cuts: list[int], by_sink: bool
) -> None:
    pieces = cut(example.raw, cuts)
    first, second, connections = run(pieces, example.closes, example.to_head, by_sink)
    assert first == read_slowly(example.raw, example.to_head)
    assert second == read_slowly(PLAIN, False)
    if example.kept:
        assert connections == 1
    if example.closes:
        assert connections == 2


@examples(250)
@given(
    replies(),
    st.lists(
        st.tuples(st.integers(0, 2000), st.integers(0, 3), st.binary(max_size=4)), max_size=4
    ),
    CUTS,
    st.booleans(),
)
def test_a_broken_reply_ends_in_a_fault_or_a_reply_and_spoils_nothing(
    example: Example,
    changes: list[tuple[int, int, bytes]],
    cuts: list[int],
    by_sink: bool,
) -> None:
    raw = bytearray(example.raw)
    for place, taken, put in changes:
        at = place % (len(raw) or 1)
        raw[at : at + taken] = put
    pieces = cut(bytes(raw), cuts) if raw else []
    first, second, _ = run(pieces, True, example.to_head, by_sink)
    assert isinstance(first, Reply) or first in ("ReadError", "RemoteProtocolError")
    assert second == read_slowly(PLAIN, False)
