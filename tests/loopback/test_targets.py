"""Targets with which no load can begin: exit 15 before anything is forked, and what to try."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from latdiag.load.work.lengths import Lengths
from latdiag.load.work.prepare import Wish, prepare

from .invoke import called, loaded
from .peers import DONE, Asked, Peer, Script, Wire, delta, models, serving, tokens, well

Captured = pytest.CaptureFixture[str]


def refused(ended: Any, text: str, remedy: str, url: str | None = None, code: int = 15) -> None:
    """The end of a command: its code, one sentence and one remedy on stderr, no run."""
    assert ended.code == code, ended.err
    first, second = ended.err.splitlines()
    assert first.startswith("error: ") and second.startswith("try: ")
    assert re.search(text, first), first
    assert re.search(remedy, second), second
    assert url is None or url in first
    assert not ended.run.exists()


def only(script: Script) -> Script:
    """An endpoint that lists models, and answers everything else as the script says."""
    return lambda wire, asked: None if models(wire, asked) else script(wire, asked)


def failing(status: int, said: str, *headers: str) -> Script:
    body = json.dumps({"error": {"message": said}}) if said else ""
    return only(lambda wire, _: wire.reply(status, body, *headers))


# ---------------------------------------------------------------------- below HTTP
def test_nothing_listens(capsys: Captured, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    ended = called(capsys, tmp_path, f"http://127.0.0.1:{port}")
    refused(
        ended, f"cannot connect to 127.0.0.1 port {port}: Connection refused", "server is running"
    )


def test_a_name_that_does_not_exist(capsys: Captured, tmp_path: Path) -> None:
    ended = called(capsys, tmp_path, "http://nosuch.invalid:8000/v1")
    refused(ended, "the name nosuch.invalid cannot be resolved: ", "host name")


@pytest.mark.parametrize("name", ["a" * 64, "..", "xn--" + "z" * 60])
def test_a_name_that_cannot_exist(capsys: Captured, tmp_path: Path, name: str) -> None:
    ended = called(capsys, tmp_path, f"http://{name}.invalid:8000/v1", "--model", "m")
    assert ended.code in (2, 15) and ended.err.startswith("error: ")


def test_a_server_that_never_answers(capsys: Captured, tmp_path: Path) -> None:
    begun = time.monotonic()
    with serving(lambda wire, _: wire.hang()) as peer:
        ended = called(capsys, tmp_path, peer.url, "--timeout", "300ms")
    refused(ended, "nothing arrived for 0.3 s", "--timeout", peer.url)
    assert time.monotonic() - begun < 10


def test_a_server_that_does_not_take_the_connection(capsys: Captured, tmp_path: Path) -> None:
    """Its queue is full: the handshake of TCP is never answered."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        where = full.getsockname()
        waiting = [socket.socket() for _ in range(8)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(where)
        url = f"http://127.0.0.1:{where[1]}"
        ended = called(capsys, tmp_path, url, "--timeout", "300ms")
        for sock in waiting:
            sock.close()
    refused(ended, "no connection to 127.0.0.1 port .* within 0.3 s", "can be reached", url)


def test_a_server_that_closes_at_once(capsys: Captured, tmp_path: Path) -> None:
    with serving(lambda wire, _: wire.close()) as peer:
        ended = called(capsys, tmp_path, peer.url)
    refused(ended, "closed the connection before any reply", "scheme and port", peer.url)


def test_a_server_that_resets(capsys: Captured, tmp_path: Path) -> None:
    with serving(only(lambda wire, _: wire.reset())) as peer:
        ended = called(capsys, tmp_path, peer.url)
    refused(ended, "Connection reset by peer", "scheme and port", peer.url)
    assert len(peer.asked) == 3  # the kept connection's request once more, then no more


@pytest.mark.parametrize(
    "greeting", [b"220 mail.example ESMTP\r\n", b"SSH-2.0-x\r\n", b"\x00\xff" * 99, b"\r\n\r\n"]
)
def test_a_server_that_does_not_speak_http(
    capsys: Captured, tmp_path: Path, greeting: bytes
) -> None:
    with serving(lambda wire, _: wire.close(), greeting=greeting) as peer:
        ended = called(capsys, tmp_path, peer.url)
    refused(ended, "broken HTTP reply|closed the connection", "an HTTP server", peer.url)


# ---------------------------------------------------------------------- HTTP says no
def page(body: str, kind: str = "text/event-stream") -> Script:
    return only(lambda wire, _: wire.reply(200, body, f"Content-Type: {kind}"))


NO = {
    "401": (
        failing(401, "Wrong key"),
        r"requires an API key: HTTP 401 \(Wrong key\)",
        "--api-key-env",
    ),
    "403": (failing(403, ""), "forbids it: HTTP 403$", "--api-key-env"),
    "404": (failing(404, "No"), r"nothing at \S+/v1/chat/completions: HTTP 404", "completions"),
    "307": (failing(307, "", "Location: /v2"), "redirect to /v2 not followed", "final URL"),
    "400": (failing(400, "no such field"), "refuses the request: HTTP 400: no such", "--isl"),
    "204": (only(lambda wire, _: wire.reply(204)), "HTTP 204", "streams"),
    "html": (page("<p>", "text/html"), "an HTML page instead of an event stream", "streams"),
    "json": (page("{}", "application/json"), "one JSON document instead of an", "streams"),
    "empty": (page(""), "the reply held no event", "streams"),
    "text": (page("hi\n\n"), "the reply held no event", "streams"),
    "no json": (page("data: hi\n\n"), "an event of 2 bytes is not JSON", "streams"),
}


@pytest.mark.parametrize(("script", "text", "remedy"), NO.values(), ids=list(NO))
def test_a_first_reply_that_says_no(
    capsys: Captured, tmp_path: Path, script: Script, text: str, remedy: str
) -> None:
    with serving(script) as peer:
        ended = called(capsys, tmp_path, peer.url)
    refused(ended, text, remedy, peer.url if "refuses" not in text else None)
    assert peer.of_load() == []


def test_404_names_the_path_that_was_not_tried(capsys: Captured, tmp_path: Path) -> None:
    with serving(failing(404, "")) as peer:
        for path, other in (
            ("/v1/completions", "/v1/chat/completions"),
            ("/v1/chat/completions", "/v1/completions"),
        ):
            ended = called(capsys, tmp_path, peer.url, "--path", path)
            refused(ended, f"{path}: HTTP 404$", f"--path {other},")


@pytest.mark.parametrize(
    ("status", "body"),
    [(404, ""), (500, "{}"), (200, "<html>"), (200, '{"data": []}'), (200, '{"data": {"0": 1}}'),
     (200, "[" * 50_000), (200, '{"data": [{"id": 7}]}'), (200, b"\xff\xfe")],
    ids=["404", "500", "html", "none", "odd", "deep", "number", "bytes"],
)  # fmt: skip
def test_no_model_is_listed(
    capsys: Captured, tmp_path: Path, status: int, body: str | bytes
) -> None:
    with serving(lambda wire, _: wire.reply(status, body)) as peer:
        ended = called(capsys, tmp_path, peer.url + "/v1")
    refused(ended, f"/v1/models lists no model: HTTP {status}$", "--model", peer.url)


@pytest.mark.parametrize("name", ["tiny\x1b[2J", "x" * 301, "", "\u202emodel", "two\nlines"])
def test_a_model_of_an_unusable_name(capsys: Captured, tmp_path: Path, name: str) -> None:
    listed = json.dumps({"data": [{"id": name}]})
    with serving(lambda wire, _: wire.reply(200, listed)) as peer:
        ended = called(capsys, tmp_path, peer.url)
    refused(ended, "lists a model without a usable name$", "--model")


def test_a_list_of_models_without_end_is_not_read_to_its_end(
    capsys: Captured, tmp_path: Path
) -> None:
    sent = 0

    def script(wire: Wire, _asked: Asked) -> None:
        nonlocal sent
        wire.head("Content-Type: application/json")
        for _ in range(200):
            wire.chunk(b" " * (1 << 20))
            sent += 1

    with serving(script) as peer:
        ended = called(capsys, tmp_path, peer.url)
    refused(ended, "lists no model", "--model")
    assert sent < 100


# ---------------------------------------------------------------------- the ladder of extras
EXTRAS = ("return_token_ids", "continuous_usage_stats", "ignore_eos", "min_tokens")


@pytest.mark.parametrize(
    ("refused_fields", "kept"),
    [
        ((), EXTRAS),
        (EXTRAS[:1], EXTRAS[1:]),
        (EXTRAS[:2], EXTRAS[2:]),
        (("ignore_eos",), ("return_token_ids", "continuous_usage_stats", "min_tokens")),
        (EXTRAS, ()),
        (("max_tokens",), EXTRAS),
        (("stream_options", "ignore_eos"), ("return_token_ids", "min_tokens")),
    ],
    ids=["none", "ids", "usage", "eos", "all", "max_tokens", "stream_options"],
)
@pytest.mark.parametrize("status", [400, 422])
def test_fields_that_the_server_does_not_know_are_left_out(
    refused_fields: tuple[str, ...], kept: tuple[str, ...], status: int
) -> None:
    """What it refuses is left out and nothing else; the load then asks for just that."""

    def script(wire: Wire, asked: Asked) -> None:
        given = fields_of(asked.document)
        named = next((field for field in refused_fields if field in given), None)
        if named:
            wire.reply(status, json.dumps({"error": {"message": f"unknown field {named}"}}))
        else:
            well(wire, asked)

    with serving(only(script)) as peer:
        wish = Wish(peer.url, requests=2, osl=Lengths.parse("3"))
        prepared = asyncio.run(prepare(wish))
    for work in prepared.work(wish):
        given = fields_of(json.loads(work.body))
        assert {field for field in EXTRAS if field in given} == set(kept)
        limit = "max_tokens" if "max_tokens" not in refused_fields else "max_completion_tokens"
        assert given[limit] == 3 and given["stream"] is True
        assert ("include_usage" in given) == ("stream_options" not in refused_fields)
    assert prepared.found.refused_extras.isdisjoint(prepared.found.extras)


def fields_of(ask: dict[str, Any]) -> dict[str, Any]:
    return {**ask, **(ask.get("stream_options") or {})}


# ---------------------------------------------------------------------- no usable reply at all
def test_a_load_of_which_nothing_succeeds(tmp_path: Path) -> None:
    def script(wire: Wire, asked: Asked) -> None:
        if asked.number is None:
            well(wire, asked)
        else:
            wire.reply(500, json.dumps({"error": {"message": "engine died"}}))

    with serving(only(script)) as peer:
        ended = loaded(tmp_path, peer.url, "--requests", "7", "--osl", "3", "--concurrency", "3")
    assert ended.code == 15
    error = ended.result["error"]
    assert error["code"] == "target" and ended.result["run"] == str(ended.run)
    sentence = f"{peer.url}/v1/chat/completions gave no usable reply in 7 requests: "
    assert error["text"] == sentence + "HTTP 500: engine died"
    assert f"error: {error['text']}" in ended.err and "try: " in ended.err
    assert {row["outcome"] for row in ended.rows().values()} == {"http_error"}


def test_a_refusal_of_the_first_request_is_no_reason_to_stop(tmp_path: Path) -> None:
    """An overloaded server is a finding; and each request's own reply counts."""
    refusals: list[Peer] = []

    def script(wire: Wire, asked: Asked) -> None:
        if asked.number is None:
            refusals.append(peer)
            wire.reply(429, "", "Retry-After: 0")
        else:
            wire.head()
            wire.chunk(*tokens(3), delta("stop"), DONE)
            wire.end()

    with serving(only(script)) as peer:
        ended = loaded(tmp_path, peer.url, "--requests", "3", "--osl", "3")
    assert refusals and {row["outcome"] for row in ended.rows().values()} == {"ok"}
