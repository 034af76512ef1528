"""The receive path: which sockets are ready, what they brought, and when.

Timing-critical. A wake first reads all sockets that are ready, each with its stamps, and only
then parses: parsing one reply must not delay the stamps of another.
"""

from __future__ import annotations

import asyncio
import select
import ssl
from collections.abc import Callable
from time import monotonic_ns

from latdiag.load.wire import stamps
from latdiag.load.wire.connection import Connection, ExchangeFault
from latdiag.load.wire.exchange import Exchange
from latdiag.model.records import Outcome

READ_SIZE = 65536
#: Sockets that one wake reads before it parses; more are left for the next poll.
BATCH = 64
#: How long a reply may go on after its end as its sink sees it, before this client ends it; and
#: how long once so many in a row had to be ended that way.
_PATIENCE_S, _LESS_PATIENCE_S, _PATIENT = 0.25, 0.02, 3


class Receiver:
    """All connections of one transport, on one event loop.

    ``floor`` tells, after a wake of the event loop, an instant (MONOTONIC ns) before which
    nothing of what is now readable can have arrived, or 0. ``release`` is called with each
    connection whose reply is complete.
    """

    def __init__(
        self, floor: Callable[[], int] | None, release: Callable[[Connection], None]
    ) -> None:
        self._floor = floor
        self._release = release
        self._by_fd: dict[int, Connection] = {}
        self._epoll: select.epoll | None = None
        self._buffer = memoryview(bytearray(READ_SIZE * BATCH))
        self._previous_poll_ns = 0
        self._paused = False
        self._held = 0  # replies in a row that this client had to end
        self.loop: asyncio.AbstractEventLoop | None = None
        #: REALTIME minus MONOTONIC, to hold a kernel stamp against a floor
        self.real_minus_mono_ns = 0

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        if hasattr(select, "epoll"):
            # One epoll of our own below the loop's: a wake handles all its sockets without one
            # asyncio handle each, which would cost more than the read.
            self._epoll = select.epoll()
            loop.add_reader(self._epoll.fileno(), self._on_ready)

    def close(self) -> None:
        """Close all connections; who waits for a reply on one of them gets a fault."""
        for connection in list(self._by_fd.values()):
            self.fail(connection, ExchangeFault(Outcome.CANCELLED, "the client was closed"))
        if self._epoll is not None and self.loop is not None:
            self.loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None
        self.loop = None

    # ------------------------------------------------------------------ back pressure
    def pause(self) -> None:
        """Read nothing until ``resume``: what comes waits in the sockets, and then the senders."""
        if self._paused or self.loop is None:
            return
        self._paused = True
        for fd in self._watched():
            self.loop.remove_reader(fd)

    def resume(self) -> None:
        if not self._paused or self.loop is None:
            return
        self._paused = False
        if self._epoll is not None:
            self.loop.add_reader(self._epoll.fileno(), self._on_first_ready)
            return
        for connection in self._by_fd.values():
            self.loop.add_reader(connection.fd, self._on_readable, connection)

    def _watched(self) -> list[int]:
        return list(self._by_fd) if self._epoll is None else [self._epoll.fileno()]

    def _on_first_ready(self) -> None:
        """After a pause the loop's wake says nothing of when things came."""
        floor, self._floor = self._floor, None
        self._on_ready()
        self._floor = floor
        if self._epoll is not None and self.loop is not None and not self._paused:
            self.loop.add_reader(self._epoll.fileno(), self._on_ready)

    # ------------------------------------------------------------------ connections
    def register(self, connection: Connection) -> None:
        self._by_fd[connection.fd] = connection
        if self._epoll is not None:
            self._epoll.register(connection.fd, select.EPOLLIN | select.EPOLLRDHUP)
        else:
            assert self.loop is not None
            if not self._paused:
                self.loop.add_reader(connection.fd, self._on_readable, connection)

    def watch(self, connection: Connection) -> None:
        """Ask for, or stop asking for, the event that the socket takes more bytes."""
        if self._epoll is not None:
            more = select.EPOLLOUT if connection.wants_write else 0
            self._epoll.modify(connection.fd, select.EPOLLIN | select.EPOLLRDHUP | more)
        elif self.loop is not None:
            if connection.wants_write:
                self.loop.add_writer(connection.fd, self._on_writable, connection)
            else:
                self.loop.remove_writer(connection.fd)

    def drop(self, connection: Connection) -> None:
        if self._by_fd.get(connection.fd) is connection:
            del self._by_fd[connection.fd]
            if self._epoll is None and self.loop is not None:
                self.loop.remove_reader(connection.fd)
                self.loop.remove_writer(connection.fd)
        connection.close()  # closing takes the descriptor out of the epoll

    def fail(self, connection: Connection, fault: ExchangeFault) -> None:
        """End what is under way on a connection, and the connection."""
        if connection.exchange is not None:
            connection.finish(fault)
        elif connection.done is not None and not connection.done.done():  # the handshake
            connection.done.set_exception(fault)
        self.drop(connection)

    # ------------------------------------------------------------------ a wake
    def _on_ready(self) -> None:
        """Read all that is ready, then parse. Timing-critical: no allocation that can wait."""
        epoll = self._epoll
        if epoll is None:
            return
        polled_ns = monotonic_ns()
        ready = epoll.poll(0, BATCH)
        floor_ns = after_ns = self._previous_poll_ns
        if self._floor is not None:
            floor_ns = max(floor_ns, self._floor())
        if len(ready) < BATCH:  # else some that were ready by now are seen only next time
            self._previous_poll_ns = polled_ns
        buffer, offset, by_fd = self._buffer, 0, self._by_fd
        reads: list[tuple[Connection, int, int, int, int]] = []
        for fd, events in ready:
            connection = by_fd.get(fd)
            if connection is None:
                continue
            if events & select.EPOLLERR:
                connection.sent_stamps()
            if events & select.EPOLLOUT:
                self._on_writable(connection)
            if not events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLRDHUP):
                continue
            read = self._read(connection, buffer[offset : offset + READ_SIZE])
            if read is None:
                continue
            size, real_ns, user_ns = read
            if real_ns and real_ns - self.real_minus_mono_ns < floor_ns:
                # This came before the presumed wake, so the wake was late for all of the batch.
                floor_ns = after_ns
            reads.append((connection, offset, size, real_ns, user_ns))
            offset += READ_SIZE
        for connection, start, size, real_ns, user_ns in reads:
            # After a full read the rest may have lain there for long: no floor.
            known_ns = 0 if connection.more else floor_ns
            connection.more = size == READ_SIZE
            self._take(connection, buffer[start : start + size], real_ns, user_ns, known_ns)

    def _on_readable(self, connection: Connection) -> None:
        """Where there is no epoll: one socket, without a floor."""
        read = self._read(connection, self._buffer[:READ_SIZE])
        if read is not None:
            self._take(connection, self._buffer[: read[0]], read[1], read[2], 0)

    def _read(self, connection: Connection, into: memoryview) -> tuple[int, int, int] | None:
        """(bytes, kernel stamp, user stamp) of one read; None if there was nothing to parse."""
        try:
            if connection.stamped:
                size, ancillary, _, _ = connection.sock.recvmsg_into((into,), stamps.RX_ANCILLARY)
                user_ns = monotonic_ns()
                real_ns = stamps.received(ancillary) if ancillary else 0
            else:
                size = connection.sock.recv_into(into)
                user_ns, real_ns = monotonic_ns(), 0
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as broken:
            where = ", in mid-reply" if connection.got_bytes else ""
            text = f"the connection broke: {reason_of(broken)}{where}"
            self.fail(connection, ExchangeFault(Outcome.RESET, text))
            return None
        if size == 0:
            self._ended(connection)
            return None
        return size, real_ns, user_ns

    # ------------------------------------------------------------------ what was read
    def _take(
        self, connection: Connection, data: memoryview, real_ns: int, user_ns: int, floor_ns: int
    ) -> None:
        if connection.exchange is None:
            self._take_idle(connection, data)
            return
        try:
            connection.take(data, real_ns, user_ns, floor_ns)
        except ExchangeFault as fault:
            self.fail(connection, fault)
            return
        except Exception as bug:  # a sink's: the batch's other connections go on
            if connection.done is not None and not connection.done.done():
                connection.done.set_exception(bug)
            self.drop(connection)
            return
        exchange = connection.exchange
        if exchange is None:  # the reply is complete
            self._held = 0
            self._release(connection)
        elif exchange.marked and self.loop is not None:
            patience_s = _PATIENCE_S if self._held < _PATIENT else _LESS_PATIENCE_S
            self.loop.call_later(patience_s, self._let_go, connection, exchange, user_ns)

    def _let_go(self, connection: Connection, exchange: Exchange, over_ns: int) -> None:
        """End a reply that was over at ``over_ns`` and still goes on, and its connection."""
        if connection.exchange is not exchange:
            return
        self._held += 1
        exchange.held, exchange.done_ns = True, over_ns
        connection.reuse = False
        connection.finish(None)
        self._release(connection)

    def _take_idle(self, connection: Connection, data: memoryview) -> None:
        """Bytes while no request is under way: the handshake, or a server out of turn."""
        done = connection.done
        if connection.tls is None or done is None:
            # Between requests only TLS records such as session tickets may come.
            if connection.tls is None or not connection.absorb(data):
                self.drop(connection)
            return
        try:
            if connection.shake_hands(bytes(data)) and not done.done():
                done.set_result(None)
        except (ssl.SSLError, ExchangeFault) as fault:
            if not done.done():
                done.set_exception(fault)

    def _ended(self, connection: Connection) -> None:
        try:
            connection.end_of_stream()
        except ExchangeFault as fault:
            self.fail(connection, fault)
            return
        self.fail(connection, ExchangeFault(Outcome.TLS, "closed in the handshake"))

    def _on_writable(self, connection: Connection) -> None:
        try:
            connection.writable()
        except ExchangeFault as fault:
            self.fail(connection, fault)
            return
        if not connection.wants_write and connection.open:
            self.watch(connection)


def reason_of(fault: BaseException) -> str:
    """What an exception of the socket or of TLS says, in a few words."""
    if isinstance(fault, ssl.SSLCertVerificationError):
        return fault.verify_message or str(fault)
    if isinstance(fault, ssl.SSLError) and fault.reason:
        return fault.reason.lower().replace("_", " ")
    return (getattr(fault, "strerror", None) or str(fault) or type(fault).__name__).strip()
