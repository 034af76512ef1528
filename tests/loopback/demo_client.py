"""A client of the demo server: requests, and what was seen of their replies."""

from __future__ import annotations

import json
import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

#: Far more than any delay of a busy machine that is still worth a test.
PATIENCE_NS = 5_000_000_000


@dataclass
class Seen:
    """A reply as a client saw it; instants are CLOCK_MONOTONIC, in ns."""

    status: int = 0
    sent_ns: int = 0
    headers_ns: int = 0
    done_ns: int = 0
    events: list[tuple[int, Any]] = field(default_factory=list)

    @property
    def tokens(self) -> list[tuple[int, Any]]:
        def bears(event: Any) -> bool:
            choices = event["choices"] if isinstance(event, dict) else []
            said = [c.get("text") or c.get("delta", {}).get("content") for c in choices]
            return any(said)

        return [(at_ns, event) for at_ns, event in self.events if bears(event)]


def stream(url: str, body: dict[str, Any], path: str = "completions", **headers: str) -> Seen:
    """One streamed request by httpx, each event with the instant at which it was read."""
    seen = Seen()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    asked = {"stream": True, "stream_options": {"include_usage": True}, **body}
    with httpx.Client(timeout=30) as client, ExitStack() as stack:
        seen.sent_ns = time.monotonic_ns()  # making a client takes longer than a short reply
        request = client.stream("POST", f"{url}/{path}", json=asked, headers=named)
        reply = stack.enter_context(request)
        seen.status, seen.headers_ns = reply.status_code, time.monotonic_ns()
        for line in reply.iter_lines():
            if line:
                data = line.removeprefix("data: ")
                event = data if data == "[DONE]" else json.loads(data)
                seen.events.append((time.monotonic_ns(), event))
    seen.done_ns = time.monotonic_ns()
    return seen


def post(url: str, body: dict[str, Any] | bytes, path: str = "completions") -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(f"{url}/{path}", content=content, timeout=30)


def metrics(url: str) -> dict[str, float]:
    """The samples of /metrics, by name with labels."""
    text = httpx.get(f"{url.removesuffix('/v1')}/metrics", timeout=30).text
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def figure(url: str, name: str) -> float:
    found = metrics(url)
    return sum(value for key, value in found.items() if key.partition("{")[0] == name)


def truths(path: Path) -> dict[str, dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({line["request_id"] for line in lines}) == len(lines)
    return {line["request_id"]: line for line in lines}


def tcp(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=30)
