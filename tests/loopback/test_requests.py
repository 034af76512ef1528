"""What the server gets to see: where requests go, what they bear, and that no two are alike."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from pathlib import Path

import pytest

from latdiag.load.work.lengths import Lengths
from latdiag.load.work.prepare import Prepared, Wish, prepare

from .invoke import Ended, called, loaded, well_measured
from .peers import Asked, Peer, Wire, models, serving, well

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


def agreeable(wire: Wire, asked: Asked) -> None:
    if asked.method == "GET" and not asked.target.partition("?")[0].endswith("/v1/models"):
        wire.reply(404, "{}")
    elif not models(wire, asked):
        well(wire, asked)


def prepared(url: str, path: str | None = None, model: str | None = None) -> Prepared:
    wish = Wish(url, path, model, requests=1, osl=Lengths.parse("3"))
    return asyncio.run(prepare(wish))


# ---------------------------------------------------------------------- where to
@pytest.mark.parametrize(
    ("url", "path", "listed", "target"),
    [
        ("http://{}", None, "/v1/models", CHAT),
        ("{}", None, "/v1/models", CHAT),
        ("http://{}/", None, "/v1/models", CHAT),
        ("http://{}/v1", None, "/v1/models", CHAT),
        ("http://{}/v1/", None, "/v1/models", CHAT),
        ("http://{}/v1/chat/completions", None, "/v1/models", CHAT),
        ("http://{}/v1/completions", None, "/v1/models", COMPLETIONS),
        ("http://{}", COMPLETIONS, "/v1/models", COMPLETIONS),
        ("http://{}/v1", COMPLETIONS, "/v1/models", COMPLETIONS),
        ("http://{}/v1/completions", COMPLETIONS, "/v1/models", COMPLETIONS),
        ("http://{}/api", None, "/api/v1/models", "/api" + CHAT),
        ("http://{}/api/v1", COMPLETIONS, "/api/v1/models", "/api" + COMPLETIONS),
        ("http://{}/api/v1/chat/completions", None, "/api/v1/models", "/api" + CHAT),
        ("http://{}/a%2Fb%20c/v1", None, "/a%2Fb%20c/v1/models", "/a%2Fb%20c" + CHAT),
        ("http://{}/v1?a=2&b=%2F", None, "/v1/models?a=2&b=%2F", CHAT + "?a=2&b=%2F"),
        ("http://{}", "/x/chat/completions", "/v1/models", "/x/chat/completions"),
    ],
)  # fmt: skip
def test_where_requests_go(url: str, path: str | None, listed: str, target: str) -> None:
    with serving(agreeable) as peer:
        found = prepared(url.format(f"127.0.0.1:{peer.port}"), path).found
    gets = [asked.target for asked in peer.asked if asked.method == "GET"]
    assert listed in gets and gets[:-1] in ([], ["/x/models"], [listed])
    posts = [(asked.method, asked.target) for asked in peer.asked if asked.method != "GET"]
    assert posts and set(posts) == {("POST", target)}
    assert (found.model, found.models_offered, found.model_asked) == ("tiny", 2, True)
    assert {asked.header("host") for asked in peer.asked} == {f"127.0.0.1:{peer.port}"}
    body = peer.asked[-1].document
    assert ("prompt" in body) == target.endswith(COMPLETIONS) and body["model"] == "tiny"


def test_a_given_model_is_not_asked_for() -> None:
    with serving(agreeable) as peer:
        found = prepared(peer.url, model="mine").found
    assert {asked.document["model"] for asked in peer.asked} == {"mine"}
    assert (found.model, found.model_asked) == ("mine", False)


@pytest.mark.parametrize(
    "url",
    ["ftp://host", "http://", "http://:80", "http://host:99999", "http://host:port", "",
     "http://u:p@host", "http://[::1", "ftp://host:port", "http://a\u2100b.c"],
)  # fmt: skip
def test_what_is_no_url(capsys: pytest.CaptureFixture[str], tmp_path: Path, url: str) -> None:
    ended = called(capsys, tmp_path, url, "--model", "m", "--timeout", "1s")
    assert ended.code == 2 and ended.err.startswith("error: ") and "try: " in ended.err


def test_a_path_of_no_known_dialect(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    ended = called(capsys, tmp_path, "http://127.0.0.1:9", "--path", "/v1/responses")
    assert ended.code == 2 and "/v1/chat/completions, /v1/completions" in ended.err


# ---------------------------------------------------------------------- what
@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ended, Peer]:
    """Everything that a user can add to a request, to a server on IPv6."""
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 loopback here")
    with serving(agreeable, host="::1") as peer:
        ended = loaded(
            tmp_path_factory.mktemp("requests"),
            peer.url,
            *("--requests", "23", "--concurrency", "5", "--osl", "7", "--quiet"),
            *("--api-key-env", "A_KEY", "--header", "X-Team: red: blue"),
            *("--header-env", "X-Secret: A_SECRET", "--header", "user-agent: mine/1"),
            *("--body-json", '{"top_p": 0.5, "stream_options": {"extra": [1]}, "seed": null}'),
            A_KEY="sk-key-of-the-test",
            A_SECRET="very secret value",
        )
    return ended, peer


def test_headers_of_the_user_reach_the_server(measured: tuple[Ended, Peer]) -> None:
    ended, peer = measured
    assert well_measured(ended) and ended.result["target"]["peer"] == f"::1 port {peer.port}"
    assert len(peer.of_load()) == 23 < len(peer.asked)
    for asked in peer.asked:  # the preflight too
        assert asked.header("authorization") == "Bearer sk-key-of-the-test"
        assert asked.header("x-team") == "red: blue"
        assert asked.header("x-secret") == "very secret value"
        assert asked.header("user-agent") == "mine/1"
        assert asked.header("accept-encoding") == "identity"
        assert asked.header("host") == f"[::1]:{peer.port}"
        names = [name.lower() for name, _ in asked.headers]
        assert len(names) == len(set(names))


def test_fields_of_the_user_are_merged_into_the_body(measured: tuple[Ended, Peer]) -> None:
    for asked in measured[1].asked[1:]:
        body = asked.document
        assert body["top_p"] == 0.5 and body["stream_options"]["extra"] == [1]
        assert body["stream_options"]["include_usage"] is True and body["stream"] is True
        assert "seed" not in body
        assert asked.header("content-type") == "application/json"
        assert asked.header("accept") == "text/event-stream"
        assert int(asked.header("content-length") or 0) == len(asked.body)


def test_every_request_has_ids_of_its_own(measured: tuple[Ended, Peer]) -> None:
    ended, peer = measured
    parents = [asked.header("traceparent") or "" for asked in peer.asked]
    assert all(re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", parent) for parent in parents)
    traces, spans = ({parent.split("-")[i] for parent in parents} for i in (1, 2))
    assert len(traces) == len(spans) == len(peer.asked)
    ids = [asked.header("x-request-id") for asked in peer.asked]
    assert len(set(ids)) == len(ids) and all(ids)
    rows = ended.rows()
    for asked in peer.of_load():
        assert asked.number is not None
        row = rows[asked.number]
        assert row["request_id"] == asked.header("x-request-id")
        assert asked.header("traceparent") == f"00-{row['trace_id']}-{row['span_id']}-01"


def test_no_two_prompts_are_alike(measured: tuple[Ended, Peer]) -> None:
    prompts = [json.dumps(asked.document["messages"]) for asked in measured[1].of_load()]
    assert len(set(prompts)) == len(prompts)
