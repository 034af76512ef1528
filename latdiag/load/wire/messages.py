"""What passes between httpx and the transport: a request as bytes, a reply as a response.

Apart from the transport so that its timing-critical part stays in sight.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import httpx

from latdiag.load.wire.connection import ExchangeFault
from latdiag.load.wire.exchange import Exchange
from latdiag.model.records import Outcome

Trace = Callable[[str, Mapping[str, object]], Awaitable[None]]


async def no_trace(_name: str, _info: Mapping[str, object]) -> None:
    return None


@asynccontextmanager
async def step(trace: Trace, name: str, **info: object) -> AsyncIterator[SimpleNamespace]:
    """Tell ``trace`` that a step starts, and that it is complete or failed: httpcore's events."""
    await trace(f"{name}.started", info)
    told = SimpleNamespace(value=None)
    try:
        yield told
    except BaseException as fault:
        await trace(f"{name}.failed", {"exception": fault})
        raise
    await trace(f"{name}.complete", {"return_value": told.value})


class ReplyStream(httpx.AsyncByteStream):
    """A reply's body for httpx's ordinary interface, filled by the transport's ``task``."""

    def __init__(self, request: httpx.Request, exchange: Exchange) -> None:
        self.headers_came = asyncio.Event()
        self.task: asyncio.Future[None] | None = None
        #: user stamp (MONOTONIC ns) of the newest read
        self.last_ns = 0
        self._request = request
        self._exchange = exchange
        self._parts: list[bytes] = []
        self._more = asyncio.Event()

    def sink(self, _real_ns: int, user_ns: int, _floor_ns: int, data: bytes) -> None:
        self.last_ns = user_ns
        self._parts.append(data)
        self._more.set()

    def ended(self) -> None:
        """The task has come to its end, well or not."""
        self.headers_came.set()
        self._more.set()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        assert self.task is not None
        while True:
            parts, self._parts = self._parts, []
            for part in parts:
                yield part
            if self._parts:
                continue
            if self.task.done():
                break
            self._more.clear()
            await self._more.wait()
        try:
            self.task.result()
        except ExchangeFault as fault:
            raise as_httpx(fault, self._request, self._exchange) from fault

    async def aclose(self) -> None:
        """Give up what has not come yet; the connection goes with it."""
        if self.task is None:
            return
        if not self.task.done():
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
        elif not self.task.cancelled():
            self.task.exception()  # seen, so that the loop does not complain


def as_httpx(
    fault: ExchangeFault, request: httpx.Request, exchange: Exchange
) -> httpx.TransportError:
    """The httpx exception of a fault, so that httpx's callers need to know none of ours."""
    kind: type[httpx.TransportError] = {
        Outcome.REFUSED: httpx.ConnectError,
        Outcome.DNS: httpx.ConnectError,
        Outcome.TLS: httpx.ReadError if exchange.written_ns else httpx.ConnectError,
        Outcome.TIMEOUT: httpx.ReadTimeout if exchange.written_ns else httpx.ConnectTimeout,
        Outcome.CUT: httpx.RemoteProtocolError,
        Outcome.PROTOCOL: httpx.RemoteProtocolError,
    }.get(fault.outcome, httpx.RemoteProtocolError if fault.orderly else httpx.ReadError)
    return kind(fault.text, request=request)


def response_of(exchange: Exchange, body: bytes | httpx.AsyncByteStream) -> httpx.Response:
    """The response of a reply whose headers have come."""
    stream: Any = {"content": body} if isinstance(body, bytes) else {"stream": body}
    headers = exchange.headers
    if isinstance(body, bytes):  # the sink had the body; httpx must not try to decode nothing
        headers = [h for h in headers if h[0].lower() not in (b"content-encoding",)]
    return httpx.Response(
        exchange.status, headers=headers, extensions={"latdiag.exchange": exchange}, **stream
    )


def head_of(request: httpx.Request, body: bytes) -> bytes:
    """Request line and headers. LocalProtocolError where one would smuggle in a line."""
    target = request.url.raw_path
    lines = [b"%s %s HTTP/1.1" % (request.method.encode("ascii"), target)]
    framed = False
    for name, value in request.headers.raw:
        low = name.lower()
        if low == b"transfer-encoding":
            continue  # the body is whole by now: its length says more
        framed = framed or low == b"content-length"
        lines.append(name + b": " + value)
    if body and not framed:
        lines.append(b"Content-Length: %d" % len(body))
    head = b"\r\n".join(lines)
    if head.count(b"\n") != len(lines) - 1 or head.count(b"\r") != len(lines) - 1:
        raise httpx.LocalProtocolError("a header holds a line end", request=request)
    return head + b"\r\n\r\n"
