"""The transport's own promises: its connections, its instants, its limits, and who waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from latdiag.load.wire import receive, stamps
from latdiag.load.wire.exchange import Exchange
from latdiag.load.wire.transport import StampedTransport

from .peers import Asked, Over, Peer, Wire, serving

NO_STAMPS = stamps.why_unavailable()
needs_stamps = pytest.mark.skipif(NO_STAMPS is not None, reason=str(NO_STAMPS))


def hello(wire: Wire, asked: Asked) -> None:
    wire.reply(200, f"hello {asked.connection}.{asked.place}")


def hang(wire: Wire, _asked: Asked) -> None:
    wire.hang()


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 20))


class Taken:
    """A sink that remembers."""

    def __init__(self, act: Callable[[], None] | None = None) -> None:
        self.reads: list[tuple[int, int, int, bytes]] = []
        self._act = act

    def __call__(self, real_ns: int, user_ns: int, floor_ns: int, data: bytes) -> None:
        self.reads.append((real_ns, user_ns, floor_ns, data))
        if self._act is not None:
            self._act()

    @property
    def body(self) -> bytes:
        return b"".join(read[3] for read in self.reads)


async def post(
    client: httpx.AsyncClient,
    url: str,
    sink: Taken | None = None,
    exchange: Exchange | None = None,
    limit_s: float = 20.0,
    body: bytes = b"{}",
) -> httpx.Response:
    """One request as a load makes it; without a sink, as anybody makes it."""
    extensions: dict[str, Any] = {"latdiag.exchange": exchange or Exchange()}
    extensions["timeout"] = {"connect": limit_s, "read": limit_s}
    if sink is not None:
        extensions["latdiag.sink"] = sink
    request = client.build_request("POST", url, content=body, extensions=extensions)
    return await client.send(request)


def with_client(act: Callable[[httpx.AsyncClient], Awaitable[Any]], **options: Any) -> Any:
    async def work() -> Any:
        async with httpx.AsyncClient(transport=StampedTransport(**options)) as client:
            return await act(client)

    return run(work())


# ---------------------------------------------------------------------- connections
def test_the_connection_used_last_is_used_next() -> None:
    """Last in, first out: its congestion window is the widest, and the search takes no time."""

    async def act(client: httpx.AsyncClient) -> list[str]:
        await asyncio.gather(*(post(client, peer.url) for _ in range(7)))
        return [(await post(client, peer.url)).text for _ in range(23)]

    with serving(hello) as peer:
        replies = with_client(act)
    assert peer.connections == 7
    last = peer.asked[6].connection if peer.asked[6].place == 0 else None
    assert len({reply.split(".")[0] for reply in replies}) == 1 and last is not None
    assert [int(reply.split(".")[1]) for reply in replies] == list(range(1, 24))


def test_fresh_connections_are_closed_by_the_client_after_their_reply() -> None:
    ended: list[int] = []

    def script(wire: Wire, asked: Asked) -> None:
        hello(wire, asked)
        assert wire.sock.recv(1) == b""
        ended.append(asked.connection)
        raise Over

    async def act(client: httpx.AsyncClient) -> None:
        for _ in range(7):
            exchange = Exchange()
            await post(client, peer.url, Taken(), exchange)
            assert not exchange.reused and exchange.tcp_ns > 0

    with serving(script) as peer:
        with_client(act, reuse=False)
    assert peer.connections == 7 and sorted(ended) == list(range(7))


def test_a_request_is_repeated_once_however_many_connections_have_died() -> None:
    """All kept connections die at their second request; so does every fresh one at its first."""
    healthy = True

    def script(wire: Wire, asked: Asked) -> None:
        if asked.place or not healthy:
            raise Over
        hello(wire, asked)

    async def act(client: httpx.AsyncClient) -> Exchange:
        nonlocal healthy
        await asyncio.gather(*(post(client, peer.url) for _ in range(5)))
        healthy = False
        exchange = Exchange()
        with pytest.raises(httpx.RemoteProtocolError):
            await post(client, peer.url, Taken(), exchange)
        return exchange

    with serving(script) as peer:
        exchange = with_client(act)
    assert len(peer.asked) == 5 + 2 and peer.connections == 6
    assert (exchange.fault, exchange.reused) == ("reset", False)


def test_bytes_out_of_turn_end_a_kept_connection() -> None:
    def script(wire: Wire, asked: Asked) -> None:
        hello(wire, asked)
        time.sleep(0.1)
        wire.send(b"HTTP/1.1 408 Timeout\r\nContent-Length: 0\r\n\r\n")
        wire.hang()

    async def act(client: httpx.AsyncClient) -> list[str]:
        first = (await post(client, peer.url)).text
        await asyncio.sleep(0.3)
        return [first, (await post(client, peer.url)).text]

    with serving(script) as peer:
        assert with_client(act) == ["hello 0.0", "hello 1.0"]


# ---------------------------------------------------------------------- instants
@needs_stamps
def test_the_instants_of_an_exchange_are_in_order() -> None:
    """Kernel stamps are of REALTIME: they are compared with each other and with its clock."""

    def script(wire: Wire, _asked: Asked) -> None:
        wire.head()
        for _ in range(3):
            time.sleep(0.01)
            wire.chunk(b"x")
        wire.end()

    async def act(client: httpx.AsyncClient) -> list[tuple[Exchange, Taken]]:
        found = []
        for _ in range(3):
            exchange, sink = Exchange(), Taken()
            assert (await post(client, peer.url, sink, exchange, body=b"x" * 5000)).content == b""
            found.append((exchange, sink))
        return found

    before_ns = time.time_ns()
    with serving(script) as peer:
        found = with_client(act)
    after_ns = time.time_ns()
    for number, (e, sink) in enumerate(found):
        assert e.reused == (number > 0) and sink.body == b"xxx"
        if not e.reused:
            assert 0 < e.sent_ns <= e.dns_ns <= e.tcp_ns <= e.written_ns
        assert e.sent_ns <= e.written_ns <= e.headers_ns <= sink.reads[0][1] <= e.done_ns
        real = [read[0] for read in sink.reads]
        assert before_ns < e.wire_real_ns <= e.wire_last_real_ns <= e.acked_real_ns
        assert e.wire_last_real_ns < e.headers_real_ns <= real[0] <= real[-1] < after_ns
        assert e.min_rtt_ns > 0 and e.retransmits == e.resent_ns == 0
        offset_ns = time.time_ns() - time.monotonic_ns()
        for real_ns, user_ns, _, _ in sink.reads:  # stamped before it was read
            assert real_ns - offset_ns < user_ns + 1_000_000


def test_without_kernel_stamps_all_else_is_the_same() -> None:
    async def act(client: httpx.AsyncClient) -> tuple[Exchange, Taken]:
        exchange, sink = Exchange(), Taken()
        await post(client, peer.url, sink, exchange)
        return exchange, sink

    with serving(hello) as peer:
        exchange, sink = with_client(act, stamped=False)
    assert sink.body == b"hello 0.0"
    assert exchange.wire_real_ns == exchange.acked_real_ns == sink.reads[0][0] == 0
    assert exchange.written_ns <= sink.reads[0][1] <= exchange.done_ns


def test_a_system_without_epoll(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receive, "select", SimpleNamespace())

    async def act(client: httpx.AsyncClient) -> list[bytes]:
        sinks = [Taken() for _ in range(7)]
        await asyncio.gather(
            *(post(client, peer.url, sink, body=b"x" * (1 << 20)) for sink in sinks)
        )
        return [sink.body for sink in sinks]

    with serving(hello) as peer:
        assert sorted(with_client(act)) == [f"hello {i}.0".encode() for i in range(7)]


# ---------------------------------------------------------------------- limits
def test_a_limit_is_for_the_whole_of_a_load_request() -> None:
    def script(wire: Wire, _asked: Asked) -> None:
        wire.head()
        while True:
            wire.chunk(b"x")
            time.sleep(0.05)

    async def act(client: httpx.AsyncClient) -> tuple[Exchange, bytes]:
        exchange, sink = Exchange(), Taken()
        with pytest.raises(httpx.ReadTimeout):
            await post(client, peer.url, sink, exchange, limit_s=0.5)
        return exchange, sink.body

    with serving(script) as peer:
        exchange, body = with_client(act)
    assert (exchange.fault, exchange.status) == ("timeout", 200) and len(body) >= 2
    assert exchange.done_ns - exchange.sent_ns >= 0.5e9


def _handed_over(limit_s: float, cancel: bool) -> tuple[Peer, Any]:
    """A request that takes over the connection of another before that one's task has resumed."""

    def script(wire: Wire, asked: Asked) -> None:
        if asked.place == 0:
            hello(wire, asked)
        elif limit_s < 20:
            wire.hang()
        else:
            time.sleep(0.1)
            hello(wire, asked)

    async def act(client: httpx.AsyncClient) -> Any:
        loop = asyncio.get_running_loop()
        last_byte = loop.create_future()
        first = loop.create_task(post(client, peer.url, Taken(lambda: last_byte.set_result(1))))

        async def second() -> Any:
            await last_byte
            if cancel:
                first.cancel()
            exchange, sink = Exchange(), Taken()
            try:
                await post(client, peer.url, sink, exchange, limit_s)
            except httpx.ReadTimeout:
                return exchange, "timeout"
            return exchange, sink.body.decode()

        ended = await second()
        await asyncio.gather(first, return_exceptions=True)
        return ended

    with serving(script) as peer:
        return peer, with_client(act)


