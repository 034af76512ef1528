"""OTLP over HTTP: the door at port 4318."""

from __future__ import annotations

import asyncio

from latdiag.ingest.otlp.http_connection import Connection
from latdiag.ingest.otlp.intake import Intake
from latdiag.ingest.otlp.limits import BACKLOG, IDLE_S, REQUEST_S, WRITE_S
from latdiag.ingest.otlp.slots import Slots
from latdiag.model.errors import LocalFault
from latdiag.model.text import shown


class HttpDoor:
    """An HTTP server of the export paths in the running event loop.

    ``request_s``: seconds that a request may take to come, from its first byte; ``idle_s``:
    seconds that a connection may lie idle; ``write_s``: that replies may stay unread.
    """

    def __init__(
        self,
        intake: Intake,
        request_s: float = REQUEST_S,
        idle_s: float = IDLE_S,
        write_s: float = WRITE_S,
    ) -> None:
        self.intake = intake
        self.request_s = request_s
        self.idle_s = idle_s
        self.write_s = write_s
        self.closing = False
        self.slots = Slots()
        self.connections: set[Connection] = set()
        self._server: asyncio.Server | None = None

    async def open(self, address: str) -> str:
        """Listen at HOST:PORT (port 0: any); the address that is listened at.

        LocalFault where that cannot be.
        """
        host, _, port = address.rpartition(":")
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                lambda: Connection(self), host.strip("[]"), int(port), backlog=BACKLOG
            )
        except OSError as fault:
            reason = shown(fault.strerror or fault, 200)
            raise LocalFault(
                f"cannot listen at {shown(address, 80)} for OTLP over HTTP: {reason}",
                "stop what listens there, or choose another port",
            ) from fault
        return f"{host}:{self._server.sockets[0].getsockname()[1]}"

    async def close(self, grace_s: float) -> None:
        """Take no new connection; what is under way has ``grace_s`` to end."""
        if self._server is None:
            return
        self.closing = True
        self._server.close()
        loop = asyncio.get_running_loop()
        until = loop.time() + grace_s
        for connection in list(self.connections):
            connection.close_if_idle()
        while self.connections and loop.time() < until:
            await asyncio.sleep(0.01)
        for connection in list(self.connections):
            connection.abort()
