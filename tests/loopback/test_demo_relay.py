"""The demo's network: later by its delay both ways, in order, and with the ends as they were."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from latdiag.sim import relay
from latdiag.sim.demo import serving
from latdiag.sim.params import Params
from latdiag.sim.process import running

from .demo_client import stream, truths

DELAY_MS = 40.0
DELAY_NS = int(DELAY_MS * 1e6)

Serve = Callable[[socket.socket], None]


def echo(peer: socket.socket) -> None:
    """Says back what it hears, until it hears the end."""
    with peer:
        while data := peer.recv(1 << 16):
            peer.sendall(data)


@contextmanager
def upstream(serve: Serve) -> Iterator[int]:
    """The port of a server that treats each connection so, in a thread of its own."""

    def accept() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            peer.settimeout(20)
            pool.submit(serve, peer)

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(64) as pool:
        thread = threading.Thread(target=accept)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@contextmanager
def relayed(serve: Serve, delay_ms: float = DELAY_MS, jitter_ms: float = 0.0) -> Iterator[int]:
    """The port of a relay in front of such a server."""
    with upstream(serve) as port:
        given = relay.arguments(relay.Setup(port, delay_ms, jitter_ms, seed=5))
        with running("relay", given, failure="no relay") as child:
            yield child.port


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def everything(peer: socket.socket) -> bytes:
    with peer.makefile("rb") as file:
        return file.read()


def round_trip_ns(peer: socket.socket) -> int:
    begun = time.monotonic_ns()
    peer.sendall(b"x")
    assert peer.recv(10) == b"x"
    return time.monotonic_ns() - begun


# --- the delay


def test_a_round_trip_takes_the_delay_twice_and_in_proportion() -> None:
    least: list[int] = []
    for delay_ms in (10.0, 50.0):
        with relayed(echo, delay_ms) as port, connected(port) as peer:
            least.append(min(round_trip_ns(peer) for _ in range(5)))
        assert least[-1] >= 2e6 * delay_ms
    assert 2.5 < least[1] / least[0] <= 5.5


def test_each_way_takes_the_delay_and_the_ends_of_a_connection_take_it_too() -> None:
    """One machine, one clock: sender and receiver can be compared."""
    instants: dict[str, int] = {}

    def serve(peer: socket.socket) -> None:
        with peer:
            assert peer.recv(10) == b"there"
            instants["heard"] = time.monotonic_ns()
            assert peer.recv(10) == b""
            instants["ended"] = time.monotonic_ns()
            instants["answered"] = time.monotonic_ns()
            peer.sendall(b"back")

    with relayed(serve) as port, connected(port) as peer:
        asked_ns = time.monotonic_ns()
        peer.sendall(b"there")
        time.sleep(0.02)
        shut_ns = time.monotonic_ns()
        peer.shutdown(socket.SHUT_WR)
        assert peer.recv(10) == b"back"
        back_ns = time.monotonic_ns()
        assert peer.recv(10) == b""
    assert instants["heard"] - asked_ns >= DELAY_NS
    assert instants["ended"] - shut_ns >= DELAY_NS
    assert back_ns - instants["answered"] >= DELAY_NS


def test_delays_of_one_connection_do_not_add_up_over_what_it_bears() -> None:
    """A stream of tokens is shifted, not stretched."""
    count, took_s = 20, dict[str, float]()

    def serve(peer: socket.socket) -> None:
        begun = time.monotonic()
        with peer:
            for _ in range(count):
                peer.sendall(b"x")
                time.sleep(0.01)
        took_s["sending"] = time.monotonic() - begun

    with relayed(serve) as port:
        begun = time.monotonic()
        with connected(port) as peer:
            assert everything(peer) == b"x" * count
        took_s["reading"] = time.monotonic() - begun
    longer_s = took_s["reading"] - took_s["sending"]
    assert DELAY_MS / 1000 <= longer_s < count * DELAY_MS / 1000 / 2


def test_jitter_comes_on_top_and_differs() -> None:
    with relayed(echo, 5.0, jitter_ms=10.0) as port, connected(port) as peer:
        found = [round_trip_ns(peer) for _ in range(40)]
    assert min(found) >= 10_000_000
    # Both ways: a mean of 20 ms on top, and a spread to match.
    assert sum(found) / len(found) >= 18_000_000
    assert max(found) - min(found) >= 10_000_000


# --- what it bears


def test_bytes_keep_their_order_both_ways_under_jitter() -> None:
    draw = random.Random(1)
    pieces = [draw.randbytes(draw.randrange(1, 3000)) for _ in range(150)]

    def send(peer: socket.socket) -> None:
        for piece in pieces:
            peer.sendall(piece)
            time.sleep(0.0005)
        peer.shutdown(socket.SHUT_WR)

    with relayed(echo, 2.0, jitter_ms=5.0) as port, connected(port) as peer:
        sender = threading.Thread(target=send, args=(peer,))
        sender.start()
        assert everything(peer) == b"".join(pieces)
        sender.join()


def test_a_sender_waits_when_too_much_is_under_way_and_nothing_is_lost() -> None:
    """More than the relay holds, to a reader that begins late."""
    data = random.Random(2).randbytes(3 * relay.MAX_UNDER_WAY)

    def serve(peer: socket.socket) -> None:
        with peer:
            peer.sendall(data)

    with relayed(serve, 1.0) as port, connected(port) as peer:
        time.sleep(0.3)
        assert everything(peer) == data


def test_many_connections_are_delayed_as_one_is() -> None:
    with relayed(echo) as port, ThreadPoolExecutor(40) as pool:

        def one(number: int) -> bool:
            with connected(port) as peer:
                said = b"%d" % number
                peer.sendall(said)
                peer.shutdown(socket.SHUT_WR)
                return everything(peer) == said

        begun = time.monotonic()
        assert all(pool.map(one, range(40)))
        assert time.monotonic() - begun < 40 * 2 * DELAY_MS / 1000 / 2


# --- how it ends


def reset(peer: socket.socket) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def test_a_servers_reset_reaches_the_client_after_what_was_said_before() -> None:
    def serve(peer: socket.socket) -> None:
        peer.sendall(b"so far")
        time.sleep(0.05)
        reset(peer)

    with relayed(serve) as port, connected(port) as peer:
        assert peer.recv(10) == b"so far"
        with pytest.raises(ConnectionResetError):
            peer.recv(10)


def test_a_clients_reset_reaches_the_server() -> None:
    felt = threading.Event()

    def serve(peer: socket.socket) -> None:
        with peer:
            assert peer.recv(10) == b"x"
            try:
                peer.recv(10)
            except ConnectionResetError:
                felt.set()

    with relayed(serve) as port:
        peer = connected(port)
        peer.sendall(b"x")
        time.sleep(0.01)
        reset(peer)
        assert felt.wait(10)


def test_a_client_that_is_gone_ends_the_servers_connection() -> None:
    broken = threading.Event()

    def serve(peer: socket.socket) -> None:
        with peer:
            try:
                while True:
                    peer.sendall(b"x" * 1000)
                    time.sleep(0.002)
            except OSError:
                broken.set()

    with relayed(serve, 5.0) as port:
        with connected(port) as peer:
            peer.recv(10)
        assert broken.wait(10)


def test_without_a_server_behind_it_a_client_is_reset() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        free = gone.getsockname()[1]
    given = relay.arguments(relay.Setup(free, DELAY_MS))
    with (
        running("relay", given, failure="no relay") as child,
        pytest.raises(ConnectionResetError),
        connected(child.port) as peer,
    ):
        peer.recv(10)


# --- in front of the demo server


def test_a_slow_network_is_in_what_the_client_sees_and_not_in_the_truth(tmp_path: Path) -> None:
    path = tmp_path / "truth.jsonl"
    with serving(Params(network_ms=DELAY_MS, noise=0.0), truth=path) as demo:
        assert len(demo.pids) == 2
        with httpx.Client() as client:
            client.get(f"{demo.url}/models")
            waits = [client.get(f"{demo.url}/models").elapsed for _ in range(3)]
        assert min(wait.total_seconds() for wait in waits) >= 2 * DELAY_MS / 1000
        seen = stream(demo.url, {"prompt": "a b", "max_tokens": 5}, x_request_id="far")
        truth = truths(path)["far"]
    assert len(seen.tokens) == 5
    assert truth["arrived_ns"] - seen.sent_ns >= DELAY_NS
    assert seen.tokens[0][0] - truth["first_ns"] >= DELAY_NS
    assert seen.tokens[-1][0] - truth["finished_ns"] >= DELAY_NS
    assert sum(truth["leaves"].values()) == truth["finished_ns"] - truth["arrived_ns"]
    assert demo.report["lateness"]["n"] == 5
    assert demo.report["relay_lateness"]["n"] > 5


def test_the_port_asked_for_is_the_relays() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with serving(Params(network_ms=1), port=port) as demo:
        assert urlsplit(demo.url).port == port
