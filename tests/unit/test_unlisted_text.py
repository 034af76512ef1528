"""What a model thinks aloud is output, in whatever field a server puts it."""

from __future__ import annotations

import json

import pytest

from latdiag.load.dialects import DIALECTS
from latdiag.load.row import Row
from latdiag.model.records import Kind
from latdiag.stacks.signal import ReplyFields

MS = 1_000_000
START = 10**15
OFFSET = 1_795_000_000 * 10**9
WORDS = ["Let", " me", " see", ", the", " sum", " is", " 4", "."]


def row_of(choices: list[dict[str, object]], dialect: str = "openai-chat") -> Row:
    """A reply of one event for each choice, 10 ms apart."""
    begun = (1, 0, b"id", b"0" * 32, b"0" * 16, 0, 0, 0, "load", START, b"{}")
    row = Row(begun, DIALECTS[dialect].reader(ReplyFields()), ())
    row.head(200, "", b"text/event-stream")
    for place, choice in enumerate(choices):
        data = b"data: " + json.dumps({"id": "c", "choices": [choice]}).encode() + b"\n\n"
        stamp = START + 10 * MS * (place + 1)
        row.take(stamp + OFFSET, stamp, 0, data, OFFSET)
    return row


def deltas(*each: dict[str, object]) -> list[dict[str, object]]:
    return [{"index": 0, "delta": delta} for delta in each]


ANSWER = ({"content": "4"}, {"content": "."})
ROLE = {"role": "assistant", "content": ""}

FIELDS = {
    "reasoning_content": lambda word: word,
    "reasoning": lambda word: word,
    "thinking": lambda word: word,
    "reasoning_text": lambda word: word,
    "thoughts": lambda word: {"text": word},
    "reasoning_details": lambda word: [
        {"type": "reasoning.text", "text": word, "format": "unknown", "index": 0}
    ],
    "thinking_blocks": lambda word: [{"type": "thinking", "thinking": word, "signature": ""}],
    # nobody has listed these
    "chain_of_thought": lambda word: word,
    "scratchpad": lambda word: word,
    "x_internal_monologue": lambda word: word,
}


@pytest.mark.parametrize("field", FIELDS)
def test_thinking_is_output_from_its_first_word_on(field: str) -> None:
    thoughts = [{field: FIELDS[field](word)} for word in WORDS]
    row = row_of(deltas(ROLE, *thoughts, *ANSWER))
    assert list(row.kinds) == [Kind.ROLE, *[Kind.REASONING] * len(WORDS), *[Kind.ANSWER] * 2]
    assert row.real_ns[1] - OFFSET == START + 20 * MS
    assert row.scalars().tokens is None  # nobody said how many there were


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("field", ["thinking", "scratchpad"])
def test_thinking_may_stand_beside_the_delta(field: str, dialect: str) -> None:
    thoughts: list[dict[str, object]] = [{"index": 0, field: word} for word in WORDS]
    row = row_of(thoughts, dialect)
    assert list(row.kinds) == [Kind.REASONING] * len(WORDS)


@pytest.mark.parametrize(
    "label",
    [
        lambda at: "my-provider",
        lambda at: ("queued", "running", "done")[at * 3 // 8],
        lambda at: "",
    ],
    ids=["one", "of-few", "empty"],
)
def test_a_label_of_an_event_is_no_output(label) -> None:
    events = [{**ROLE, "status": label(at)} for at in range(8)]
    row = row_of(deltas(*events, *ANSWER))
    assert [kind for kind in row.kinds if kind == Kind.REASONING] == []
    assert list(row.kinds[-2:]) == [Kind.ANSWER] * 2


@pytest.mark.parametrize("field", ["id", "signature", "model", "tool_call_id", "finish_reason"])
def test_known_words_of_an_event_are_no_output_however_they_vary(field: str) -> None:
    row = row_of(deltas(*({**ROLE, field: f"v{at}"} for at in range(9)), *ANSWER))
    assert set(row.kinds) == {Kind.ROLE, Kind.ANSWER}


def test_reasoning_that_is_sealed_is_output_and_its_labels_are_not() -> None:
    sealed = {"type": "reasoning.encrypted", "format": "x", "id": "a"}
    row = row_of(deltas({"reasoning_details": [sealed]}, *ANSWER))
    assert list(row.kinds)[-2:] == [Kind.ANSWER] * 2 and Kind.REASONING not in row.kinds
    row = row_of(deltas({"reasoning_details": [{**sealed, "data": "gAAA"}]}, *ANSWER))
    assert row.kinds[0] == Kind.REASONING


def test_spoken_replies_are_output() -> None:
    row = row_of(deltas({"audio": {"id": "a"}}, {"audio": {"id": "a", "transcript": "Hi"}}))
    assert list(row.kinds) == [Kind.ANSWER]


def test_fields_beyond_number_are_not_watched_and_cost_nothing() -> None:
    many = deltas(*({f"field{at}": str(at), "role": "assistant"} for at in range(1000)))
    row = row_of(many)
    assert set(row.kinds) == {Kind.ROLE}


@pytest.mark.parametrize("hostile", [None, 3, [], {}, [[[[["deep"]]]]], {"a": {"b": {"c": {}}}}])
@pytest.mark.parametrize("field", ["thinking", "reasoning_details", "audio", "scratchpad"])
def test_whatever_stands_there_is_read(field: str, hostile: object) -> None:
    row = row_of(deltas({field: hostile}, *ANSWER))
    assert list(row.kinds)[-2:] == [Kind.ANSWER] * 2
