"""Clients that leave, do not read, or send what is no request: the demo server takes no harm."""

from __future__ import annotations

import http.client
import io
import json
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latdiag.sim.demo import running_demo
from latdiag.sim.params import Params
from tests.profiles import examples

from .command import wait_for
from .demo_client import PATIENCE_NS, figure, metrics, stream, tcp, truths


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_demo(params=Params(overhead_ms=0.5, weights_ms=1.5)) as found:
        yield found


def test_a_client_that_goes_away_makes_room_for_others(tmp_path: Path) -> None:
    path = tmp_path / "truth.jsonl"
    one_seat = Params(overhead_ms=0.5, weights_ms=1.5, max_seqs=1)
    with running_demo(params=one_seat, truth=path) as url:
        body = json.dumps({"prompt": "a b", "max_tokens": 20_000, "stream": True}).encode()
        head = b"POST /v1/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body)
        with tcp(url) as leaver:
            leaver.sendall(head + body)
            leaver.recv(10)
            wait_for(lambda: figure(url, "vllm:num_requests_running") == 1, 10, "a running one")
        wait_for(lambda: figure(url, "vllm:num_requests_running") == 0, 10, "its cancellation")
        seen = stream(url, {"prompt": "a", "max_tokens": 3}, x_request_id="next")
        found = metrics(url)
    assert len(seen.tokens) == 3
    assert truths(path).keys() == {"next"}
    ends = {key: value for key, value in found.items() if "request_success_total" in key and value}
    assert list(ends.values()) == [1, 1] and any('"abort"' in key for key in ends)


def test_a_client_that_does_not_read_is_dropped_and_holds_up_nobody() -> None:
    endless = Params(overhead_ms=0.1, weights_ms=0.1, max_seqs=4, frontend_ms=0, kv_ns=0)
    fields = {"prompt": [1] * 20_000, "max_tokens": 10_000, "stream": True}
    body = json.dumps({**fields, "return_token_ids": True}).encode()
    head = b"POST /v1/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body)
    with running_demo(params=endless) as url, socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        parts = urlsplit(url)
        deaf.connect((parts.hostname, parts.port))
        deaf.sendall(head + body)
        while figure(url, "latdiag_demo_connections_dropped_total") == 0:
            seen = stream(url, {"prompt": "a", "max_tokens": 20})
            assert len(seen.tokens) == 20
            assert seen.done_ns - seen.sent_ns < PATIENCE_NS
        assert figure(url, "vllm:num_requests_running") == 0
        with pytest.raises(ConnectionResetError):
            while deaf.recv(1 << 20):
                pass


def test_idle_connections_without_number_lock_nobody_out(url: str) -> None:
    """The oldest of them give way."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] != resource.RLIM_INFINITY and limits[1] < 2000:
        pytest.skip("too few file descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], 2000), limits[1]))
    with ExitStack() as stack:
        idle = [stack.enter_context(tcp(url)) for _ in range(1100)]
        assert len(stream(url, {"prompt": "a", "max_tokens": 2}).tokens) == 2
        assert idle[0].recv(1) == b""
        idle[-1].sendall(b"GET /health HTTP/1.1\r\n\r\n")
        assert idle[-1].recv(20).startswith(b"HTTP/1.1 200")
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


PLAUSIBLE = st.sampled_from(
    [b"GET / HTTP/1.1\r\n", b"POST /v1/completions HTTP/1.1\r\n", b"GET /metrics HTTP/1.0\r\n",
     b"Content-Length: 20\r\n", b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n",
     b"\r\n", b"0\r\n\r\n", b"14\r\n", b'{"prompt":"a","max_tokens":2}', b'{"stream":true}',
     b'{"messages":[{}]}', b"\x00\xff", b"x" * 1000]
)  # fmt: skip


@examples(80)
@given(st.lists(PLAUSIBLE | st.binary(max_size=30), max_size=12))
def test_whatever_bytes_come_it_answers_with_http_or_not_at_all_and_lives_on(
    url: str, pieces: list[bytes]
) -> None:
    with tcp(url) as peer:
        try:
            for piece in pieces:
                peer.sendall(piece)
            peer.shutdown(socket.SHUT_WR)
            said = peer.recv(1 << 16)
        except (ConnectionResetError, BrokenPipeError):
            said = b""
    assert not said or said.startswith(b"HTTP/1.1 ")
    assert httpx.get(url.replace("/v1", "/health")).status_code == 200


def test_a_head_or_body_beyond_the_bound_is_answered_400_and_read_to_its_end(url: str) -> None:
    for raw in (
        b"GET / HTTP/1.1\r\nX: " + b"x" * 200_000,
        b"POST /v1/completions HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n" + b"x" * 2_000_000,
    ):
        with tcp(url) as peer:
            peer.sendall(raw)
            peer.shutdown(socket.SHUT_WR)
            assert peer.recv(100).startswith(b"HTTP/1.1 400 ")


def test_a_slow_reader_gets_all_before_its_connection_is_closed(url: str) -> None:
    """More than the sockets hold, so that the end has to wait for what is before it."""
    count, request = 10, b"GET /metrics HTTP/1.1\r\n%b\r\n"
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        parts = urlsplit(url)
        slow.connect((parts.hostname, parts.port))
        slow.sendall(request % b"" * (count - 1) + request % b"Connection: close\r\n")
        wait_for(lambda: httpx.get(url.replace("/v1", "/health")).is_success, 10, "its turn")
        with slow.makefile("rb") as file:
            said = file.read()
    assert said.count(b"HTTP/1.1 200 OK") == count and len(said) > 200_000


class _Buffer(io.BufferedReader):
    """Of a whole connection: a reply that reads ahead takes no other reply's bytes with it."""

    def makefile(self, mode: str) -> _Buffer:
        return self

    def close(self) -> None:
        """Each reply closes it; the next one reads on."""


def test_requests_may_follow_each_other_at_once_and_come_in_pieces(url: str) -> None:
    body = json.dumps({"prompt": "a b", "max_tokens": 2}).encode()
    one = b"POST /v1/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with tcp(url) as peer:
        for at in range(0, 3 * len(one), 11):
            peer.sendall((one * 3)[at : at + 11])
        replies = _Buffer(socket.SocketIO(peer, "r"))
        for _ in range(3):
            with http.client.HTTPResponse(replies) as reply:  # type: ignore[arg-type]
                reply.begin()
                assert json.loads(reply.read())["usage"]["completion_tokens"] == 2


def test_who_asks_for_leave_gets_it_and_http_1_0_gets_no_chunks(url: str) -> None:
    body = json.dumps({"prompt": "a b", "max_tokens": 2, "stream": True}).encode()
    start = b"POST /v1/completions HTTP/1.%d\r\n%bContent-Length: %d\r\n\r\n"
    with tcp(url) as peer:
        peer.sendall(start % (1, b"Expect: 100-continue\r\n", len(body)))
        assert peer.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        peer.sendall(body)
        assert peer.recv(20).startswith(b"HTTP/1.1 200 ")
    with tcp(url) as peer:
        peer.sendall(start % (0, b"", len(body)) + body)
        with peer.makefile("rb") as file:
            head, _, rest = file.read().partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert rest.startswith(b"data: {") and rest.endswith(b"data: [DONE]\n\n")
