"""Which server is on this machine, where no URL was given: the usual ports, by one GET each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic

from latdiag.model.errors import UsageFault
from latdiag.model.text import shown

#: port: whose usual one it is
USUAL = {
    8000: "vLLM, Dynamo, TensorRT-LLM",
    30000: "SGLang",
    8080: "llama.cpp, TGI",
    11434: "Ollama",
    1234: "LM Studio",
    4000: "LiteLLM",
    3000: "TGI",
    23333: "LMDeploy",
}
_PATIENCE_S = 1.0
#: Bytes that are read of a reply, and models that are named.
_MOST, _NAMED = 65_536, 3


@dataclass(frozen=True, slots=True)
class Server:
    """What answers /v1/models of a usual port. ``models``: names, none where it wants a key."""

    port: int
    models: tuple[str, ...]
    wants_key: bool = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def line(self) -> str:
        """One line for people."""
        more = len(self.models) - _NAMED
        named = ", ".join(shown(name, 60) for name in self.models[:_NAMED])
        named += f" and {more} more" if more > 0 else ""
        what = (
            "requires an API key" if self.wants_key else f"model {named}" if named else "no model"
        )
        return f"{self.url} ({what}; usual port of {USUAL[self.port]})"


def the_server() -> Server:
    """The one server that answers. UsageFault where there is none, or several to choose from."""
    found = list(servers())
    if not found:
        ports = ", ".join(map(str, USUAL))
        raise UsageFault(
            f"no URL was given, and no server answers GET /v1/models on this machine ({ports})",
            "give its URL: latdiag probe http://HOST:PORT/v1; or try the demo: latdiag probe"
            " demo:queue",
        )
    if len(found) > 1:
        listed = "; ".join(server.line() for server in found)
        raise UsageFault(
            f"no URL was given, and {len(found)} servers answer here: {listed}",
            f"name one: latdiag probe {found[0].url}",
        )
    return found[0]


def servers() -> Iterator[Server]:
    """Those that answer as an OpenAI server does, in the order of ``USUAL``."""
    with ThreadPoolExecutor(len(USUAL)) as pool:
        yield from (server for server in pool.map(_asked, USUAL) if server is not None)


def _asked(port: int) -> Server | None:
    import httpx

    until = monotonic() + _PATIENCE_S
    headers = {"Accept-Encoding": "identity"}
    try:
        # Nobody's proxy lies between this machine and itself.
        with (
            httpx.Client(trust_env=False, timeout=_PATIENCE_S) as client,
            client.stream("GET", f"http://127.0.0.1:{port}/v1/models", headers=headers) as reply,
        ):
            if reply.status_code in (401, 403):
                return Server(port, (), wants_key=True)
            if reply.status_code != 200:
                return None
            body = b""
            for piece in reply.iter_raw():
                body += piece
                if len(body) > _MOST or monotonic() > until:
                    return None
    except (httpx.HTTPError, ValueError):
        return None
    return _read(port, body)


def _read(port: int, body: bytes) -> Server | None:
    """The server by its list of models; None for a body that is none."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    listed = document.get("data", document.get("models")) if isinstance(document, dict) else None
    if not isinstance(listed, list):
        return None
    names = (each.get("id") or each.get("name") for each in listed if isinstance(each, dict))
    return Server(port, tuple(name for name in names if isinstance(name, str)))
