"""A gateway that gathers the stream, in front of a server that says how long it decoded."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from latdiag.sim.demo import serving
from latdiag.sim.params import FAULTS
from tests.schema import validate

from .invoke import loaded, well_measured

EVERY_S = 0.12
TOKENS = 120


def carry(client: socket.socket, port: int, every_s: float) -> None:
    """Bytes both ways; what the server sends, only whenever ``every_s`` are over."""
    with client, socket.create_connection(("127.0.0.1", port)) as server:
        held, due = b"", time.monotonic() + every_s
        while True:
            patience = max(0.0, due - time.monotonic())
            ready = select.select([client, server], [], [], patience)[0]
            if client in ready:
                data = client.recv(1 << 16)
                if not data:
                    return
                server.sendall(data)
            if server in ready:
                data = server.recv(1 << 16)
                if not data:
                    client.sendall(held)
                    return
                held += data
            if time.monotonic() >= due:
                due += every_s
                client.sendall(held)
                held = b""


@contextlib.contextmanager
def gateway(port: int, every_s: float) -> Iterator[int]:
    """The port of a gateway in front of ``port``."""

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                work = threading.Thread(target=served, args=(client,))
                work.start()
                threads.append(work)

    def served(client: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the load hung up
            carry(client, port, every_s)

    threads: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=accept)
        accepting.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join()
    for work in threads:
        work.join()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("held", [True, False])
def test_a_gateway_that_gathers_is_named_and_a_direct_stream_is_not(
    tmp_path: Path, held: bool
) -> None:
    door = free_port()
    options = ("--requests", "12", "--concurrency", "4", "--osl", str(TOKENS), "--quiet")
    spans = ("--otlp-http", f"127.0.0.1:{door}", "--wait", "1s")
    with serving(FAULTS["healthy"], otlp=f"http://127.0.0.1:{door}") as demo:
        behind = urlsplit(demo.url).port
        assert behind is not None
        with gateway(behind, EVERY_S) as port:
            url = f"http://127.0.0.1:{port}/v1" if held else demo.url
            ended = loaded(tmp_path, url, *options, *spans)
    assert well_measured(ended), ended.err
    result = ended.result
    validate(result)
    assert result["evidence"]["joined"] == 12
    said = [caveat["text"] for caveat in result["caveats"] if caveat["code"] == "LD415"]
    if not held:
        assert said == [] and "batching" not in result["evidence"]
        return
    found = result["evidence"]["batching"]
    assert found["held"] == found["requests"] > 6
    assert found["every_ms"] == pytest.approx(1000 * EVERY_S, rel=0.1)
    # What comes in a period is what the server makes in it.
    assert found["tokens"] * found["step_ms"] == pytest.approx(found["every_ms"], rel=0.4)
    assert len(said) == 1 and said[0].startswith(f"{found['tokens']:.0f} tokens at a time")
