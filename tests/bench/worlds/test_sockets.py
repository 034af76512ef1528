"""Worlds behind real sockets: that they speak as servers do, and a sample of probes of them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from . import board
from .draft import EPOCH
from .kinds import drawn
from .loopback import sampled
from .sockets import RealClock, Serving
from .work import LATDIAG, Task

#: A dozen kinds, each once.
SAMPLE = (
    "gateway-constant", "gateway-flush", "gateway-admission", "gateway-work", "engine-queue",
    "engine-work", "replicas", "stalls", "chunks", "hidden-tokens", "disaggregated", "healthy",
)  # fmt: skip


async def said(port: int, method: str, path: str, body: dict[str, Any] | None) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sent = json.dumps(body).encode() if body else b""
    head = f"{method} {path} HTTP/1.1\r\nx-request-id: {method}{len(sent)}\r\n"
    writer.write(f"{head}Content-Length: {len(sent)}\r\n\r\n".encode() + sent)
    writer.write_eof()
    found = await reader.read()
    writer.close()
    return found


async def spoken(kind: str, seed: str) -> tuple[list[bytes], Serving]:
    serving = Serving(drawn(kind, seed, RealClock(EPOCH))[0])
    port = await serving.start()
    ask: dict[str, Any] = {
        "messages": [{"role": "user", "content": "one two three"}],
        "max_tokens": 5,
        "stream_options": {"include_usage": True},
    }
    replies = [
        await said(port, "GET", "/v1/models", None),
        await said(port, "POST", "/v1/chat/completions", ask | {"temperature": -1}),
        await said(port, "POST", "/v1/chat/completions", ask),
    ]
    await serving.close()
    return replies, serving


def test_a_world_speaks_http_and_keeps_books() -> None:
    (models, refused, reply), serving = asyncio.run(spoken("healthy", "socket"))
    assert models.startswith(b"HTTP/1.1 200 ") and b'"id": "world"' in models
    assert refused.startswith(b"HTTP/1.1 400 ")
    assert reply.startswith(b"HTTP/1.1 200 ") and reply.endswith(b"0\r\n\r\n")
    assert reply.count(b"word") == 5 and b"data: [DONE]" in reply
    assert len(serving.served) == 3
    for served in serving.served.values():
        assert 0 < served.came < served.left
        assert sum(served.ledger.spent.values()) == served.left - served.came


@pytest.mark.bench
def test_probes_of_served_worlds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seed = board.judged_seed()
    records = []
    for record in sampled(Task(kind, f"{seed}-real", "quick", tmp_path) for kind in SAMPLE):
        records.append(record)
        with capsys.disabled():
            print(board.row_line(record), flush=True)
    with capsys.disabled():
        print(board.table(records))
    wrong = [r.task.name for r in records if r.judged[LATDIAG].mark in ("wrong", "alarm")]
    assert not wrong
