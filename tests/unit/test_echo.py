"""The target ``demo:echo``, a demo server that only keeps a pace: replies, pace, and its end."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import pytest

from latdiag.sim.demo import running_echo
from latdiag.sim.engine import Engine
from latdiag.sim.openai import TEMPLATE_TOKENS
from latdiag.sim.params import echo

TTFT_MS, ITL_MS = 20.0, 4.0


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_echo(ttft_ms=TTFT_MS, itl_ms=ITL_MS) as found:
        yield found


def _connect(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)


def _post(url: str, path: str, body: bytes | dict[str, Any]) -> tuple[int, bytes]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with closing(_connect(url)) as connection:
        connection.request("POST", f"/v1/{path}", data, {"Content-Type": "application/json"})
        reply = connection.getresponse()
        return reply.status, reply.read()


def _events(stream: bytes) -> list[Any]:
    parts = [part.removeprefix(b"data: ") for part in stream.split(b"\n\n") if part]
    return [part if part == b"[DONE]" else json.loads(part) for part in parts]


def _chat(osl: int, **more: Any) -> dict[str, Any]:
    message = {"role": "user", "content": "one two three"}
    return {"model": "echo", "messages": [message], "max_tokens": osl, "stream": True, **more}


def test_a_chat_stream_has_a_role_one_event_a_token_a_reason_usage_and_an_end(url: str) -> None:
    status, stream = _post(url, "chat/completions", _chat(5, stream_options={"include_usage": 1}))
    role, *tokens, usage, done = _events(stream)
    assert status == 200
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    texts = [event["choices"][0]["delta"]["content"] for event in tokens]
    assert texts == [" the", " first", " light", " of", " day"]
    reasons = [event["choices"][0]["finish_reason"] for event in tokens]
    assert reasons == [None, None, None, None, "length"]
    assert usage["choices"] == []
    isl = 3 + TEMPLATE_TOKENS
    counts = {"prompt_tokens": isl, "completion_tokens": 5, "total_tokens": isl + 5}
    assert usage["usage"] == counts
    assert done == b"[DONE]"
    assert len({event["id"] for event in (role, *tokens, usage)}) == 1


def test_usage_is_sent_only_when_asked_for(url: str) -> None:
    _, stream = _post(url, "chat/completions", _chat(2))
    assert all("usage" not in event for event in _events(stream)[:-1])


def test_a_completion_counts_token_ids_and_can_state_them(url: str) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    body = {"prompt": [7, 8, 9, 10], "max_tokens": 3, "stream": True, "return_token_ids": True}
    _, stream = _post(url, "completions", {**body, "stream_options": options})
    *tokens, usage, _ = _events(stream)
    assert [len(event["choices"][0]["token_ids"]) for event in tokens] == [1, 1, 1]
    assert [event["usage"]["completion_tokens"] for event in tokens] == [1, 2, 3]
    assert usage["usage"]["prompt_tokens"] == 4


def test_without_stream_the_answer_comes_whole(url: str) -> None:
    status, body = _post(url, "chat/completions", _chat(4, stream=False))
    reply = json.loads(body)
    assert status == 200
    assert reply["choices"][0]["message"]["content"] == " the first light of"
    assert reply["usage"]["completion_tokens"] == 4


def test_it_names_its_model(url: str) -> None:
    with closing(_connect(url)) as connection:
        connection.request("GET", "/v1/models")
        reply = json.loads(connection.getresponse().read())
    assert [model["id"] for model in reply["data"]] == ["echo"]


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("chat/completions", b"{", 400, "not JSON"),
        ("chat/completions", b"[]", 400, "not a JSON object"),
        ("chat/completions", {"messages": "hello"}, 400, "list of objects"),
        ("completions", {"prompt": {}}, 400, "prompt is"),
        ("completions", {"prompt": "a", "max_tokens": -1}, 400, "max_tokens"),
        ("completions", {"prompt": "a", "max_tokens": True}, 400, "max_tokens"),
        ("completions", {"prompt": "a", "max_tokens": 10**9}, 400, "max_tokens"),
        ("completions", {"prompt": "a", "model": "other"}, 404, "does not exist"),
        ("chat", {}, 404, "/v1/chat/completions"),
        ("models", {}, 405, "GET"),
    ],
)
def test_what_it_does_not_take_it_refuses_with_a_reason(
    url: str, path: str, body: Any, status: int, says: str
) -> None:
    got, reply = _post(url, path, body)
    assert (got, says in json.loads(reply)["error"]["message"]) == (status, True)


def test_a_connection_bears_one_request_after_another_and_chunked_bodies(url: str) -> None:
    body = json.dumps({"prompt": "a b", "max_tokens": 1}).encode()
    with closing(_connect(url)) as connection:
        for _ in range(3):
            pieces = iter([body[:5], body[5:]])
            connection.request("POST", "/v1/completions", pieces, encode_chunked=True)
            assert json.loads(connection.getresponse().read())["usage"]["prompt_tokens"] == 2


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nContent-Length: -4\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_broken_http_is_answered_400_and_the_server_lives_on(url: str, raw: bytes) -> None:
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as peer:
        peer.sendall(raw)
        assert peer.recv(100).startswith(b"HTTP/1.1 400 ")
    assert _post(url, "completions", {"prompt": "a", "max_tokens": 1})[0] == 200


def test_tokens_leave_on_the_grid_that_was_asked_for(url: str) -> None:
    """Never before their instant; late only as far as the machine is (a bound far above that)."""
    tokens = 11
    begun = time.monotonic()
    with closing(_connect(url)) as connection:
        connection.request("POST", "/v1/chat/completions", json.dumps(_chat(tokens)))
        reply = connection.getresponse()
        instants = []
        while line := reply.readline():
            if b'"content":"' in line and b"role" not in line:
                instants.append(1000 * (time.monotonic() - begun))
    assert len(instants) == tokens
    # A millisecond less: the loop's clock may wake a little early.
    due = [TTFT_MS + ITL_MS * index - 1 for index in range(tokens)]
    assert all(at >= at_least for at, at_least in zip(instants, due, strict=True))
    assert instants[-1] < due[-1] + 2000


def test_lateness_does_not_add_up_over_a_stream() -> None:
    engine = Engine(echo(ttft_ms=500.0, itl_ms=250.0), seed=0)
    engine.submit("a", 10_000_000_000, isl=20_000, osl=401)
    at_ns = [emission.at_ns for emission in engine.advance(200_000_000_000)]
    assert [at_ns[index] for index in (0, 1, 400)] == [
        10_500_000_000, 10_750_000_000, 110_500_000_000
    ]  # fmt: skip


def test_tokens_that_leave_at_once_are_all_there_and_in_order() -> None:
    """What a server that is late by several steps does, at its extreme."""
    with running_echo(ttft_ms=0.0, itl_ms=0.0) as url:
        _, stream = _post(url, "chat/completions", _chat(300))
        _, body = _post(url, "chat/completions", _chat(300, stream=False))
    role, *tokens, done = _events(stream)
    choices = [event["choices"][0] for event in tokens]
    assert role["choices"][0]["delta"]["role"] == "assistant" and done == b"[DONE]"
    whole = json.loads(body)["choices"][0]["message"]["content"]
    assert "".join(choice["delta"]["content"] for choice in choices) == whole
    assert [choice["finish_reason"] for choice in choices] == [None] * 299 + ["length"]


def test_it_ends_with_its_parent_however_that_ends() -> None:
    code = (
        "import sys, time\n"
        "from latdiag.sim.demo import running_echo\n"
        "with running_echo() as url:\n"
        "    print(url, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as own:
        assert own.stdout is not None
        parts = urlsplit(own.stdout.readline().strip())
        os.kill(own.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    refused = False
    while not refused and time.monotonic() < deadline:
        try:
            socket.create_connection((parts.hostname, parts.port), timeout=1).close()
        except ConnectionRefusedError:
            refused = True
        except OSError:
            pass  # taken on by a socket that is just being closed
    assert refused


def test_a_port_that_is_taken_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port}"), running_echo(port):
            pass
    said = capfd.readouterr().err
    assert said.startswith("demo: ") and "address already in use" in said.lower()
