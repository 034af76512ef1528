"""Servers that do what they are told, byte by byte: the other end of every fault in the tests.

A ``Peer`` listens on a socket of its own and calls its script once a request, in a thread for
each connection. The script says what goes out, in which segments, and how the connection ends.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it came. ``connection`` and ``place``: the how manieth of its peer, and of
    its connection, from 0. ``number``: of a load's request, from its id; None in the preflight.
    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    connection: int
    place: int

    def header(self, name: str) -> str | None:
        return next((v for k, v in self.headers if k.lower() == name), None)

    @property
    def number(self) -> int | None:
        tag, _, number = (self.header("x-request-id") or "").rpartition("-")
        return int(number, 16) if tag and not tag.startswith("preflight") else None

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


class Over(Exception):
    """The connection is at its end."""


class Wire:
    """The peer's end of a connection. Every ``send`` is a segment of its own."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._held = b""
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    # ------------------------------------------------------------------ in
    def request(self, connection: int, place: int) -> Asked | None:
        """The next request; None at the connection's end."""
        while b"\r\n\r\n" not in self._held:
            if not self._more():
                return None
        head, _, self._held = self._held.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = tuple((n, v.strip()) for n, _, v in (line.partition(":") for line in lines))
        size = int(next((v for n, v in headers if n.lower() == "content-length"), 0))
        while len(self._held) < size:
            if not self._more():
                return None
        body, self._held = self._held[:size], self._held[size:]
        method, target, _ = first.split(" ")
        return Asked(method, target, headers, body, connection, place)

    def _more(self) -> bool:
        data = self.sock.recv(1 << 16)
        self._held += data
        return bool(data)

    def hang(self) -> None:
        """Do nothing until the client has gone."""
        while self.sock.recv(1 << 16):
            pass
        raise Over

    # ------------------------------------------------------------------ out
    def send(self, *parts: bytes) -> None:
        for part in parts:
            self.sock.sendall(part)

    def reply(self, status: int, body: bytes | str = b"", *headers: str) -> None:
        """A whole reply with a length, in one segment."""
        data = body.encode() if isinstance(body, str) else body
        lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(data)}", *headers]
        self.send("\r\n".join([*lines, "", ""]).encode() + data)

    def head(self, *headers: str, status: int = 200) -> None:
        """The head of a chunked event stream."""
        kind = ["Content-Type: text/event-stream"]
        kind = [] if any(h.lower().startswith("content-type") for h in headers) else kind
        lines = [f"HTTP/1.1 {status} OK", "Transfer-Encoding: chunked", *kind, *headers, "", ""]
        self.send("\r\n".join(lines).encode())

    def chunk(self, *parts: bytes) -> None:
        """Each part as a chunk and a segment."""
        for data in parts:
            self.send(chunked(data))

    def end(self) -> None:
        self.send(b"0\r\n\r\n")

    def close(self) -> None:
        """In due form: a FIN after all that was sent."""
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)
        raise Over

    def reset(self) -> None:
        """With a RST, which also takes what the client has not read yet."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise Over


Script = Callable[[Wire, Asked], None]


@dataclass(slots=True)
class Peer:
    """A running server. ``asked``: all requests so far; ``connections``: how many there were."""

    script: Script
    scheme: str = "http"
    port: int = 0
    host: str = "127.0.0.1"
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    greeting: bytes = b""
    faults: list[BaseException] = field(default_factory=list)

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    def of_load(self) -> list[Asked]:
        """The requests of the load, without the preflight's."""
        return [one for one in self.asked if one.number is not None]


