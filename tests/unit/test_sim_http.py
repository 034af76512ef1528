"""HTTP of the demo servers: whatever the bytes and however they are cut, requests or a refusal."""

from __future__ import annotations

import http.client
import io
import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latdiag.sim.http import LAST_CHUNK, Refusal, Request, Requests, chunk, reply, stream_head
from tests.profiles import examples

MAX_BODY = 1000
POST = b"POST /v1/completions?x=1 HTTP/1.1\r\nHost: a\r\n"


def read(*pieces: bytes, max_head: int = 4096) -> list[Request]:
    """The requests in what comes piece by piece."""
    requests, found = Requests(MAX_BODY, max_head), []
    for piece in pieces:
        requests.feed(piece)
        while (request := requests.next()) is not None:
            found.append(request)
    return found


def cut(data: bytes, at: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(place % (len(data) + 1) for place in at)})
    return [data[a:b] for a, b in pairwise(places)]


@given(
    bodies=st.lists(st.binary(max_size=60), min_size=1, max_size=4),
    sizes=st.lists(st.integers(1, 20), min_size=1),
    chunked=st.lists(st.booleans(), min_size=4, max_size=4),
    at=st.lists(st.integers(0, 5000), max_size=30),
)
def test_requests_are_the_same_however_they_are_cut(
    bodies: list[bytes], sizes: list[int], chunked: list[bool], at: list[int]
) -> None:
    data = b""
    for body, in_chunks in zip(bodies, chunked, strict=False):
        if in_chunks:
            parts = cut(body, sizes)
            framed = b"".join(chunk(part) for part in parts) + LAST_CHUNK
            data += POST + b"Transfer-Encoding: chunked\r\n\r\n" + framed
        else:
            data += POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    found = read(*cut(data, at))
    assert [request.body for request in found] == bodies
    assert {(request.method, request.path) for request in found} == {("POST", "/v1/completions")}


PLAUSIBLE = st.sampled_from(
    [b"GET", b"POST", b" ", b"/", b"/v1", b"HTTP/1.1", b"\r\n", b"\r\n\r\n", b":", b"0", b"7",
     b"ff", b"Content-Length", b"Transfer-Encoding", b"chunked", b"-1", b"x" * 300, b"\x00", b";"]
)  # fmt: skip


@examples(300)
@given(st.lists(PLAUSIBLE | st.binary(max_size=20), max_size=60))
def test_any_bytes_are_requests_or_a_refusal_and_what_is_kept_is_bounded(
    pieces: list[bytes],
) -> None:
    requests = Requests(MAX_BODY, 256)
    for piece in pieces:
        requests.feed(piece)
        try:
            while (found := requests.next()) is not None:
                assert len(found.body) <= MAX_BODY
        except Refusal as refusal:
            assert refusal.status == 400 and json.loads(refusal.body)["error"]["code"] == 400
            return
        assert requests.held <= MAX_BODY + 1024 + 256 + len(piece)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"nonsense\r\n\r\n", "Invalid method"),
        (b"GET / HTTP/1.1 x\r\n\r\n", "after version"),
        (b"GET / HTTP/2.0\r\n\r\n", "neither"),
        (b"GET / HTTP/1.1\r\n folded\r\n\r\n", "space after start line"),
        (b"GET / HTTP/1.1\r\na b: c\r\n\r\n", "header token"),
        (b"GET / HTTP/1.1\r\nx: " + b"x" * 5000, "head is larger"),
        (b"CONNECT a:1 HTTP/1.1\r\n\r\n", "no other protocol"),
        (POST + b"Content-Length: -4\r\n\r\n", "character in Content-Length"),
        (POST + b"Content-Length: +4\r\n\r\n", "character in Content-Length"),
        (POST + b"Content-Length: 1_0\r\n\r\n", "character in Content-Length"),
        (POST + b"Content-Length: 1001\r\n\r\n", "larger than 1000"),
        (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", "Duplicate Content-Length"),
        (POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "present with"),
        (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", "neither by its"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "chunk size"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n", "chunk size"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * 2000, "size overflow"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n3e9\r\n" + b"x" * 1001, "larger than 1000"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nabc", "after chunk data"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"x: y\r\n" * 900, "trailer"),
    ],
)
def test_what_is_no_request_is_refused_with_a_reason(raw: bytes, says: str) -> None:
    with pytest.raises(Refusal, match=says):
        read(raw)


