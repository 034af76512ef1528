"""What a stream shall look like: server flags, overridden by each request."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

MS = 1_000_000

CHOICES = {
    "law": ("constant", "exponential", "lognormal"),
    "role": ("none", "with_first", "early"),
    "headers": ("early", "withheld"),
    "usage": ("asked", "none", "last", "continuous"),
    "tail": ("joined", "separate"),
}
#: Spread of the lognormal law: the mean stays ``itl_ms``.
LOGNORMAL_SIGMA = 0.5


@dataclass(frozen=True, slots=True)
class Options:
    """One stream. Times in ms, indices count chunks, -1 is never."""

    ttft_ms: float = 100.0
    """Think time: from reading the request to the first token, before ``ttft_spread_ms``."""
    ttft_spread_ms: float = 0.0
    """Uniform [0, spread) added to ``ttft_ms``: random phases of the streams."""
    itl_ms: float = 20.0
    law: str = "constant"
    tokens: int = 0
    """0: the request's max_tokens or max_completion_tokens, else 50."""
    tokens_per_chunk: int = 1
    role: str = "with_first"
    headers: str = "early"
    usage: str = "asked"
    """asked: what ``stream_options`` of the request says."""
    tail: str = "joined"
    """joined: usage, [DONE] and the end ride in the last token's send; separate: in their own."""
    pad: int = 0
    """Bytes of padding in each chunk."""
    stall_at: int = -1
    stall_ms: float = 0.0
    reset_at: int = -1
    """Half of this chunk is sent, then the connection is reset."""
    error_at: int = -1
    """An error event takes the place of this chunk, and ends the stream."""
    no_done: bool = False
    status: int = 200
    retry_after: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}")


ALIASES = {"think_ms": "ttft_ms"}
_TYPES: dict[str, type] = {
    f.name: {"float": float, "int": int, "str": str, "bool": bool}[str(f.type)]
    for f in fields(Options)
}


def coerce(name: str, value: object) -> tuple[str, Any]:
    """(field, value of its type) of an option given as text or JSON. Raises ValueError."""
    name = ALIASES.get(name.replace("-", "_"), name.replace("-", "_"))
    kind = _TYPES.get(name)
    if kind is None:
        raise ValueError(f"no option {name!r}")
    if kind is bool:
        return name, value in (True, 1, "1", "true", "yes")
    return name, kind(value)


def overridden(options: Options, changes: Mapping[str, object]) -> Options:
    return replace(options, **dict(coerce(k, v) for k, v in changes.items()))


def parse_cycle(text: str) -> list[dict[str, str]]:
    """``think_ms=1,5;headers=early,withheld`` -> all combinations, the last name fastest."""
    if not text:
        return []
    names, values = [], []
    for part in text.split(";"):
        name, _, choices = part.partition("=")
        names.append(name.strip())
        values.append([c.strip() for c in choices.split(",")])
    return [dict(zip(names, picked, strict=True)) for picked in itertools.product(*values)]


def of_request(
    server: Options, headers: Mapping[bytes, bytes], body: Mapping[str, Any]
) -> Options:
    """``server`` as overridden by ``x-truth-*`` headers and by the body's ``truth`` object."""
    changes: dict[str, object] = {
        name[8:].decode(): value.decode()
        for name, value in headers.items()
        if name.startswith(b"x-truth-")
    }
    said = body.get("truth")
    if isinstance(said, dict):
        changes.update(said)
    options = overridden(server, changes) if changes else server
    if options.tokens <= 0:
        wanted = body.get("max_completion_tokens") or body.get("max_tokens") or 50
        options = replace(options, tokens=int(wanted))
    if options.usage == "asked":
        asked = body.get("stream_options")
        asked = asked if isinstance(asked, dict) else {}
        usage = "last" if asked.get("include_usage") else "none"
        if asked.get("continuous_usage_stats"):
            usage = "continuous"
        options = replace(options, usage=usage)
    return options


def draw_ttft(options: Options, number: int) -> int:
    """ns from reading request ``number`` to its first token."""
    ttft = options.ttft_ms
    if options.ttft_spread_ms:
        rng = random.Random(options.seed * 1_000_003 + number)
        ttft += rng.uniform(0.0, options.ttft_spread_ms)
    return round(ttft * MS)


def gaps(options: Options, number: int) -> Iterator[int] | None:
    """ns between chunks without end; None where all gaps are ``itl_ms``."""
    if options.law == "constant":
        return None
    rng = random.Random(options.seed * 1_000_003 + number + 500_000)
    mean = options.itl_ms * MS
    if options.law == "exponential":
        return (round(rng.expovariate(1.0 / mean)) for _ in itertools.count())
    mu = math.log(mean) - LOGNORMAL_SIGMA**2 / 2
    return (round(rng.lognormvariate(mu, LOGNORMAL_SIGMA)) for _ in itertools.count())


def parse_body(body: bytes) -> dict[str, Any]:
    """The JSON object of a request; {} where it is none."""
    try:
        parsed = json.loads(body) if body else {}
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def prompt_tokens(body: Mapping[str, Any]) -> int:
    """This server's tokenizer: ids as given, else one token per four characters."""
    prompt = body.get("prompt")
    if isinstance(prompt, list) and all(isinstance(p, int) for p in prompt):
        return len(prompt)
    text = prompt if isinstance(prompt, str) else ""
    messages = body.get("messages")
    for message in messages if isinstance(messages, list) else []:
        content = message.get("content") if isinstance(message, dict) else None
        text += content if isinstance(content, str) else ""
    return max(1, -(-len(text) // 4))
