"""What stands before the gRPC server: every byte of every connection passes here.

grpcio reads whole messages into memory that nobody can bound over all calls, says nothing of who
speaks another protocol, and lets nobody in where all connections are taken by idlers. So it
listens at a socket that only this process names, and this counts the frames on their way.
"""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

from latdiag.ingest.otlp import http_reply
from latdiag.ingest.otlp.alarm import Alarm
from latdiag.ingest.otlp.doors import is_tls
from latdiag.ingest.otlp.frames import (
    CONTINUATION,
    DATA,
    END_STREAM,
    HEADERS,
    PREFACE,
    RST_STREAM,
    UNAVAILABLE,
    Frames,
    Refusing,
)
from latdiag.ingest.otlp.intake import Intake
from latdiag.ingest.otlp.limits import MAX_CONNECTIONS, REQUEST_S, WRITE_S, Refusal
from latdiag.ingest.otlp.slots import Slots

_HTTP_1 = re.compile(rb"[A-Z]{3,10} ")
#: First bytes by which HTTP/1 is told from noise.
_METHOD = 11
_LINGER_S = 1.0


class GrpcFront:
    """Passes connections on to ``inner``, the address of a unix socket."""

    def __init__(self, intake: Intake, inner: str, request_s: float = REQUEST_S) -> None:
        self.intake = intake
        self.inner = inner
        self.request_s = request_s
        self.slots = Slots()
        self.connections: set[_Outer] = set()
        self._server: asyncio.Server | None = None

    async def open(self, host: str, port: int) -> int:
        """Listen; the port. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Outer(self), host.strip("[]"), port)
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Take no new connection."""
        if self._server is not None:
            self._server.close()

    def abort(self) -> None:
        for connection in list(self.connections):
            connection.abort()


class _Outer(asyncio.Protocol):
    """A sender's connection, and how much of it the server holds."""

    def __init__(self, front: GrpcFront) -> None:
        self._front = front
        self._transport: Any = None
        self._inner: _Inner | None = None
        self._begun = b""
        self._other: Refusing | None = None
        self._ended = False
        self._requests = Frames(len(PREFACE))
        self._replies = Frames()
        self._claim = front.intake.room.claim(self._give_way)
        #: bytes of each call that is not answered
        self._streams: dict[int, int] = {}
        self._patience = Alarm(self._too_late)
        self._write_patience = Alarm(self.abort)
        self.moved_s = time.monotonic()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._front.connections.add(self)
        self._patience.set(self._front.request_s)
        if not self._front.slots.add(self):
            self._other = Refusing(f"there are {MAX_CONNECTIONS} connections already", UNAVAILABLE)
            self._ended = True
            self._patience.set(_LINGER_S)

    def connection_lost(self, exc: Exception | None) -> None:
        self._front.connections.discard(self)
        self._front.slots.discard(self)
        self._claim.release()
        self._patience.off()
        self._write_patience.off()
        if self._inner is not None:
            self._inner.abort()
        self._ended = True

    def data_received(self, data: bytes) -> None:
        self.moved_s = time.monotonic()
        if self._other is not None:
            self._transport.write(self._other.feed(data))
        elif self._ended:
            return
        elif self._inner is not None:
            self._pass_on(data)
        else:
            self._sniff(data)

    def _sniff(self, data: bytes) -> None:
        """The first bytes: only who speaks HTTP/2 reaches the server."""
        self._begun += data
        begun, doors = self._begun, self._front.intake.doors
        if begun.startswith(PREFACE):
            self._transport.pause_reading()
            self._inner = _Inner(self)
            asyncio.get_running_loop().create_task(self._connect(self._inner))
        elif PREFACE.startswith(begun):
            pass
        elif is_tls(begun):
            self._refuse(doors.tls(grpc=True))
        elif _HTTP_1.match(begun):
            self._refuse(doors.http_at_grpc())
        elif len(begun) >= _METHOD or not begun[:10].isalpha():
            self._refuse(doors.neither())

    async def _connect(self, inner: _Inner) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_unix_connection(lambda: inner, self._front.inner)
        except OSError:
            self.abort()
            return
        self._patience.off()
        self._pass_on(self._begun)
        self._begun = b""
        self._transport.resume_reading()

    def _pass_on(self, data: bytes) -> None:
        """Count what the server will hold of ``data``, and hand it over."""
        held = 0
        for kind, _, stream, length in self._requests.feed(data):
            if kind == RST_STREAM:
                self._answered(stream)
            elif kind in (DATA, HEADERS, CONTINUATION):
                held += length
                self._streams[stream] = self._streams.get(stream, 0) + length
        try:
            self._claim.grow(held)
        except Refusal as full:
            self._give_way(full)
            return
        if self._inner is not None:
            self._inner.write(data)

    def reply(self, data: bytes) -> None:
        """From the server to the sender."""
        for kind, flags, stream, _ in self._replies.feed(data):
            if kind == RST_STREAM or (kind == HEADERS and flags & END_STREAM):
                self._answered(stream)
        self._transport.write(data)

    def _answered(self, stream: int) -> None:
        self._claim.grow(-self._streams.pop(stream, 0))

    def _give_way(self, refusal: Refusal) -> None:
        """All bodies together are too large, and this connection has most of them."""
        if not self._ended:
            self._front.intake.turned_away(refusal)
            self.abort()

    def _refuse(self, refusal: Refusal) -> None:
        self._front.intake.turned_away(refusal)
        self._ended = True
        self._transport.write(http_reply.refused(refusal, "json", True))
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._patience.set(_LINGER_S)

    # ------------------------------------------------------------------ flow
    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause()
        self._write_patience.set(WRITE_S)

    def resume_writing(self) -> None:
        self.moved_s = time.monotonic()
        self._write_patience.off()
        if self._inner is not None:
            self._inner.resume()

    def pause(self) -> None:
        self._transport.pause_reading()

    def resume(self) -> None:
        self._transport.resume_reading()

    def _too_late(self) -> None:
        if self._begun and not self._ended:
            text = f"no whole request within {self._front.request_s:g} s"
            self._front.intake.turned_away(Refusal("slow", text))
        self.abort()

    def close(self) -> None:
        """The server has closed: so is this, when all is sent."""
        self._ended = True
        self._transport.close()
        self._patience.set(WRITE_S)

    def abort(self) -> None:
        self._ended = True
        self._transport.abort()


class _Inner(asyncio.Protocol):
    """The connection to the server behind."""

    def __init__(self, outer: _Outer) -> None:
        self._outer = outer
        self._transport: Any = None
        self._aborted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        if self._aborted:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._outer.reply(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._outer.close()

    def pause_writing(self) -> None:
        self._outer.pause()

    def resume_writing(self) -> None:
        self._outer.resume()

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def pause(self) -> None:
        self._transport.pause_reading()

    def resume(self) -> None:
        self._transport.resume_reading()

    def abort(self) -> None:
        self._aborted = True
        if self._transport is not None:
            self._transport.abort()