def test_a_trailer_is_dropped_and_the_next_request_found_behind_it() -> None:
    first = POST + b"Transfer-Encoding: chunked\r\n\r\n1;ext=1\r\na\r\n0\r\nx: y\r\n\r\n"
    found = read(first + b"\r\nGET /health HTTP/1.1\r\n\r\n")
    assert [(request.path, request.body) for request in found] == [
        ("/v1/completions", b"a"),
        ("/health", b""),
    ]


def test_requests_before_what_is_none_are_served_first() -> None:
    requests = Requests(MAX_BODY)
    requests.feed(b"GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\nnonsense\r\n\r\n")
    assert [found.path for _ in range(2) if (found := requests.next())] == ["/a", "/b"]
    with pytest.raises(Refusal, match="Invalid method"):
        requests.next()


@pytest.mark.parametrize("before", [b"1;", b"0\r\n", b"1\r\na\r\n0\r\nx: "])
def test_bytes_that_are_no_body_have_a_bound(before: bytes) -> None:
    """What is parsed without being kept: extensions of chunks, trailers."""
    piece = b"x" * 500
    head = POST + b"Transfer-Encoding: chunked\r\n\r\n"
    with pytest.raises(Refusal):
        read(head + before, *[piece] * 20)


@pytest.mark.parametrize(
    ("version", "connection", "keeps"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"Connection: close\r\n", False),
        (b"1.1", b"Connection: Keep-Alive\r\n", True),
        (b"1.0", b"", False),
        (b"1.0", b"Connection: keep-alive\r\n", True),
    ],
)
def test_whether_the_connection_stays_follows_version_and_header(
    version: bytes, connection: bytes, keeps: bool
) -> None:
    (request,) = read(b"GET / HTTP/" + version + b"\r\n" + connection + b"\r\n")
    assert (request.keeps, request.chunks) == (keeps, version == b"1.1")


def test_leave_to_go_on_is_wanted_until_the_body_is_there() -> None:
    requests = Requests(MAX_BODY)
    requests.feed(POST + b"Expect: 100-Continue\r\n")
    assert not requests.wants_continue
    requests.feed(b"Content-Length: 1\r\n\r\n")
    assert requests.next() is None and requests.wants_continue
    requests.feed(b"x")
    assert requests.next() is not None and not requests.wants_continue


class _Wire(io.BytesIO):
    def makefile(self, *_args: object, **_more: object) -> _Wire:
        return self


def parsed(raw: bytes) -> http.client.HTTPResponse:
    """A reply as Python's own client reads it."""
    response = http.client.HTTPResponse(_Wire(raw))  # type: ignore[arg-type]
    response.begin()
    return response


def test_replies_are_what_another_implementation_reads() -> None:
    with parsed(reply(404, b"{}")) as found:
        assert (found.status, found.read(), found.will_close) == (404, b"{}", False)
    with parsed(reply(200, b"", "text/plain", keeps=False)) as found:
        assert (found.getheader("content-type"), found.will_close) == ("text/plain", True)
    with parsed(stream_head() + chunk(b"data: 1\n\n") + chunk(b"x" * 20) + LAST_CHUNK) as found:
        assert found.read() == b"data: 1\n\n" + b"x" * 20
    with parsed(stream_head(chunks=False) + b"to the end") as found:
        assert (found.read(), found.will_close) == (b"to the end", True)


@pytest.mark.parametrize("at", [[], [30], [60, 90, 120], list(range(0, 200, 7))])
def test_who_offers_another_protocol_is_answered_in_this_one(at: list[int]) -> None:
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAM\r\n"
    data = POST + offer + b"Content-Length: 5\r\n\r\nhello"
    data += b"GET /v1/models HTTP/1.1\r\nHost: a\r\n" + offer + b"\r\n" + POST + b"\r\n"
    first, second, third = read(*cut(data, at))
    assert (first.method, first.path, first.body) == ("POST", "/v1/completions", b"hello")
    assert (second.method, second.path, second.body) == ("GET", "/v1/models", b"")
    assert third.path == "/v1/completions" and first.keeps and second.keeps


def test_a_line_of_a_request_has_the_bound_of_a_head() -> None:
    with pytest.raises(Refusal, match="head is larger"):
        read(b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", max_head=65_536)
