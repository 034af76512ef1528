"""How long plain servers take to answer beside whatever else this machine does, one of asyncio and
one of gRPC: what no receiver can be quicker than. ``python -m tests.bench.otlp.plain`` asks both
(each in a process of its own, over a new connection each time) until its stdin ends, and prints
the longest and the middle answer of either."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

_EVERY_S = 0.05
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_METHOD = "/a.Service/Method"


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(_ANSWER)
    await writer.drain()
    writer.close()


async def _serve_http() -> None:
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def _serve_grpc() -> None:
    import grpc
    from grpc import aio

    async def nothing(_request: bytes, _context: Any) -> bytes:
        return b""

    class Everything(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, _details: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(nothing)

    server = aio.server(handlers=(Everything(),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()


def _ask_http(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/", b"")
    connection.getresponse().read()
    connection.close()


def _ask_grpc(port: int) -> None:
    import grpc

    options = [("grpc.use_local_subchannel_pool", 1)]  # a connection each time
    with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        channel.unary_unary(_METHOD)(b"", timeout=30)


@contextlib.contextmanager
def _server(kind: str) -> Iterator[int]:
    command = [sys.executable, "-m", "tests.bench.otlp.plain", kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield int(server.stdout.readline())
        finally:
            server.kill()


def main() -> None:
    if sys.argv[1:]:
        asyncio.run({"grpc": _serve_grpc, "http": _serve_http}[sys.argv[1]]())
    took: dict[str, list[float]] = {"grpc": [], "http": []}
    with _server("grpc") as grpc_port, _server("http") as http_port:
        asks = {"grpc": (_ask_grpc, grpc_port), "http": (_ask_http, http_port)}
        for ask, port in asks.values():  # what the client itself loads is not to be measured
            ask(port)
        print("asking", flush=True)
        while not select.select([sys.stdin], [], [], _EVERY_S)[0]:
            for name, (ask, port) in asks.items():
                begun = time.monotonic()
                ask(port)
                took[name].append(time.monotonic() - begun)
    print(
        json.dumps(
            {
                name: {"worst_s": max(each, default=0.0), "middle_s": _middle(each)}
                for name, each in took.items()
            }
        )
    )


def _middle(each: list[float]) -> float:
    return statistics.median(each) if each else 0.0


if __name__ == "__main__":
    main()
