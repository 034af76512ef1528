"""``httpx.AsyncClient`` over our transport behaves as over httpx's own: each test runs on both."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest

from latdiag.load.wire.transport import StampedTransport

from .peers import Asked, Over, Peer, Wire, serving

Client = Callable[..., httpx.AsyncClient]
LIMIT_S = {"/never": 0.3, "/stall": 0.6}
LINES = [f"line {i}" for i in range(7)]


def script(wire: Wire, asked: Asked) -> None:
    path = asked.target.partition("?")[0].strip("/")
    if path in ANSWERS:
        ANSWERS[path](wire, asked)
    else:
        wire.reply(200, f"hello from {asked.target}", "X-Two: 1", "X-Two: 2", "Server: peer")


def echo(wire: Wire, asked: Asked) -> None:
    said = {"method": asked.method, "headers": asked.headers, "body": asked.body.decode()}
    wire.reply(200, json.dumps(said), "Content-Type: application/json")


def lines(wire: Wire, _asked: Asked) -> None:
    wire.head("Content-Type: text/plain")
    wire.chunk(*(f"{line}\r\n".encode() for line in LINES))
    wire.end()


def drip(wire: Wire, _asked: Asked) -> None:
    """Each wait is short, all together are long."""
    wire.head()
    for _ in range(7):
        wire.chunk(b"drop\n")
        time.sleep(0.2)
    wire.end()


def stall(wire: Wire, _asked: Asked) -> None:
    wire.head()
    wire.chunk(b"first")
    wire.hang()


def until_close(wire: Wire, _asked: Asked) -> None:
    wire.send(b"HTTP/1.1 200 OK\r\n\r\n", b"as long ", b"as it lasts")
    wire.close()


def die(wire: Wire, _asked: Asked) -> None:
    raise Over


def cut(wire: Wire, _asked: Asked) -> None:
    wire.head()
    wire.chunk(b"first")
    wire.close()


def cut_by_length(wire: Wire, _asked: Asked) -> None:
    wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")
    wire.close()


def broken(wire: Wire, _asked: Asked) -> None:
    wire.head()
    wire.send(b"5\r\nfirst\r\nrubbish\r\n")
    wire.hang()


def reset(wire: Wire, _asked: Asked) -> None:
    wire.head()
    wire.chunk(b"first")
    time.sleep(0.05)
    wire.reset()


ANSWERS: dict[str, Callable[[Wire, Asked], None]] = {
    "echo": echo,
    "lines": lines,
    "drip": drip,
    "stall": stall,
    "until_close": until_close,
    "die": die,
    "cut": cut,
    "cut_by_length": cut_by_length,
    "broken": broken,
    "reset": reset,
    "never": lambda wire, _: wire.hang(),
    "gzip": lambda wire, _: wire.reply(
        200, gzip.compress(b"much " * 100), "Content-Encoding: gzip", "Content-Type: text/plain"
    ),
    "not_gzip": lambda wire, _: wire.reply(200, "plain", "Content-Encoding: gzip"),
    "cookie": lambda wire, _: wire.reply(200, "", "Set-Cookie: a=1; Path=/", "Set-Cookie: b=2"),
    "moved": lambda wire, _: wire.reply(302, "", "Location: /there"),
    "nothing": lambda wire, _: wire.reply(204),
    "unchanged": lambda wire, _: wire.send(
        b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\nContent-Length: 5\r\n\r\n'
    ),
    "missing": lambda wire, _: wire.reply(404, "no"),
    "head": lambda wire, asked: wire.send(
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + b"hello" * (asked.method != "HEAD")
    ),
}


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    with serving(script) as running:
        yield running


@pytest.fixture(params=[StampedTransport, httpx.AsyncHTTPTransport], ids=["ours", "httpx"])
def client(request: pytest.FixtureRequest, peer: Peer) -> Client:
    def make(**more: Any) -> httpx.AsyncClient:
        more = {"transport": request.param(), "base_url": peer.url, "trust_env": False, **more}
        return httpx.AsyncClient(**more)

    return make


def within(client: httpx.AsyncClient, act: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> Any:
    """What ``act`` returns on an open client."""

    async def run() -> Any:
        async with client as opened:
            return await act(opened)

    return asyncio.run(asyncio.wait_for(run(), 20))


# ---------------------------------------------------------------------- replies
def test_get(client: Client) -> None:
    reply = within(client(), lambda c: c.get("/a%20b", params={"q": "ä&="}))
    assert (reply.status_code, reply.http_version) == (200, "HTTP/1.1")
    assert reply.text == "hello from /a%20b?q=%C3%A4%26%3D"
    assert reply.headers.get_list("x-two") == ["1", "2"] and reply.headers["server"] == "peer"
    assert reply.elapsed.total_seconds() > 0 and reply.is_closed


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_bodies_and_methods(client: Client, method: str) -> None:
    body = {"a": ["ä"] * 1000}
    reply = within(client(), lambda c: c.request(method, "/echo", json=body)).json()
    assert reply["method"] == method and json.loads(reply["body"]) == body
    headers = {name.lower(): value for name, value in reply["headers"]}
    assert headers["content-type"] == "application/json"
    assert int(headers["content-length"]) == len(reply["body"].encode())


def test_an_empty_post_says_that_it_is_empty(client: Client) -> None:
    reply = within(client(), lambda c: c.post("/echo")).json()
    assert dict(reply["headers"])["Content-Length"] == "0" and reply["body"] == ""


def test_lines_of_a_stream(client: Client) -> None:
    async def act(opened: httpx.AsyncClient) -> list[str]:
        async with opened.stream("GET", "/lines") as reply:
            assert reply.status_code == 200 and not reply.is_closed
            return [line async for line in reply.aiter_lines()]

    assert within(client(), act) == LINES


def test_raw_bytes_and_decoded_ones(client: Client) -> None:
    async def act(opened: httpx.AsyncClient) -> list[bytes]:
        found = []
        for name in ("aiter_raw", "aiter_bytes"):
            async with opened.stream("GET", "/gzip") as reply:
                found.append(b"".join([part async for part in getattr(reply, name)()]))
        return found

    raw, plain = within(client(), act)
    assert gzip.decompress(raw) == plain == b"much " * 100


def test_a_reply_that_is_not_what_it_says(client: Client) -> None:
    with pytest.raises(httpx.DecodingError):
        within(client(), lambda c: c.get("/not_gzip"))


def test_a_reply_without_a_length(client: Client) -> None:
    assert within(client(), lambda c: c.get("/until_close")).text == "as long as it lasts"


def test_replies_without_a_body(client: Client) -> None:
    async def act(opened: httpx.AsyncClient) -> list[httpx.Response]:
        first = [await opened.head("/head"), await opened.get("/head")]
        return [*first, await opened.get("/nothing"), await opened.get("/unchanged")]

    head, get, nothing, unchanged = within(client(), act)
    assert (head.content, head.headers["content-length"]) == (b"", "5")
    assert get.content == b"hello"
    assert (nothing.status_code, nothing.content) == (204, b"")
    assert (unchanged.status_code, unchanged.content, unchanged.headers["etag"]) == (
        304,
        b"",
        '"x"',
    )


def test_statuses_are_no_exceptions(client: Client) -> None:
    reply = within(client(), lambda c: c.get("/missing"))
    with pytest.raises(httpx.HTTPStatusError):
        reply.raise_for_status()


# ---------------------------------------------------------------------- what httpx adds
def test_cookies(client: Client) -> None:
    async def act(opened: httpx.AsyncClient) -> dict[str, str]:
        await opened.get("/cookie")
        assert dict(opened.cookies) == {"a": "1", "b": "2"}
        said: dict[str, str] = dict((await opened.get("/echo")).json()["headers"])
        return said

    assert within(client(), act)["Cookie"] == "a=1; b=2"


def test_redirects_are_followed_where_the_caller_says_so(client: Client) -> None:
    for follow, status in ((True, 200), (False, 302)):
        reply = within(client(follow_redirects=follow), lambda c: c.get("/moved"))
        assert reply.status_code == status and len(reply.history) == follow


def test_event_hooks(client: Client) -> None:
    seen: list[str] = []

    async def on_request(request: httpx.Request) -> None:
        seen.append(request.method)

    async def on_response(response: httpx.Response) -> None:
        seen.append(str(response.status_code))

    hooks = {"request": [on_request], "response": [on_response]}
    within(client(event_hooks=hooks), lambda c: c.get("/lines"))
    assert seen == ["GET", "200"]


def test_many_at_once_are_not_mixed_up(client: Client) -> None:
    async def act(opened: httpx.AsyncClient) -> list[str]:
        asked = (opened.post("/echo", content=f"body {i}") for i in range(101))
        return [reply.json()["body"] for reply in await asyncio.gather(*asked)]

    assert within(client(), act) == [f"body {i}" for i in range(101)]


def test_a_large_body_to_a_slow_reader(client: Client) -> None:
    content = bytes(range(256)) * (1 << 14)
    reply = within(client(timeout=20), lambda c: c.post("/head", content=content))
    assert reply.content == b"hello"


def test_no_header_can_bring_in_another(client: Client, peer: Peer) -> None:
    before = len(peer.asked)
    for headers in ({"X-A": "1\r\nX-B: 2"}, {"X-A": "1\nX-B: 2"}):
        with pytest.raises(httpx.LocalProtocolError):
            within(client(), lambda c, headers=headers: c.get("/echo", headers=headers))
    assert len(peer.asked) == before


# ---------------------------------------------------------------------- what goes wrong
@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("/never", httpx.ReadTimeout),
        ("/stall", httpx.ReadTimeout),
        ("/die", httpx.RemoteProtocolError),
        ("/cut", httpx.RemoteProtocolError),
        ("/cut_by_length", httpx.RemoteProtocolError),
        ("/broken", httpx.RemoteProtocolError),
        ("/reset", httpx.ReadError),
    ],
)
def test_a_reply_that_fails(client: Client, path: str, fault: type[Exception]) -> None:
    async def act(opened: httpx.AsyncClient) -> httpx.Response:
        with pytest.raises(fault) as caught:
            await opened.get(path, timeout=LIMIT_S.get(path, 20))
        assert type(caught.value) is fault and caught.value.request.url.path == path
        return await opened.get("/there")

    assert within(client(timeout=20), act).status_code == 200


@pytest.mark.parametrize("path", ["/stall", "/cut", "/broken", "/reset"])
def test_what_came_before_the_fault_is_there(client: Client, path: str) -> None:
    async def act(opened: httpx.AsyncClient) -> bytes:
        found = b""
        with pytest.raises(httpx.TransportError):
            async with opened.stream("GET", path, timeout=LIMIT_S.get(path, 20)) as reply:
                async for part in reply.aiter_raw():
                    found += part
        return found

    assert within(client(), act) == b"first"


def test_the_read_timeout_is_for_each_wait(client: Client) -> None:
    assert within(client(timeout=1.1), lambda c: c.get("/drip")).text == "drop\n" * 7


def test_no_server_no_name_no_reply_to_the_connect(client: Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    for url in (f"http://127.0.0.1:{port}", "http://nosuch.invalid"):
        with pytest.raises(httpx.ConnectError):
            within(client(), lambda c, url=url: c.get(url))
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(8)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        with pytest.raises(httpx.ConnectTimeout):
            url = f"http://127.0.0.1:{full.getsockname()[1]}"
            within(client(timeout=0.2), lambda c: c.get(url))
        for sock in waiting:
            sock.close()


def test_an_unknown_scheme(client: Client) -> None:
    with pytest.raises(httpx.TransportError):
        within(client(base_url=""), lambda c: c.get("gopher://127.0.0.1:9/"))
