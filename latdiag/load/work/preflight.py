"""A few requests before the load: is this an LLM endpoint, which model, which fields it takes.

What cannot work is said here, with what to try, instead of as ten thousand failed requests.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit, urlunsplit

import httpx

from latdiag.load.dialects import DIALECTS, Ask, Dialect, Event, dialect_of_path
from latdiag.load.plan import Target
from latdiag.load.redact import clean
from latdiag.load.row import Row
from latdiag.load.wire.exchange import Ended, Exchange
from latdiag.load.wire.transport import StampedTransport
from latdiag.load.work.lengths import LONGEST
from latdiag.model.errors import TargetFault, UsageFault
from latdiag.model.records import Outcome
from latdiag.model.text import shown, without_credentials
from latdiag.store.clock import sample

#: What is asked for first, and what remains after each refusal.
LADDER: tuple[frozenset[str], ...] = (
    frozenset({"usage", "continuous_usage", "ignore_eos", "min_tokens", "return_token_ids"}),
    frozenset({"usage", "continuous_usage", "ignore_eos", "min_tokens"}),
    frozenset({"usage", "ignore_eos", "min_tokens"}),
    frozenset({"usage"}),
    frozenset({"usage", "max_completion_tokens"}),
    frozenset(),
)
_REPLY_LIMIT = 4 << 20
#: What the user sends in a header and is shorter than this may well be part of a model's name.
_CREDENTIAL = 8


@dataclass(frozen=True, slots=True)
class Answer:
    """One request's end. ``isl``: tokens of input as the server counts them."""

    outcome: Outcome
    status: int
    error: str
    isl: int | None
    arrivals: int


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


def locate(url: str, path: str | None) -> tuple[str, str, Dialect]:
    """(base URL, URL of the requests, dialect) from what the user wrote.

    ``http://host:8000``, ``.../v1`` and ``.../v1/chat/completions`` all name the same endpoint.
    """
    if "://" not in url:
        url = f"http://{url}"
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as fault:
        # Not its own words: they quote what stands for the port, which may be of a password.
        what = (
            "its port is not a number up to 65535" if "port" in str(fault).lower() else "its host"
        )
        text = f"the URL is malformed: {what}"
        raise UsageFault(text, "write for example http://127.0.0.1:8000") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageFault(
            f"{shown(without_credentials(url), 80)!r} is not an http or https URL",
            "write for example http://127.0.0.1:8000",
        )
    if parts.username or parts.password:
        raise UsageFault(
            "the URL holds a user name or password", "put credentials in --api-key-env"
        )
    root = parts.path.rstrip("/")
    dialect = dialect_of_path(path or root)
    if path:
        if dialect is None:
            raise UsageFault(
                f"latdiag knows no API at the path {shown(path, 60)!r}",
                "known: " + ", ".join(d.path for d in DIALECTS.values()),
            )
        base = root.removesuffix(path.rstrip("/"))
        base = base.removesuffix("/v1") if path.startswith("/v1/") else base
        full = base + path
    elif dialect is not None:
        full = root
        base = root.removesuffix(dialect.path.removeprefix("/v1")).removesuffix("/v1")
    else:
        dialect = DIALECTS["openai-chat"]
        base = root.removesuffix("/v1")
        full = base + dialect.path

    def build(where: str) -> str:
        return urlunsplit((parts.scheme, parts.netloc, where, parts.query, ""))

    try:
        _ = httpx.URL(build(full)).host
    except (httpx.InvalidURL, UnicodeError) as fault:
        text = f"the host name or the path of the URL is malformed: {shown(fault, 80)}"
        raise UsageFault(text, "write for example http://127.0.0.1:8000") from fault
    return build(base), build(full), dialect


