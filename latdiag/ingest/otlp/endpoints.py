"""Where the receiver listens, and who may send to it."""

from __future__ import annotations

from dataclasses import dataclass, field

from latdiag.model.errors import UsageFault
from latdiag.model.text import is_loopback, shown

GRPC_DEFAULT = "127.0.0.1:4317"
HTTP_DEFAULT = "127.0.0.1:4318"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """HOST:PORT of the gRPC and the HTTP door, None for a door that stays shut; port 0 is any.

    ``token``: the bearer token that every sender must show. Raises UsageFault for what is no
    address, and for a door to other machines that is neither guarded by a token nor meant to be
    open (``allow_unauthenticated``).
    """

    grpc: str | None = GRPC_DEFAULT
    http: str | None = HTTP_DEFAULT
    token: str | None = field(default=None, repr=False)
    allow_unauthenticated: bool = False

    def __post_init__(self) -> None:
        for address in (self.grpc, self.http):
            if address is None:
                continue
            host, port = _split(address)
            if self.token or self.allow_unauthenticated or is_loopback(host):
                continue
            raise UsageFault(
                f"{host}:{port} can be reached from other machines, and no token protects it",
                "give --token-env NAME, or --allow-unauthenticated",
            )


def address_of(text: str, port: int) -> str:
    """HOST:PORT of what a user wrote: HOST, HOST:PORT or :PORT; ``port`` where none is given.

    UsageFault for what is none of these.
    """
    if "://" in text:
        raise UsageFault(
            f"{shown(text, 80)} is a URL; HOST:PORT is needed", "leave out the http://"
        )
    host, colon, given = text.rpartition(":")
    if not colon or text.endswith("]") or (text.count(":") > 1 and not text.startswith("[")):
        host, given = text, ""
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    address = f"{host or '127.0.0.1'}:{given or port}"
    _split(address)
    return address


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535 or set(host) & set("/@ \t\0"):
        raise UsageFault(f"{shown(address, 80)} is not HOST:PORT", "write it as 127.0.0.1:4317")
    return host, int(port)
