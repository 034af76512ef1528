"""Replies that would fill the memory: they end early, and no process grows with them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .invoke import loaded
from .peers import Asked, Script, Wire, delta, endpoint, serving

MIB = 1 << 20
LARGEST_KB = 300 * 1024


def long_line(wire: Wire, _asked: Asked) -> None:
    wire.head()
    wire.chunk(delta(content="w"), b"data: ", *[b"x" * MIB] * 100)
    wire.chunk(b"\n\n", b"data: [DONE]\n\n")
    wire.end()


def long_event(wire: Wire, _asked: Asked) -> None:
    """100 MiB as lines of 1 MiB that belong to one event."""
    wire.head()
    wire.chunk(delta(content="w"), *[b"data: " + b"x" * MIB + b"\n"] * 100)
    wire.end()


def long_reply(wire: Wire, _asked: Asked) -> None:
    """Events within their limit, more of them than a reply may have, at 100 MiB/s."""
    wire.head()
    wire.chunk(delta(content="w"))
    while True:
        wire.chunk(b"data: ", *[b"x" * MIB] * 4, b"\n\n")
        time.sleep(0.04)


def long_error(wire: Wire, _asked: Asked) -> None:
    wire.head("Content-Type: text/plain", status=500)
    wire.chunk(*[b"many words " * (MIB // 11)] * 100)
    wire.end()


@pytest.mark.parametrize(
    ("script", "outcome", "says"),
    [
        (long_line, "protocol", "a line of more than 8 MiB".__eq__),
        (long_event, "protocol", "an event of more than 8 MiB".__eq__),
        (long_reply, "protocol", "the reply is larger than 256 MiB".__eq__),
        (long_error, "http_error", lambda said: said.startswith("HTTP 500: many words many")),
    ],
    ids=["line", "event", "reply", "error"],
)
def test_a_huge_reply_is_cut_and_held_nowhere(
    tmp_path: Path, script: Script, outcome: str, says: Callable[[str], bool]
) -> None:
    with serving(endpoint(lambda number: script if number == 3 else None)) as peer:
        options = ("--requests", "7", "--concurrency", "2", "--osl", "3", "--quiet")
        ended = loaded(tmp_path, peer.url, *options, measured=True)
    rows = ended.rows()
    assert rows[3]["outcome"] == outcome and says(rows[3]["error"])
    assert len(rows[3]["error"]) <= 300
    assert {row["outcome"] for number, row in rows.items() if number != 3} == {"ok"}
    assert 20_000 < ended.largest_kb < LARGEST_KB
