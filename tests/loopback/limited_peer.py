"""A hosted API with a limit: what is beyond gets 429, Retry-After, and goes no further.

A process of its own (``python -m tests.loopback.limited_peer in_flight 8``), which prints its port
and counts what it refused at ``/counts``. Its times are those of a server: a prompt takes 8 ms and
20 us a token, a token 8 ms.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable

Send = Callable[[bytes], None]
TTFT_S, PER_TOKEN_S, GAP_S = 0.008, 0.00002, 0.008


class Limit:
    """``kind``: in_flight, so many ``value``; rate, ``value`` per second with 5 at once."""

    def __init__(self, kind: str, value: float) -> None:
        self.kind, self.value = kind, value
        self.inside = self.served = self.refused = 0
        self.most = 0
        self._empty = 0.0

    def takes(self) -> bool:
        now, pace = time.monotonic(), 1 / self.value
        if self.kind == "in_flight":
            good = self.inside < self.value
        else:
            good = max(self._empty, now) + pace <= now + 5 * pace
            self._empty = max(self._empty, now) + pace * good
        self.served += good
        self.refused += not good
        return good


async def _serve(limit: Limit, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            target = head.split(b" ", 2)[1].decode()
            size = next(
                (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n")
                 if line.startswith(b"content-length")), 0,
            )  # fmt: skip
            body = await reader.readexactly(size)
            await _answer(limit, target, body, writer)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def _answer(limit: Limit, target: str, body: bytes, writer: asyncio.StreamWriter) -> None:
    if not body:
        counts = {"served": limit.served, "refused": limit.refused, "most": limit.most}
        models = {"data": [{"id": "hosted"}]}
        found = counts if target == "/counts" else models if "models" in target else None
        _reply(writer, 200 if found else 404, found or {})
        return
    ask = json.loads(body)
    if ask.get("temperature", 0) < 0:
        _reply(writer, 400, {"error": {"message": "temperature must be non-negative"}})
        return
    if not limit.takes():
        error = {"error": {"type": "rate_limit_exceeded", "message": "too many requests"}}
        _reply(writer, 429, error, "retry-after: 2\r\n")
        return
    limit.inside += 1
    limit.most = max(limit.most, limit.inside)
    try:
        await _stream(ask, writer)
    finally:
        limit.inside -= 1
    writer.write(b"0\r\n\r\n")


def _reply(writer: asyncio.StreamWriter, status: int, found: object, more: str = "") -> None:
    data = json.dumps(found).encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{more}"
    writer.write(f"{head}content-length: {len(data)}\r\n\r\n".encode() + data)


async def _stream(ask: dict[str, object], writer: asyncio.StreamWriter) -> None:
    words = len(json.dumps(ask["messages"]).split())
    number = int(str(ask.get("max_tokens") or ask.get("max_completion_tokens") or 16))

    def send(**fields: object) -> None:
        data = b"data: " + json.dumps({"id": "c", **fields}).encode() + b"\n\n"
        writer.write(b"%x\r\n%s\r\n" % (len(data), data))

    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n")
    writer.write(b"transfer-encoding: chunked\r\n\r\n")
    due = time.monotonic() + TTFT_S + PER_TOKEN_S * words
    for place in range(number):
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        send(choices=[{"index": 0, "delta": {"content": f"w{place} "}, "finish_reason": None}])
        due += GAP_S
    send(choices=[{"index": 0, "delta": {}, "finish_reason": "length"}])
    send(choices=[], usage={"prompt_tokens": words, "completion_tokens": number})
    writer.write(b"e\r\ndata: [DONE]\n\n\r\n")


async def main(kind: str, value: float) -> None:
    limit = Limit(kind, value)
    server = await asyncio.start_server(lambda r, w: _serve(limit, r, w), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
