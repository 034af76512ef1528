"""GET ``/metrics`` of several servers at once, within a time and a size, into evidence rows."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
import zlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

import httpx

from latdiag.ingest.plan import Problem
from latdiag.ingest.prometheus.exposition import MOST_TEXT, columns_of
from latdiag.load.look import REDIRECTS, Glimpse, Headers, Origin, elsewhere, origin_of
from latdiag.load.trust import Trust
from latdiag.model.secrets import concealed
from latdiag.model.text import shown, without_credentials

#: Of all replies of one round together, inflated.
MOST_TOGETHER = 128 << 20
MOST_URLS = 256
_AT_ONCE = 16
_TOO_LONG = (
    f"the metrics are longer than {MOST_TEXT >> 20} MiB, or those of all servers together than"
    f" {MOST_TOGETHER >> 20} MiB"
)
#: The second choice is what newer exporters answer if asked for nothing.
_ACCEPT = "text/plain;version=0.0.4;q=1,application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1"
_OWN = {"Accept": _ACCEPT, "Accept-Encoding": "gzip", "User-Agent": "latdiag"}


@dataclass(frozen=True, slots=True)
class _Reply:
    at_ns: int
    text: str
    content_type: str


class _Refused(Exception):
    """A reply that is no scrape; the sentence for it."""


class Scraper:
    """Scrapes of ``urls``; a URL without a path means its ``/metrics``.

    ``families``: the names kept (``columns_of``); ``timeout``: seconds for a whole request;
    ``headers`` go out to the URLs of their origin; the client's certificate of ``trust``, and its
    leave not to verify, are for the origins ``targets``. ValueError for URLs that are none, hold
    a user or password, or are too many.
    """

    def __init__(
        self,
        urls: Sequence[str],
        families: frozenset[str],
        timeout: float = 5.0,
        *,
        headers: Mapping[Origin, Headers] | None = None,
        trust: Trust | None = None,
        targets: Collection[Origin] = (),
    ) -> None:
        if len(urls) > MOST_URLS:
            raise ValueError(f"{len(urls)} metrics URLs: at most {MOST_URLS} are scraped")
        self._replicas = _named(list(dict.fromkeys(metrics_url(url) for url in urls)))
        self._families = families
        self._timeout = timeout
        self._headers = headers or {}
        # Certificates take 20 ms to load: only where they are needed, and once.
        own = trust or Trust()
        self._verify: dict[str, ssl.SSLContext] = {}
        contexts: dict[Trust, ssl.SSLContext] = {}
        for url in self._replicas:
            if url.startswith("https:"):
                theirs = own if origin_of(url) in targets else own.for_others()
                if theirs not in contexts:
                    contexts[theirs] = theirs.context()
                self._verify[url] = contexts[theirs]
        self._room = 0

    def scrape(self, edge: str) -> tuple[dict[str, list[Any]], list[Problem]]:
        """One scrape of every URL, for callers without an event loop; see ``scraped``."""
        return asyncio.run(self.scraped(edge))

    async def scraped(self, edge: str) -> tuple[dict[str, list[Any]], list[Problem]]:
        """Columns of the table ``evidence`` (empty where nothing came), and what is missing.

        ``edge`` is stored as each row's ``foreign_value``. Never raises for what a server does:
        one that is away, slow, too big or no exporter is a ``Problem``. A row's instant is the
        middle between the request's start and the head of its reply.
        """
        self._room = MOST_TOGETHER
        gate = asyncio.Semaphore(_AT_ONCE)
        async with contextlib.AsyncExitStack() as stack:
            clients: dict[ssl.SSLContext | bool, httpx.AsyncClient] = {}
            used: set[ssl.SSLContext | bool] = {*self._verify.values(), False}
            for verify in used:
                client = httpx.AsyncClient(
                    verify=verify, trust_env=False, follow_redirects=False, timeout=self._timeout
                )
                clients[verify] = await stack.enter_async_context(client)
            found = await asyncio.gather(
                *(
                    self._reply(clients[self._verify.get(url, False)], gate, url)
                    for url in self._replicas
                )
            )
        columns: dict[str, list[Any]] = {}
        problems: list[Problem] = []
        # Only when all have come: parsing holds up the loop, and with it the others' clocks.
        for replica, reply in zip(self._replicas.values(), found, strict=True):
            self._take(replica, reply, edge, columns, problems)
        return columns, problems

    def _take(
        self,
        replica: str,
        reply: _Reply | str,
        edge: str,
        columns: dict[str, list[Any]],
        problems: list[Problem],
    ) -> None:
        """Adds the rows of one reply to ``columns``."""
        if isinstance(reply, str):
            problems.append(Problem(replica, reply))
            return
        dropped: Counter[str] = Counter()
        try:
            rows = columns_of(
                reply.text,
                at_ns=reply.at_ns,
                replica=replica,
                edge=edge,
                families=self._families,
                content_type=reply.content_type,
                dropped=dropped,
            )
        except ValueError as fault:
            problems.append(Problem(replica, str(fault)))
            return
        if not rows["kind"]:
            problems.append(Problem(replica, "latdiag knows none of its metrics"))
        for name, values in rows.items():
            columns.setdefault(name, []).extend(values)
        problems += [Problem(replica, why, count) for why, count in sorted(dropped.items())]

    async def _reply(
        self, client: httpx.AsyncClient, gate: asyncio.Semaphore, url: str
    ) -> _Reply | str:
        """The reply of one URL, or the sentence why there is none."""
        async with gate:
            try:
                # httpx bounds every read; only this bounds a head that comes byte by byte.
                async with asyncio.timeout(self._timeout):
                    return await self._get(client, url)
            except (TimeoutError, httpx.TimeoutException):
                return f"no whole reply within {self._timeout:g} s"
            except _Refused as refused:
                return str(refused)
            except httpx.LocalProtocolError:
                return "a header to be sent is malformed"  # httpx would quote it
            except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError) as fault:
                return f"{type(fault).__name__}: {concealed(shown(fault, 120))}"

    async def _get(self, client: httpx.AsyncClient, url: str) -> _Reply:
        """What stands at ``url``, or where that redirects to on its own origin."""
        headers = [*_OWN.items(), *self._headers.get(origin_of(url), ())]
        place = url
        for _ in range(REDIRECTS + 1):
            begun_ns = time.monotonic_ns()
            async with client.stream("GET", place, headers=headers) as response:
                at_ns = (begun_ns + time.monotonic_ns()) // 2
                replied = tuple(response.headers.multi_items())
                further = elsewhere(Glimpse(place, response.status_code, replied))
                if not further:
                    return await self._read(url, response, at_ns)
            if not _same(further, url):
                to = concealed(shown(without_credentials(further), 120))
                status = response.status_code
                raise _Refused(f"HTTP {status}: a redirect to another server, not followed: {to}")
            place = further
        raise _Refused(f"HTTP {response.status_code}: a redirect without end")

    async def _read(self, url: str, response: httpx.Response, at_ns: int) -> _Reply:
        status = response.status_code
        if status in (401, 403):
            given = bool(self._headers.get(origin_of(url)))
            why = "the server refuses the credentials sent" if given else "it wants credentials"
            raise _Refused(f"HTTP {status}: {why} (--metrics-header-env 'NAME: VARIABLE')")
        if status != 200:
            raise _Refused(f"HTTP {status}")
        body = await self._body(response)
        kind = response.headers.get("content-type", "")[:128]
        return _Reply(at_ns, body.decode("utf-8", "replace"), kind)

    async def _body(self, response: httpx.Response) -> bytes:
        """The body, inflated; never more than the bounds in memory."""
        encoding = response.headers.get("content-encoding", "").strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip"):
            raise _Refused("the reply has an encoding that was not requested")
        inflate = zlib.decompressobj(31) if encoding.endswith("gzip") else None
        body = bytearray()
        async for chunk in response.aiter_raw(1 << 16):
            room = min(MOST_TEXT - len(body), self._room) + 1
            if inflate is not None:
                try:
                    plain = inflate.decompress(chunk, room)
                except zlib.error:
                    raise _Refused("the reply says that it is gzip, but it is not") from None
            else:
                plain = chunk
            if len(plain) >= room:
                raise _Refused(_TOO_LONG)
            self._room -= len(plain)
            body += plain
        if inflate is not None and not inflate.eof:
            raise _Refused("the compressed reply ends early")
        return bytes(body)


def _same(further: str, url: str) -> bool:
    """Whether a redirect stays on its origin: another would get what is not meant for it."""
    try:
        return origin_of(further) == origin_of(url)
    except ValueError:
        return False


def _named(urls: list[str]) -> dict[str, str]:
    """By URL the replica's name: the URL without what may be secret, numbered where two are left
    with one name."""
    names = [without_credentials(url) for url in urls]
    return {
        url: name if names.count(name) == 1 else f"{name}#{place + 1}"
        for place, (url, name) in enumerate(zip(urls, names, strict=True))
    }


def parts_of(url: str, what: str) -> SplitResult:
    """The parts of an http or https URL whose scheme the user may leave away. ValueError, which
    calls it ``what``, for one that is none, or that holds credentials."""
    if "://" not in url:
        url = f"http://{url}"
    try:
        parts = urlsplit(url)
        _ = parts.port, httpx.URL(url).host
    except (ValueError, httpx.InvalidURL, UnicodeError):
        raise ValueError(f"{what} is malformed") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{shown(without_credentials(url), 80)!r} is not an http or https URL")
    if "@" in parts.netloc:
        raise ValueError(f"{what} holds a user name or password")
    return parts


def metrics_url(url: str) -> str:
    """``url`` with the scheme and the path that the user may leave away."""
    parts = parts_of(url, "a metrics URL")
    path = parts.path if parts.path not in ("", "/") else "/metrics"
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))
