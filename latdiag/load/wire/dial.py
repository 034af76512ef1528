"""Name resolution and TCP connect, each with its own stamp."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import select
import socket
from time import monotonic_ns
from typing import Any

from latdiag.load.wire.connection import ExchangeFault
from latdiag.load.wire.exchange import Exchange
from latdiag.load.wire.messages import Trace, step
from latdiag.model.records import Outcome

_Address = tuple[socket.AddressFamily, tuple[Any, ...]]


class Dialer:
    """Connects sockets. Addresses of a name are tried in order, IPv6 and IPv4 as they come."""

    async def dial(self, host: str, port: int, exchange: Exchange, trace: Trace) -> socket.socket:
        """A connected non-blocking socket; ``dns_ns`` and ``tcp_ns`` are stamped on the way."""
        async with step(trace, "connection.resolve_dns", host=host, port=port) as told:
            told.value = addresses = await self._resolve(host, port)
            exchange.dns_ns = monotonic_ns()
        async with step(trace, "connection.connect_tcp", host=host, port=port) as told:
            told.value = sock = await self._connect_any(host, port, addresses)
            exchange.tcp_ns = monotonic_ns()
        return sock

    async def _connect_any(self, host: str, port: int, addresses: list[_Address]) -> socket.socket:
        last: OSError | None = None
        for family, address in addresses:
            try:
                return await self._connect(family, address)
            except OSError as fault:
                if fault.errno in (errno.EMFILE, errno.ENFILE):
                    raise
                last = fault
        late = last is not None and last.errno == errno.ETIMEDOUT
        reason = os.strerror(last.errno) if last is not None and last.errno else "no address"
        text = f"cannot connect to {host} port {port}: {reason}"
        raise ExchangeFault(Outcome.TIMEOUT if late else Outcome.REFUSED, text) from last

    async def _resolve(self, host: str, port: int) -> list[_Address]:
        bare = host.strip("[]")
        try:
            version = ipaddress.ip_address(bare).version
        except ValueError:
            pass
        else:
            family = socket.AF_INET6 if version == 6 else socket.AF_INET
            return [(family, (bare, port))]
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(bare, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as fault:
            reason = getattr(fault, "strerror", None) or str(fault)
            text = f"the name {host} cannot be resolved: {reason}"
            raise ExchangeFault(Outcome.DNS, text) from fault
        return [(entry[0], entry[4]) for entry in found]

    async def _connect(
        self, family: socket.AddressFamily, address: tuple[Any, ...]
    ) -> socket.socket:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            code = sock.connect_ex(address)
            if code in (errno.EINPROGRESS, errno.EWOULDBLOCK):
                await _writable(sock)
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code))
        except BaseException:
            sock.close()
            raise
        return sock


async def _writable(sock: socket.socket) -> None:
    """Wait until a connect has come to its end, well or not."""
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLOUT)
        if poll.poll(0):  # loopback is connected at once
            return
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def resolve() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_writer(sock.fileno(), resolve)
    try:
        await ready
    finally:
        loop.remove_writer(sock.fileno())
