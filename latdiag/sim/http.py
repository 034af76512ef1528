"""HTTP/1.1 without sockets: bytes in and requests out, and the bytes of replies.

What comes in is hostile: httptools reads it, heads and bodies are bounded here, and whatever is
not a request is a ``Refusal``, after which the connection is of no further use (where the next
request would begin is not known).
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass
from typing import NoReturn

import httptools

MAX_HEAD = 64 << 10
#: Ends the body of a reply that was sent in chunks.
LAST_CHUNK = b"0\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"}
_TYPES = {404: "NotFoundError"}


class Refusal(Exception):
    """An HTTP error to answer with: status and message, and the parameter that it is about."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param

    @property
    def body(self) -> bytes:
        """What the reply says, in the form of OpenAI's API."""
        error = {
            "message": str(self),
            "type": _TYPES.get(self.status, "BadRequestError"),
            "param": self.param,
            "code": self.status,
        }
        return json.dumps({"error": error}).encode()


@dataclass(frozen=True, slots=True)
class Request:
    """One whole request. ``path``: without its query. Header names are lower case.

    ``chunks``: whether its sender understands a reply in chunks (HTTP/1.1). ``keeps``: whether
    the connection may bear another request after this one.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    chunks: bool
    keeps: bool

    def must_be(self, method: str) -> None:
        """Refusal for another method."""
        if self.method != method:
            raise Refusal(405, f"{self.path} takes {method}")


class Requests:
    """The requests of one connection: ``feed`` what was read, take with ``next`` until None.

    What httptools calls back begins with ``on_``.
    """

    def __init__(self, max_body: int, max_head: int = MAX_HEAD) -> None:
        self._max_body = max_body
        self._max_head = max_head
        self._parser = httptools.HttpRequestParser(self)
        self._whole: deque[tuple[Request, int]] = deque()  # with the size of each
        self._refusal: Refusal | None = None
        self._begin()

    def _begin(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._head_whole = False
        self._body = bytearray()
        self._fields = 0  # bytes of the head's or the trailer's lines
        self._framing = 0  # bytes since the head or a piece of the body was whole

    def feed(self, data: bytes) -> None:
        """Read on; what is wrong with it is raised by ``next``, behind the requests before it."""
        if self._refusal is not None:
            return
        self._framing += len(data)
        try:
            self._parse(data)
        except httptools.HttpParserError as fault:
            self._refusal = self._refusal or Refusal(400, f"not HTTP/1.1: {fault}")
        if self._refusal is None and self._framing > self._max_head:
            self._refusal = self._too_long()

    def _parse(self, data: bytes) -> None:
        """Feed the parser; who offers another protocol is answered in this one (RFC 9110, 7.8).

        The parser ends at such a head: a new one goes on behind the same head without the offer.
        """
        while data:
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as offer:
                data = self._without_offer() + data[offer.args[0] :]
                self._parser = httptools.HttpRequestParser(self)
                self._begin()

    def _without_offer(self) -> bytes:
        method, version = self._parser.get_method(), self._parser.get_http_version()
        lines = [b"%b %b HTTP/%b" % (method, self._url, version.encode())]
        if "close" in self._headers.get("connection", "").lower():
            lines.append(b"connection: close")
        lines += [
            f"{name}: {value}".encode("latin-1")
            for name, value in self._headers.items()
            if name not in ("connection", "upgrade", "http2-settings")
        ]
        return b"\r\n".join([*lines, b"", b""])

    @property
    def held(self) -> int:
        """Bytes that are kept."""
        waiting = sum([size for _, size in self._whole])
        return waiting + len(self._body) + max(self._fields, self._framing)

    @property
    def wants_continue(self) -> bool:
        """Whether the sender waits for leave to send the body."""
        return self._head_whole and self._headers.get("expect", "").lower() == "100-continue"

    def next(self) -> Request | None:
        """The next whole request, or None until more has come. Raises Refusal."""
        if self._whole:
            return self._whole.popleft()[0]
        if self._refusal is not None:
            raise self._refusal
        return None

    # ------------------------------------------------------------------ called by the parser
    def on_url(self, url: bytes) -> None:
        self._url += url
        if len(self._url) > self._max_head:
            self._refuse(self._too_long())

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields += len(name) + len(value) + 4
        if self._fields + len(self._url) > self._max_head:
            self._refuse(self._too_long())
        if not self._head_whole:  # else it is of the trailer, which nobody reads
            self._headers[name.decode("latin-1").lower()] = value.decode("latin-1").strip()

    def on_headers_complete(self) -> None:
        if self._parser.get_http_version() not in ("1.1", "1.0"):
            self._refuse(Refusal(400, "neither HTTP/1.1 nor HTTP/1.0"))
        if self._parser.get_method() == b"CONNECT":
            self._refuse(Refusal(400, "no other protocol is spoken here"))
        if self._headers.get("transfer-encoding", "chunked").lower() != "chunked":
            self._refuse(Refusal(400, "a body neither by its length nor in chunks"))
        if int(self._headers.get("content-length", 0)) > self._max_body:
            self._refuse(self._too_large())
        self._head_whole = True
        self._fields = self._framing = 0

    def on_body(self, piece: bytes) -> None:
        self._framing = 0
        if len(self._body) + len(piece) > self._max_body:
            self._refuse(self._too_large())
        self._body += piece

    def on_message_complete(self) -> None:
        parser = self._parser
        if parser.should_upgrade():
            return  # the request comes again, without the offer
        request = Request(
            parser.get_method().decode("latin-1"),
            self._url.partition(b"?")[0].decode("latin-1"),
            self._headers,
            bytes(self._body),
            parser.get_http_version() == "1.1",
            parser.should_keep_alive(),
        )
        size = len(self._url) + sum([len(k) + len(v) for k, v in self._headers.items()])
        self._whole.append((request, size + len(self._body)))
        self._begin()

    def _refuse(self, refusal: Refusal) -> NoReturn:
        self._refusal = refusal
        raise refusal  # ends the parsing

    def _too_large(self) -> Refusal:
        return Refusal(400, f"the body is larger than {self._max_body} bytes")

    def _too_long(self) -> Refusal:
        part = "trailer, or the line before a chunk," if self._head_whole else "head"
        return Refusal(400, f"the {part} is larger than {self._max_head} bytes")


# ---------------------------------------------------------------------- replies
def reply(
    status: int, body: bytes, content_type: str = "application/json", *, keeps: bool = True
) -> bytes:
    """A whole reply. ``keeps``: whether the connection stays open after it."""
    close = "" if keeps else "Connection: close\r\n"
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n{close}\r\n"
    )
    return head.encode("latin-1") + body


def stream_head(*, chunks: bool = True, keeps: bool = True) -> bytes:
    """Status and headers of an event stream; without ``chunks`` its end is the connection's."""
    end = "Transfer-Encoding: chunked\r\n" if chunks else ""
    close = "" if keeps and chunks else "Connection: close\r\n"
    head = (
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
        f"Cache-Control: no-cache\r\n{end}{close}\r\n"
    )
    return head.encode()


def chunk(data: bytes) -> bytes:
    """One chunk of a reply's body. ``data`` is not empty."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def json_object(body: bytes) -> dict[str, object]:
    """The JSON object that a body is. Raises Refusal."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise Refusal(400, "the body is not JSON") from exc
    if not isinstance(fields, dict):
        raise Refusal(400, "the body is not a JSON object")
    return fields