def test_a_limit_outlives_the_end_of_the_connections_last_request() -> None:
    peer, (exchange, end) = _handed_over(limit_s=0.3, cancel=False)
    assert (exchange.reused, end, peer.connections) == (True, "timeout", 1)


def test_a_late_cancellation_leaves_the_connection_to_the_next_request() -> None:
    peer, (exchange, end) = _handed_over(limit_s=20, cancel=True)
    assert (exchange.reused, end, peer.connections) == (True, "hello 0.1", 1)


# ---------------------------------------------------------------------- ends
@pytest.mark.parametrize("sink", [True, False], ids=["sink", "stream"])
def test_cancelling_closes_the_connection(sink: bool) -> None:
    gone: list[int] = []

    def script(wire: Wire, asked: Asked) -> None:
        if asked.connection:
            hello(wire, asked)
            return
        wire.head()
        try:
            wire.hang()
        finally:
            gone.append(asked.connection)

    async def act(client: httpx.AsyncClient) -> str:
        task = asyncio.ensure_future(post(client, peer.url, Taken() if sink else None))
        while not peer.asked:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while not gone:
            await asyncio.sleep(0.01)
        return (await post(client, peer.url)).text

    with serving(script) as peer:
        assert with_client(act) == "hello 1.0"


def test_leaving_a_stream_early_closes_its_connection() -> None:
    gone: list[int] = []

    def script(wire: Wire, asked: Asked) -> None:
        if asked.connection:
            hello(wire, asked)
            return
        wire.head()
        try:
            while True:
                wire.chunk(b"x" * 1000)
                time.sleep(0.001)
        finally:
            gone.append(asked.connection)

    async def act(client: httpx.AsyncClient) -> str:
        async with client.stream("GET", peer.url) as reply:
            async for _ in reply.aiter_raw():
                break
        while not gone:
            await asyncio.sleep(0.01)
        return (await post(client, peer.url)).text

    with serving(script) as peer:
        assert with_client(act) == "hello 1.0"


