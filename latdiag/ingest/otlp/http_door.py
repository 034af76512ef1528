"""OTLP over HTTP: the door at port 4318. HTTP/1.1 by httptools over asyncio, POST only."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

from latdiag.ingest.otlp.intake import SIGNALS, Export, Intake
from latdiag.ingest.otlp.limits import (
    IDLE_S,
    MAX_BODY,
    MAX_CONNECTIONS,
    REQUEST_S,
    RETRY_S,
    Refusal,
    too_large,
)
from latdiag.model.errors import LocalFault
from latdiag.model.text import shown

_MAX_HEAD = 32 << 10
#: After an answer that ends a connection, what still comes is thrown away for so long.
_LINGER_S = 1.0
_PATHS = {f"/v1/{signal}": signal for signal in SIGNALS}
_FORMS = {"application/x-protobuf": "protobuf", "application/json": "json"}
_TYPES = {form: kind for kind, form in _FORMS.items()}
_WRAPPINGS = {"": "", "identity": "", "gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}
#: HTTP status by reason; what is not named is 400, which no exporter sends again.
_STATUS = {
    "origin": 403,
    "token": 401,
    "path": 404,
    "signal": 404,
    "method": 405,
    "slow": 408,
    "too_large": 413,
    "bomb": 413,
    "too_many": 413,
    "type": 415,
    "encoding": 415,
    "busy": 429,
    "head": 431,
    "disk": 507,
    "disk_cap": 507,
    "closing": 503,
    "crowded": 503,
}
_PHRASES = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
    507: "Insufficient Storage",
}
#: google.rpc.Code of the body that explains a refusal: INVALID_ARGUMENT, RESOURCE_EXHAUSTED.
_INVALID, _EXHAUSTED = 3, 8


class HttpDoor:
    """An HTTP server of the export paths in the running event loop.

    ``request_s``: seconds that a request may take to come, from its first byte; ``idle_s``:
    seconds that a connection may lie idle.
    """

    def __init__(
        self, intake: Intake, request_s: float = REQUEST_S, idle_s: float = IDLE_S
    ) -> None:
        self.intake = intake
        self.request_s = request_s
        self.idle_s = idle_s
        self.closing = False
        self.connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    async def open(self, address: str) -> str:
        """Listen at HOST:PORT (port 0: any); the address that is listened at.

        LocalFault where that cannot be.
        """
        host, _, port = address.rpartition(":")
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                lambda: _Connection(self), host.strip("[]"), int(port)
            )
        except OSError as fault:
            reason = shown(fault.strerror or fault, 200)
            raise LocalFault(
                f"cannot listen at {shown(address, 80)} for OTLP over HTTP: {reason}",
                "stop what listens there, or choose another port",
            ) from fault
        return f"{host}:{self._server.sockets[0].getsockname()[1]}"

    async def close(self, grace_s: float) -> None:
        """Take no new connection; what is under way has ``grace_s`` to end."""
        if self._server is None:
            return
        self.closing = True
        self._server.close()
        loop = asyncio.get_running_loop()
        until = loop.time() + grace_s
        for connection in list(self.connections):
            connection.close_if_idle()
        while self.connections and loop.time() < until:
            await asyncio.sleep(0.01)
        for connection in list(self.connections):
            connection.abort()


class _Connection(asyncio.Protocol):
    """One connection. Requests on it are answered one after the other, as they are parsed."""

    def __init__(self, door: HttpDoor) -> None:
        import httptools

        self._door = door
        self._parser = httptools.HttpRequestParser(self)
        self._upgrade = httptools.HttpParserUpgrade
        self._transport: Any = None
        self._timer: asyncio.TimerHandle | None = None
        #: a request is under way; the connection has been refused, what comes is thrown away
        self._busy = self._ended = False
        self._reset()

    def _reset(self) -> None:
        self._path = b""
        self._headers: dict[str, str] = {}
        self._received = self._head_size = self._body_size = 0
        self._head_whole = False
        self._body: list[bytes] = []

    # ------------------------------------------------------------------ asyncio
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        crowded = len(self._door.connections) >= MAX_CONNECTIONS
        self._door.connections.add(self)
        if crowded:
            text = f"there are {MAX_CONNECTIONS} connections already"
            self._refuse(Refusal("crowded", text, retry=True), counted=False)
            return
        self._wait(self._door.request_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._door.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        import httptools

        if self._ended:
            return
        if not self._busy:
            self._busy = True
            self._wait(self._door.request_s)
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except self._upgrade:
            self._refuse(Refusal("malformed", "no other protocol is spoken here"))
        except httptools.HttpParserError:
            self._refuse(Refusal("malformed", "that is not HTTP/1.1"))
        if self._busy and not self._head_whole and self._received > _MAX_HEAD:
            self._refuse(_long_head())

    def pause_writing(self) -> None:
        """A sender that does not read its replies sends nothing more either."""
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._transport.resume_reading()

    def _wait(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._too_late)

    def _too_late(self) -> None:
        if self._busy and not self._ended:
            self._refuse(Refusal("slow", f"no whole request within {self._door.request_s:g} s"))
        else:
            self._transport.close()

    def close_if_idle(self) -> None:
        if not self._busy:
            self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    # ------------------------------------------------------------------ httptools
    def on_url(self, url: bytes) -> None:
        self._path = (self._path + url)[:256]

    def on_header(self, name: bytes, value: bytes | None) -> None:
        self._head_size += len(name) + len(value or b"")
        key = name.decode("latin-1").lower()
        if key in _READ:
            self._headers[key] = (value or b"").decode("latin-1").strip()

    def on_headers_complete(self) -> None:
        self._head_whole = True
        if self._ended:
            return
        no = self._why_not()
        if no is not None:  # its body would be read for nothing
            self._refuse(no, counted=False)
        elif self._headers.get("expect", "").lower() == "100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        if self._ended:
            return
        self._body_size += len(data)
        if self._body_size > MAX_BODY:
            self._refuse(too_large(self._body_size, MAX_BODY))
            return
        self._body.append(data)

    def on_message_complete(self) -> None:
        if self._ended:
            return
        self._answer()
        self._reset()
        self._busy = False
        if self._door.closing or not self._parser.should_keep_alive():
            self._transport.close()
        else:
            self._wait(self._door.idle_s)

    # ------------------------------------------------------------------ requests
    def _counted(self, refusal: Refusal) -> Refusal:
        return self._door.intake.turned_away(refusal)

    def _why_not(self) -> Refusal | None:
        """Why a request is not read further, from its head; it is counted. None: it is."""
        said = self._headers
        if self._head_size > _MAX_HEAD:
            return self._counted(_long_head())
        no = self._door.intake.may_come_in(said.get("authorization"), said.get("origin"))
        if no is not None:
            return no
        if self._path.partition(b"?")[0].decode("latin-1") not in _PATHS:
            return self._counted(Refusal("path", "spans are taken at /v1/traces"))
        if self._parser.get_method() != b"POST":
            return self._counted(Refusal("method", "exports are sent by POST"))
        if self._form() is None:
            kinds = " or ".join(_FORMS)
            return self._counted(Refusal("type", f"the content type must be {kinds}"))
        if self._wrapping() is None:
            return self._counted(Refusal("encoding", "the content may be encoded by gzip only"))
        length = said.get("content-length", "")
        if length.isdigit() and int(length[:20]) > MAX_BODY:
            return self._counted(too_large(int(length[:20]), MAX_BODY))
        return None

    def _form(self) -> str | None:
        return _FORMS.get(self._headers.get("content-type", "").partition(";")[0].strip().lower())

    def _wrapping(self) -> str | None:
        return _WRAPPINGS.get(self._headers.get("content-encoding", "").lower())

    def _answer(self) -> None:
        form, wrapping = self._form(), self._wrapping()
        assert form is not None and wrapping is not None
        signal = _PATHS[self._path.partition(b"?")[0].decode("latin-1")]
        export = Export(b"".join(self._body), wrapping, form, "otlp/http", signal)
        self._body = []
        try:
            if signal == "traces":
                reply = self._door.intake.take(export)
            elif self._door.intake.other(export):
                reply = "{}" if form == "json" else b""
            else:
                raise Refusal("signal", f"{signal} are not taken here, only traces")
        except Refusal as no:
            self._write(_STATUS.get(no.reason, 400), _explained(no, form), form, no.retry)
            return
        self._write(200, reply if isinstance(reply, bytes) else reply.encode(), form, False)

    def _refuse(self, refusal: Refusal, counted: bool = True) -> None:
        """Answer and close, once: what else comes on this connection is thrown away.

        Not at once: closing with bytes unread resets the connection, and the sender, still
        sending, would lose the answer.
        """
        if self._ended:
            return
        self._ended, self._body = True, []
        if counted:
            self._counted(refusal)
        form = self._form() or "json"
        status = _STATUS.get(refusal.reason, 400)
        self._write(status, _explained(refusal, form), form, refusal.retry, close=True)
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._wait(_LINGER_S)

    def _write(
        self, status: int, body: bytes, form: str, retry: bool, close: bool = False
    ) -> None:
        head = [
            f"HTTP/1.1 {status} {_PHRASES[status]}",
            f"Content-Type: {_TYPES[form]}",
            f"Content-Length: {len(body)}",
        ]
        if retry:
            head.append(f"Retry-After: {RETRY_S}")
        if status == 405:
            head.append("Allow: POST")
        if status == 401:
            head.append("WWW-Authenticate: Bearer")
        if close or self._door.closing:
            head.append("Connection: close")
        with suppress(RuntimeError, OSError):
            self._transport.write("\r\n".join(head).encode() + b"\r\n\r\n" + body)


#: Headers that are looked at; the others are not kept.
_READ = frozenset(
    {
        "authorization",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "origin",
    }
)


def _long_head() -> Refusal:
    return Refusal("head", f"the head of the request has over {_MAX_HEAD} bytes")


def _explained(refusal: Refusal, form: str) -> bytes:
    """The body of a refusal: a ``google.rpc.Status`` in the form of the export."""
    code = _EXHAUSTED if refusal.retry else _INVALID
    if form == "json":
        return json.dumps({"code": code, "message": refusal.text}).encode()
    from google.rpc.status_pb2 import Status

    return bytes(Status(code=code, message=refusal.text).SerializeToString())
