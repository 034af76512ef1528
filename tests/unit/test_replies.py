"""Timings in replies: paths, headers, units, and what cannot be true."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from latdiag.attribution.replies import columns
from latdiag.attribution.replies.columns import (
    COLUMNS,
    Replies,
    as_number,
    figures,
    foreign_name,
    replies,
    server_timing,
)
from latdiag.load.dialects import DIALECTS
from latdiag.load.dialects.sse import EventStream
from latdiag.load.plan import LoadPlan, Target
from latdiag.load.row import Row
from latdiag.load.wire.exchange import Ended
from latdiag.load.wire.heads import kept_headers
from latdiag.stacks import catalogue
from latdiag.stacks.signal import Signal
from latdiag.store.batch import Batch, Ints, Lists
from tests.profiles import examples

CAPTURES = Path(__file__).parents[1] / "captures"
MS = 1_000_000


def batch(rows: list[tuple[str | None, int | None]]) -> Batch:
    """Requests that bear a text and took so many ms (None: their end is not known)."""
    n = len(rows)
    took = [ms for _, ms in rows]
    sent = Ints(np.full(n, 5, dtype=np.int64), np.ones(n, dtype=bool))
    done = Ints(
        np.array([0 if ms is None else 5 + ms * MS for ms in took], dtype=np.int64),
        np.array([ms is not None for ms in took]),
    )
    texts = np.empty(n, dtype=object)
    texts[:] = [text for text, _ in rows]
    none = Lists(np.zeros(0, np.int32), np.zeros(n + 1, np.int64), np.zeros(n, dtype=bool))
    ints = {"sent_ns": sent, "done_ns": done}
    return Batch(n, ints, {}, {"reply_timings": texts}, {"tokens": none})


def body(path: str, unit: str = "ms") -> Signal:
    return Signal("x", "reply", path, unit)


def header(name: str, unit: str = "ms") -> Signal:
    return Signal("x", "header", name, unit)


def column(found: Replies, name: str) -> tuple[list[int], list[float]]:
    one = found.columns[name]
    assert one.rows.dtype == np.int64 and one.values.dtype == np.float64
    return one.rows.tolist(), one.values.tolist()


def test_fields_become_columns_of_nanoseconds_over_all_batches() -> None:
    first = batch([('{"body":{"metrics":{"queue_time_ms":1.5}}}', 100), (None, 100)])
    second = batch(
        [
            ('{"body":{"metrics":{"queue_time_ms":3}},"openai-processing-ms":"40"}', 100),
            ('{"body":{"nvext.timing":{"ttft_ms":"20.5"}}}', 100),
        ]
    )
    fields = [body("metrics.queue_time_ms"), body("nvext.timing.ttft_ms")]
    found = replies([first, second], [*fields, header("OpenAI-Processing-Ms")])
    assert column(found, "body:metrics.queue_time_ms") == ([0, 2], [1.5 * MS, 3.0 * MS])
    assert column(found, "body:nvext.timing.ttft_ms") == ([3], [20.5 * MS])
    assert column(found, "header:openai-processing-ms") == ([2], [40.0 * MS])
    assert (found.n, found.unreadable, found.refused) == (4, 0, {})


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("-1", "negative"),
        ("NaN", "not finite"),
        ("1e999", "not finite"),
        ('"soon"', "not a number"),
        ("true", "not a number"),
        ("[1]", "not a number"),
        ("null", "not a number"),
        ("1" + "0" * 400, "not a number"),
        ("104", "longer than the request itself"),
    ],
)
def test_what_cannot_be_true_is_counted_and_never_used(value: str, reason: str) -> None:
    text = f'{{"body":{{"metrics":{{"t":{value}}}}}}}'
    found = replies([batch([(text, 100)])], [body("metrics.t")])
    assert found.columns == {}
    assert dict(found.refused["body:metrics.t"]) == {reason: 1}


def test_a_millisecond_of_rounding_is_no_contradiction() -> None:
    found = replies([batch([('{"body":{"t":101}}', 100)])], [body("t")])
    assert column(found, "body:t") == ([0], [101.0 * MS])


def test_a_request_without_an_end_bears_no_duration_but_may_bear_a_count() -> None:
    rows = batch([('{"body":{"t":5,"n":7}}', None)])
    found = replies([rows], [body("t"), body("n", "1")])
    assert column(found, "body:n") == ([0], [7.0])
    assert "body:t" not in found.columns
    assert dict(found.refused["body:t"]) == {"of a request without an end": 1}


@pytest.mark.parametrize(
    ("stated", "unit"), [((0.142, 0.9), "s"), ((142.0, 900.0), "ms"), ((142.0, 0.9), "ms")]
)
def test_a_unit_in_doubt_is_the_one_that_fits_the_requests(
    stated: tuple[float, float], unit: str
) -> None:
    rows = batch([(json.dumps({"body": {"t": value}}), 1000) for value in stated])
    found = replies([rows], [body("t", "s|ms")])
    assert found.columns["body:t"].unit == unit
    scale = 1000 * MS if unit == "s" else MS
    assert column(found, "body:t")[1] == pytest.approx([value * scale for value in stated])


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "7", '"x"', "[" * 5000, '{"body":' * 900, "x" * 9000, "\ud800", "\x00"],
)
def test_rows_that_are_no_timings_are_counted(text: str) -> None:
    found = replies([batch([(text, 10), ('{"body":{"t":1}}', 10)])], [body("t")])
    assert found.unreadable == 1
    assert column(found, "body:t") == ([1], [1.0 * MS])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=20,
)


@examples(300)
@example({"body": 1.797693134862316e302})
@given(st.dictionaries(st.sampled_from(["body", "server-timing", "x-queue-time", "y"]), JSON))
def test_no_document_does_harm(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    said = figures(text)
    names = [] if said is None else list(said)
    fields = [body(n[5:], "ms") for n in names if n.startswith("body:")]
    found = replies([batch([(text, 1000)])], [*fields, header("x-queue-time")])
    for one in found.columns.values():
        assert np.isfinite(one.values).all() and (one.values >= 0).all()


@pytest.mark.parametrize(
    ("value", "durations"),
    [
        ("db;dur=53", {"db": 53.0}),
        ('db;desc="a, b; c";dur=53.5, app ; DUR="47.2"', {"db": 53.5, "app": 47.2}),
        ("miss, db;dur", {}),
        ("db;dur=1;dur=2, db;dur=3", {"db": 1.0}),
        ('x;desc="\\"q\\\\";dur=4', {"x": 4.0}),
        (";dur=1, =, ,,a b;dur=2, ok;dur=1e1", {"ok": 10.0}),
        ("db;dur=soon, db2;dur=-1", {"db2": -1.0}),
        ('open;desc="never closed, x;dur=1', {}),
    ],
)
def test_server_timing_is_read_by_its_grammar(value: str, durations: dict[str, float]) -> None:
    assert server_timing(value) == durations


@examples(300)
@given(st.text(alphabet='ab;=,"\\ \t.0123456789durés', max_size=512))
def test_no_server_timing_does_harm(value: str) -> None:
    for name, duration in server_timing(value).items():
        assert name and isinstance(duration, float)


def test_server_timing_metrics_are_fields_by_name() -> None:
    text = json.dumps({"server-timing": "queue;dur=12, model;dur=88.5"})
    found = replies([batch([(text, 100)])], [header("server-timing;queue")])
    assert column(found, "header:server-timing;queue") == ([0], [12.0 * MS])


@pytest.mark.parametrize("text", ["1_0", "0x1", "١", " ", "1 2", "inf", "1e", "--1", "1.5.2"])
def test_texts_that_only_look_like_numbers_are_none(text: str) -> None:
    assert as_number(text) is None


# --- what the load keeps is what is read here


def last_timings(stream: bytes, dialect: str = "openai-chat") -> dict[str, Any]:
    """What the load keeps of the bodies of a stream."""
    kept: Any = None
    read = DIALECTS[dialect].reader(catalogue.reply_fields())
    for event in EventStream().feed(stream):
        said = read(event)
        kept = said.timings if said.timings is not None else kept
    assert kept is not None
    return {"body": kept}


@pytest.mark.parametrize(
    ("chunk", "fields"),
    [
        ({"metrics": {"queue_time_ms": 1}}, {"metrics.queue_time_ms"}),
        (
            {"choices": [{"finish_reason": "stop", "meta_info": {"queue_time": 1}}]},
            {"meta_info.queue_time"},
        ),
        ({"nvext": {"timing": {"ttft_ms": 1}}}, {"nvext.timing.ttft_ms"}),
        ({"timings": {"prompt_ms": 1}}, {"timings.prompt_ms"}),
        ({"x_groq": {"usage": {"queue_time": 1}}}, {"x_groq.usage.queue_time"}),
        ({"time_info": {"queue_time": 1}}, {"time_info.queue_time"}),
        (
            {"perf_metrics": {"server-time-to-first-token": "1"}},
            {"perf_metrics.server-time-to-first-token"},
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_the_load_keeps_every_field_that_a_stack_names(
    chunk: dict[str, Any], fields: set[str]
) -> None:
    event = b"data: " + json.dumps({"choices": [], **chunk}).encode() + b"\n\n"
    found = figures(json.dumps(last_timings(event)))
    assert found is not None and {f"body:{name}" for name in fields} <= found.keys()
    assert fields <= catalogue.signals("reply").keys()


def plan() -> LoadPlan:
    fields = catalogue.reply_fields()
    return LoadPlan(
        Target("http://x"), "openai-chat", (), None, 1, 1, True, 1, reply_fields=fields
    )


def test_every_named_header_is_kept() -> None:
    kept = {name.decode() for name in kept_headers(plan())}
    named = {name.partition(";")[0].lower() for name in catalogue.signals("header")}
    assert named <= kept
    assert {"server-timing", "x-litellm-response-duration-ms"} <= kept


@pytest.mark.parametrize("path", catalogue.signals("reply"))
def test_the_load_keeps_whatever_a_stack_names(path: str) -> None:
    value: Any = 1
    for key in reversed(path.split(".")):
        value = {key: value}
    event = b"data: " + json.dumps({"choices": [], **value}).encode() + b"\n\n"
    assert figures(json.dumps(last_timings(event))) == {f"body:{path}": 1}


def test_headers_pass_through_a_row_of_the_load() -> None:
    begun = (0, 0, b"ld-1", b"0" * 32, b"1" * 16, 0, 8, 8, "", 10, b"{}")
    fields = catalogue.reply_fields()
    names = tuple(name.encode() for name in fields.headers)
    row = Row(begun, DIALECTS["openai-chat"].reader(fields), (), names)
    row.head(200, "", b"text/event-stream")
    headers = {b"x-queue-time": b"37", b"server-timing": b"db;dur=5", b"x-other": b"9"}
    row.end(Ended(status=200, headers=headers, done_ns=10))
    found = figures(row.scalars().reply_timings)
    assert found == {"header:x-queue-time": "37", "header:server-timing;db": 5.0}


def test_dynamo_states_its_own_phases_in_a_real_reply() -> None:
    path = CAPTURES / "dynamo-1.6.1" / "stream_chat.sse.gz"
    text = json.dumps(last_timings(gzip.decompress(path.read_bytes())))
    fields = [one for group in catalogue.signals("reply").values() for one in group]
    found = replies([batch([(text, 229)])], fields)  # what curl measured: 228.6 ms
    names = {"ttft_ms", "total_time_ms", "prefill_time_ms", "prefill_wait_time_ms"}
    assert {f"body:nvext.timing.{name}" for name in names} <= found.columns.keys()
    ttft, total = (
        found.columns[f"body:nvext.timing.{name}"].values[0]
        for name in ("ttft_ms", "total_time_ms")
    )
    assert 0 < ttft < total < 229 * MS
    assert found.refused == {}


def test_names_are_those_of_the_table() -> None:
    assert foreign_name(body("a.b")) == "body:a.b"
    assert foreign_name(header("X-Y")) == "header:x-y"
    assert foreign_name(Signal("x", "span", "y")) == ""
    assert set(COLUMNS) == {"sent_ns", "done_ns", "reply_timings", "tokens"}


def _by_character(value: str) -> list[str]:
    """The parts between commas outside of quotes, told one character after the other."""
    found, start, quoted, place = [], 0, False, 0
    while place < len(value):
        char = value[place]
        if quoted and char == "\\":
            place += 1
        elif char == '"':
            quoted = not quoted
        elif char == "," and not quoted:
            found.append(value[start:place])
            start = place + 1
        place += 1
    return [*found, value[start:]]


@given(st.text(alphabet='a",\\;= \n', max_size=60))
@examples(400)
def test_commas_in_quotes_part_nothing(value: str) -> None:
    assert list(columns.members(value)) == _by_character(value)


def test_a_reply_of_more_figures_than_any_server_states_is_refused_whole() -> None:
    most = {f"f{n}": n for n in range(columns._FIGURES)}
    assert len(figures(json.dumps({"body": most})) or ()) == columns._FIGURES
    assert figures(json.dumps({"body": most | {"more": 1}})) is None
    assert figures(json.dumps({f"h{n}": "1" for n in range(columns._FIGURES + 1)})) is None
    many = ",".join(f"m{n};dur=1" for n in range(1000))
    assert len(server_timing(many)) == columns._METRICS
    assert server_timing("a" + ";b=1" * 1000 + ";dur=2") == {}


def test_replies_of_a_run_have_room_for_what_servers_state_and_not_for_all_that_fits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = json.dumps({"body": {"t": 1, "text": "x" * 8000}})
    usual = [(json.dumps({"body": {"t": 1, "text": "x" * 1900}}), 100)] * 1000
    assert replies([batch(usual)], [body("t")]).unreadable == 0
    monkeypatch.setattr(columns, "_ROOM", 100_000)
    found = replies([batch([(text, 100)] * 100)] * 2, [body("t")])
    # In the mean over the run so many characters, and the room beside.
    fit = (100_000 + 200 * columns._EACH) // len(text)
    assert len(found.columns["body:t"].rows) + found.unreadable == 200
    assert abs(200 - found.unreadable - fit) <= 1
