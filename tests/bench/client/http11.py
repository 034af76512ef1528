"""Requests out of a byte stream: HTTP/1.1 as far as clients of an LLM endpoint speak it."""

from __future__ import annotations

from dataclasses import dataclass, field


class BadRequest(Exception):
    """The peer does not speak HTTP/1.1; the connection is of no further use."""


@dataclass(slots=True)
class Request:
    method: str
    target: str
    headers: dict[bytes, bytes]
    body: bytes = b""
    size: int = 0
    """Bytes of head and body as they came, framing included."""


@dataclass(slots=True)
class Reader:
    """Feed it bytes, take requests. ``expects`` turns true when a body waits for 100-continue."""

    buffer: bytearray = field(default_factory=bytearray)
    expects: bool = False
    _request: Request | None = None
    _length: int = 0
    _chunked: bool = False
    _body: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes | memoryview) -> None:
        self.buffer += data

    @property
    def idle(self) -> bool:
        """No byte of a next request has come."""
        return self._request is None and not self.buffer

    def take(self) -> Request | None:
        """The next complete request, or None until more bytes come. Raises BadRequest."""
        if self._request is None and not self._head():
            return None
        request = self._request
        assert request is not None
        if self._chunked:
            if not self._chunks():
                return None
            request.body = bytes(self._body)
        else:
            if len(self.buffer) < self._length:
                return None
            request.body = bytes(self.buffer[: self._length])
            del self.buffer[: self._length]
            request.size += self._length
        self._request = None
        self.expects = False
        return request

    def _head(self) -> bool:
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self.buffer) > 65536:
                raise BadRequest("head over 64 KiB")
            return False
        first, *lines = bytes(self.buffer[:end]).split(b"\r\n")
        del self.buffer[: end + 4]
        words = first.split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            raise BadRequest("not an HTTP/1.x request line")
        headers = {}
        for line in lines:
            name, _, value = line.partition(b":")
            headers[name.strip().lower()] = value.strip()
        self._request = Request(words[0].decode("ascii"), words[1].decode("ascii"), headers)
        self._request.size = end + 4
        self._chunked = b"chunked" in headers.get(b"transfer-encoding", b"").lower()
        self._length = int(headers.get(b"content-length", b"0"))
        self._body = bytearray()
        self.expects = headers.get(b"expect", b"").lower() == b"100-continue"
        return True

    def _chunks(self) -> bool:
        """Moves whole chunks into the body; True after the last one and its trailers."""
        while True:
            end = self.buffer.find(b"\r\n")
            if end < 0:
                return False
            size = int(bytes(self.buffer[:end]).partition(b";")[0], 16)
            if size == 0:
                # Trailers: none, or lines up to an empty one.
                stop = self.buffer.find(b"\r\n\r\n", end)
                if stop < 0:
                    return False
                self._drop(stop + 4)
                return True
            if len(self.buffer) < end + 2 + size + 2:
                return False
            self._body += self.buffer[end + 2 : end + 2 + size]
            self._drop(end + 2 + size + 2)

    def _drop(self, count: int) -> None:
        del self.buffer[:count]
        assert self._request is not None
        self._request.size += count
