"""One accepted connection: raw bytes with their stamps and offsets in, requests out."""

from __future__ import annotations

import socket
import ssl
from time import monotonic_ns, time_ns
from typing import TYPE_CHECKING

from . import http11, kernel, tls

if TYPE_CHECKING:
    from .stream import Stream

#: All connections read into this one buffer: one thread, one read at a time.
_BUFFER = memoryview(bytearray(262_144))


class Closed(Exception):
    """The peer is gone, or does not speak the protocol."""


class Connection:
    """``rx`` and ``tx`` count raw bytes (ciphertext under TLS) in each direction."""

    __slots__ = (
        "accept_mono",
        "first_real",
        "handled",
        "last_real",
        "number",
        "out",
        "pending_tx",
        "port",
        "read_mono",
        "read_real",
        "reader",
        "rx",
        "rx_first",
        "sock",
        "stream",
        "tls",
        "tx",
    )

    def __init__(
        self, sock: socket.socket, port: int, number: int, context: ssl.SSLContext | None
    ) -> None:
        self.sock = sock
        self.port = port
        self.number = number
        self.accept_mono = monotonic_ns()
        self.reader = http11.Reader()
        self.tls = tls.Layer(context) if context else None
        self.stream: Stream | None = None
        self.handled = 0
        self.rx = self.tx = self.rx_first = 0
        self.first_real = self.last_real = self.read_mono = self.read_real = 0
        self.out = b""
        self.pending_tx: dict[int, int] = {}

    def receive(self) -> None:
        """One read from the socket into the request reader. Raises Closed."""
        try:
            count, ancillary, _, _ = self.sock.recvmsg_into((_BUFFER,), kernel.RX_ANCILLARY)
        except BlockingIOError:
            return
        except OSError as error:
            raise Closed from error
        self.read_mono, self.read_real = monotonic_ns(), time_ns()
        if not count:
            raise Closed
        stamp = kernel.arrival_stamp(ancillary)
        fresh, begins = self.reader.idle, self.rx
        self.rx += count
        data: bytes | memoryview = _BUFFER[:count]
        if self.tls is not None:
            data, begins = self._decrypt(self.tls, _BUFFER[:count], begins)
        if not data:
            return
        if fresh:
            self.first_real, self.rx_first = stamp, begins
        self.last_real = stamp
        self.reader.feed(data)

    def _decrypt(self, layer: tls.Layer, data: memoryview, begins: int) -> tuple[bytes, int]:
        """(plaintext, raw offset where application data of this read began)."""
        try:
            if layer.done:
                return layer.open(data), begins
            done = layer.shake(data)
            if done:
                # What the handshake left unread is the beginning of the first request.
                begins = self.rx - layer.incoming.pending
            reply = layer.outgoing.read()
            if reply:
                self.send(reply)
            return (layer.open(None), begins) if done else (b"", begins)
        except (ssl.SSLError, OSError) as error:
            raise Closed from error

    def rx_last(self) -> int:
        """Raw offset one past what the requests taken so far used."""
        left = self.tls.incoming.pending if self.tls else len(self.reader.buffer)
        return self.rx - left

    def send(self, data: bytes) -> bool:
        """Sends now what the kernel takes and keeps the rest; False when there is a rest.

        Raises OSError when the peer is gone.
        """
        self.tx += len(data)
        if self.out:
            self.out += data
            return False
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        if sent == len(data):
            return True
        self.out = data[sent:]
        return False

    def flush(self) -> bool:
        """Sends kept bytes; True when none is left. Raises Closed."""
        try:
            self.out = self.out[self.sock.send(self.out) :]
        except BlockingIOError:
            return False
        except OSError as error:
            raise Closed from error
        return not self.out
