"""Passing exports on, as they were received, to the collector of the user."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from latdiag.ingest.otlp.decode import Export
from latdiag.ingest.otlp.intake import SIGNALS
from latdiag.ingest.otlp.json_text import JsonText
from latdiag.ingest.otlp.limits import Budget, Refusal, Steps, inflating
from latdiag.ingest.otlp.protobuf import repacking
from latdiag.model.errors import UsageFault
from latdiag.model.text import shown, without_credentials

#: Exports, and their bytes, that may wait to be passed on; more are lost, and counted.
_MAX_WAITING = 256
_MAX_BYTES = 64 << 20
_TIMEOUT_S = 10.0
_MAX_REPLY = 64 << 10
_AT_ONCE = 4
_GRPC_PORT, _HTTP_PORT = 4317, 4318
_TYPES = {"protobuf": "application/x-protobuf", "json": "application/json"}


@dataclass(frozen=True, slots=True)
class Destination:
    """Where exports go. ``path``: of the HTTP protocol; empty for one path a signal."""

    host: str
    port: int
    grpc: bool
    secure: bool
    path: str

    @classmethod
    def parse(cls, url: str, what: str = "to forward to") -> Destination:
        """``grpc://HOST:4317``, ``http://HOST:4318`` or ``https://HOST/otlp/v1/traces``.

        gRPC is spoken for the schemes grpc and grpcs, and at port 4317 where no path is given.
        UsageFault for what is none of these; ``what`` the address is for.
        """
        remedy = "write it as http://HOST:4318 or grpc://HOST:4317"
        try:
            parts = urlsplit(url)
            port, host = parts.port, parts.hostname
        except ValueError:  # what is no URL is not shown: no secret could be told from it
            raise UsageFault(f"the address {what} is not a URL", remedy) from None
        name = shown(without_credentials(url), 200)
        if parts.scheme not in ("http", "https", "grpc", "grpcs") or not host:
            raise UsageFault(f"{name} is not an address {what}", remedy)
        if parts.username or parts.password or parts.query:
            raise UsageFault(f"{name}: user, password and query are not sent", remedy)
        path = parts.path.rstrip("/")
        grpc = parts.scheme.startswith("grpc") or (port == _GRPC_PORT and not path)
        if port is None:
            default = 443 if parts.scheme == "https" else _HTTP_PORT
            port = _GRPC_PORT if grpc else default
        return cls(host, port, grpc, parts.scheme.endswith("s"), path)

    def url(self, signal: str) -> str:
        """The URL of an HTTP export of ``signal``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        root = f"{'https' if self.secure else 'http'}://{host}:{self.port}"
        stem = self.path.removesuffix("/v1/traces")
        if signal == "traces" and self.path:
            return root + self.path
        return f"{root}{stem}/v1/{signal}"


def refuse_own(destination: Destination, own: Sequence[str]) -> None:
    """UsageFault if ``destination`` is one of ``own``, the HOST:PORT that are listened at."""
    with contextlib.suppress(OSError):
        found = socket.getaddrinfo(destination.host, destination.port, type=socket.SOCK_STREAM)
        there = {ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found}
        for address in own:
            host, _, port = address.rpartition(":")
            if int(port) == destination.port and any(_is_here(ip, host) for ip in there):
                raise UsageFault(
                    f"what comes to {address} would be forwarded to itself",
                    "give the address of another collector",
                )


def _is_here(there: ipaddress.IPv4Address | ipaddress.IPv6Address, host: str) -> bool:
    """Whether connecting to ``there`` reaches a socket that listens at ``host``."""
    mapped = getattr(there, "ipv4_mapped", None)
    there = mapped or there
    listened = {
        ipaddress.ip_address(str(entry[4][0]).partition("%")[0])
        for entry in socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    }
    for ip in listened:
        if there == ip or (there.is_unspecified and ip.is_loopback):
            return True
        if ip.is_unspecified and (there.is_unspecified or _is_local(str(there))):
            return True
    return False


