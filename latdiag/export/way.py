"""Where spans go. Light: it is read before a load forks its processes."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from latdiag.ingest.otlp.forward import Destination
from latdiag.load.trust import Trust
from latdiag.model.errors import TargetFault
from latdiag.model.text import shown

_CONNECT_S = 5.0


@dataclass(frozen=True, slots=True)
class Way:
    """Where spans go, and what is shown there. ``timeout_ns``: for one batch."""

    destination: Destination
    headers: tuple[tuple[str, str], ...]
    trust: Trust
    timeout_ns: int

    @property
    def name(self) -> str:
        """Without credentials."""
        to = self.destination
        host = f"[{to.host}]" if ":" in to.host else to.host
        if not to.grpc:
            return to.url("traces")
        return f"{'grpcs' if to.secure else 'grpc'}://{host}:{to.port}"

    def check(self) -> None:
        """TargetFault where nobody takes a connection, before anything else is done."""
        to = self.destination
        try:
            with socket.create_connection((to.host, to.port), _CONNECT_S):
                pass
        except OSError as fault:
            why = (fault.strerror or str(fault) or "no connection").lower()
            raise TargetFault(
                f"{shown(self.name)} takes no connection: {why}", "start the receiver there"
            ) from None
