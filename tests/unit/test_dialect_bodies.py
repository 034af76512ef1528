"""Request bodies: what is sent, what only when asked for, and what a dialect cannot say."""

from __future__ import annotations

import json

import pytest

from latdiag.load.dialects import DIALECTS, EXTRAS, Ask, dialect_of_path
from latdiag.model.errors import UsageFault

CHAT = DIALECTS["openai-chat"]
COMPLETIONS = DIALECTS["openai-completions"]
BOTH = pytest.mark.parametrize("dialect", DIALECTS.values(), ids=list(DIALECTS))
CANARY = "kiwi-canary"


def body(dialect, *args, **kwargs):
    return json.loads(dialect.body(Ask(*args, **kwargs)))


def test_a_plain_body_has_nothing_that_a_hosted_api_may_refuse():
    assert body(CHAT, "m", "hi", 7) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "max_tokens": 7,
    }
    assert body(COMPLETIONS, "m", [5, 6]) == {"model": "m", "prompt": [5, 6], "stream": True}


EXTRA_FIELDS = {
    "usage": {"stream_options": {"include_usage": True}},
    "continuous_usage": {
        "stream_options": {"include_usage": True, "continuous_usage_stats": True}
    },
    "ignore_eos": {"ignore_eos": True},
    "min_tokens": {"min_tokens": 7},
    "return_token_ids": {"return_token_ids": True},
    "max_completion_tokens": {"max_completion_tokens": 7},
}


@BOTH
@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_each_extra_adds_its_field_and_no_other(dialect, extra):
    plain = body(dialect, "m", "hi", 7)
    if extra == "max_completion_tokens":
        del plain["max_tokens"]
    got = body(dialect, "m", "hi", 7, extras=frozenset({extra}))
    assert got == {**plain, **EXTRA_FIELDS[extra]}


def test_no_minimum_without_a_maximum():
    assert "min_tokens" not in body(CHAT, "m", "hi", extras=EXTRAS)


def test_the_users_fields_have_the_last_word():
    overlay = {
        "max_tokens": None,
        "stream_options": {"extra": 1},
        "model": "n",
        "nested": {"a": 1},
    }
    got = body(CHAT, "m", "hi", 7, frozenset({"usage"}), overlay)
    assert got["model"] == "n" and "max_tokens" not in got
    assert got["stream_options"] == {"include_usage": True, "extra": 1}
    assert got["nested"] == {"a": 1}
    assert overlay["stream_options"] == {"extra": 1}


def test_what_a_dialect_cannot_say_is_refused():
    with pytest.raises(UsageFault):
        CHAT.body(Ask("m", [1, 2]))
    with pytest.raises(UsageFault):
        COMPLETIONS.body(Ask("m", "", messages=[{"role": "user", "content": "x"}]))


def test_messages_go_out_as_they_are():
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": [{"type": "text"}]},
    ]
    assert body(CHAT, "m", "", messages=messages)["messages"] == messages


def test_a_prompt_is_not_shown_by_a_traceback():
    ask = Ask("m", CANARY, messages=[{"role": CANARY}], overlay={"x": CANARY})
    assert CANARY not in repr(ask)


def test_odd_characters_reach_the_wire():
    raw = CHAT.body(Ask("m", "\ud800 \u2028 é"))
    assert json.loads(raw)["messages"][0]["content"] == "\ud800 \u2028 é"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/chat/completions", "openai-chat"),
        ("/v1/completions", "openai-completions"),
        ("/openai/v1/chat/completions/", "openai-chat"),
        ("http://h:1/api/v3/chat/completions?api-version=1", "openai-chat"),
        ("/completions", "openai-completions"),
        ("/v1/embeddings", None),
        ("/", None),
    ],
)
def test_the_dialect_of_a_path(path, name):
    found = dialect_of_path(path)
    assert (found.name if found else None) == name
