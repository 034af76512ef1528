"""What stands before the gRPC server: every byte of every connection passes here.

grpcio reads whole messages into memory that nobody can bound over all calls, says nothing of who
speaks another protocol, and lets nobody in where all connections are taken by idlers. So it
listens at a socket that only this process names, and this counts the frames on their way.
"""

from __future__ import annotations

import asyncio
import re
import socket
import sys
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
    Frames,
    Toll,
)
from latdiag.ingest.otlp.intake import Intake
from latdiag.ingest.otlp.limits import BACKLOG, REQUEST_S, WRITE_S, Refusal, crowded
from latdiag.ingest.otlp.slots import Slots, Standing
from latdiag.ingest.otlp.turns import Inlet, Turns

_HTTP_1 = re.compile(rb"[A-Z]{3,10} ")
#: First bytes by which HTTP/1 is told from noise.
_METHOD = 11
_LINGER_S = 1.0
#: Bytes that are counted and passed on at once; of who gave nothing yet, for they may be frames
#: of nine bytes, of which so many take half a millisecond.
_PIECE, _FIRST_PIECE = 16 << 10, 4 << 10
#: A call that is not accepted for so long holds up no other: the server has dropped it.
_ACCEPTED_S = 2.0
#: A message without anything in it: it is framed by five bytes.
_EMPTY = 5


class GrpcFront:
    """Passes connections on to ``inner``, the path of a unix socket."""

    def __init__(self, intake: Intake, inner: str, request_s: float = REQUEST_S) -> None:
        self.intake = intake
        self.inner = inner
        self.request_s = request_s
        self.slots = Slots()
        self.connections: set[_Outer] = set()
        #: by the name that the server knows a connection by
        self.named: dict[str, _Outer] = {}
        self._server: asyncio.Server | None = None

    async def open(self, host: str, port: int) -> int:
        """Listen; the port. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Outer(self), host.strip("[]"), port, backlog=BACKLOG
        )
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Take no new connection."""
        if self._server is not None:
            self._server.close()

    def abort(self) -> None:
        for connection in list(self.connections):
            connection.abort()

    def accepted(self, peer: str) -> None:
        """The server has begun a call of this connection."""
        connection = self.named.get(peer)
        if connection is not None:
            connection.accepted()


class _Call:
    """A call that is not answered: bytes that the server holds of it, and of them its body's."""

    __slots__ = ("body", "held")

    def __init__(self) -> None:
        self.held = self.body = 0


