"""Requests out, with what they all bear, and heads in: what is handed over of a reply's."""

from __future__ import annotations

from contextlib import suppress

import httpx

from latdiag.load.plan import LoadPlan, Target
from latdiag.load.wire.exchange import Exchange, Sink

#: Reply headers that the writer needs.
_HEADERS = frozenset({b"content-type", b"retry-after", b"location", b"server"})


def raw_headers(target: Target, url: httpx.URL) -> list[tuple[bytes, bytes]]:
    """The headers common to all requests, encoded once."""
    common = {
        "Host": url.netloc.decode("ascii"),
        "Accept": "text/event-stream",
        # A compressed stream arrives in blocks: its chunks' times say little of the tokens'.
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
        "User-Agent": "latdiag",
    }
    for name, value in target.headers:
        for known in [k for k in common if k.lower() == name.lower()]:
            del common[known]
        common[name] = value
    return [(k.encode("ascii"), v.encode("latin-1")) for k, v in common.items()]


class Requests:
    """The requests of a plan as httpx sends them; what they have in common is encoded once."""

    def __init__(self, plan: LoadPlan) -> None:
        urls = [(each, httpx.URL(each.url)) for each in plan.targets]
        #: of either target
        self._posts = [(url, raw_headers(target, url)) for target, url in urls]
        self._path_url = httpx.URL(plan.path_url)
        self._path_headers = [
            (name, b"application/json" if name == b"Accept" else value)
            for name, value in raw_headers(plan.target, self._path_url)
            if name != b"Content-Type"
        ]
        seconds = plan.timeout_ns / 1e9
        self._timeout = {"connect": seconds, "read": seconds, "write": seconds, "pool": seconds}

    def request(
        self,
        body: bytes,
        ids: tuple[bytes, bytes, bytes],
        fresh: bool,
        exchange: Exchange,
        sink: Sink,
        other: bool = False,
    ) -> httpx.Request:
        """A POST of ``body``, without one a GET. ``ids``: of the request, its trace, its span.
        ``other``: to the other target."""
        request_id, trace_id, span_id = ids
        url, common = self._posts[other] if body else (self._path_url, self._path_headers)
        headers = [
            *common,
            *([(b"Content-Length", b"%d" % len(body))] if body else ()),
            (b"x-request-id", request_id),
            (b"traceparent", b"00-" + trace_id + b"-" + span_id + b"-01"),
        ]
        return httpx.Request(
            "POST" if body else "GET",
            url,
            headers=headers,
            content=body or None,
            extensions={
                "latdiag.sink": sink,
                "latdiag.exchange": exchange,
                "latdiag.fresh": fresh,
                "timeout": self._timeout,
            },
        )


def kept_headers(plan: LoadPlan) -> frozenset[bytes]:
    """The reply headers that leave the process: those the writer needs, and stated times."""
    return _HEADERS | {name.encode() for name in plan.reply_fields.headers}


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
