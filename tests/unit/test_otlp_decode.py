"""Exports from bytes to rows: as protobuf's parser reads them, and refused with no other fault."""

from __future__ import annotations

import asyncio
import gc
import json
import time
import weakref
from typing import Any

import pytest

from latdiag.ingest.otlp import json_text, lane, protobuf
from latdiag.ingest.otlp.decode import Export, decoding
from latdiag.ingest.otlp.document import request_of
from latdiag.ingest.otlp.keep import Keep
from latdiag.ingest.otlp.limits import Budget, Refusal, done
from latdiag.ingest.otlp.room import Room
from latdiag.ingest.otlp.rows import SpanRows
from latdiag.ingest.prometheus import read_exposition
from tests import otlp_mutants as mutants
from tests.loopback.otlp_oracle import expected
from tests.profiles import examples  # noqa: F401 - registers the profiles

KEEP = Keep(frozenset({"k"}))


def decoded(body: bytes, form: str = "protobuf") -> tuple[SpanRows, int]:
    rows = SpanRows(KEEP)
    spans = done(
        decoding(
            Export(body, "", form, "otlp/http"),
            rows,
            hold=lambda _size: None,
            check_spans=lambda _spans: None,
            check_rows=lambda: None,
        )
    )
    return rows, spans


def test_mutated_exports_read_as_protobufs_parser_reads_them() -> None:
    whole = alone = 0
    for body in mutants.protobuf(seed=21, count=400):
        wanted = expected(body)
        try:
            rows, spans = decoded(body)
        except Refusal as refusal:
            assert refusal.reason == "malformed" and wanted.spans is None, body.hex()
            whole += 1
            continue
        assert spans == wanted.spans, body.hex()
        malformed = rows.refused.get("malformed", 0)
        # A span of more than 8 KiB is walked first: no groups in it, and what is never kept of
        # it is not judged.
        assert malformed == wanted.malformed or len(body) > protobuf._SHORT, body.hex()
        assert len(rows) + sum(rows.refused.values()) == spans
        alone += bool(malformed)
    assert min(whole, alone) > 20


def test_mutated_json_is_read_as_the_standard_library_reads_it() -> None:
    """Where that reads a document, and no key comes twice, the spans are those of it."""
    read = 0
    for text in mutants.json_texts(seed=22, count=400):
        try:
            rows, spans = decoded(text, "json")
        except Refusal as refusal:
            assert refusal.reason == "malformed"
            continue
        read += 1
        document = json.loads(text)
        bad: list[str] = []
        try:
            request = request_of(document, bad)
        except ValueError:
            continue  # what is read of a resource or scope is none: refused alone here
        kept = sum(len(s.spans) for r in request.resource_spans for s in r.scope_spans)
        assert (spans, rows.refused.get("malformed", 0)) == (kept + len(bad), len(bad)), text
    assert read > 80


def test_mutated_metrics_are_read_or_refused_in_a_sentence() -> None:
    read = 0
    for text in mutants.metrics(seed=23, count=300):
        try:
            read += bool(read_exposition(text, mutants.FAMILIES).series)
        except ValueError as fault:
            assert "\n" not in str(fault)
    assert read > 100