class _Listener:
    def __init__(self, peer: Peer, tls: ssl.SSLContext | None) -> None:
        self._peer, self._tls = peer, tls
        family = socket.AF_INET6 if ":" in peer.host else socket.AF_INET
        self._sock = socket.create_server((peer.host, 0), family=family, backlog=256)
        peer.port = self._sock.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._sock.accept()
            except OSError:
                return
            with self._lock:
                self._open.add(sock)
                number = self._peer.connections
                self._peer.connections += 1
            thread = threading.Thread(target=self._serve, args=(sock, number), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        wire: Wire | None = None
        try:
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
                with self._lock:
                    self._open.add(sock)
            wire = Wire(sock)
            wire.send(self._peer.greeting)
            place = 0
            while (asked := wire.request(number, place)) is not None:
                self._peer.asked.append(asked)
                self._peer.script(wire, asked)
                place += 1
        except (Over, OSError):  # OSError: the client has gone, or the test is over
            pass
        except BaseException as fault:  # the script's own: the test must hear of it
            self._peer.faults.append(fault)
        finally:
            with suppress(OSError):
                sock.close()

    def close(self) -> None:
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        with self._lock:
            for sock in self._open:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)


@contextmanager
def serving(
    script: Script,
    host: str = "127.0.0.1",
    tls: ssl.SSLContext | None = None,
    greeting: bytes = b"",
) -> Iterator[Peer]:
    """A peer for the time of the block; a fault of its script fails the test.

    ``greeting`` goes out on each connection before anything has come in.
    """
    peer = Peer(script, "http" if tls is None else "https", host=host, greeting=greeting)
    listener = _Listener(peer, tls)
    try:
        yield peer
    finally:
        listener.close()
    if peer.faults:
        raise peer.faults[0]


# ---------------------------------------------------------------------- an LLM endpoint
def chunked(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(**fields: Any) -> bytes:
    """One SSE event of a JSON document."""
    return b"data: " + json.dumps(fields, separators=(",", ":")).encode() + b"\n\n"


def delta(finish: str | None = None, **bears: Any) -> bytes:
    """One chunk of a chat reply."""
    choice = {"index": 0, "delta": bears, "finish_reason": finish}
    return event(id="chatcmpl-1", object="chat.completion.chunk", choices=[choice])


def usage(prompt: int, completion: int) -> bytes:
    counts = {"prompt_tokens": prompt, "completion_tokens": completion}
    return event(id="chatcmpl-1", choices=[], usage=counts)


ROLE = delta(role="assistant", content="")
DONE = b"data: [DONE]\n\n"


def tokens(n: int) -> list[bytes]:
    return [delta(content=f"w{i} ") for i in range(n)]


def whole(asked: Asked) -> list[bytes]:
    """The events of the reply that was asked for: role, tokens, finish, usage, end mark."""
    ask = asked.document
    n = ask.get("max_tokens") or ask.get("max_completion_tokens") or 7
    words = len(json.dumps(ask.get("messages", ask.get("prompt"))).split())
    told = [usage(words, n)] if (ask.get("stream_options") or {}).get("include_usage") else []
    return [ROLE, *tokens(n), delta("length"), *told, DONE]


def well(wire: Wire, asked: Asked) -> None:
    """The reply of a server without any fault."""
    wire.head()
    wire.chunk(*whole(asked))
    wire.end()


def models(wire: Wire, asked: Asked) -> bool:
    """Answer a question for the models, or for a page that is not there; False where it was none
    of these."""
    path = asked.target.partition("?")[0]
    if path.endswith(("/metrics", "/version")):
        wire.reply(404, "{}")
        return True
    if not path.endswith("/v1/models"):
        return False
    wire.reply(200, json.dumps({"object": "list", "data": [{"id": "tiny"}, {"id": "other"}]}))
    return True


def endpoint(of_number: Callable[[int], Script | None]) -> Script:
    """A server that is well but for the load's requests for which there is another script."""

    def script(wire: Wire, asked: Asked) -> None:
        if models(wire, asked):
            return
        number = asked.number
        other = None if number is None else of_number(number)
        (other or well)(wire, asked)

    return script


def every(n: int, scripts: Sequence[Script]) -> Callable[[int], Script | None]:
    """The scripts in turn, one for each ``n``-th request from the second on."""

    def of_number(number: int) -> Script | None:
        here = number % n == 1 and number // n < len(scripts)
        return scripts[number // n] if here else None

    return of_number
