"""How long a plain asyncio server takes to answer beside whatever else this machine does: what no
receiver can be quicker than. ``python -m tests.bench.otlp.plain`` asks one (in a process of its
own, over a new connection each time) until its stdin ends, and prints the longest answer."""

from __future__ import annotations

import asyncio
import http.client
import select
import subprocess
import sys
import time

_EVERY_S = 0.05
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(_ANSWER)
    await writer.drain()
    writer.close()


async def _serve() -> None:
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def _ask(port: int) -> float:
    begun = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/", b"")
    connection.getresponse().read()
    connection.close()
    return time.monotonic() - begun


def main() -> None:
    if sys.argv[1:] == ["serve"]:
        asyncio.run(_serve())
    command = [sys.executable, "-m", "tests.bench.otlp.plain", "serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port, worst = int(server.stdout.readline()), 0.0
            print("asking", flush=True)
            while not select.select([sys.stdin], [], [], _EVERY_S)[0]:
                worst = max(worst, _ask(port))
        finally:
            server.kill()
    print(worst)


if __name__ == "__main__":
    main()
