"""Servers that look like hosted APIs: a peer with the habits of several, and its own truth."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from .peers import DONE, ROLE, Asked, Peer, Wire, delta, event, serving

#: Until the first token, and from one to the next.
FIRST_S, STEP_S = 0.15, 0.01


@dataclass(frozen=True, slots=True)
class Habits:
    """What a hosted API does otherwise. ``least``: tokens of output that it takes at least;
    ``knows``: fields beyond the usual ones; ``hidden``: tokens that it thinks and does not send,
    a step each; ``at_once``: requests that it takes at once."""

    prefix: str = "/v1"
    least: int = 1
    newer: bool = False
    knows: frozenset[str] = frozenset({"stream_options", "include_usage"})
    refusal: str = "400"
    label: str = "text/event-stream"
    pings: bool = False
    hidden: int = 0
    at_once: int = 1000
    holds: bool = False
    blank: bool = True


@dataclass(slots=True)
class Truth:
    """What it did, of the load's requests: instants (MONOTONIC) of tokens by request number."""

    sent: dict[int, list[float]] = field(default_factory=dict)
    refused: int = 0
    open: int = 0
    most_open: int = 0


LOOKALIKES = {
    "a minimum of 16": Habits(least=16),
    "a minimum of 16 by the newer name": Habits(least=16, newer=True),
    "v1beta/openai": Habits(prefix="/v1beta/openai"),
    "keep-alive as data": Habits(pings=True),
    "hidden reasoning": Habits(hidden=50),
    "an event stream under application/json": Habits(label="application/json"),
    "a refusal under 200": Habits(refusal="event"),
    "429 beyond 8": Habits(at_once=8),
    "a reply held open": Habits(holds=True),
    "no blank line at the end": Habits(blank=False),
}


@contextmanager
def looking_like(habits: Habits) -> Iterator[tuple[Peer, str, Truth]]:
    """(the peer, its base URL as an SDK takes it, what it does)."""
    truth, lock = Truth(), threading.Lock()

    def script(wire: Wire, asked: Asked) -> None:
        if asked.method == "GET":
            listed = json.dumps({"data": [{"id": "look-alike"}]})
            there = asked.target == f"{habits.prefix}/models"
            wire.reply(200 if there else 404, listed if there else "")
        elif asked.target != f"{habits.prefix}/chat/completions":
            wire.reply(404)
        elif said := _refusal(habits, asked):
            _refuse(habits, wire, said)
        else:
            with lock:
                truth.open += 1
                truth.most_open = max(truth.most_open, truth.open)
                full = truth.open > habits.at_once
                truth.refused += full
            try:
                if full:
                    wire.reply(
                        429, json.dumps({"error": {"message": "slow down"}}), "Retry-After: 1"
                    )
                else:
                    _stream(habits, wire, asked, truth)
            finally:
                with lock:
                    truth.open -= 1

    with serving(script) as peer:
        yield peer, peer.url + habits.prefix, truth


def _refusal(habits: Habits, asked: Asked) -> str:
    ask = asked.document
    fields = {**ask, **(ask.get("stream_options") or {})}
    usual = {"model", "messages", "stream"}
    usual |= {"max_completion_tokens" if habits.newer else "max_tokens"}
    for name in fields:
        if name not in usual | habits.knows:
            return f"Unknown parameter: '{name}'."
    limit = fields.get("max_tokens") or fields.get("max_completion_tokens") or habits.least
    if limit < habits.least:
        return f"Invalid 'max_output_tokens': integer below minimum value {habits.least}."
    return ""


def _refuse(habits: Habits, wire: Wire, said: str) -> None:
    if habits.refusal == "event":
        wire.head()
        wire.chunk(event(error={"message": said, "code": "invalid"}))
        wire.end()
    else:
        wire.reply(400, json.dumps({"error": {"message": said, "type": "invalid_request_error"}}))


def _stream(habits: Habits, wire: Wire, asked: Asked, truth: Truth) -> None:
    ask = asked.document
    n = ask.get("max_tokens") or ask.get("max_completion_tokens") or 7
    sent: list[float] = []
    begun = time.monotonic()
    wire.head(f"Content-Type: {habits.label}")
    if habits.pings:
        wire.chunk(b"data: : PROCESSING\n\n")
    wire.chunk(ROLE)
    for i in range(n):
        due = begun + FIRST_S + (habits.hidden + i) * STEP_S
        time.sleep(max(0.0, due - time.monotonic()))
        wire.chunk(delta(content=f"w{i} "))
        sent.append(time.monotonic())
        if habits.pings and i % 8 == 3:
            wire.chunk(b"data: : PROCESSING\n\n")
    wire.chunk(delta("length"))
    total = {"prompt_tokens": 99, "completion_tokens": n + habits.hidden}
    details = {"completion_tokens_details": {"reasoning_tokens": habits.hidden}}
    last = event(id="x", choices=[], usage={**total, **(details if habits.hidden else {})})
    if habits.blank:
        wire.chunk(last, DONE)
    else:
        wire.chunk(last.rstrip(b"\n"))
    if asked.number is not None:
        truth.sent[asked.number] = sent
    if habits.holds:
        wire.hang()
    wire.end()
