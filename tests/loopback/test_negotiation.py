"""What servers that are not ours allow: found with few requests, each field by itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latdiag.load.work.lengths import Lengths
from latdiag.load.work.prepare import Prepared, Wish, prepare

from .invoke import called
from .peers import DONE, Asked, Peer, Script, Wire, event, models, serving, well, whole

Captured = pytest.CaptureFixture[str]
#: Requests before a load at which nobody would call them few.
FEW = 14
Refuse = Callable[[Wire, str], None]


def fields_of(asked: Asked) -> dict[str, Any]:
    ask = asked.document
    return {**ask, **(ask.get("stream_options") or {})}


def limit_of(fields: dict[str, Any]) -> int | None:
    return fields.get("max_tokens") or fields.get("max_completion_tokens")


def taking(refusal_of: Callable[[dict[str, Any]], str | None], refuse: Refuse) -> Script:
    """A server that answers well but for requests of which ``refusal_of`` has a sentence."""

    def script(wire: Wire, asked: Asked) -> None:
        if models(wire, asked):
            return
        said = refusal_of(fields_of(asked))
        if said is None:
            well(wire, asked)
        else:
            refuse(wire, said)

    return script


# ---------------------------------------------------------------------- forms of a refusal
def as_openai(wire: Wire, said: str) -> None:
    wire.reply(400, json.dumps({"error": {"message": said, "type": "invalid_request_error"}}))


def as_pydantic(wire: Wire, said: str) -> None:
    name = next((word.strip("'") for word in said.split() if "_" in word), "body")
    detail = [{"type": "extra_forbidden", "loc": ["body", name], "msg": "Not permitted"}]
    wire.reply(422, json.dumps({"detail": detail}))


def as_text(wire: Wire, said: str) -> None:
    wire.reply(400, said, "Content-Type: text/plain")


def as_nothing(wire: Wire, _said: str) -> None:
    wire.reply(400)


def as_failure(wire: Wire, said: str) -> None:
    wire.reply(500, json.dumps({"error": {"message": f"litellm.BadRequestError: {said}"}}))


def as_event(wire: Wire, said: str) -> None:
    wire.head()
    wire.chunk(event(error={"message": said, "code": 400}), DONE)
    wire.end()


def as_typed_event(wire: Wire, said: str) -> None:
    wire.head()
    wire.chunk(b"event: error\n" + event(message=said))
    wire.end()


def as_document(wire: Wire, said: str) -> None:
    wire.reply(200, json.dumps({"error": {"message": said}}), "Content-Type: application/json")


FORMS = (as_openai, as_pydantic, as_text, as_nothing, as_failure, as_event, as_typed_event)
FORMS = (*FORMS, as_document)  # type: ignore[assignment]
EXTRAS = {
    "stream_options": "usage",
    "continuous_usage_stats": "continuous_usage",
    "return_token_ids": "return_token_ids",
    "ignore_eos": "ignore_eos",
    "min_tokens": "min_tokens",
}


def prepared(url: str, osl: str = "32", **more: Any) -> Prepared:
    return asyncio.run(prepare(Wish(url, requests=2, osl=Lengths.parse(osl), **more)))


def posts(peer: Peer) -> int:
    return sum(asked.method == "POST" for asked in peer.asked)


@pytest.mark.parametrize("refuse", FORMS)
@pytest.mark.parametrize(
    "unknown",
    [
        ("min_tokens",),
        ("return_token_ids",),
        ("ignore_eos", "min_tokens"),
        ("continuous_usage_stats", "return_token_ids"),
        tuple(EXTRAS),
    ],
    ids=["min", "ids", "two", "others", "all"],
)
def test_just_what_is_refused_is_left_out(refuse: Refuse, unknown: tuple[str, ...]) -> None:
    """In whatever form it is refused, and whether that names the field or not."""

    def refusal(fields: dict[str, Any]) -> str | None:
        first = next((name for name in unknown if name in fields), None)
        return first and f"Unrecognized request argument supplied: {first}"

    with serving(taking(refusal, refuse)) as peer:
        found = prepared(peer.url).found
    refused = {EXTRAS[name] for name in unknown}
    refused |= {"continuous_usage"} if "usage" in refused else set()
    assert found.refused_extras == refused
    assert found.extras == set(EXTRAS.values()) - refused
    assert posts(peer) <= FEW


@pytest.mark.parametrize("refuse", FORMS)
@pytest.mark.parametrize("least", [3, 16, 20])
@pytest.mark.parametrize("newer", [False, True])
def test_the_smallest_length_is_kept_to(refuse: Refuse, least: int, newer: bool) -> None:
    """By what latdiag thinks up; what the user wants is sent as he wants it."""
    name = "max_completion_tokens" if newer else "max_tokens"
    other = "max_tokens" if newer else "max_completion_tokens"

    def refusal(fields: dict[str, Any]) -> str | None:
        if other in fields:
            return f"Unsupported parameter: '{other}' is not supported. Use '{name}' instead."
        if (limit_of(fields) or 99) < least:
            return f"Invalid 'max_output_tokens': below minimum value. Expected >= {least}, got 2"
        return None

    with serving(taking(refusal, refuse)) as peer:
        made = prepared(peer.url)
        wish = Wish(peer.url, requests=2, osl=Lengths.parse("32"))
        shots = made.shots("S3", [(8, 1, -1), (8, 40, -1)], iter(range(2)))
        asked = [limit_of(json.loads(work.body)) for work in (*made.work(wish), *shots)]
    assert asked[:2] == [32, 32] and asked[3] == 40
    assert asked[2] is not None and least <= asked[2] <= 32
    assert made.found.refused_extras == set()
    assert posts(peer) <= FEW


def test_a_length_that_the_user_wants_and_may_not_have(capsys: Captured, tmp_path: Path) -> None:
    def refusal(fields: dict[str, Any]) -> str | None:
        return "must be at least 16: max_tokens" if (limit_of(fields) or 0) < 16 else None

    with serving(taking(refusal, as_openai)) as peer:
        ended = called(capsys, tmp_path, peer.url, "--osl", "8", "--requests", "2")
    assert (
        ended.code == 15
        and "refuses an output of 8 tokens: HTTP 400: must be at least 16" in ended.err
    )
    assert "a longer output (--osl): it took 16" in ended.err


@pytest.mark.parametrize("refuse", FORMS)
def test_the_refusal_shown_is_that_of_the_best_attempt(
    capsys: Captured, tmp_path: Path, refuse: Refuse
) -> None:
    """Not of a field that only latdiag asked for: what keeps the user's from being taken."""

    def refusal(fields: dict[str, Any]) -> str | None:
        for name in ("return_token_ids", "min_tokens"):
            if name in fields:
                return f"no such field: {name}"
        if (limit_of(fields) or 0) < 16:
            return "max_tokens is below 16"
        return "the account is out of credits"

    with serving(taking(refusal, refuse)) as peer:
        ended = called(capsys, tmp_path, peer.url, "--model", "m", "--requests", "2")
    if refuse is as_failure:  # it fails whatever it is asked: the load goes on, and finds nothing
        assert ended.code == 15
        return
    assert ended.code == 15
    if refuse not in (as_nothing, as_pydantic):
        assert "the account is out of credits" in ended.err
    assert posts(peer) <= FEW


