"""Where an endpoint is, from what the user wrote: of his server, or of another kind of API."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

import httpx

from latdiag.load.dialects import DIALECTS, Dialect, dialect_of_path
from latdiag.model.errors import UsageFault
from latdiag.model.text import shown, without_credentials

#: Ends of paths at which other APIs are spoken, and what people call these.
_OTHERS = {
    "/v1/messages": "Anthropic's Messages API",
    "/v1/complete": "Anthropic's older API",
    "/v1/responses": "OpenAI's Responses API",
    "/openai/responses": "OpenAI's Responses API",
    "/v1/embeddings": "an API of embeddings",
    "/v1/rerank": "an API of rerankers",
    "/v1/audio/transcriptions": "an API of transcriptions",
    "/v1/images/generations": "an API of images",
    "/api/generate": "Ollama's own API",
    "/api/chat": "Ollama's own API",
    "/generate_stream": "an API of the server's own",
    "/invocations": "SageMaker's API",
    "/converse": "Bedrock's API",
    "/converse-stream": "Bedrock's API",
    ":generateContent": "Gemini's own API",
    ":streamGenerateContent": "Gemini's own API",
}
#: A page beside the requests, which people copy.
_LIST = "/models"


def siblings(url: str) -> tuple[str, ...]:
    """Where else the API may be whose path latdiag has put behind a URL of the user's: SDKs put
    its last part alone behind their base URL (``BASE/chat/completions``)."""
    parts = urlsplit(url)
    root, v1, end = parts.path.rpartition("/v1/")
    return (urlunsplit(parts._replace(path=f"{root}/{end}")),) if v1 else ()


def lists_beside(url: str) -> str:
    """Where a list of models stands, by the URL of the requests."""
    parts = urlsplit(url)
    dialect = dialect_of_path(parts.path)
    short = dialect.path.removeprefix("/v1") if dialect else ""
    path = parts.path.rstrip("/").removesuffix(short) + _LIST
    return urlunsplit(parts._replace(path=path))


def lists_of(url: str) -> tuple[str, ...]:
    """Where a list of models may stand: beside the requests, or at the root as servers have it
    whose requests go to a path of their own."""
    beside, parts = lists_beside(url), urlsplit(url)
    root = urlunsplit(parts._replace(path=f"/v1{_LIST}"))
    return (beside,) if "/v1/" in parts.path else tuple(dict.fromkeys((beside, root)))


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
    root = parts.path.rstrip("/").removesuffix(_LIST)
    _check_spoken(url, root)
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


def _check_spoken(url: str, path: str) -> None:
    """UsageFault for a path of another API."""
    other = next((name for end, name in _OTHERS.items() if path.endswith(end)), None)
    if other is not None:
        raise UsageFault(
            f"{shown(without_credentials(url), 120)} is a path of {other}, and latdiag speaks"
            " OpenAI's chat completions and completions",
            "give the base URL at which the server speaks these, for example http://HOST:PORT/v1",
        )