class _Outer(asyncio.BufferedProtocol):
    """A sender's connection, and how much of it the server holds.

    The server accepts one call in some rounds of the loop, in the order in which they came. So
    that nobody waits behind a thousand calls of few, a connection has one that is not accepted;
    what comes from the beginning of the next on is looked at after that.
    """

    def __init__(self, front: GrpcFront) -> None:
        self._front = front
        self._transport: Any = None
        self._inner: _Inner | None = None
        self._begun = b""
        self._ended = False
        self._requests = Frames(len(PREFACE))
        self._replies = Frames()
        self._claim = front.intake.room.claim(self._too_much)
        self._calls: dict[int, _Call] = {}
        #: the stream of the call that is not accepted, and of the one that waits for that
        self._pending = self._next = 0
        self._acceptance = Alarm(self.accepted)
        self._name = ""
        self._toll = Toll()
        self._patience = Alarm(self._too_late)
        self._write_patience = Alarm(self.abort)
        self._inlet = Inlet(front.intake.turns, self._look_at, _FIRST_PIECE)
        self.standing = Standing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._inlet.open(transport)
        self._front.connections.add(self)
        self._front.slots.add(self)
        self._patience.set(self._front.request_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._front.connections.discard(self)
        self._front.slots.discard(self)
        self._front.named.pop(self._name, None)
        self._claim.release()
        self._patience.off()
        self._write_patience.off()
        self._acceptance.off()
        self._end()
        if self._inner is not None:
            self._inner.abort()

    def get_buffer(self, _sizehint: int) -> memoryview:
        return self._front.intake.turns.buffer

    def buffer_updated(self, size: int) -> None:
        if not self._ended:
            self._inlet.received(size)

    def _look_at(self, data: bytes) -> None:
        if self._ended:
            return
        if self._inner is not None:
            self._pass_on(data)
        else:
            self._sniff(data)

    def _sniff(self, data: bytes) -> None:
        """The first bytes: only who speaks HTTP/2 reaches the server."""
        self._begun += data
        begun, doors = self._begun, self._front.intake.doors
        if begun.startswith(PREFACE):
            self._inlet.hold("connect")
            self._inner = _Inner(self, self._front.intake.turns)
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
        own = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        own.setblocking(False)
        try:
            if sys.platform == "linux":  # which gives it a name that no other has
                own.bind("")
                self._name = f"unix-abstract:{own.getsockname()[1:].decode()}"
                self._front.named[self._name] = self
            await loop.sock_connect(own, self._front.inner)
            await loop.create_unix_connection(lambda: inner, sock=own)
        except OSError:
            own.close()
            self.abort()
            return
        self._patience.off()
        self._inlet.put_back(self._begun)
        self._begun = b""
        self._inlet.free("connect")

    def _pass_on(self, data: bytes) -> None:
        """Count what the server will hold of ``data``, and hand it over."""
        held = body = frames = 0
        for kind, _, stream, length, begin in self._requests.feed(data):
            frames += 1
            if kind == RST_STREAM:
                self._answered(stream)
            elif kind in (DATA, HEADERS, CONTINUATION):
                new = stream not in self._calls
                call = self._calls.setdefault(stream, _Call())
                call.held += length
                held += length
                self.standing.asked = True
                if kind == DATA:
                    call.body += length
                    body += length
                elif new and kind == HEADERS and self._waits(stream):
                    self._inlet.put_back(data[begin:])
                    data = data[:begin]
                    break
        self.standing.body(min(body, len(data)))
        try:
            if not self._toll.frames(frames, min(body, len(data))):
                raise Refusal("framing", f"{Toll.MOST} frames of HTTP/2 that bear no spans")
            self._claim.grow(held)
        except Refusal as no:
            self._too_much(no)
            return
        if self._inner is not None:
            self._inner.write(data)

    def _waits(self, stream: int) -> bool:
        """Whether a new call has to wait for the one before it."""
        if self._pending and self._name:
            self._next = stream
            self._inlet.hold("call")
            self._acceptance.set(_ACCEPTED_S)
            return True
        self._pending = stream
        return False

    def accepted(self) -> None:
        """The server has begun the call that was pending, or never will."""
        self._pending, self._next = self._next, 0
        self._acceptance.off()
        self._inlet.free("call")

    def reply(self, data: bytes) -> None:
        """From the server to the sender."""
        for kind, flags, stream, length, _ in self._replies.feed(data):
            call = self._calls.get(stream)
            if call is not None and kind == DATA and length and call.body > _EMPTY:
                self.standing.whole()
                self._inlet.piece = _PIECE
            if kind == RST_STREAM or (kind == HEADERS and flags & END_STREAM):
                if call is not None and kind == HEADERS:
                    self._toll.answered()
                self._answered(stream)
        self._transport.write(data)

    def _answered(self, stream: int) -> None:
        call = self._calls.pop(stream, None)
        if call is not None:
            self._claim.grow(-call.held)
        if stream == self._pending:  # it was refused before it began
            self.accepted()

    def _too_much(self, refusal: Refusal) -> None:
        """All bodies together are too large and this connection has most of them, or it sends
        frames for their own sake."""
        if not self._ended:
            self._front.intake.turned_away(refusal)
            self.abort()

    def give_way(self) -> None:
        if not self._ended and self._calls:
            self._front.intake.turned_away(crowded())
        self.abort()

    def _refuse(self, refusal: Refusal) -> None:
        self._front.intake.turned_away(refusal)
        self._end()
        self._transport.write(http_reply.refused(refusal, "json", True))
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._patience.set(_LINGER_S)

    # ------------------------------------------------------------------ flow
    def pause_writing(self) -> None:
        """A sender that does not read its replies sends nothing more either, and then is gone."""
        self.standing.spent = True
        self.hold("unread")
        if self._inner is not None:
            self._inner.pause()
        self._write_patience.set(WRITE_S)

    def resume_writing(self) -> None:
        self.standing.spent = self._ended
        self._write_patience.off()
        self.free("unread")
        if self._inner is not None:
            self._inner.resume()

    def hold(self, why: str) -> None:
        if not self._ended:
            self._inlet.hold(why)

    def free(self, why: str) -> None:
        self._inlet.free(why)

    def _too_late(self) -> None:
        if self._begun and not self._ended:
            text = f"no whole request within {self._front.request_s:g} s"
            self._front.intake.turned_away(Refusal("slow", text))
        self.abort()

    def close(self) -> None:
        """The server has closed: so is this, when all is sent."""
        self._end()
        self._transport.close()
        self._patience.set(WRITE_S)

    def abort(self) -> None:
        self._end()
        self._transport.abort()

    def _end(self) -> None:
        self._ended = self.standing.spent = True
        self._inlet.end()


class _Inner(asyncio.BufferedProtocol):
    """The connection to the server behind. What it answers is looked at in turns too: thousands
    of pings, say, of many connections."""

    def __init__(self, outer: _Outer, turns: Turns) -> None:
        self._outer = outer
        self._turns = turns
        self._inlet = Inlet(turns, outer.reply, _FIRST_PIECE)
        self._transport: Any = None
        self._aborted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._inlet.open(transport)
        if self._aborted:
            self._transport.abort()

    def get_buffer(self, _sizehint: int) -> memoryview:
        return self._turns.buffer

    def buffer_updated(self, size: int) -> None:
        self._inlet.received(size)

    def connection_lost(self, exc: Exception | None) -> None:
        rest = self._inlet.rest()
        if rest and not self._aborted:
            self._outer.reply(rest)
        self._outer.close()

    def pause_writing(self) -> None:
        self._outer.hold("server")

    def resume_writing(self) -> None:
        self._outer.free("server")

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def pause(self) -> None:
        self._inlet.hold("unread")

    def resume(self) -> None:
        self._inlet.free("unread")

    def abort(self) -> None:
        self._aborted = True
        if self._transport is not None:
            self._transport.abort()