def test_a_server_that_is_busy_is_asked_again() -> None:
    def script(wire: Wire, asked: Asked) -> None:
        if models(wire, asked):
            return
        if posts(peer) == 1:
            wire.reply(429, "", "Retry-After: 0")
        elif "min_tokens" in asked.document:
            as_openai(wire, "unknown: min_tokens")
        else:
            well(wire, asked)

    with serving(script) as peer:
        found = prepared(peer.url).found
    assert found.refused_extras == {"min_tokens"}


# ---------------------------------------------------------------------- which model
NO_CHAT: dict[str, Script] = {
    "400": lambda wire, _: as_openai(wire, "this model does not support chat"),
    "404": lambda wire, _: wire.reply(404, json.dumps({"detail": "no chat"})),
    "500": lambda wire, _: wire.reply(500, "no lm head"),
    "event": lambda wire, _: as_event(wire, "not a chat model"),
}


@pytest.mark.parametrize("no", [no for no in NO_CHAT if no != "500"])
@pytest.mark.parametrize("place", [1, 2, 3])
def test_a_listed_model_that_does_not_chat_is_passed_over(no: str, place: int) -> None:
    names = [f"embed-{n}" for n in range(place)] + ["chatty", "other"]

    def script(wire: Wire, asked: Asked) -> None:
        if asked.method == "GET":
            wire.reply(200, json.dumps({"data": [{"id": name} for name in names]}))
        elif asked.document["model"].startswith("embed"):
            NO_CHAT[no](wire, asked)
        else:
            well(wire, asked)

    with serving(script) as peer:
        found = prepared(peer.url).found
    assert found.model == "chatty" and found.passed_over == tuple(names[:place])


