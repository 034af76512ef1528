"""Which door is where, and the words for who knocks at the wrong one."""

from __future__ import annotations

from dataclasses import dataclass

from latdiag.ingest.otlp.limits import Refusal

_HTTP, _GRPC = "OTLP over HTTP", "gRPC"


@dataclass(slots=True)
class Doors:
    """HOST:PORT where the doors listen; None for one that is shut."""

    grpc: str | None = None
    http: str | None = None

    def grpc_at_http(self) -> Refusal:
        where = _elsewhere(_GRPC, self.grpc)
        return Refusal("wrong_door", f"spoke gRPC at the HTTP port {_port(self.http)}; {where}")

    def http_at_grpc(self) -> Refusal:
        where = _elsewhere(_HTTP, self.http)
        return Refusal(
            "wrong_door", f"spoke HTTP/1.1 at the gRPC port {_port(self.grpc)}; {where}"
        )

    def tls(self, grpc: bool) -> Refusal:
        name, address = ("gRPC", self.grpc) if grpc else ("HTTP", self.http)
        return Refusal(
            "wrong_door",
            f"spoke TLS at the {name} port {_port(address)}; latdiag takes plain text",
        )

    def neither(self) -> Refusal:
        text = f"spoke neither gRPC nor HTTP at the gRPC port {_port(self.grpc)}"
        return Refusal("wrong_door", text)


def is_tls(begun: bytes) -> bool:
    """Whether a connection begins with a TLS handshake (record type 22, version 3.x)."""
    return begun[:2] == b"\x16\x03"


def _port(address: str | None) -> str:
    return (address or "").rpartition(":")[2]


def _elsewhere(what: str, address: str | None) -> str:
    return f"{what} is at {_port(address)}" if address else f"{what} is off"