def test_a_long_span_reads_as_a_short_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left away of long spans is what is never kept."""
    texts = mutants.json_texts(seed=24, count=150)
    bodies = [("protobuf", b) for b in mutants.protobuf(seed=25, count=150)]
    bodies += [("json", text) for text in texts]
    for form, body in bodies:
        found = []
        for short, window in ((protobuf._SHORT, json_text._WINDOW), (0, 0)):
            monkeypatch.setattr(protobuf, "_SHORT", short)
            monkeypatch.setattr(json_text, "_WINDOW", window or 1 << 16)
            try:
                rows, spans = decoded(body, form)
            except Refusal as refusal:
                found.append((refusal.reason, 0))
            else:
                found.append((str(rows._keys), spans - rows.refused.get("malformed", 0)))
            monkeypatch.undo()
        # What is not read of a long span is not judged either: it may be taken where it was not.
        assert found[0] == found[1] or found[0][1] < found[1][1], body


def test_spans_that_are_long_lose_only_what_is_never_kept() -> None:
    made = mutants.good_json(2)
    span = made["resourceSpans"][0]["scopeSpans"][0]["spans"][1]
    span["attributes"][:0] = [
        {"key": "gen_ai.prompt", "value": {"stringValue": "x" * 100_000}},
        {"key": "list", "value": {"arrayValue": {"values": [{"intValue": "1"}] * 9}}},
        {"key": "k", "value": {"stringValue": "kept"}},
    ]
    span["events"] = [{"name": "e" * 50_000}]
    text = json.dumps(made).encode()
    by_json, _ = decoded(text, "json")
    by_protobuf, _ = decoded(request_of(made).SerializeToString())
    for rows in (by_json, by_protobuf):
        assert (len(rows), rows.refused) == (2, {})
        assert dict(zip(rows._keys, rows._values, strict=True))["k"] == "kept"
        assert rows.dropped_attributes == 1 + 3


# ---------------------------------------------------------------------- budgets
def test_what_is_held_is_asked_for_before() -> None:
    def none(_size: int) -> None:
        raise Refusal("busy", "no room")

    with pytest.raises(Refusal, match="no room"):
        json_text.JsonText(b"{}", Budget(hold=none))


def test_the_largest_body_on_its_way_makes_room() -> None:
    room, gone = Room(read=3 << 20, held=4 << 20), []
    large = room.claim(lambda refusal: gone.append(("large", refusal.reason)))
    small = room.claim(lambda refusal: gone.append(("small", refusal.reason)))
    large.grow(2 << 20)
    small.grow(1 << 20)
    small.grow(600 << 10)
    assert gone == [("large", "busy")]
    assert room.held == small.size
    whole = room.claim()
    with pytest.raises(Refusal):
        for _ in range(9):
            small.whole()
            whole.grow(1 << 20)
    assert whole.size == 0
    small.release()
    small.release()
    assert room.held == 0


def test_small_bodies_come_before_large_ones() -> None:
    import asyncio

    order: list[str] = []

    def steps(name: str, count: int) -> Any:
        for _ in range(count):
            sum(range(20_000))
            yield
        order.append(name)

    async def run() -> None:
        there = lane.Lane()
        large = asyncio.create_task(there.result(steps("large", 200), 16 << 20))
        await asyncio.sleep(0.01)
        await there.result(steps("small", 5), 1000)
        await large

    asyncio.run(run())
    assert order == ["small", "large"]


def test_a_body_has_a_time_and_one_who_waits_for_nothing_has_none() -> None:
    import asyncio

    def endless() -> Any:
        while True:
            sum(range(20_000))
            yield

    async def run() -> None:
        there = lane.Lane(cpu_s=0.02)
        with pytest.raises(Refusal) as caught:
            await there.result(endless(), 1)
        assert caught.value.reason == "costly"
        gone = asyncio.create_task(lane.Lane().result(endless(), 1))
        await asyncio.sleep(0.01)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone

    asyncio.run(run())


def test_whatever_holds_the_spans_few_are_read_between_two_steps() -> None:
    """Many resources, many scopes, many attributes: of each a kind of export has the most."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTraceServiceRequest,
    )

    resources, scopes, attributes = (ExportTraceServiceRequest() for _ in range(3))
    ids: dict[str, Any] = {"trace_id": b"t" * 16, "span_id": b"s" * 8}
    group = scopes.resource_spans.add()
    for _ in range(2000):
        resources.resource_spans.add().scope_spans.add().spans.add(**ids)
        group.scope_spans.add().spans.add(**ids)
    span = attributes.resource_spans.add().scope_spans.add().spans.add(**ids)
    for number in range(9000):
        span.attributes.add(key=f"llm_d.{number}").value.int_value = number
    for made, spans in ((resources, 2000), (scopes, 2000), (attributes, 1)):
        rows = SpanRows(Keep(frozenset()))
        export = Export(made.SerializeToString(), "", "protobuf", "otlp/http")
        steps = decoding(
            export,
            rows,
            hold=lambda _size: None,
            check_spans=lambda _spans: None,
            check_rows=lambda: None,
        )
        most, before = 0, (0, 0)
        for _ in steps:
            now = len(rows), len(rows._keys)
            most, before = max(most, now[0] - before[0]), now
            assert now[1] - before[1] <= 200
        assert len(rows) == spans and most <= 64
    assert rows.take()["labels"].offsets.tolist() == [0, 9001]


def test_what_was_refused_is_not_held_until_the_garbage_collector_comes() -> None:
    class Decoded:
        """Stands for megabytes."""

    kept: list[weakref.ref[Decoded]] = []

    def steps() -> Any:
        decoded = Decoded()
        kept.append(weakref.ref(decoded))
        yield
        raise Refusal("bomb", "too much")

    async def refused() -> None:
        made = lane.Lane()
        with pytest.raises(Refusal):
            await made.result(steps(), 10)

    gc.disable()
    try:
        asyncio.run(refused())
        assert kept[0]() is None
    finally:
        gc.enable()


def test_one_that_ends_in_its_first_turn_waits_for_none_that_does_not() -> None:
    """Bodies of one size, of which many inflate to much."""
    order: list[str] = []

    def steps(name: str, work_s: float) -> Any:
        until = time.thread_time() + work_s
        while time.thread_time() < until:
            yield
        order.append(name)
        return None

    async def all_of_them() -> None:
        made = lane.Lane()
        costly = [made.result(steps("costly", 0.03), 10) for _ in range(8)]
        tasks = [asyncio.ensure_future(one) for one in costly]
        await asyncio.sleep(0)
        tasks.append(asyncio.ensure_future(made.result(steps("cheap", 0.0), 10)))
        await asyncio.gather(*tasks)

    asyncio.run(all_of_them())
    assert order[0] == "cheap"


def test_others_have_a_round_of_the_loop_for_every_millisecond_of_a_body() -> None:
    """A new gRPC connection takes some 28 rounds until it is answered: so many slices it waits."""

    def steps() -> Any:
        for _ in range(100):
            until = time.thread_time() + 0.001
            while time.thread_time() < until:
                pass
            yield

    async def rounds() -> int:
        decoded = asyncio.ensure_future(lane.Lane().result(steps(), 16 << 20))
        count = 0
        while not decoded.done():
            await asyncio.sleep(0)
            count += 1
        return count

    assert asyncio.run(rounds()) >= 95


@pytest.mark.parametrize("empty", ["{}", "null"])
def test_what_holds_nothing_is_a_step_too(empty: str) -> None:
    """Millions of empty resources held up everybody until the last was read."""
    many = ",".join([empty] * 2000)
    for text in (
        f'{{"resourceSpans":[{many}]}}',
        f'{{"resourceSpans":[{{"scopeSpans":[{many}]}}]}}',
    ):
        steps = decoding(
            Export(text.encode(), "", "json", "otlp/http"),
            SpanRows(Keep(frozenset())),
            hold=lambda _size: None,
            check_spans=lambda _spans: None,
            check_rows=lambda: None,
        )
        assert sum(1 for _ in steps) >= 2000
