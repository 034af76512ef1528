"""Whether the truth is true: the server judged by the least client there is, and by hand."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from . import http11, record
from .harness import BENCH, REPEATS, ServerProcess, with_path
from .score import Truth, score
from .seen import Collector

pytestmark = pytest.mark.bench

Started = Callable[..., ServerProcess]


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    """Starts truth servers with the flags given, and ends what is left of them."""
    running: list[ServerProcess] = []

    def start(*flags: str, fifo: bool = False) -> ServerProcess:
        running.append(ServerProcess(tmp_path / f"{len(running)}.npz", flags, fifo=fifo))
        return running[-1]

    yield start
    for server in running:
        server.__exit__()


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "mock", "stream": True, "max_tokens": 5, **fields}).encode()


def ask(server: ServerProcess, data: bytes, **headers: str) -> tuple[int, dict[str, str], str]:
    """(status, headers, reply as text) of one chat request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("POST", "/v1/chat/completions", data, headers)
    reply = connection.getresponse()
    text = reply.read().decode()
    connection.close()
    return reply.status, dict(reply.getheaders()), text


def events(text: str) -> list[Any]:
    return [json.loads(e[6:]) for e in text.split("\n\n") if e and e != "data: [DONE]"]


@contextmanager
def raw(server: ServerProcess, data: bytes) -> Iterator[socket.socket]:
    """A socket on which the request has been sent as it is."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
        sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n")
        sock.sendall(b"content-length: %d\r\n\r\n" % len(data) + data)
        yield sock


def valid_score(started: Started, streams: int, *flags: str) -> dict[str, Any]:
    """The self-score of a run that is not void; a busy machine gets as many tries as the bench."""
    for _ in range(REPEATS + 1):
        said = self_score(started(*flags, fifo=True), streams)
        if not said["server"]["void_because"]:
            break
    assert said["server"]["void_because"] == []
    return said


def self_score(server: ServerProcess, streams: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "client.recv_client", "--port", str(server.port)]
    command += ["--streams", str(streams), "--requests", str(4 * streams)]
    done = subprocess.run(
        [*command, "--truth", str(server.dump)],
        capture_output=True,
        check=True,
        timeout=120,
        env={**os.environ, **with_path(BENCH)},
    )
    said: dict[str, Any] = json.loads(done.stdout)
    return said


# ------------------------------------------------------------------ how true, how fast


@pytest.mark.parametrize("flags", [("--ttft-spread-ms", "20"), ("--lockstep-ms", "20")])
def test_200_streams_are_recorded_truly(started: Started, flags: tuple[str, ...]) -> None:
    kernel = valid_score(started, 200, *flags)["kernel"]
    assert (kernel["matched"], kernel["unmatched"], kernel["not_seen"]) == (800, 0, 0)
    assert kernel["length_mismatches"] == 0
    assert kernel["itl"]["p99"] < 50
    assert kernel["ttft"]["p99"] < 200
    assert kernel["sent_per_s"] > 0.9 * 200 * 50 / 1.1


def test_20_000_sends_a_second_on_time(started: Started) -> None:
    said = valid_score(started, 500, "--ttft-spread-ms", "20")
    assert said["kernel"]["sent_per_s"] > 20_000
    assert said["server"]["late_p99_us"] < 1000
    assert (said["server"]["blocked"], said["server"]["dropped"]) == (0, 0)


def test_lockstep_sends_on_one_grid(started: Started) -> None:
    server = started("--lockstep-ms", "10", "--ttft-ms", "33", "--itl-ms", "10")
    for _ in range(3):
        ask(server, body())
    truth = server.stop()
    with np.load(server.dump) as file:
        due = file["due"][file["index"] >= 0]
    assert set((due - due[0]) % 10_000_000) == {0}
    waited = truth.real[truth.offsets[:-1]] - truth.requests["read_real"]
    assert np.all(waited >= 33_000_000)


def test_truth_keeps_its_own_schedule(started: Started) -> None:
    server = started("--ttft-ms", "30", "--itl-ms", "5")
    ask(server, body(max_tokens=40))
    truth = server.stop()
    first = truth.real[0] - truth.requests["last_real"][0]
    assert 30e6 <= first < 45e6
    assert 5e6 * 38 < truth.mono[-1] - truth.mono[0] < 5e6 * 39 + 20e6


def test_kernel_stamps_of_sends(started: Started) -> None:
    server = started("--tx-stamps", "--ttft-ms", "5", "--itl-ms", "2")
    for _ in range(3):
        ask(server, body(max_tokens=30))
    truth = server.stop()
    assert truth.tx_real is not None
    # The stamp is taken inside send(), which is after the reading before it.
    lag = truth.tx_real - truth.real
    assert np.all(lag >= 0)
    assert np.median(lag) < 200_000


@pytest.mark.parametrize("late_rows, void", [(1, False), (11, True)])
def test_late_server_is_void(tmp_path: Path, late_rows: int, void: bool) -> None:
    records = record.Records(10_000)
    for i in range(10_000):
        due = i * 1_000_000
        late = 1_000_001 if i < late_rows else 100
        records.add(0, i, due, due + late, due + late, due + late + 10)
    summary = records.dump(tmp_path / "x.npz", {"lockstep_ms": 0.0})
    assert bool(summary["void_because"]) == void


def test_full_record_is_void(tmp_path: Path) -> None:
    records = record.Records(1)
    assert records.add(0, 0, 0, 0, 0, 0) == 0
    assert records.add(0, 1, 0, 0, 0, 0) == -1
    assert records.dump(tmp_path / "x.npz", {})["void_because"] == ["1 records dropped"]


def test_score_finds_a_wrong_client(started: Started) -> None:
    """A client 3 ms late on one chunk, one that reports a stream twice, and one of no server."""
    server = started("--ttft-ms", "5", "--itl-ms", "10")
    ask(server, body())
    truth = server.stop()
    exact = truth.mono[truth.rows(0)].copy()
    begin = int(truth.mono[0] - (truth.real[0] - truth.requests["last_real"][0]))
    wrong = exact.copy()
    wrong[2] += 3_000_000
    collector, none = Collector(), np.zeros(5, np.bool_)
    for number in (0, 0, 77):
        collector.add(number, wrong, none, user=begin, wire=begin, done=int(wrong[-1]))
    scores = score(truth, collector.seen())
    assert scores.itl is not None and scores.ttft is not None
    assert (scores.itl.max, scores.ttft.max) == (3000.0, 0.0)
    assert (scores.matched, scores.duplicates, scores.unmatched) == (1, 1, 1)


# ------------------------------------------------------------------ modes of a stream


def test_chat_events_in_order(started: Started) -> None:
    status, _, text = ask(started(), body(stream_options={"include_usage": True}))
    role, *chunks, usage = events(text)
    assert status == 200 and text.endswith("data: [DONE]\n\n")
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [c["choices"][0]["delta"]["content"] for c in chunks] == [f" t{i}" for i in range(5)]
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert usage["choices"] == [] and usage["usage"]["completion_tokens"] == 5
    assert {e["id"] for e in events(text)} == {"chatcmpl-00000000"}


def test_several_tokens_in_a_chunk(started: Started) -> None:
    asked = {"continuous_usage_stats": True}
    data = body(max_tokens=10, return_token_ids=True, stream_options=asked)
    _, _, text = ask(started("--tokens-per-chunk", "4"), data)
    chunks = [e for e in events(text)[1:] if e["choices"]]
    assert [len(c["choices"][0]["token_ids"]) for c in chunks] == [4, 4, 2]
    assert [c["usage"]["completion_tokens"] for c in chunks] == [4, 8, 10]
    assert chunks[1]["choices"][0]["delta"]["content"] == " t4 t5 t6 t7"


def test_early_role_and_withheld_headers(started: Started) -> None:
    server = started("--ttft-ms", "300")
    for truth, first in (
        ({"role": "early"}, b"assistant"),
        ({"role": "none"}, b"HTTP/1.1 200"),
        ({"headers": "withheld"}, b""),
    ):
        with raw(server, body(truth=truth)) as sock:
            sock.settimeout(0.15)
            try:
                got = sock.recv(65536)
            except TimeoutError:
                got = b""
            assert first in got and bool(first) == bool(got) and b" t0" not in got
            sock.settimeout(5)
            assert b" t0" in sock.recv(65536)


def test_end_in_sends_of_its_own(started: Started) -> None:
    server = started("--tail", "separate", "--ttft-ms", "5")
    _, _, text = ask(server, body(stream_options={"include_usage": True}))
    truth = server.stop()
    assert text.endswith("data: [DONE]\n\n") and len(events(text)) == 7
    with np.load(server.dump) as file:
        assert list(file["index"]) == [-1, 0, 1, 2, 3, 4, -3, -3]
    assert truth.last_real[0] > truth.real[-1]


def test_faults(started: Started) -> None:
    server = started("--ttft-ms", "5", "--itl-ms", "5")
    with raw(server, body(truth={"reset_at": 2})) as sock, pytest.raises(ConnectionResetError):
        while sock.recv(65536):
            pass
    _, _, text = ask(server, body(truth={"error_at": 2}))
    assert events(text)[-1]["error"]["code"] == 500
    _, _, text = ask(server, body(truth={"no_done": True}))
    assert "[DONE]" not in text and text.count(" t") == 5
    status, headers, _ = ask(server, body(truth={"status": 429, "retry_after": 2}))
    assert (status, headers["retry-after"]) == (429, "2")
    ask(server, body(truth={"stall_at": 3, "stall_ms": 80}))
    rows = server.stop()
    gaps = np.diff(rows.mono[rows.rows(3)])
    assert gaps[2] > 80e6 and gaps[1] < 60e6


def test_whole_replies_and_completions(started: Started) -> None:
    server = started("--ttft-ms", "5", "--itl-ms", "5")
    _, _, text = ask(server, body(stream=False))
    assert json.loads(text)["choices"][0]["message"]["content"] == " t0 t1 t2 t3 t4"
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("POST", "/v1/completions", body(prompt=[1, 2, 3]))
    chunks = events(connection.getresponse().read().decode())
    assert [c["choices"][0]["text"] for c in chunks] == [f" t{i}" for i in range(5)]
    # The same connection again: kept alive.
    connection.request("GET", "/v1/models")
    assert json.loads(connection.getresponse().read())["data"][0]["id"] == "mock"
    connection.close()
    truth = server.stop()
    assert list(truth.requests["prompt"]) == [1, 3]


def test_options_by_header_by_body_and_by_turn(started: Started) -> None:
    server = started("--ttft-ms", "3", "--cycle", "think_ms=1,9;headers=early,withheld")
    for _ in range(4):
        ask(server, body())
    ask(server, body(truth={"think_ms": 7}), **{"x-truth-itl-ms": "2"})
    status, _, _ = ask(server, body(truth={"law": "unheard of"}))
    truth = server.stop()
    assert status == 400
    assert list(truth.requests["think_ns"] // 1_000_000) == [1, 1, 9, 9, 7]
    assert list(truth.requests["withheld"]) == [False, True, False, True, False]
    assert np.diff(truth.mono[truth.rows(4)]).max() < 15e6


# ------------------------------------------------------------------ bytes in


def test_expect_and_chunked_body(started: Started) -> None:
    server = started("--ttft-ms", "1")
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as sock:
        sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n")
        sock.sendall(b"transfer-encoding: chunked\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 100")
        data = body()
        sock.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data))
        got = b""
        while b"0\r\n\r\n" not in got:
            got += sock.recv(65536)
    assert len(re.findall(rb'"content":" t\d"', got)) == 5


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_requests_cut_anywhere(step: int) -> None:
    first = b"POST /a HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc"
    second = (
        b"POST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n1;x=y\r\nf\r\n0\r\n\r\n"
    )
    reader, taken = http11.Reader(), []
    whole = first + second
    for at in range(0, len(whole), step):
        reader.feed(whole[at : at + step])
        while (request := reader.take()) is not None:
            taken.append(request)
    assert [(r.target, r.body, r.size) for r in taken] == [
        ("/a", b"abc", len(first)),
        ("/b", b"def", len(second)),
    ]
    assert reader.idle


@pytest.mark.parametrize("secure", [False, True])
def test_byte_offsets_of_requests(started: Started, secure: bool) -> None:
    """Two requests on one connection: where each began and ended in the raw stream."""
    server = started("--ttft-ms", "2", "--itl-ms", "1", *(["--tls"] if secure else []))
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
    plain = socket.create_connection(("127.0.0.1", server.port), timeout=5)
    context = ssl.create_default_context(cafile=server.said["ca"]) if secure else None
    sock = context.wrap_socket(plain, server_hostname="127.0.0.1") if context else plain
    sizes = []
    for count in (10, 4000):
        data = body(prompt="x" * count)
        sizes.append(len(head % len(data)) + len(data))
        sock.sendall(head % len(data) + data)
        got = b""
        while not got.endswith(b"0\r\n\r\n"):
            got += sock.recv(65536)
    sock.close()
    truth: Truth = server.stop()
    first, last = truth.requests["rx_first"], truth.requests["rx_last"]
    # A TLS 1.3 record adds 22 bytes: header, content type, tag.
    assert list(last - first) == [size + 22 * secure for size in sizes]
    assert list(truth.requests["size"]) == sizes
    assert first[1] == last[0] and (first[0] > 0) == secure
