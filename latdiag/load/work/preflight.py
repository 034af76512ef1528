"""A few requests before the load: is this an LLM endpoint, which model, which fields it takes.

What cannot work is said here, with what to try, instead of as ten thousand failed requests.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from urllib import request as proxies
from urllib.parse import urlsplit

import httpx

from latdiag.load.dialects import DIALECTS, Ask, Dialect, Event
from latdiag.load.dialects.sse import END_MARK, END_WITHIN
from latdiag.load.plan import Target
from latdiag.load.redact import clean
from latdiag.load.row import Row
from latdiag.load.wire.connection import HTTP_2
from latdiag.load.wire.exchange import Ended, Exchange
from latdiag.load.wire.transport import StampedTransport
from latdiag.load.work.lengths import LONGEST
from latdiag.load.work.negotiate import Answer
from latdiag.load.work.place import lists_beside, lists_of
from latdiag.model.errors import TargetFault
from latdiag.model.records import Outcome
from latdiag.model.text import shown, without_credentials
from latdiag.store.clock import sample

_REPLY_LIMIT = 4 << 20
#: What a server answers where nothing is spoken.
_NO_PATH = (404, 405)
#: What the user sends in a header and is shorter than this may well be part of a model's name.
_CREDENTIAL = 8


class NothingThere(TargetFault):
    """The server knows neither the path, nor perhaps the model."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the preflight found out about the target."""

    target: Target
    dialect: str
    model: str
    extras: frozenset[str]
    refused_extras: frozenset[str]
    server: str | None
    peer: str | None
    model_asked: bool
    models_offered: int = 0
    #: what a server answers without effort, where a design asked for it
    cheap_url: str = field(default="", repr=False)
    #: tokens of input and output together, where the server states it
    max_model_len: int | None = None
    #: models that the server lists before ``model``, and that answered no request
    passed_over: tuple[str, ...] = ()
    #: how the server labels its event streams, where that is not what they are
    label: str = ""


