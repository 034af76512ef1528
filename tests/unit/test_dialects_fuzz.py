"""Whatever a hostile server sends, a dialect makes a sound Event of it, without any text."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from latdiag.load.dialects import DIALECTS, Event
from latdiag.load.dialects.sse import TypedData
from latdiag.model.records import Kind
from latdiag.stacks.catalogue import reply_fields
from tests.profiles import examples

READ = [dialect.reader(reply_fields()) for dialect in DIALECTS.values()]
NAMES = """
    choices delta message content text role reasoning reasoning_content tool_calls function name
    arguments refusal token_ids logprobs tokens finish_reason usage prompt_tokens completion_tokens
    prompt_tokens_details cached_tokens completion_tokens_details reasoning_tokens error object id
    code type metrics meta_info timings nvext timing x_groq time_info function_call thinking detail
"""
KEYS = st.sampled_from(NAMES.split())
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["error", "thinking", "text", ""])
)  # fmt: skip
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(KEYS | st.text(max_size=3), inner, max_size=6)
    ),
    max_leaves=40,
)
# Whole random objects seldom get as far as a delta: shapes nearly right go deeper.
CHOICE = st.fixed_dictionaries(
    {},
    optional={
        "delta": st.dictionaries(KEYS, JSON, max_size=5) | JSON,
        "message": JSON, "text": JSON, "token_ids": JSON, "logprobs": JSON,
        "finish_reason": JSON, "usage": JSON, "meta_info": JSON,
    },
)  # fmt: skip
CHUNK = st.fixed_dictionaries(
    {},
    optional={
        "id": JSON, "choices": st.lists(CHOICE | JSON, max_size=3) | JSON, "error": JSON,
        "usage": st.dictionaries(KEYS, JSON, max_size=5) | JSON, "object": JSON,
        "metrics": JSON, "nvext": JSON, "x_groq": JSON, "meta_info": JSON,
    },
)  # fmt: skip


PLAUSIBLE = st.fixed_dictionaries(
    {},
    optional={
        "choices": st.lists(CHOICE, max_size=2), "metrics": JSON, "nvext": JSON, "usage": JSON,
    },
)  # fmt: skip


def assert_sound(event: Event) -> None:
    assert type(event) is Event and type(event.kind) is Kind and type(event.done) is bool
    for number in event[1:6]:
        assert number is None or (type(number) is int and number >= 0)
    for text in (event.finish, event.response_id, event.error):
        assert text is None or (0 < len(text) <= 200 and text.encode())
    assert (event.error is not None) == (event.kind is Kind.ERROR)
    assert event.timings is None or json.dumps(event.timings)


@examples(600)
@given(CHUNK | JSON, st.booleans())
def test_any_json_is_read_without_a_fault(value, typed):
    raw = json.dumps(value).encode()
    data = TypedData(raw, "error") if typed else raw
    for read in READ:
        assert_sound(read(data))


@examples(300)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_without_a_fault(data):
    for read in READ:
        assert_sound(read(data))


CANARY = "kiwi-canary"


def texts_replaced(value: object) -> object:
    """The same structure with every text that is not an id, type or name of a field changed."""
    if isinstance(value, dict):
        return {key: texts_replaced(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [texts_replaced(inner) for inner in value]
    return CANARY if isinstance(value, str) else value


@examples(300)
@given(PLAUSIBLE)
def test_no_text_of_a_reply_leaves_the_reader(chunk):
    raw = json.dumps(texts_replaced(chunk)).encode()
    for read in READ:
        event = read(raw)
        assert CANARY not in repr(event._replace(finish=None))
