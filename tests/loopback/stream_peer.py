"""A streaming server for the tests of the client: it sends at its own pace and says when.

``Peer`` runs it in a process of its own, by path, so that it shares no clock, lock or core-time
with the test. ``GET /seen`` tells what every request was and between which two instants each
chunk went out; ``GET /flight`` only how many there were and are.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from time import monotonic, monotonic_ns
from typing import Any

_SO_TIMESTAMPING, _RX_SOFTWARE = 37, 1 << 3
_END_S = 0.003  # the end of a stream leaves apart from its last token


@dataclass(slots=True)
class Seen:
    """One request. Instants are MONOTONIC ns; ``sent``: before and after each token's send."""

    id: str
    got_ns: int
    body: str
    connection: int
    sent: list[tuple[int, int]] = field(default_factory=list)
    ended_ns: int = 0
    whole: bool = False


class Streams:
    """One token a write. A body that holds ``dust`` (seconds) gets that long a flood before."""

    def __init__(self, ttft_s: float, itl_s: float, refuse: str) -> None:
        self._ttft_s, self._itl_s, self._refuse = ttft_s, itl_s, refuse
        self._connections = itertools.count()
        self.seen: list[Seen] = []
        self.open = self.most_open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = next(self._connections)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                fields = dict(line.split(": ", 1) for line in head[1:] if line)
                fields = {name.lower(): value for name, value in fields.items()}
                body = await reader.readexactly(int(fields.get("content-length", 0)))
                path = head[0].split(" ")[1]
                if path.startswith("/v1/chat"):
                    await self._stream(fields, body, connection, reader, writer)
                else:
                    _document(writer, 200, self._told(path))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def _told(self, path: str) -> Any:
        if path == "/seen":
            names = Seen.__slots__
            return [{name: getattr(seen, name) for name in names} for seen in self.seen]
        if path == "/flight":
            return {"total": len(self.seen), "open": self.open, "most_open": self.most_open}
        return {"object": "list", "data": [{"id": "peer", "object": "model"}]}

    async def _stream(
        self,
        fields: dict[str, str],
        body: bytes,
        connection: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        seen = Seen(fields.get("x-request-id", ""), monotonic_ns(), body.decode(), connection)
        ask = json.loads(body)
        self.seen.append(seen)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            if self._refuse and not seen.id.startswith("preflight-"):
                _document(writer, 429, {"error": {"message": "busy"}}, self._refuse)
                return
            await self._send(ask, seen, reader, writer)
            seen.whole = True
        finally:
            seen.ended_ns = monotonic_ns()
            self.open -= 1

    async def _dust(self, seconds: float, seen: Seen, writer: asyncio.StreamWriter) -> None:
        """Headers, then comments as fast as they are taken, one byte in each HTTP chunk."""
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        until = monotonic() + seconds
        piece = b"".join(_chunk(b"%c" % byte) for byte in b": nothing to say yet\n" * 500)
        while monotonic() < until and not seen.id.startswith("preflight-"):
            writer.write(piece)
            await writer.drain()

    async def _send(
        self,
        ask: dict[str, Any],
        seen: Seen,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        await self._dust(float(ask.get("dust", 0)), seen, writer)
        wanted, words = ask["max_tokens"], len(str(ask["messages"]).split())
        begun = monotonic()
        piece = _chunk(_event("a"))
        for number in range(wanted):
            due = begun + self._ttft_s + number * self._itl_s
            await asyncio.sleep(max(0.0, due - monotonic()))
            if reader.at_eof() or writer.is_closing():
                raise ConnectionResetError
            before = monotonic_ns()
            writer.write(piece)
            seen.sent.append((before, monotonic_ns()))
            await writer.drain()
        await asyncio.sleep(_END_S)
        usage = {"prompt_tokens": words, "completion_tokens": wanted}
        writer.write(_chunk(_event("", "length") + _event(None, usage=usage)))
        writer.write(_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        await writer.drain()


def _event(text: str | None, finish: str | None = None, usage: Any = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    document: dict[str, Any] = {"choices": [] if text is None else [choice]}
    if usage is not None:
        document["usage"] = usage
    return b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _document(writer: asyncio.StreamWriter, status: int, said: Any, retry_after: str = "") -> None:
    body = json.dumps(said).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}\r\n"
    head += f"Retry-After: {retry_after}\r\n" if retry_after else ""
    writer.write(head.encode() + b"\r\n" + body)


class Peer:
    """The running server, as a test holds it."""

    def __init__(self, url: str, pid: int) -> None:
        self.url, self.pid = url, pid

    def seen(self) -> list[Seen]:
        """Every request of a load, in the order of arrival; those of the preflight left out."""
        mine = (one for one in self._get("/seen") if not one["id"].startswith("preflight-"))
        return [Seen(**one) for one in mine]

    def flight(self) -> dict[str, int]:
        """``total`` requests so far, ``open`` now, ``most_open`` at once; preflight included."""
        found: dict[str, int] = self._get("/flight")
        return found

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=30) as reply:
            return json.load(reply)


@contextlib.contextmanager
def streaming(ttft_s: float = 0.02, itl_s: float = 0.005, refuse: str = "") -> Iterator[Peer]:
    """A peer for the time of the block. ``refuse``: answer 429 with this Retry-After."""
    flags = [f"--ttft={ttft_s}", f"--itl={itl_s}", f"--refuse={refuse}"]
    process = subprocess.Popen(
        [sys.executable, "-P", __file__, *flags],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        port = process.stdout.readline().strip()
        assert port, "the peer did not start"
        yield Peer(f"http://127.0.0.1:{port}", process.pid)
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(10)


async def _main(options: argparse.Namespace) -> None:
    stop = asyncio.Event()

    def watch() -> None:
        if not os.read(0, 64):
            stop.set()

    asyncio.get_running_loop().add_reader(0, watch)
    stamped = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with contextlib.suppress(OSError):
        # Receive stamps are a switch of the whole kernel, which takes some milliseconds to act:
        # as long as this peer lives it is on, and no run begins without stamps.
        stamped.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPING, _RX_SOFTWARE)
    streams = Streams(options.ttft, options.itl, options.refuse)
    server = await asyncio.start_server(streams.serve, "127.0.0.1", 0, backlog=1024, limit=1 << 20)
    print(server.sockets[0].getsockname()[1], flush=True)
    await stop.wait()
    os._exit(0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--ttft", type=float)
    parser.add_argument("--itl", type=float)
    parser.add_argument("--refuse")
    asyncio.run(_main(parser.parse_args()))