def test_where_no_listed_model_chats_the_pick_and_the_others_are_named(
    capsys: Captured, tmp_path: Path
) -> None:
    def script(wire: Wire, asked: Asked) -> None:
        if not models(wire, asked):
            NO_CHAT["400"](wire, asked)

    with serving(script) as peer:
        ended = called(capsys, tmp_path, peer.url, "--requests", "2")
    first, second = ended.err.splitlines()
    assert ended.code == 15 and "does not support chat (to the model 'tiny'" in first
    assert "--model" in second and "'other'" in second


# ---------------------------------------------------------------------- where
@pytest.mark.parametrize(
    ("written", "prefix"),
    [
        ("/v1beta/openai", "/v1beta/openai"),
        ("/v1beta/openai/", "/v1beta/openai"),
        ("", ""),
        ("/openai/deployments/gpt?api-version=2024-10-21", "/openai/deployments/gpt"),
        ("/v4/", "/v4"),
        ("/api", "/api/v1"),
        ("/compatible-mode/v1", "/compatible-mode/v1"),
        ("/v1/models", "/v1"),
    ],
)
@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("status", [404, 405])
def test_paths_are_taken_as_sdks_take_them(
    written: str, prefix: str, named: bool, status: int
) -> None:
    def script(wire: Wire, asked: Asked) -> None:
        path = asked.target.partition("?")[0]
        if path == f"{prefix}/models" and asked.method == "GET":
            wire.reply(200, json.dumps({"data": [{"id": "tiny"}]}))
        elif path == f"{prefix}/chat/completions":
            well(wire, asked)
        else:
            wire.reply(404 if asked.method == "GET" else status)

    with serving(script) as peer:
        made = prepared(peer.url + written, model="tiny" if named else None)
    where = peer.url + prefix + "/chat/completions"
    assert made.plan.target.url.partition("?")[0] == where
    assert made.found.target.url == made.plan.target.url
    assert ("api-version" in made.plan.target.url) == ("api-version" in written)


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("/v1/messages", "Anthropic's Messages API"),
        ("/anthropic/v1/messages", "Anthropic's Messages API"),
        ("/v1/responses", "OpenAI's Responses API"),
        ("/api/chat", "Ollama's own API"),
        ("/v1beta/models/gemini-2.5:streamGenerateContent", "Gemini's own API"),
        ("/v1/embeddings", "an API of embeddings"),
        ("/invocations", "SageMaker's API"),
    ],
)
def test_a_url_of_another_api_is_named(
    capsys: Captured, tmp_path: Path, path: str, what: str
) -> None:
    ended = called(capsys, tmp_path, f"http://127.0.0.1:1{path}")
    assert ended.code == 2 and f"{path} is a path of {what}" in ended.err


# ---------------------------------------------------------------------- by content, not label
@pytest.mark.parametrize(
    "label", ["application/json", "text/html; charset=utf-8", "text/plain", "application/x-ndjson"]
)
def test_an_event_stream_is_one_whatever_its_label(label: str) -> None:
    def script(wire: Wire, asked: Asked) -> None:
        if models(wire, asked):
            return
        wire.head(f"Content-Type: {label}")
        wire.chunk(b": ping\n\n", *whole(asked))
        wire.end()

    with serving(script) as peer:
        found = prepared(peer.url).found
    assert found.label == label.partition(";")[0]


@pytest.mark.parametrize("n", [2, 8])
def test_several_choices_in_a_reply_are_refused_whole(
    capsys: Captured, tmp_path: Path, n: int
) -> None:
    body = json.dumps({"n": n})
    ended = called(capsys, tmp_path, "http://127.0.0.1:1", "--body-json", body)
    assert ended.code == 2 and f"asks for {n} choices" in ended.err
    one = called(capsys, tmp_path, "http://127.0.0.1:1", "--body-json", '{"n": 1}')
    assert one.code == 15
