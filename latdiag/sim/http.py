"""HTTP/1.1 without sockets: bytes in and requests out, and the bytes of replies.

What comes in is hostile: heads and bodies are bounded, and whatever is not a request is a
``Refusal``, after which the connection is of no further use (where the next request would begin
is not known).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

MAX_HEAD = 64 << 10
#: Ends the body of a reply that was sent in chunks.
LAST_CHUNK = b"0\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_MAX_CHUNK_LINE = 1024
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"}
_TYPES = {404: "NotFoundError"}
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_DIGITS = re.compile(r"[0-9]{1,15}")
_HEX = re.compile(r"[0-9A-Fa-f]{1,12}")


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

    ``chunks``: whether its sender understands a reply in chunks (HTTP/1.1).
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    chunks: bool

    @property
    def keeps(self) -> bool:
        """Whether the connection may bear another request after this one."""
        wish = self.headers.get("connection", "").lower()
        return wish != "close" if self.chunks else wish == "keep-alive"


class Requests:
    """The requests of one connection: ``feed`` what was read, take with ``next`` until None."""

    def __init__(self, max_body: int, max_head: int = MAX_HEAD) -> None:
        self._max_body = max_body
        self._max_head = max_head
        self._held = bytearray()
        self._scanned = 0
        self._head: Request | None = None
        self._length: int | None = None  # of the body; None: it comes in chunks
        self._body = bytearray()

    def feed(self, data: bytes) -> None:
        self._held += data

    @property
    def held(self) -> int:
        """Bytes that are kept."""
        return len(self._held) + len(self._body)

    @property
    def wants_continue(self) -> bool:
        """Whether the sender waits for leave to send the body."""
        head = self._head
        return head is not None and head.headers.get("expect", "").lower() == "100-continue"

    def next(self) -> Request | None:
        """The next whole request, or None until more has come. Raises Refusal."""
        if self._head is None:
            raw = self._take_head()
            if raw is None:
                return None
            self._head = _parse_head(raw)
            self._length = _body_length(self._head, self._max_body)
        if not (self._take_chunks() if self._length is None else self._take_length()):
            return None
        head, body = self._head, bytes(self._body)
        self._head = None
        self._body = bytearray()
        return Request(head.method, head.path, head.headers, body, head.chunks)

    def _take_head(self) -> bytes | None:
        held = self._held
        while held[:2] == b"\r\n":  # some clients send an empty line after a body
            del held[:2]
        end = held.find(b"\r\n\r\n", max(0, self._scanned - 3))
        if max(end, len(held) if end < 0 else 0) > self._max_head:
            raise Refusal(400, f"the head is larger than {self._max_head} bytes")
        if end < 0:
            self._scanned = len(held)
            return None
        raw = bytes(held[:end])
        del held[: end + 4]
        self._scanned = 0
        return raw

    def _take_length(self) -> bool:
        assert self._length is not None
        if len(self._held) < self._length:
            return False
        self._body += self._held[: self._length]
        del self._held[: self._length]
        return True

    def _take_chunks(self) -> bool:
        """Move chunks from what is held to the body; whether the last one was among them."""
        held = self._held
        while (end := held.find(b"\r\n", 0, _MAX_CHUNK_LINE)) >= 0:
            size = _chunk_size(bytes(held[:end]))
            if len(self._body) + size > self._max_body:
                raise Refusal(400, f"the body is larger than {self._max_body} bytes")
            if not size:
                return self._take_trailer(end + 2)
            if len(held) < end + size + 4:
                return False
            if held[end + 2 + size : end + size + 4] != b"\r\n":
                raise Refusal(400, "a chunk that is longer than it says")
            self._body += held[end + 2 : end + 2 + size]
            del held[: end + size + 4]
        if len(held) >= _MAX_CHUNK_LINE:
            raise Refusal(400, "a chunk without a size")
        return False

    def _take_trailer(self, start: int) -> bool:
        """Drop the trailer that follows the last chunk; whether it is whole."""
        held = self._held
        if held[start : start + 2] == b"\r\n":
            del held[: start + 2]
            return True
        end = held.find(b"\r\n\r\n", start)
        if end < 0:
            if len(held) - start > self._max_head:
                raise Refusal(400, f"the trailer is larger than {self._max_head} bytes")
            return False
        del held[: end + 4]
        return True


def _parse_head(raw: bytes) -> Request:
    """Request line and headers; the body is still to come."""
    first, *rest = raw.decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or not _TOKEN.fullmatch(parts[0]) or not parts[1]:
        raise Refusal(400, "not an HTTP request line")
    if parts[2] not in ("HTTP/1.1", "HTTP/1.0"):
        raise Refusal(400, "neither HTTP/1.1 nor HTTP/1.0")
    headers: dict[str, str] = {}
    for line in rest:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.fullmatch(name):
            raise Refusal(400, "a header line that is none")
        key, value = name.lower(), value.strip()
        if key == "content-length" and headers.get(key, value) != value:
            raise Refusal(400, "two lengths that differ")
        headers[key] = value
    path = parts[1].partition("?")[0]
    return Request(parts[0], path, headers, b"", parts[2] == "HTTP/1.1")


def _body_length(head: Request, limit: int) -> int | None:
    """Bytes of the body that a head announces; None: it comes in chunks."""
    coding = head.headers.get("transfer-encoding")
    stated = head.headers.get("content-length")
    if coding is not None:
        if coding.lower() != "chunked" or stated is not None:
            raise Refusal(400, "a body neither by its length nor in chunks")
        return None
    if stated is None:
        return 0
    if not _DIGITS.fullmatch(stated):
        raise Refusal(400, "a length that is not a number")
    if int(stated) > limit:
        raise Refusal(400, f"the body is larger than {limit} bytes")
    return int(stated)


def _chunk_size(line: bytes) -> int:
    text = line.partition(b";")[0].strip().decode("latin-1")
    if not _HEX.fullmatch(text):
        raise Refusal(400, "a chunk without a size")
    return int(text, 16)


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


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object that a body is. Raises Refusal."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise Refusal(400, "the body is not JSON") from exc
    if not isinstance(fields, dict):
        raise Refusal(400, "the body is not a JSON object")
    return fields
