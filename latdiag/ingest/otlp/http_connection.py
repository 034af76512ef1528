"""One connection at the HTTP door: HTTP/1.1 by httptools over asyncio, POST only."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Protocol

from latdiag.ingest.otlp import http_reply
from latdiag.ingest.otlp.alarm import Alarm
from latdiag.ingest.otlp.decode import Export
from latdiag.ingest.otlp.doors import is_tls
from latdiag.ingest.otlp.frames import PREFACE, Refusing
from latdiag.ingest.otlp.http_request import MAX_HEAD, PATHS, READ, Request, long_head, why_not
from latdiag.ingest.otlp.intake import Intake
from latdiag.ingest.otlp.limits import MAX_BODY, Refusal, crowded, too_large
from latdiag.ingest.otlp.slots import Slots, Standing
from latdiag.ingest.otlp.turns import Inlet

#: Bytes around a body: sizes and extensions of chunks, trailers. A chunk costs 6 at least, and
#: exporters send them by kilobytes.
_MAX_FRAMING = 512 << 10
#: After an answer that ends a connection, what still comes is thrown away for so long.
_LINGER_S = 1.0
#: Requests of one connection that wait for those before them; then it is read no further.
_AHEAD = 4
#: Bytes that are parsed at once: 80 small requests, or 1,400 chunks of a byte.
_PIECE = 8 << 10


class Door(Protocol):
    """What a connection needs of its door; the seconds are those of ``HttpDoor``."""

    intake: Intake
    slots: Slots
    connections: set[Connection]
    request_s: float
    idle_s: float
    write_s: float
    closing: bool


class Connection(asyncio.BufferedProtocol):
    """One connection. Requests on it are answered one after the other, as they came."""

    def __init__(self, door: Door) -> None:
        import httptools

        self._door = door
        self._parser = httptools.HttpRequestParser(self)
        self._upgrade = httptools.HttpParserUpgrade
        self._transport: Any = None
        self._patience = Alarm(self._too_late)
        self._write_patience = Alarm(self.abort)
        #: a request is under way; what comes is thrown away; all is answered that will be
        self._busy = self._ended = self._over = False
        self._begun = b""
        self._other: Refusing | None = None
        self._request = Request()
        self._waiting: deque[Request | Refusal] = deque()
        self._serving: asyncio.Task[None] | None = None
        self._inlet = Inlet(door.intake.turns, self._look_at, _PIECE)
        self.standing = Standing()

    # ------------------------------------------------------------------ asyncio
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._inlet.open(transport)
        self._door.connections.add(self)
        self._door.slots.add(self)
        self._patience.set(self._door.request_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._door.connections.discard(self)
        self._door.slots.discard(self)
        self._ended = True
        self._forget()
        self._patience.off()
        self._write_patience.off()

    def get_buffer(self, _sizehint: int) -> memoryview:
        return self._door.intake.turns.buffer

    def buffer_updated(self, size: int) -> None:
        if self._other is not None or not self._ended:
            self._inlet.received(size)

    def _look_at(self, data: bytes) -> None:
        if self._ended:
            if self._other is not None:
                self._transport.write(self._other.feed(data))
            return
        if not self._busy:
            self._busy = True
            self._patience.set(self._door.request_s)
        if len(self._begun) < 3 and self._is_other(data):
            return
        self._request.received += len(data)
        self._parse(data)
        request = self._request
        if self._ended or not self._busy:
            return
        if not request.head_whole and request.received > MAX_HEAD:
            self._refuse(long_head())
        elif request.received - len(request.body) > MAX_HEAD + _MAX_FRAMING:
            text = f"chunks and trailers of more than {_MAX_FRAMING} bytes around a body"
            self._refuse(Refusal("framing", text))

    def _parse(self, data: bytes) -> None:
        import httptools

        try:
            self._parser.feed_data(data)
        except self._upgrade:
            self._refuse(Refusal("malformed", "no other protocol is spoken here"))
        except httptools.HttpParserError:
            self._refuse(Refusal("malformed", "that is not HTTP/1.1"))

    def _is_other(self, data: bytes) -> bool:
        """Whether another protocol is spoken here; says so to the sender in that."""
        self._begun += data[: len(PREFACE) - len(self._begun)]
        doors = self._door.intake.doors
        if is_tls(self._begun):
            self._refuse(doors.tls(grpc=False))
        elif len(self._begun) >= 3 and PREFACE.startswith(self._begun[:3]):
            wrong = self._door.intake.turned_away(doors.grpc_at_http())
            self._other = Refusing(wrong.text)
            self._ended = self.standing.spent = True
            self._transport.write(self._other.feed(data))
            self._patience.set(_LINGER_S)
        return self._ended

    def pause_writing(self) -> None:
        """A sender that does not read its replies sends nothing more either, and then is gone."""
        self.standing.spent = True
        self._inlet.hold("unread")
        self._write_patience.set(self._door.write_s)

    def resume_writing(self) -> None:
        self.standing.spent = self._over
        self._write_patience.off()
        self._inlet.free("unread")

    def _too_late(self) -> None:
        if self._ended:
            self.abort()
        elif self._busy:
            self._refuse(Refusal("slow", f"no whole request within {self._door.request_s:g} s"))
        elif self._serving is not None:
            self._patience.set(self._door.idle_s)  # it waits for us
        else:
            self._close()

    def _close(self) -> None:
        """Close when all is sent; not for ever, if the peer reads nothing."""
        self._ended = self._over = self.standing.spent = True
        self._transport.close()
        self._patience.set(self._door.write_s)

    def close_if_idle(self) -> None:
        if not self._busy and self._serving is None:
            self._close()

    def abort(self) -> None:
        self._transport.abort()

    def give_way(self) -> None:
        """Nothing is taken of what is not answered: it may come again, over another connection."""
        if self._serving is not None:
            self._serving.cancel()
        if not self._over and (self._busy or self._serving is not None):
            refusal = self._counted(crowded())
            if not self.standing.spent:
                self._transport.write(http_reply.refused(refusal, "json", True))
        self.abort()

    def _forget(self) -> None:
        """The request that is under way holds nothing any more."""
        if self._request.claim is not None:
            self._request.claim.release()
        self._request.body = bytearray()

    # ------------------------------------------------------------------ httptools
    def on_message_begin(self) -> None:
        self._busy = True
        if not self._ended:
            self._patience.set(self._door.request_s)

    def on_url(self, url: bytes) -> None:
        self._request.path = (self._request.path + url)[:256]

    def on_header(self, name: bytes, value: bytes | None) -> None:
        self._request.size += len(name) + len(value or b"")
        key = name.decode("latin-1").lower()
        if key in READ and not self._request.head_whole:
            self._request.headers[key] = (value or b"").decode("latin-1").strip()

    def on_headers_complete(self) -> None:
        request = self._request
        request.head_whole = self.standing.asked = True
        if self._ended:
            return
        request.method = self._parser.get_method().decode("latin-1")
        no = why_not(request, self._door.intake)
        if no is not None:  # its body would be read for nothing
            self._refuse(no, counted=False)
            return
        request.claim = self._door.intake.room.claim(self._refuse)
        if request.headers.get("expect", "").lower() == "100-continue" and not self._serving:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        request = self._request
        if self._ended or request.claim is None:
            return
        size = len(request.body) + len(data)
        self.standing.body(len(data))
        try:
            if size > MAX_BODY:
                raise too_large(size, MAX_BODY)
            request.claim.grow(len(data))
        except Refusal as no:
            self._refuse(no)
            return
        request.body += data

    def on_message_complete(self) -> None:
        if self._ended:
            return
        request, self._request = self._request, Request()
        request.keep_alive = self._parser.should_keep_alive()
        self._busy = False
        if request.claim is not None:
            request.claim.whole()
        self._add(request)
        if not request.keep_alive:
            self._ended = True  # what follows is no request of this connection

    # ------------------------------------------------------------------ requests
    def _counted(self, refusal: Refusal) -> Refusal:
        return self._door.intake.turned_away(refusal)

    def _add(self, answer: Request | Refusal) -> None:
        """To be answered in its turn."""
        self._waiting.append(answer)
        if len(self._waiting) >= _AHEAD:
            self._inlet.hold("ahead")
        if self._serving is None:
            self._serving = asyncio.get_running_loop().create_task(self._serve())

    async def _serve(self) -> None:
        while self._waiting:
            answer = self._waiting.popleft()
            if isinstance(answer, Refusal):
                self._finish(http_reply.refused(answer, self._request.form or "json", True))
            else:
                close = self._door.closing or not answer.keep_alive
                reply = await self._answer(answer, close)
                if close:
                    self._finish(reply)
                else:
                    self._transport.write(reply)
            if len(self._waiting) < _AHEAD:
                self._inlet.free("ahead")
        self._serving = None
        if not self._ended and not self._busy:
            self._patience.set(self._door.idle_s)

    async def _answer(self, request: Request, close: bool) -> bytes:
        form, wrapping, claim = request.form, request.wrapping, request.claim
        assert form is not None and wrapping is not None and claim is not None
        intake = self._door.intake
        signal = PATHS[request.plain_path]
        export = Export(request.body, wrapping, form, "otlp/http", signal)
        request.body = bytearray()
        try:
            if signal == "traces":
                reply = await intake.take(export, claim)
                if export.body:
                    self.standing.whole()
                return http_reply.taken(reply, form, close)
            if intake.other(export):
                return http_reply.taken(b"{}" if form == "json" else b"", form, close)
            raise Refusal("signal", f"{signal} are not accepted here, only traces at /v1/traces")
        except Refusal as no:
            return http_reply.refused(no, form, close)
        except Exception as fault:
            return http_reply.refused(self._door.intake.bug(fault), form, close)
        finally:
            claim.release()

    def _refuse(self, refusal: Refusal, counted: bool = True) -> None:
        """Answer in its turn and close, once: what else comes here is thrown away."""
        if self._ended:
            return
        self._ended = True
        self._inlet.end()
        self._forget()
        if counted:
            self._counted(refusal)
        self._add(refusal)

    def _finish(self, reply: bytes) -> None:
        """The last answer. Not closed at once: closing with bytes unread resets the connection,
        and the sender, still sending, would lose the answer."""
        self._ended = self._over = self.standing.spent = True
        self._transport.write(reply)
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._inlet.end()
        self._patience.set(_LINGER_S)
