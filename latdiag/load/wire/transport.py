"""An httpx transport over our own sockets, whose reads and writes bear kernel stamps.

``httpx.AsyncClient(transport=StampedTransport())`` works as with httpx's own transport, for
HTTP/1.1 over TCP or TLS. Request extensions give more:

- ``latdiag.exchange``: an ``Exchange`` to be filled with the instants of the request;
- ``latdiag.fresh``: True for a connection of its own, which serves no other request;
- ``latdiag.sink``: called with every read of the body and its stamps. The response then comes
  when the whole reply is there, with an empty stream: the body passes no async generator.

Why not httpx's own transport: its pool walks all connections at every request's start and end,
and a chunk costs 200 us and more; at 100 streams it is the bottleneck that it measures.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from time import monotonic_ns
from typing import NamedTuple

import httpx

from latdiag.load.trust import Trust
from latdiag.load.wire import stamps
from latdiag.load.wire.connection import Connection, ExchangeFault
from latdiag.load.wire.dial import Dialer
from latdiag.load.wire.exchange import Exchange, Sink
from latdiag.load.wire.messages import (
    ReplyStream,
    Trace,
    as_httpx,
    head_of,
    no_trace,
    response_of,
    step,
)
from latdiag.load.wire.receive import Receiver, reason_of
from latdiag.model.records import Outcome

_Origin = tuple[str, str, int]


class _Asked(NamedTuple):
    """One request under way."""

    request: httpx.Request
    data: bytes
    exchange: Exchange
    sink: Sink
    #: where httpx reads the body in its ordinary way; None where the sink takes it
    stream: ReplyStream | None
    #: seconds, by httpx's names
    timeouts: dict[str, float | None]
    trace: Trace
    fresh: bool


class _Limit(NamedTuple):
    """When to give up an exchange. With a ``stream`` each wait has the limit, else the whole."""

    deadline_ns: int
    limit_ns: int
    stream: ReplyStream | None
    connection: Connection


class StampedTransport(httpx.AsyncBaseTransport):
    """HTTP/1.1 with kernel stamps. One event loop; not for threads.

    ``reuse`` keeps connections alive. ``floor`` tells, after a wake of the event loop, an instant
    (MONOTONIC ns) before which nothing of what is now readable can have arrived, or 0.
    """

    def __init__(
        self,
        *,
        verify: bool | ssl.SSLContext = True,
        reuse: bool = True,
        stamped: bool = True,
        floor: Callable[[], int] | None = None,
    ) -> None:
        self._verify = verify
        self._reuse = reuse
        self._stamped = stamped
        self._receiver = Receiver(floor, self._release)
        self._free: dict[_Origin, list[Connection]] = {}
        #: not by connection: that may serve the next request before the last one's task resumes
        self._limits: dict[Exchange, _Limit] = {}
        self._expiry: asyncio.TimerHandle | None = None
        self._dialer = Dialer()
        #: address and port of the newest connection's other end
        self.peer: str | None = None

    @property
    def real_minus_mono_ns(self) -> int:
        """REALTIME minus MONOTONIC, to hold a kernel stamp against a floor; kept by the caller."""
        return self._receiver.real_minus_mono_ns

    @real_minus_mono_ns.setter
    def real_minus_mono_ns(self, value: int) -> None:
        self._receiver.real_minus_mono_ns = value

    def pause(self) -> None:
        """Read nothing more until ``resume``, for a caller who cannot keep what comes.

        The kernel goes on stamping; a stamp that is overwritten meanwhile has no floor.
        """
        self._receiver.pause()

    def resume(self) -> None:
        """Read again."""
        self._receiver.resume()

    # ------------------------------------------------------------------ httpx
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        extensions = request.extensions
        exchange = extensions.get("latdiag.exchange") or Exchange()
        sink: Sink | None = extensions.get("latdiag.sink")
        exchange.sent_ns = exchange.sent_ns or monotonic_ns()
        try:
            body = await request.aread()
            stream = None
            if sink is None:
                stream = ReplyStream(request, exchange)
                sink = stream.sink
            asked = _Asked(
                request,
                head_of(request, body) + body,
                exchange,
                sink,
                stream,
                extensions.get("timeout") or {},
                extensions.get("trace") or no_trace,
                bool(extensions.get("latdiag.fresh")),
            )
            if stream is None:
                await self._send(asked)
                return response_of(exchange, b"")
            return await self._streamed(asked, stream)
        except ExchangeFault as fault:
            exchange.fault, exchange.fault_text = fault.outcome.value, fault.text
            exchange.done_ns = exchange.done_ns or monotonic_ns()
            raise as_httpx(fault, request, exchange) from fault

    async def aclose(self) -> None:
        """Close all connections; whoever still waits for a reply gets a ReadError."""
        self._receiver.close()
        self._free.clear()
        if self._expiry is not None:
            self._expiry.cancel()

    # ------------------------------------------------------------------ one request
    async def _send(self, asked: _Asked) -> None:
        """Send on a free or fresh connection and wait for the end of the reply."""
        exchange = asked.exchange
        try:
            await self._try(await self._connection(asked, asked.fresh), asked)
        except ExchangeFault as fault:
            # A kept-alive connection may have been closed while this request was on its way: if
            # no byte of a reply came, a fresh connection gets the same request once.
            if not (exchange.reused and fault.unanswered):
                raise
            _forget(exchange)
        else:
            return
        await self._try(await self._connection(asked, fresh=True), asked)

    async def _try(self, connection: Connection, asked: _Asked) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            if asked.trace is no_trace:
                self._begin(connection, asked, done)
                if asked.stream is not None:
                    connection.on_headers = asked.stream.headers_came.set
                await done
            else:
                await self._try_traced(connection, asked, done)
        except ExchangeFault as fault:
            fault.unanswered = fault.outcome is Outcome.RESET and not connection.got_bytes
            self._receiver.drop(connection)
            raise
        except BaseException:
            if connection.exchange is asked.exchange:
                connection.finish(ExchangeFault(Outcome.CANCELLED, "cancelled"))
            elif done.done():
                raise  # the reply had come, and the connection is another's by now
            self._receiver.drop(connection)
            raise
        finally:
            self._limits.pop(asked.exchange, None)

    async def _try_traced(
        self, connection: Connection, asked: _Asked, done: asyncio.Future[None]
    ) -> None:
        """The same, told step by step under httpcore's names."""
        trace, exchange, request = asked.trace, asked.exchange, asked.request
        came = asyncio.Event()
        done.add_done_callback(lambda _: came.set())

        def on_headers() -> None:
            came.set()
            if asked.stream is not None:
                asked.stream.headers_came.set()

        async with step(trace, "http11.send_request_headers", request=request):
            self._begin(connection, asked, done)
            connection.on_headers = on_headers
        async with step(trace, "http11.send_request_body", request=request):
            pass  # it left with the headers
        async with step(trace, "http11.receive_response_headers", request=request) as told:
            await came.wait()
            if not exchange.headers_ns:
                await done  # it holds what went wrong
            told.value = (b"HTTP/1.1", exchange.status, b"", list(exchange.headers))
        async with step(trace, "http11.receive_response_body", request=request):
            await done
        async with step(trace, "http11.response_closed"):
            pass

    def _begin(self, connection: Connection, asked: _Asked, done: asyncio.Future[None]) -> None:
        limit_s = asked.timeouts.get("read")
        if limit_s is not None:
            limit_ns = int(limit_s * 1e9)
            since_ns = monotonic_ns() if asked.stream is not None else asked.exchange.sent_ns
            limit = _Limit(since_ns + limit_ns, limit_ns, asked.stream, connection)
            self._limits[asked.exchange] = limit
        head = asked.request.method == "HEAD"
        connection.begin(asked.data, asked.exchange, asked.sink, done, head)
        if connection.wants_write:
            self._receiver.watch(connection)

    async def _streamed(self, asked: _Asked, stream: ReplyStream) -> httpx.Response:
        """httpx's ordinary use: the response comes with the headers, its body as a stream."""
        stream.task = task = asyncio.ensure_future(self._send(asked))
        task.add_done_callback(lambda _: stream.ended())
        try:
            await stream.headers_came.wait()
        except asyncio.CancelledError:
            task.cancel()
            raise
        if task.done() and not asked.exchange.headers_ns:
            task.result()
        return response_of(asked.exchange, stream)

    # ------------------------------------------------------------------ connections
    async def _connection(self, asked: _Asked, fresh: bool) -> Connection:
        self._start()
        url = asked.request.url
        port = url.port or (443 if url.scheme == "https" else 80)
        origin = (url.scheme, url.host, port)
        free = self._free.get(origin)
        while free and not fresh:
            connection = free.pop()  # the one used last: its congestion window is widest
            if connection.open:
                return connection
        if url.scheme not in ("http", "https"):
            raise ExchangeFault(Outcome.PROTOCOL, f"{url.scheme!r} is not http or https")
        limit_s = asked.timeouts.get("connect")
        try:
            async with asyncio.timeout(limit_s):
                return await self._connected(origin, asked)
        except TimeoutError as fault:
            text = f"no connection to {url.host} port {port} within {limit_s:.3g} s"
            raise ExchangeFault(Outcome.TIMEOUT, text) from fault

    async def _connected(self, origin: _Origin, asked: _Asked) -> Connection:
        scheme, host, port = origin
        sock = await self._dialer.dial(host, port, asked.exchange, asked.trace)
        try:
            address, number = sock.getpeername()[:2]
        except OSError as fault:  # accepted and reset at once
            sock.close()
            text = f"{host} port {port} broke the connection at once: {reason_of(fault)}"
            raise ExchangeFault(Outcome.RESET, text) from fault
        self.peer = f"{address} port {number}"
        connection = Connection(sock, origin, self._stamped and stamps.enable(sock))
        connection.reuse = self._reuse and not asked.fresh
        self._receiver.register(connection)
        if scheme == "https":
            async with step(asked.trace, "connection.start_tls", server_hostname=host):
                await self._shake_hands(connection, host, asked.exchange)
        return connection

    async def _shake_hands(self, connection: Connection, host: str, exchange: Exchange) -> None:
        if isinstance(self._verify, bool):
            self._verify = Trust(verify=self._verify).context()
        connection.done = asyncio.get_running_loop().create_future()
        try:
            connection.start_tls(self._verify, host)
            connection.shake_hands(b"")
            await connection.done
        except (ssl.SSLError, OSError, ExchangeFault) as fault:
            self._receiver.drop(connection)
            text = f"TLS with {host} failed: {reason_of(fault)}"
            raise ExchangeFault(Outcome.TLS, text) from fault
        except BaseException:
            self._receiver.drop(connection)
            raise
        connection.done = None
        exchange.tls_ns = monotonic_ns()

    def _start(self) -> None:
        loop = asyncio.get_running_loop()
        if self._receiver.loop is loop:
            return
        if self._receiver.loop is not None:
            raise RuntimeError("a StampedTransport serves one event loop")
        self._receiver.start(loop)
        self._expire()

    def _release(self, connection: Connection) -> None:
        """The reply is complete: the connection serves the next request, or goes."""
        if connection.open and connection.reuse:
            self._free.setdefault(connection.origin, []).append(connection)
        else:
            self._receiver.drop(connection)

    def _expire(self) -> None:
        """End what is over its time. Coarse on purpose: one timer for all requests."""
        if (loop := self._receiver.loop) is None:
            return
        now = monotonic_ns()
        for exchange, limit in list(self._limits.items()):
            deadline_ns, limit_ns, stream, connection = limit
            if now <= deadline_ns or connection.exchange is not exchange:
                continue
            text = f"the reply did not end within {limit_ns / 1e9:.3g} s"
            if stream is not None:
                if stream.last_ns + limit_ns > now:  # something came since
                    later_ns = stream.last_ns + limit_ns
                    self._limits[exchange] = limit._replace(deadline_ns=later_ns)
                    continue
                text = f"nothing arrived for {limit_ns / 1e9:.3g} s"
            self._receiver.fail(connection, ExchangeFault(Outcome.TIMEOUT, text))
        self._expiry = loop.call_later(0.1, self._expire)


def _forget(exchange: Exchange) -> None:
    """Clear what the lost first try left, but for when the request began and what it cost."""
    sent_ns = exchange.sent_ns
    Exchange.__init__(exchange)
    exchange.sent_ns = sent_ns
    exchange.retry_ns = monotonic_ns() - sent_ns