class Preflight:
    """Requests before the load, over one connection of their own."""

    def __init__(
        self,
        base: str,
        target: Target,
        dialect: Dialect,
        read: Callable[[bytes], Event],
        timeout_s: float,
        kernel_stamps: bool,
    ) -> None:
        self._base = base
        self._target = target
        self._dialect = dialect
        self._read = read
        self._timeout_s = timeout_s
        self._transport = StampedTransport(verify=target.verify, stamped=kernel_stamps)
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
    async def ask_model(self) -> tuple[str, int]:
        """(the first model that ``/v1/models`` lists, how many it lists)."""
        url = self._url("/v1/models")
        where = without_credentials(url)
        status, headers, reply = await self._get(url)
        if status != 404:
            self._check_status(status, "", url)
        try:
            listed = json.loads(reply)["data"]
            model = listed[0]["id"]
        except (ValueError, LookupError, TypeError, RecursionError):
            listed, model = [], None
        if status != 200 or not isinstance(model, str):
            raise TargetFault(
                f"{where} lists no model: HTTP {status}",
                "name one with --model, and check host, port and path of the URL",
            )
        if not self._usable(model):
            raise TargetFault(
                f"{where} lists a model without a usable name", "name one with --model"
            )
        self._note_server(headers.get("server", ""))
        return model, len(listed)

    def _note_server(self, header: str) -> None:
        self.server = clean(header, b"", self._target.secrets)[:80] or self.server

    async def ask_context(self, model: str) -> tuple[str, int | None]:
        """(the URL of a reply that costs nothing, ``max_model_len`` of ``model`` if stated)."""
        url = self._url("/v1/models")
        status, _, reply = await self._get(url)
        return (self._url("/health"), None) if status == 404 else (url, _context(reply, model))

    def _url(self, path: str) -> str:
        parts = urlsplit(self._base)
        return urlunsplit((parts.scheme, parts.netloc, parts.path + path, parts.query, ""))

    def _usable(self, model: str) -> bool:
        """Whether a listed name can be sent and stored: harmless, and no echo of a credential."""
        hidden = [s for s in self._target.secrets if len(s) >= _CREDENTIAL]
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
        given = dict(self._target.headers)
        taken = {name.lower() for name in given}
        ids = {"traceparent": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"}
        return {**{k: v for k, v in own.items() if k.lower() not in taken}, **given, **ids}

    # ------------------------------------------------------------------ one request
    async def ask(self, ask: Ask) -> Answer:
        """One streamed request, read to its end and parsed."""
        return await self.send(self._dialect.body(ask))

    async def send(self, body: bytes) -> Answer:
        exchange = Exchange()
        begun = (1, 0, b"", b"", b"", 0, 0, 0, "preflight", time.monotonic_ns(), body)
        row = Row(begun, self._read, self._target.secrets)
        offset_ns = (now := sample(1)).real_ns - now.mono_ns
        headed = False

        def sink(real_ns: int, user_ns: int, floor_ns: int, data: bytes) -> None:
            nonlocal headed
            if not headed:
                headed = True
                kinds = [v for k, v in exchange.headers if k.lower() == b"content-type"]
                row.head(exchange.status, exchange.encoding, (kinds or [b""])[0].lower())
            row.take(real_ns, user_ns, floor_ns, data, offset_ns)

        request = self._client.build_request(
            "POST",
            self._target.url,
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
        return Answer(outcome, exchange.status, error, scalars.isl, len(row.kinds))

    async def negotiate(self, ask: Ask, wanted: frozenset[str]) -> tuple[Answer, frozenset[str]]:
        """The answer to ``ask`` with the most extras that the server does not refuse."""
        tried: set[frozenset[str]] = set()
        answer: Answer | None = None
        for rung in LADDER:
            extras = rung & (wanted | {"max_completion_tokens"})
            if extras in tried:
                continue
            tried.add(extras)
            answer = await self.ask(replace(ask, extras=extras))
            if answer.status not in (400, 422):
                self._check_status(answer.status, answer.error, self._target.url)
                return answer, extras
        assert answer is not None
        raise TargetFault(
            f"the server refuses the request: {answer.error}",
            "check --model, --isl, --osl and --body-json against what it allows",
        )

    # ------------------------------------------------------------------ what cannot work
    def _unreachable(self, exchange: Exchange, text: str) -> TargetFault:
        url = without_credentials(self._target.url)
        remedy = {
            "dns": "check the host name",
            "refused": "check that the server is running, and its port",
            "tls": "check the certificate (--insecure skips verification), or use http:// if the"
            " server has no TLS",
            "timeout": "check that the host can be reached from this machine; a longer --timeout"
            " waits longer",
        }.get(exchange.fault, "check scheme and port: this may not be an HTTP server")
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
            raise TargetFault(f"nothing at {where}: HTTP 404{detail}", self._other_paths())
        if 300 <= status < 400:
            raise TargetFault(
                f"{where} redirects, and latdiag does not follow redirects of a POST:"
                f" HTTP {status}{detail}",
                "give the final URL",
            )

    def _other_paths(self) -> str:
        asked = urlsplit(self._target.url).path
        others = [d.path for d in DIALECTS.values() if not asked.endswith(d.path)]
        return f"try --path {' or --path '.join(others)}, or check --model and the URL's path"


def _context(reply: bytes, model: str) -> int | None:
    """The longest sequence that a list of models states for ``model``; None where it does not."""
    try:
        listed = json.loads(reply)["data"]
        stated = [entry.get("max_model_len") for entry in listed if entry.get("id") == model]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    found = stated[0] if stated else None
    return found if type(found) is int and 0 < found <= LONGEST else None
