"""One HTTP/1.1 connection: bytes of a request out, stamped reads in, the reply parsed.

A connection does no waiting of its own: the transport reads its socket and calls ``take``.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from time import monotonic_ns

import httptools

from latdiag.load.wire import stamps
from latdiag.load.wire.exchange import Exchange, Sink
from latdiag.model.records import Outcome

#: The first segment of a request leaves apart, so that its departure has a stamp of its own:
#: what follows may wait for the congestion window, and that wait belongs to the network.
FIRST_SEND = 1200
HEADERS_LIMIT = 64 * 1024
REPLY_LIMIT = 256 * 1024 * 1024
#: Bytes of a reply that may come in reads without any of its body: chunk headers, trailers. The
#: parser holds an unfinished trailer and copies it at every read.
FRAMING_LIMIT = 8 * 1024 * 1024
HTTP_2 = "the server speaks HTTP/2 alone at this port, as gRPC does"


class ExchangeFault(Exception):
    """The attempt failed: an ``Outcome`` and one sentence.

    ``orderly``: the peer ended the connection in due form, which httpx tells from a reset.
    ``unanswered``: the connection ended before one byte of a reply, so the same request may be
    sent again.
    """

    def __init__(self, outcome: Outcome, text: str, orderly: bool = False) -> None:
        super().__init__(text)
        self.outcome = outcome
        self.text = text
        self.orderly = orderly
        self.unanswered = False


class _Surplus(Exception):
    """The server goes on after the end of its reply: raised to stop the parser there."""


class Connection:
    """A connected socket and the exchange that is under way on it, if any."""

    def __init__(self, sock: socket.socket, origin: tuple[str, str, int], stamped: bool) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.origin = origin
        self.stamped = stamped
        self.open = True
        #: whether another request may follow the one under way
        self.reuse = True
        self.more = False
        self.requests = 0
        self.bytes_sent = 0
        self.min_rtt_ns = 0
        self.tls: ssl.SSLObject | None = None
        self._tls_in: ssl.MemoryBIO | None = None
        self._tls_out: ssl.MemoryBIO | None = None
        self._unsent: memoryview | None = None
        #: whether a byte of a reply to the newest request has come; still true after its end
        self.got_bytes = False
        self._idle()

    def _idle(self) -> None:
        self.exchange: Exchange | None = None
        self.sink: Sink | None = None
        self.done: asyncio.Future[None] | None = None
        self.on_headers: Callable[[], None] | None = None

    # ------------------------------------------------------------------ TLS
    def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        self._tls_in, self._tls_out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._tls_in, self._tls_out, server_hostname=host)

    def shake_hands(self, data: bytes) -> bool:
        """One step of the TLS handshake with what was received; True when it is complete."""
        assert self.tls is not None and self._tls_in is not None
        if data:
            self._tls_in.write(data)
        try:
            self.tls.do_handshake()
            complete = True
        except ssl.SSLWantReadError:
            complete = False
        except ssl.SSLError:
            with suppress(ExchangeFault):
                self._flush_tls()  # the alert that tells the server why
            raise
        self._flush_tls()
        return complete

    def absorb(self, data: memoryview) -> bool:
        """TLS records between two requests (session tickets); False if the peer wants to end."""
        assert self.tls is not None and self._tls_in is not None
        self._tls_in.write(data)
        try:
            self.tls.read(1)
        except ssl.SSLWantReadError:
            return True
        except ssl.SSLError:
            return False
        return False  # it closes, or says what nobody asked for

    def _flush_tls(self) -> None:
        assert self._tls_out is not None
        data = self._tls_out.read()
        if data:
            self._send(data)

    # ------------------------------------------------------------------ out
    def begin(
        self,
        data: bytes,
        exchange: Exchange,
        sink: Sink,
        done: asyncio.Future[None],
        head: bool = False,
    ) -> None:
        """Write a request. ``done`` is resolved at the end of the reply, or gets the fault."""
        self.exchange, self.done = exchange, done
        self.sink = _unread if head else sink
        self.got_bytes = self._ended = self._parted = False
        self._body_bytes = self._header_bytes = self._framing_bytes = self._reads = 0
        self._pieces: list[bytes] = []
        self._complete = self._headers_complete = False
        self._parser = httptools.HttpResponseParser(self)
        before = stamps.path(self.sock)
        self._path_before = before
        exchange.reused = self.requests > 0
        self.requests += 1
        exchange.written_ns = monotonic_ns()
        first = data[:FIRST_SEND]
        self._write(first)
        exchange.wire_key = (self.bytes_sent - 1) & 0xFFFFFFFF
        if len(data) > FIRST_SEND:
            self._write(data[FIRST_SEND:])
        self._mark_last()

    def _mark_last(self) -> None:
        exchange = self.exchange
        if exchange is not None:
            waiting = len(self._unsent) if self._unsent is not None else 0
            exchange.last_key = (self.bytes_sent + waiting - 1) & 0xFFFFFFFF

    def _write(self, data: bytes) -> None:
        if self.tls is None:
            self._send(data)
            return
        rest = memoryview(data)
        while rest:  # OpenSSL takes one record, of 16 KiB at most, in each call
            try:
                rest = rest[self.tls.write(rest) :]
            except ssl.SSLError as fault:
                text = f"sending the request failed: {fault}"
                raise ExchangeFault(Outcome.RESET, text) from fault
        self._flush_tls()

    def _send(self, data: bytes) -> None:
        if self._unsent is not None:
            self._unsent = memoryview(bytes(self._unsent) + data)
            return
        try:
            sent = self.sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as fault:
            text = f"sending the request failed: {fault.strerror or fault}"
            raise ExchangeFault(Outcome.RESET, text) from fault
        self.bytes_sent += sent
        if sent < len(data):
            self._unsent = memoryview(data)[sent:]

    @property
    def wants_write(self) -> bool:
        return self._unsent is not None

    def writable(self) -> None:
        """Go on with what the socket did not take before."""
        if self._unsent is None:
            return
        rest, self._unsent = self._unsent, None
        self._send(bytes(rest))

    def sent_stamps(self) -> None:
        """Move the transmit stamps from the error queue to the exchange."""
        exchange = self.exchange
        for what, key, real_ns in stamps.drain_sent(self.sock):
            if exchange is not None:
                exchange.stamped(what, key, real_ns)

    # ------------------------------------------------------------------ in
    def take(self, data: memoryview, real_ns: int, user_ns: int, floor_ns: int) -> None:
        """One read. Timing-critical: parse HTTP framing, hand on the bytes, nothing else."""
        exchange = self.exchange
        if exchange is None:
            raise ExchangeFault(Outcome.PROTOCOL, "the server sent bytes that were not requested")
        fault: ExchangeFault | None = None
        ended = False
        self._reads += 1
        self._parted |= self.more
        try:
            if self.tls is None:
                self.got_bytes = True
                self._parser.feed_data(data)
            else:
                ended = self._take_tls(data)
        except (ExchangeFault, httptools.HttpParserError, httptools.HttpParserUpgrade) as broken:
            fault = self._fault_of(broken, data[:9] if self._reads == 1 else data[:0])
        if self._headers_complete and not exchange.headers_ns:
            exchange.headers_ns, exchange.headers_real_ns = user_ns, real_ns
            if self.on_headers is not None:
                self.on_headers()
        pieces = self._pieces
        if pieces:
            body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            pieces.clear()
            self._body_bytes += len(body)
            if self._body_bytes > REPLY_LIMIT:
                raise ExchangeFault(Outcome.PROTOCOL, "the reply is larger than 256 MiB")
            sink = self.sink
            if sink is not None:
                exchange.marked = sink(real_ns, user_ns, floor_ns, body) is True
        elif fault is None:
            fault = self._without_body(len(data))
        if self._complete:
            exchange.done_ns = user_ns
            self.finish(None)
        elif fault is not None:
            raise fault
        elif ended:
            self.end_of_stream()

    def _fault_of(self, broken: Exception, start: memoryview) -> ExchangeFault | None:
        """What stopped the parser, in our words; None where the reply was complete before it."""
        if self._complete:
            self._keep_alive = False
            return None
        if isinstance(broken, ExchangeFault):
            return broken
        if isinstance(broken, httptools.HttpParserUpgrade):
            return ExchangeFault(Outcome.PROTOCOL, "the server switched protocols")
        own = broken.__context__  # a fault that a callback of ours raised comes wrapped
        if isinstance(own, ExchangeFault):
            return own
        text = HTTP_2 if _is_http_2(start) else str(broken)
        return ExchangeFault(Outcome.PROTOCOL, f"broken HTTP reply: {text}")

    def _without_body(self, size: int) -> ExchangeFault | None:
        """A read without any of the body: bounded, for the parser keeps what is unfinished."""
        self._framing_bytes += size
        if not self._headers_complete and self._framing_bytes > HEADERS_LIMIT:
            return _too_many_headers()
        if self._framing_bytes > FRAMING_LIMIT:
            text = "8 MiB of the reply hold no content"
            return ExchangeFault(Outcome.PROTOCOL, text)
        return None

    def _take_tls(self, data: memoryview) -> bool:
        """Decrypt and parse one read; True if the peer closes the connection after it."""
        assert self.tls is not None and self._tls_in is not None
        self._tls_in.write(data)
        while True:
            try:
                plain = self.tls.read(65536)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLError as fault:
                text = f"TLS failed in mid-stream: {fault.reason or fault}"
                raise ExchangeFault(Outcome.TLS, text) from fault
            if not plain:  # the peer closes
                self._ended = True
                break
            self.got_bytes = True
            self._parser.feed_data(plain)
        if self._tls_out is not None and self._tls_out.pending:
            self._flush_tls()  # an answer of the protocol's own, such as to a key update
        return self._ended

    def end_of_stream(self) -> None:
        """The peer closed its side: the end of a reply without a length, or a cut."""
        if self.exchange is None:
            return
        exchange = self.exchange
        if self._headers_complete and not self._framed and not self._complete:
            exchange.done_ns = monotonic_ns()
            self._keep_alive = False
            self.finish(None)
            return
        where = "in mid-reply" if self.got_bytes else "before any reply"
        outcome = Outcome.CUT if self.got_bytes else Outcome.RESET
        raise ExchangeFault(outcome, f"the server closed the connection {where}", orderly=True)

    def finish(self, fault: ExchangeFault | None) -> None:
        """End the exchange: path figures, stamps that still wait, then wake the caller."""
        exchange, done = self.exchange, self.done
        if exchange is None:
            return
        if self.stamped:
            self.sent_stamps()
        now, before = stamps.path(self.sock), self._path_before
        exchange.min_rtt_ns = self.min_rtt_ns = now.min_rtt_ns
        exchange.retransmits = now.retransmits - before.retransmits
        exchange.out_of_order = now.out_of_order - before.out_of_order
        segments = now.segments - before.segments
        whole = 0 < segments <= self._reads and not self._parted
        exchange.stamped_each = self.stamped and whole
        if fault is not None:
            exchange.fault, exchange.fault_text = fault.outcome.value, fault.text
            exchange.done_ns = exchange.done_ns or monotonic_ns()
            self.open = False
        elif not self._keep_alive or self._ended or self.wants_write:
            self.open = False
        elif self.sink is _unread and self._body_bytes:
            self.open = False  # a body where none may be: what follows cannot be told apart
        self._idle()
        if done is not None and not done.done():
            if fault is None:
                done.set_result(None)
            else:
                done.set_exception(fault)

    def close(self) -> None:
        self.open = False
        with suppress(OSError):
            self.sock.close()

    # ------------------------------------------------------------------ httptools' callbacks
    _framed = False
    _keep_alive = False
    _ended = False

    def on_message_begin(self) -> None:
        if self._complete:
            raise _Surplus

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > HEADERS_LIMIT:
            raise _too_many_headers()
        if self.exchange is not None and not self._headers_complete:  # else it is a trailer
            self.exchange.headers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        exchange = self.exchange
        if exchange is None:
            return
        if 100 <= status < 200:  # an interim reply; the real one follows
            exchange.headers.clear()
            return
        exchange.status = status
        framed = status in (204, 304)
        for name, value in exchange.headers:
            low = name.lower()
            if low == b"content-length":
                framed = True
                if int(value) > REPLY_LIMIT and self.sink is not _unread:
                    text = "the reply announces more than 256 MiB"
                    raise ExchangeFault(Outcome.PROTOCOL, text)
            elif low == b"transfer-encoding":
                framed = framed or value.lower().endswith(b"chunked")
            elif low == b"content-encoding":
                exchange.encoding = value.decode("latin-1").strip().lower()
        self._framed = framed
        self._headers_complete = True
        if self.sink is _unread:  # the parser does not know that a reply to HEAD has no body
            self._complete = True
            self._keep_alive = self._parser.should_keep_alive()

    def on_body(self, data: bytes) -> None:
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        if self._headers_complete:
            self._complete = True
            self._keep_alive = self._parser.should_keep_alive()  # only now, later it is reset


def _is_http_2(start: memoryview) -> bool:
    """Whether it is a frame of HTTP/2 (RFC 9113, 4.1): SETTINGS or GOAWAY, of stream 0."""
    return len(start) == 9 and start[0] == 0 and start[3] in (4, 7) and not any(start[5:])


def _unread(_real_ns: int, _user_ns: int, _floor_ns: int, _data: bytes) -> None:
    """The sink of a reply to HEAD."""


def _too_many_headers() -> ExchangeFault:
    return ExchangeFault(Outcome.PROTOCOL, "the reply's headers exceed 64 KiB")