@pytest.mark.parametrize("sink", [True, False], ids=["sink", "stream"])
def test_closing_the_client_ends_who_still_waits(sink: bool) -> None:
    async def work() -> None:
        client = httpx.AsyncClient(transport=StampedTransport())
        exchange = Exchange()
        task = asyncio.ensure_future(post(client, peer.url, Taken() if sink else None, exchange))
        while not peer.asked:
            await asyncio.sleep(0.01)
        await client.aclose()
        with pytest.raises(httpx.ReadError):
            await task
        assert exchange.fault == "cancelled"

    with serving(hang) as peer:
        run(work())


def test_a_sink_that_raises_ends_its_own_request_only() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    async def act(client: httpx.AsyncClient) -> tuple[list[Any], list[bytes]]:
        sinks = [Taken(fail if i % 3 == 1 else None) for i in range(23)]
        asked = (post(client, peer.url, sink) for sink in sinks)
        ends = await asyncio.gather(*asked, return_exceptions=True)
        return ends, [sink.body for sink in sinks]

    with serving(hello) as peer:
        ends, bodies = with_client(act)
    for i, end in enumerate(ends):
        assert isinstance(end, ZeroDivisionError if i % 3 == 1 else httpx.Response)
    assert all(body.startswith(b"hello ") for body in bodies)


def test_one_transport_is_for_one_event_loop() -> None:
    transport = StampedTransport()

    async def ask() -> None:
        async with httpx.AsyncClient(transport=transport) as client:
            await post(client, peer.url)

    async def ask_and_leave_open() -> None:
        await post(httpx.AsyncClient(transport=transport), peer.url)

    with serving(hello) as peer:
        run(ask())
        run(ask_and_leave_open())  # closed before: it may begin anew
        with pytest.raises(RuntimeError, match="one event loop"):
            run(ask())