class Preflight:
    """Requests before the load, over one connection of their own."""

    def __init__(
        self,
        target: Target,
        others: Sequence[str],
        dialect: Dialect,
        read: Callable[[bytes], Event],
        timeout_s: float,
        kernel_stamps: bool,
    ) -> None:
        #: where requests go; the first of ``others`` once there turned out to be nothing
        self.target = target
        self._others = list(others)
        self._dialect = dialect
        self._read = read
        self._timeout_s = timeout_s
        self._transport = StampedTransport(
            verify=target.trust.context() if target.url.startswith("https") else True,
            stamped=kernel_stamps,
        )
        self._client = httpx.AsyncClient(
            transport=self._transport, trust_env=False, timeout=timeout_s
        )
        self._tag = f"preflight-{secrets.token_hex(4)}"
        self._sent = 0
        #: who answered, by the Server header of the newest reply that bore one
        self.server: str | None = None

    @property
    def peer(self) -> str | None:
        """Address and port of the first TCP hop, once there was a connection."""
        return self._transport.peer

    async def close(self) -> None:
        await self._client.aclose()

    # ------------------------------------------------------------------ which model
    async def ask_models(self) -> list[str]:
        """The names of the models that the server lists, in its order."""
        own, *others = (
            (place, url) for place in (self.target.url, *self._others) for url in lists_of(place)
        )
        place, url = own
        status, headers, reply = await self._get(url)
        for other, its_list in others if status == 404 else ():
            there = await self._get(its_list)
            if there[0] != 404:
                place, url, (status, headers, reply) = other, its_list, there
                break
        if status != 404:
            self._check_status(status, "", url)
        where = without_credentials(url)
        try:
            listed = [entry["id"] for entry in json.loads(reply)["data"]]
        except (ValueError, LookupError, TypeError, RecursionError):
            listed = []
        if status != 200 or not listed or not isinstance(listed[0], str):
            raise TargetFault(
                f"{where} lists no model: HTTP {status}",
                "name one with --model, and check host, port and path of the URL",
            )
        usable = [name for name in listed if isinstance(name, str) and self._usable(name)]
        if not usable:
            raise TargetFault(
                f"{where} lists a model without a usable name", "name one with --model"
            )
        if place != self.target.url:
            self._others = [self.target.url, *(url for url in self._others if url != place)]
            self.target = replace(self.target, url=place)
        self._note_server(headers.get("server", ""))
        return usable

    def _note_server(self, header: str) -> None:
        self.server = clean(header, b"", self.target.secrets)[:80] or self.server

    async def ask_context(self, model: str) -> tuple[str, int | None]:
        """(the URL of a reply that costs nothing, ``max_model_len`` of ``model`` if stated)."""
        url = lists_beside(self.target.url)
        status, _, reply = await self._get(url)
        if status != 404:
            return url, _context(reply, model)
        return url.removesuffix("/models").removesuffix("/v1") + "/health", None

    def _usable(self, model: str) -> bool:
        """Whether a listed name can be sent and stored: harmless, and no echo of a credential."""
        hidden = [s for s in self.target.secrets if len(s) >= _CREDENTIAL]
        return model == shown(model, 300) != "" and not any(s in model for s in hidden)

    async def _get(self, url: str) -> tuple[int, httpx.Headers, bytes]:
        exchange = Exchange()
        try:
            async with self._client.stream(
                "GET",
                url,
                headers={**self._headers(), "Accept": "application/json"},
                extensions={"latdiag.exchange": exchange},
            ) as response:
                parts: list[bytes] = []
                size = 0
                async for part in response.aiter_bytes():
                    parts.append(part)
                    size += len(part)
                    if size > _REPLY_LIMIT:
                        break
                return response.status_code, response.headers, b"".join(parts)
        except httpx.DecodingError:
            return response.status_code, response.headers, b""
        except httpx.TransportError as fault:
            raise self._unreachable(exchange, str(fault)) from fault

    def _headers(self) -> dict[str, str]:
        """What every request bears: the user's headers, and ids to find it by in the logs."""
        self._sent += 1
        own = {
            "User-Agent": "latdiag",
            "Accept-Encoding": "identity",
            "x-request-id": f"{self._tag}-{self._sent:02x}",
        }
        given = dict(self.target.headers)
        taken = {name.lower() for name in given}
        ids = {"traceparent": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"}
        return {**{k: v for k, v in own.items() if k.lower() not in taken}, **given, **ids}

    # ------------------------------------------------------------------ one request
    async def ask(self, ask: Ask) -> Answer:
        """One streamed request, read to its end and parsed. Where there is nothing at the path,
        the next one is tried, once. Raises for what no other form of it would mend."""
        body = self._dialect.body(ask)
        answer = first = await self.send(body)
        given, others = self.target, self._others
        while answer.status in _NO_PATH and self._others:
            self.target = replace(given, url=self._others[0])
            self._others = self._others[1:]
            answer = await self.send(body)
        if answer.status in _NO_PATH and answer is not first:
            self.target, answer = given, first
            self._others = others
        self._check_status(answer.status, answer.error, self.target.url)
        self._others = []
        return answer

    async def send(self, body: bytes) -> Answer:
        exchange = Exchange()
        begun = (1, 0, b"", b"", b"", 0, 0, 0, "preflight", time.monotonic_ns(), body)
        row = Row(begun, self._read, self.target.secrets)
        offset_ns = (now := sample(1)).real_ns - now.mono_ns
        headed = False

        def sink(real_ns: int, user_ns: int, floor_ns: int, data: bytes) -> bool:
            nonlocal headed
            if not headed:
                headed = True
                kinds = [v for k, v in exchange.headers if k.lower() == b"content-type"]
                row.head(exchange.status, exchange.encoding, (kinds or [b""])[0].lower())
            row.take(real_ns, user_ns, floor_ns, data, offset_ns)
            return END_MARK in data[-END_WITHIN:]

        request = self._client.build_request(
            "POST",
            self.target.url,
            content=body,
            headers={
                "Content-Type": "application/json",
                "Accept": "text/event-stream",
                **self._headers(),
            },
            extensions={
                "latdiag.exchange": exchange,
                "latdiag.sink": sink,
                "timeout": {"connect": self._timeout_s, "read": self._timeout_s},
            },
        )
        try:
            await self._client.send(request, stream=True)
        except httpx.TransportError:
            pass  # the exchange says what it was
        row.end(
            Ended(
                status=exchange.status,
                fault=exchange.fault,
                fault_text=exchange.fault_text,
                done_ns=exchange.done_ns,
                headers={k.lower(): v for k, v in exchange.headers},
            )
        )
        found = {name.lower(): value for name, value in exchange.headers}
        self._note_server(found.get(b"server", b"").decode("latin-1"))
        scalars = row.scalars()
        outcome, error = Outcome(scalars.outcome), scalars.error or ""
        if exchange.fault and exchange.status == 0:
            raise self._unreachable(exchange, error)
        return Answer(
            outcome,
            exchange.status,
            error,
            scalars.isl,
            len(row.kinds),
            scalars.retry_after_s,
            row.refusal,
            row.odd_label,
        )

    # ------------------------------------------------------------------ what cannot work
    def _unreachable(self, exchange: Exchange, text: str) -> TargetFault:
        url = without_credentials(self.target.url)
        remedy = {
            "dns": "check the host name",
            "refused": "check that the server is running, and its port",
            "tls": "check the certificate (--insecure skips verification), or use http:// if the"
            " server has no TLS",
            "timeout": "check that the host can be reached from this machine; a longer --timeout"
            " waits longer",
        }.get(exchange.fault, "check scheme and port: this may not be an HTTP server")
        if HTTP_2 in exchange.fault_text:
            remedy = "give the port at which the server speaks HTTP/1.1; gRPC has one of its own"
        remedy += _unused_proxy(self.target.url)
        return TargetFault(f"{url}: {shown(exchange.fault_text or text)}", remedy)

    def _check_status(self, status: int, said: str, url: str) -> None:
        """Raise for what no repetition would mend."""
        where = without_credentials(url)
        said = said.removeprefix(f"HTTP {status}").removeprefix(": ")
        detail = f" ({said})" if said else ""
        if status in (401, 403):
            what = "requires an API key" if status == 401 else "forbids it"
            raise TargetFault(
                f"{where} {what}: HTTP {status}{detail}",
                "give the name of the variable that holds the key: --api-key-env NAME",
            )
        if status == 404:
            raise NothingThere(f"nothing at {where}: HTTP 404{detail}", self._other_paths())
        if 300 <= status < 400:
            raise TargetFault(
                f"{where} redirects, and latdiag does not follow redirects of a POST:"
                f" HTTP {status}{detail}",
                "give the final URL",
            )

    def _other_paths(self) -> str:
        asked = urlsplit(self.target.url).path
        others = [d.path for d in DIALECTS.values() if not asked.endswith(d.path)]
        also = "".join(f"; {urlsplit(url).path} is not there either" for url in self._others)
        return (
            f"use --path {' or --path '.join(others)}, or check --model and the URL's path{also}"
        )


def _unused_proxy(url: str) -> str:
    """That latdiag connects directly, for an environment that names a proxy for ``url``."""
    parts = urlsplit(url)
    named = proxies.getproxies_environment()
    used = next((kind for kind in (parts.scheme, "all") if named.get(kind)), None)
    bypass = proxies.proxy_bypass_environment  # type: ignore[attr-defined]
    if used is None or bypass(parts.hostname or "", named):
        return ""
    return f"; latdiag uses no proxy, although {used.upper()}_PROXY names one"


def _context(reply: bytes, model: str) -> int | None:
    """The longest sequence that a list of models states for ``model``; None where it does not."""
    try:
        listed = json.loads(reply)["data"]
        stated = [entry.get("max_model_len") for entry in listed if entry.get("id") == model]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    found = stated[0] if stated else None
    return found if type(found) is int and 0 < found <= LONGEST else None
