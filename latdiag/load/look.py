"""A few GETs of a server, to see who it is. No POST, everything bounded; redirects are followed
within the server alone (LiteLLM's ``/metrics`` answers 307)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit, urlunsplit

import httpx

from latdiag.load.trust import Trust

#: Scheme, host, port.
Origin = tuple[str, str | None, int | None]
Headers = Sequence[tuple[str, str]]
#: A scrape may be large; nothing else that is asked for is.
_LARGEST = 32 << 20
_PATIENCE_S = 5.0
_HEADERS = 100
_REDIRECTS = (301, 302, 303, 307, 308)
#: Redirects of one GET that are followed.
REDIRECTS = 3


@dataclass(frozen=True, slots=True)
class Glimpse:
    """The reply to one GET, after redirects within the server. ``status`` 0: none came, ``fault``
    says why (dns, refused, timeout, tls, too large, compressed, protocol). ``text`` is empty where
    there is a fault."""

    url: str
    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    text: str = ""
    fault: str = ""


def beside(base: str, path: str) -> str:
    """The URL of ``path`` on the server whose base URL is ``base``; its query is kept."""
    parts = urlsplit(base)
    return urlunsplit((parts.scheme, parts.netloc, parts.path + path, parts.query, ""))


def look(asked: Sequence[tuple[str, Headers]], trust: Trust) -> list[Glimpse]:
    """GET each URL with the headers beside it, one after the other, within 5 s and 32 MiB each."""
    return asyncio.run(_look(asked, trust))


async def _look(asked: Sequence[tuple[str, Headers]], trust: Trust) -> list[Glimpse]:
    async with contextlib.AsyncExitStack() as clients:
        by_trust: dict[tuple[Trust, bool], httpx.AsyncClient] = {}
        found: list[Glimpse] = []
        for url, headers in asked:
            # The first is the target, whose certificate it is, and the client's own is for.
            own = trust if _alike(url, asked[0][0]) else trust.for_others()
            key = own, url.lower().startswith("https:")
            if key not in by_trust:
                client = httpx.AsyncClient(
                    verify=own.context() if key[1] else False,
                    trust_env=False,
                    follow_redirects=False,
                    timeout=_PATIENCE_S,
                )
                by_trust[key] = await clients.enter_async_context(client)
            found.append(await _followed(by_trust[key], url, headers))
        return found


def _alike(url: str, other: str) -> bool:
    try:
        return origin_of(url) == origin_of(other)
    except ValueError:
        return False


async def _followed(client: httpx.AsyncClient, url: str, headers: Headers) -> Glimpse:
    """The reply behind redirects; the first that leads to another server stands: what is sent
    here is not for it."""
    found = await _glimpse(client, url, headers)
    for _ in range(REDIRECTS):
        at = elsewhere(found)
        try:
            if not at or origin_of(at) != origin_of(found.url):
                break
        except ValueError:
            break
        found = await _glimpse(client, at, headers)
    return found


def elsewhere(found: Glimpse) -> str:
    """Where a redirect leads, as a whole URL; empty where it is none."""
    if found.status not in _REDIRECTS:
        return ""
    place = next((value for name, value in found.headers if name.lower() == "location"), "")
    try:
        return urljoin(found.url, place) if place else ""
    except ValueError:
        return ""


def origin_of(url: str) -> Origin:
    """Whom a header for ``url`` may be sent to, and nobody else. ValueError for no URL."""
    parts = urlsplit(url)
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname, parts.port or usual


async def _glimpse(client: httpx.AsyncClient, url: str, headers: Headers) -> Glimpse:
    # A reply of a few bytes may inflate to gigabytes: none is asked for, none is read.
    own = {"User-Agent": "latdiag", "Accept-Encoding": "identity"}
    sent = [*own.items(), *headers]
    try:
        async with asyncio.timeout(_PATIENCE_S), client.stream("GET", url, headers=sent) as reply:
            had = tuple(list(reply.headers.multi_items())[:_HEADERS])
            if reply.headers.get("content-encoding", "identity").lower() != "identity":
                return Glimpse(url, reply.status_code, had, fault="compressed")
            parts = bytearray()
            async for part in reply.aiter_raw(1 << 16):
                parts += part
                if len(parts) > _LARGEST:
                    return Glimpse(url, reply.status_code, had, fault="too large")
            return Glimpse(url, reply.status_code, had, parts.decode("utf-8", "replace"))
    except (TimeoutError, httpx.TimeoutException):
        return Glimpse(url, fault="timeout")
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError) as fault:
        return Glimpse(url, fault=_named(fault))


def _named(fault: Exception) -> str:
    """What kept a reply from coming, in a word."""
    text = str(fault).lower()
    if "name or service" in text or "name resolution" in text or "nodename" in text:
        return "dns"
    if "certificate" in text or "ssl" in text or "tls" in text:
        return "tls"
    if isinstance(fault, httpx.ConnectError):
        return "refused"
    return "protocol"
