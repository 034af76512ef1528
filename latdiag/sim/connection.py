"""One client of a server: requests with the instant of their arrival, and bounded output."""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Callable
from time import monotonic_ns, time_ns

from latdiag.sim import http
from latdiag.sim.loop import READ, WRITE, Loop

#: The socket option and the kind of message that bears a receive stamp (Linux; not in socket).
SO_TIMESTAMPNS = 35
#: What a client may leave unread, besides what its kernel and ours hold, before it is dropped.
MAX_OUTPUT = 256 << 10
_SEND_BUFFER = 128 << 10
#: What is still read of a client that was told off, so that it can read the reply.
_MAX_IGNORED = 16 << 20
_READ_SIZE = 64 << 10
_TIMESPEC = struct.Struct("@qq")
#: A stamp that is older than this was not taken by a clock that agrees with ours.
_OLDEST_NS = 1_000_000_000


def want_stamps(sock: socket.socket) -> None:
    """Ask the kernel to stamp what a socket receives, where it can."""
    if sys.platform.startswith("linux"):
        try:
            sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        except OSError:
            pass  # then the instant of the read must do


def receive(sock: socket.socket) -> tuple[bytes, int]:
    """What a socket holds, and the instant (MONOTONIC ns) at which the last of it arrived: the
    kernel's stamp, else that of the read. Raises OSError."""
    data, messages, _, _ = sock.recvmsg(_READ_SIZE, 64)
    now_ns = monotonic_ns()
    for level, kind, raw in messages:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS) and len(raw) >= 16:
            seconds, rest = _TIMESPEC.unpack_from(raw)
            age_ns = time_ns() - (seconds * 1_000_000_000 + rest)
            if 0 <= age_ns < _OLDEST_NS:
                return data, now_ns - age_ns
    return data, now_ns


class Connection:
    """A client. ``serve`` gets one request at a time with the instant at which its last byte
    arrived; call ``done`` when it is answered. ``gone`` is called once, however it ends.
    """

    __slots__ = ("_gone", "_ignored", "_loop", "_mask", "_out", "_requests", "_serve", "_sock",
                 "_told_to_go_on", "busy", "closed")  # fmt: skip

    def __init__(
        self,
        sock: socket.socket,
        loop: Loop,
        max_body: int,
        serve: Callable[[Connection, http.Request, int], None],
        gone: Callable[[Connection, bool], None],
    ) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        want_stamps(sock)
        self._sock, self._loop = sock, loop
        self._serve, self._gone = serve, gone
        self._requests = http.Requests(max_body)
        self._out = bytearray()
        self._told_to_go_on = False
        self._ignored = -1  # bytes that were not looked at any more; -1: all are
        self.busy = self.closed = False
        self._mask = READ
        loop.watch(sock, READ, self._ready)

    # ------------------------------------------------------------------ in
    def _ready(self, mask: int) -> None:
        if mask & WRITE and not self.closed:
            self._flush()
        if mask & READ and not self.closed:
            self._read()

    def _read(self) -> None:
        try:
            data, at_ns = receive(self._sock)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data, at_ns = b"", 0
        if not data:
            self.drop()
        elif self._ignored >= 0:
            self._ignored += len(data)
            if self._ignored > _MAX_IGNORED:
                self.drop()
        else:
            self._requests.feed(data)
            if not self.busy:
                self._next(at_ns)
            elif self._requests.held > http.MAX_HEAD:
                self.drop(spoilt=True)  # it sends and sends, and does not wait for the reply

    def _next(self, at_ns: int) -> None:
        try:
            request = self._requests.next()
        except http.Refusal as refusal:
            self.send(http.reply(refusal.status, refusal.body, keeps=False))
            self._say_goodbye()
            return
        if request is not None:
            self.busy, self._told_to_go_on = True, False
            self._serve(self, request, at_ns)
        elif self._requests.wants_continue and not self._told_to_go_on:
            self._told_to_go_on = True
            self.send(http.CONTINUE)

    def done(self, *, keeps: bool) -> None:
        """The request is answered; whether another may come."""
        self.busy = False
        if self.closed:
            return
        if keeps:
            self._next(monotonic_ns())
        else:
            self._say_goodbye()

    # ------------------------------------------------------------------ out
    def send(self, data: bytes) -> None:
        """Send, or keep until there is room; who has let too much pile up is dropped."""
        if self.closed:
            return
        if self._out:
            if len(self._out) > MAX_OUTPUT:
                self.drop(spoilt=True)
            else:
                self._out += data
            return
        try:
            sent = self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self.drop()
            return
        if sent < len(data):
            self._out += data[sent:]
            self._want(READ | WRITE)

    def _flush(self) -> None:
        try:
            sent = self._sock.send(self._out) if self._out else 0
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.drop()
            return
        del self._out[:sent]
        if not self._out:
            self._want(READ)
            if self._ignored >= 0:
                self._shut()

    def _want(self, mask: int) -> None:
        if mask != self._mask:
            self._mask = mask
            self._loop.watch(self._sock, mask, self._ready)

    def _say_goodbye(self) -> None:
        """Close once all is sent and the client has closed: until then it can read the reply."""
        if not self.closed and self._ignored < 0:
            self._ignored = 0
            if not self._out:
                self._shut()

    def _shut(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.drop()

    def drop(self, *, spoilt: bool = False) -> None:
        """Close at once; ``spoilt``: because of what the client did, and so that it notices."""
        if self.closed:
            return
        self.closed = True
        self._loop.forget(self._sock)
        if spoilt:
            linger = struct.pack("ii", 1, 0)
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._sock.close()
        self._gone(self, spoilt)