def _is_local(ip: str) -> bool:
    """Whether an address is this machine's: only such can be bound."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as trial:
        try:
            trial.bind((ip, 0))
        except OSError:
            return False
    return True


class Forwarding:
    """Passes exports on in the running event loop; never holds up who receives them.

    ``forwarded`` and ``failed`` count exports. What the destination refuses or cannot take in
    time is not sent again: the sender has been told that its export was taken.
    """

    def __init__(self, destination: Destination) -> None:
        self.destination = destination
        self.forwarded = self.failed = 0
        self.last_failure = ""
        self._queue: asyncio.Queue[Export] = asyncio.Queue(_MAX_WAITING)
        self._bytes = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._http: Any = None
        self._channel: Any = None

    def start(self) -> None:
        if self.destination.grpc:
            self._channel = self._open_channel()
        else:
            import httpx

            self._http = httpx.AsyncClient(
                timeout=_TIMEOUT_S, trust_env=False, follow_redirects=False
            )
        self._tasks = [asyncio.create_task(self._pass_on()) for _ in range(_AT_ONCE)]

    def _open_channel(self) -> Any:
        import grpc
        from grpc import aio

        to = self.destination
        target = f"{f'[{to.host}]' if ':' in to.host else to.host}:{to.port}"
        options = (("grpc.max_send_message_length", -1), ("grpc.enable_http_proxy", 0))
        if to.secure:
            return aio.secure_channel(target, grpc.ssl_channel_credentials(), options=options)
        return aio.insecure_channel(target, options=options)

    def add(self, export: Export) -> None:
        """Pass ``export`` on, some time."""
        if self._bytes + len(export.body) > _MAX_BYTES or self._queue.full():
            self._fail("exports arrive faster than they can be forwarded")
            return
        self._bytes += len(export.body)
        self._queue.put_nowait(export)

    async def finish(self, limit_s: float) -> None:
        """Wait for what is to be passed on, at most ``limit_s``; what then remains has failed."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._queue.join(), limit_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        while not self._queue.empty():
            self._queue.get_nowait()
            self._fail("the run ended before it was forwarded")
        if self._http is not None:
            await self._http.aclose()
        if self._channel is not None:
            await self._channel.close()

    async def _pass_on(self) -> None:
        while True:
            export = await self._queue.get()
            try:
                async with asyncio.timeout(_TIMEOUT_S):
                    reason = await (self._by_grpc if self._channel else self._by_http)(export)
            except asyncio.CancelledError:
                self._fail("the run ended before it was forwarded")
                raise
            except Exception as fault:  # whatever a foreign server makes the library do
                reason = f"{type(fault).__name__}: {fault}"
            finally:
                self._bytes -= len(export.body)
                self._queue.task_done()
            if reason:
                self._fail(reason)
            else:
                self.forwarded += 1

    def _fail(self, reason: str) -> None:
        self.failed += 1
        self.last_failure = shown(reason, 200)

    async def _by_http(self, export: Export) -> str:
        headers = {"Content-Type": _TYPES[export.form]}
        if export.wrapping:
            headers["Content-Encoding"] = export.wrapping
        url, body = self.destination.url(export.signal), bytes(export.body)
        async with self._http.stream("POST", url, content=body, headers=headers) as reply:
            size = 0
            async for chunk in reply.aiter_raw():  # read, so that the connection can be kept
                size += len(chunk)
                if size > _MAX_REPLY:
                    break
        return "" if reply.status_code // 100 == 2 else f"HTTP {reply.status_code}"

    async def _by_grpc(self, export: Export) -> str:
        import grpc

        package = "trace" if export.signal == "traces" else export.signal
        method = f"/opentelemetry.proto.collector.{package}.v1.{SIGNALS[export.signal]}/Export"
        call = self._channel.unary_unary(method)
        try:
            await call(await _as_message(export), timeout=_TIMEOUT_S)
        except grpc.RpcError as fault:
            return f"gRPC {fault.code().name}"
        return ""


async def _as_message(export: Export) -> bytes:
    """The export as a gRPC message: inflated, and in protobuf."""
    body: bytes | bytearray = export.body
    if export.wrapping:
        body = await _stepped(inflating(export.body, export.wrapping))
    if export.form == "protobuf":
        return bytes(body)
    if export.signal != "traces":
        raise Refusal("signal", f"{export.signal} in JSON cannot be forwarded over gRPC")
    return bytes(await _stepped(repacking(JsonText(body, Budget()))))


async def _stepped(steps: Steps[bytearray]) -> bytearray:
    """What steps make: one each time, for there are senders that wait."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            made: bytearray = end.value
            return made
        await asyncio.sleep(0)
