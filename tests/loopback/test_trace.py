"""What a trace extension is told: httpcore's events at httpcore's moments, and name resolution."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from latdiag.load.wire.transport import StampedTransport

from .peers import Asked, Over, Peer, Wire, serving
from .test_transport import Taken, post, with_client

Told = list[tuple[str, dict[str, Any]]]
CONNECT = ["connection.connect_tcp.started", "connection.connect_tcp.complete"]
RESOLVE = ["connection.resolve_dns.started", "connection.resolve_dns.complete"]


def script(wire: Wire, asked: Asked) -> None:
    if asked.target == "/die":
        raise Over
    if asked.target == "/cut":
        wire.head()
        wire.chunk(b"first")
        time.sleep(0.05)
        wire.close()
    wire.head()
    wire.chunk(b"hello")
    wire.end()


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    with serving(script) as running:
        yield running


def traced(transport: httpx.AsyncBaseTransport, url: str, times: int = 1) -> Told:
    """The events of some requests in a row, one of which may fail."""
    told: Told = []

    async def trace(name: str, info: dict[str, Any]) -> None:
        told.append((name, info))

    async def act() -> None:
        async with httpx.AsyncClient(transport=transport) as client:
            for _ in range(times):
                try:
                    await client.get(url, extensions={"trace": trace})
                except httpx.TransportError as fault:
                    told.append((type(fault).__name__, {}))

    asyncio.run(act())
    return told


def names(told: Told) -> list[str]:
    return [name for name, _ in told]


@pytest.mark.parametrize("times", [1, 3])
def test_the_events_are_httpcores_and_name_resolution(peer: Peer, times: int) -> None:
    """Also of a kept connection's requests, which have no connect."""
    ours = names(traced(StampedTransport(), peer.url, times))
    theirs = names(traced(httpx.AsyncHTTPTransport(), peer.url, times))
    assert [name for name in ours if name not in RESOLVE] == theirs
    assert ours[:2] == RESOLVE and len([n for n in ours if n in RESOLVE]) == 2


def test_the_infos_hold_what_httpcores_hold(peer: Peer) -> None:
    ours = dict(traced(StampedTransport(), peer.url + "/x"))
    theirs = dict(traced(httpx.AsyncHTTPTransport(), peer.url + "/x"))
    for name in ("http11.send_request_headers.started", "http11.receive_response_body.started"):
        assert ours[name]["request"].method in ("GET", b"GET")
        assert theirs[name]["request"].method == b"GET"
    name = "http11.receive_response_headers.complete"
    version, status, _, headers = ours[name]["return_value"]
    assert (version, status) == theirs[name]["return_value"][:2]
    assert headers == theirs[name]["return_value"][3]
    assert ours[RESOLVE[0]] == {"host": "127.0.0.1", "port": peer.port}
    assert ours[CONNECT[0]]["host"] == "127.0.0.1"


@pytest.mark.parametrize("path", ["/die", "/cut"])
def test_a_step_that_fails_says_so(peer: Peer, path: str) -> None:
    """As httpcore says it, down to the step."""
    ours = names(traced(StampedTransport(), peer.url + path))
    theirs = names(traced(httpx.AsyncHTTPTransport(), peer.url + path))
    failed = [name for name in theirs if name.endswith(".failed")]
    assert failed and [name for name in ours if name.endswith(".failed")] == failed
    assert ours[-1] == theirs[-1] == "RemoteProtocolError"


def test_a_connect_that_fails_says_so() -> None:
    ours = names(traced(StampedTransport(), "http://nosuch.invalid"))
    assert ours == [RESOLVE[0], "connection.resolve_dns.failed", "ConnectError"]
    ours = names(traced(StampedTransport(), "http://127.0.0.1:9"))
    assert ours == [*RESOLVE, CONNECT[0], "connection.connect_tcp.failed", "ConnectError"]


def test_a_handshake_that_fails_says_so() -> None:
    transport = StampedTransport(verify=ssl.create_default_context())
    with serving(script, greeting=b"HTTP/1.1 400 Bad Request\r\n\r\n") as plain:
        ours = names(traced(transport, plain.url.replace("http:", "https:")))
    start = "connection.start_tls"
    assert ours == [*RESOLVE, *CONNECT, f"{start}.started", f"{start}.failed", "ConnectError"]


def test_the_headers_are_told_of_before_the_body(peer: Peer) -> None:
    """The moment of an event means something: the body is not awaited for the headers' event."""
    when: dict[str, int] = {}

    async def trace(name: str, _info: dict[str, Any]) -> None:
        when[name] = time.monotonic_ns()

    def slow(wire: Wire, _asked: Asked) -> None:
        wire.head()
        time.sleep(0.2)
        wire.chunk(b"late")
        wire.end()

    async def act() -> None:
        async with httpx.AsyncClient(transport=StampedTransport()) as client:
            await client.get(running.url, extensions={"trace": trace})

    with serving(slow) as running:
        asyncio.run(act())
    body = when["http11.receive_response_body.complete"]
    assert body - when["http11.receive_response_headers.complete"] > 0.1e9


def test_a_paused_transport_reads_nothing_and_loses_nothing() -> None:
    """And says of nothing that it read late that it came late: there is no floor."""
    sent: list[int] = []

    def flood(wire: Wire, _asked: Asked) -> None:
        wire.head()
        for _ in range(50):
            wire.chunk(b"x" * 1000)
            time.sleep(0.001)
        sent.append(time.monotonic_ns())
        wire.end()

    async def act(client: httpx.AsyncClient) -> tuple[Taken, int, int]:
        transport = client._transport
        assert isinstance(transport, StampedTransport)
        sink = Taken()
        task = asyncio.ensure_future(post(client, running.url, sink))
        while not sink.reads:
            await asyncio.sleep(0)
        transport.pause()
        held = len(sink.reads)
        while not sent:
            await asyncio.sleep(0.02)
        assert len(sink.reads) == held
        resumed_ns = time.monotonic_ns()
        transport.resume()
        await task
        return sink, held, resumed_ns

    with serving(flood) as running:
        sink, held, resumed_ns = with_client(act, floor=time.monotonic_ns)
    assert sink.body == b"x" * 50_000
    first = sink.reads[held]
    assert first[1] >= resumed_ns
    assert first[2] <= sent[0] <= resumed_ns  # the floor is of before the pause
