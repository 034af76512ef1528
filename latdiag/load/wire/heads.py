"""Headers out and headers in: what every request bears, and what is told of a reply's head."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import httpx

from latdiag.load.wire.exchange import Exchange
from latdiag.load.work.plan import LoadPlan

_TOLD = tuple(n for n in Exchange.__slots__ if n not in ("headers", "wire_key", "last_key"))
#: Reply headers that the writer needs.
_HEADERS = frozenset({b"content-type", b"retry-after", b"location", b"server"})


def raw_headers(plan: LoadPlan, url: httpx.URL) -> list[tuple[bytes, bytes]]:
    """The headers common to all requests, encoded once."""
    common = {
        "Host": url.netloc.decode("ascii"),
        "Accept": "text/event-stream",
        # A compressed stream arrives in blocks: its chunks' times say little of the tokens'.
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
        "User-Agent": "latdiag",
    }
    for name, value in plan.target.headers:
        for known in [k for k in common if k.lower() == name.lower()]:
            del common[known]
        common[name] = value
    return [(k.encode("ascii"), v.encode("latin-1")) for k, v in common.items()]


def kept_headers(plan: LoadPlan) -> frozenset[bytes]:
    """The reply headers that leave the process: those the writer needs, and stated times."""
    return _HEADERS | {name.encode() for name in plan.reply_fields.headers}


def told(exchange: Exchange, kept: frozenset[bytes]) -> dict[str, Any]:
    """The account of an attempt for the writer: every field, of the headers those of ``kept``."""
    fields = {name: getattr(exchange, name) for name in _TOLD}
    fields["headers"] = {
        name.lower(): value[:1024] for name, value in exchange.headers if name.lower() in kept
    }
    return fields


def content_type(exchange: Exchange) -> bytes:
    """The reply's media type in lower case, empty where it states none."""
    for name, value in exchange.headers:
        if name.lower() == b"content-type":
            return value[:128].lower()
    return b""


def retry_after(exchange: Exchange) -> float:
    """Seconds that the server asks to wait, at most 30; 0 where it does not ask."""
    for name, value in exchange.headers:
        if name.lower() == b"retry-after":
            with suppress(ValueError):
                return max(0.0, min(30.0, float(value)))
    return 0.0
