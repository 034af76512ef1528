"""Traces read back, in every form in which programs hand them out: sums equal to the ns."""

from __future__ import annotations

import gzip
import json
import struct
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from google.protobuf.json_format import MessageToDict
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

import latdiag
from latdiag.cli import run as verb
from latdiag.export.attempts import attempts_of
from latdiag.export.choice import Wanted
from latdiag.export.spans import traces
from latdiag.store.run import Run

from .golden import RUNS, unpack

FIXTURE = Path(__file__).parents[1] / "fixtures" / "jaeger-1.76.0" / "traces_v1.json.gz"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("runs")
    return str(folder / unpack(RUNS / "probe-kv-spans.run.tar.gz", folder))


@cache
def diagnosis(run: str) -> Any:
    return latdiag.diagnose_run(run)


@cache
def exports(run: str) -> list[ExportTraceServiceRequest]:
    """A request for each trace."""
    made = traces(attempts_of(Run.open(run), Wanted()))
    return [
        ExportTraceServiceRequest.FromString(encode_spans(trace).SerializeToString())
        for trace in made
    ]


def as_json(request: ExportTraceServiceRequest, hexadecimal: bool = True) -> dict[str, Any]:
    """OTLP/JSON; with ids in base64, as Tempo's API has them."""
    document: dict[str, Any] = MessageToDict(request, use_integers_for_enums=hexadecimal)
    if hexadecimal:
        made = [s for r in request.resource_spans for o in r.scope_spans for s in o.spans]
        told = [s for r in document["resourceSpans"] for o in r["scopeSpans"] for s in o["spans"]]
        for span, row in zip(made, told, strict=True):
            row["traceId"], row["spanId"] = span.trace_id.hex(), span.span_id.hex()
            row["parentSpanId"] = span.parent_span_id.hex()
    return document


def old(document: dict[str, Any]) -> dict[str, Any]:
    for block in document["resourceSpans"]:
        block["instrumentationLibrarySpans"] = [
            {"instrumentationLibrary": scoped["scope"], "spans": scoped["spans"]}
            for scoped in block.pop("scopeSpans")
        ]
    return document


def form(name: str, run: str) -> bytes:
    """The traces of ``run`` in a form."""
    requests = exports(run)
    hexed = [as_json(each) for each in requests]
    if name == "collector, lines":
        return "\n".join(map(json.dumps, hexed)).encode()
    if name == "jaeger v3, concatenated":
        return "".join(json.dumps({"result": each}, indent=2) for each in hexed).encode()
    if name == "tempo, batches":
        blocks = [b for each in requests for b in as_json(each, False)["resourceSpans"]]
        return json.dumps({"batches": blocks}).encode()
    if name == "tempo, trace":
        return "".join(json.dumps({"trace": as_json(each, False)}) for each in requests).encode()
    if name == "before 0.15":
        return json.dumps([old(each) for each in hexed]).encode()
    bodies = [each.SerializeToString() for each in requests]
    if name == "protobuf":
        return b"".join(bodies)  # messages that follow each other are one
    assert name == "protobuf, lengths"
    return b"".join(struct.pack(">I", len(body)) + body for body in bodies)


FORMS = (
    *("collector, lines", "jaeger v3, concatenated", "tempo, batches", "tempo, trace"),
    *("before 0.15", "protobuf", "protobuf, lengths"),
)


def imported(path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], str]:
    """(What an import says, its run)."""
    out = str(path.parent / "back.run")
    assert verb(["import", str(path), "--out", out, "--quiet", "--json"]) == 0
    return json.loads(capsys.readouterr().out), out


def check(run: str, back: str, finest_us: float = 0.0) -> None:
    """``finest_us``: to what times since 1970 are rounded in the file."""
    before, after = diagnosis(run), latdiag.diagnose_run(back)
    for population in ("mean", "p95_tail"):
        one, other = before.breakdowns.get(population), after.breakdowns.get(population)
        assert (one is None) == (other is None)
        if one is not None:
            assert (one.n, one.total_ns) == (other.n, other.total_ns)
            assert {n: (s.sum_ns, s.grade, s.members) for n, s in one.shares.items()} == {
                n: (s.sum_ns, s.grade, s.members) for n, s in other.shares.items()
            }
    columns = ["ttft_ms", "e2e_ms", "isl", "outcome", "attempt"]
    a, b = (r.requests().set_index("request_id")[columns].sort_index() for r in (before, after))
    pd.testing.assert_frame_equal(a, b, check_exact=True)
    starts = [r.requests().set_index("request_id")["start"].sort_index() for r in (before, after)]
    assert ((starts[0] - starts[1]).abs() <= pd.Timedelta(1, "us")).all()
    for metric in ("tpot", "itl", "icl"):
        found = after.metrics.get(metric)
        assert found is None or all(one.value is None for one in found.statistics.values())


@pytest.mark.parametrize("name", FORMS)
def test_sums_come_back_to_the_nanosecond(
    name: str, run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = name in ("collector, lines", "protobuf, lengths")
    path = tmp_path / f"saved{'.gz' if packed else ''}"
    data = form(name, run)
    path.write_bytes(gzip.compress(data) if packed else data)
    said, back = imported(path, capsys)
    spans = sum(
        len(o.spans) for e in exports(run) for r in e.resource_spans for o in r.scope_spans
    )
    assert said["imported"]["spans"] == spans and not said["imported"]["skipped"]
    check(run, back)


def test_what_a_real_jaeger_saved(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The reply of v1.76.0's API v1 to an export of the run, which its UI saves as it is."""
    path = tmp_path / "saved.json.gz"
    path.write_bytes(FIXTURE.read_bytes())
    _, back = imported(path, capsys)
    check(run, back)


def test_a_trace_that_comes_twice_is_one(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "twice.json"
    path.write_bytes(form("collector, lines", run) * 2)
    said, back = imported(path, capsys)
    n = len(exports(run))
    assert said["imported"]["skipped"] == {"trace: a trace that was read before": n}
    check(run, back)


def test_half_a_file_is_what_is_whole_of_it(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("collector, lines", "protobuf, lengths", "jaeger v3, concatenated"):
        folder = tmp_path / name
        folder.mkdir()
        data = form(name, run)
        (folder / "half").write_bytes(data[: len(data) // 2])
        said, back = imported(folder / "half", capsys)
        n = sum(said["imported"]["scenarios"].values())
        assert 0 < n < len(exports(run)) and len(said["imported"]["skipped"]) == 1
        assert len(latdiag.diagnose_run(back).requests()) == n


def test_a_bad_span_is_refused_alone(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = json.loads(gzip.decompress(FIXTURE.read_bytes()))
    first = saved["data"][0]["spans"]
    root = next(span for span in first if span["references"])
    root["startTime"] = "yesterday"
    path = tmp_path / "saved.json"
    path.write_text(json.dumps(saved))
    said, _ = imported(path, capsys)
    whole = sum(len(trace["spans"]) for trace in saved["data"])
    assert said["imported"]["spans"] == whole - 1
    assert sum(said["imported"]["skipped"].values()) == 1


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x28\xb5\x2f\xfd rest", "zstd, which is not read"),
        (b"PK\x03\x04 rest", "zip archive"),
        (b"hello", "neither JSON nor OTLP in protobuf"),
        (b"", "it is empty"),
        (b'{"spans": 3}', "no resourceSpans"),
        (b'{"resourceSpans": [{"scopeSp', "not JSON, or cut off"),
        (b"\x12\x00" * 1000, "neither JSON nor OTLP in protobuf"),
        (gzip.compress(b"{}", mtime=0), "its name must end in .gz"),
    ],
)
def test_a_form_that_is_not_read_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data: bytes, words: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    assert verb(["import", str(path), "--out", str(tmp_path / "x.run")]) == 2
    assert words in capsys.readouterr().err and not (tmp_path / "x.run").exists()


def test_hostile_roots_are_no_requests(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each wrong in one attribute; the last one is right."""
    said = {
        "latdiag.ns": 2**63 - 1, "latdiag.schedule_lag_ns": -1, "latdiag.ttft_ns": -5,
        "latdiag.outcome": "no such", "latdiag.request_id": "",
    }  # fmt: skip
    lines = []
    for name, value in said.items():
        document = as_json(exports(run)[0])
        for scoped in document["resourceSpans"][0]["scopeSpans"]:
            for span in scoped["spans"]:
                for each in span["attributes"]:
                    if each["key"] == name and not span["parentSpanId"]:
                        kind = "stringValue" if isinstance(value, str) else "intValue"
                        each["value"] = {kind: value}
        lines.append(json.dumps(document))
    lines.append(json.dumps(as_json(exports(run)[1])))
    path = tmp_path / "hostile.jsonl"
    path.write_text("\n".join(lines))
    document, back = imported(path, capsys)
    assert sum(document["imported"]["scenarios"].values()) == 1
    assert sum(document["imported"]["skipped"].values()) == len(said)
    assert len(latdiag.diagnose_run(back).requests()) == 1


def test_spans_of_a_known_stack_that_are_too_few_are_not_called_unknown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four of five requests of a real Dynamo are complete; a verdict needs more of them."""
    capture = Path(__file__).parents[1] / "captures" / "dynamo-1.6.1" / "otlp.jsonl.gz"
    assert verb(["import", str(capture), "--out", str(tmp_path / "few.run"), "--quiet"]) == 0
    page = capsys.readouterr().out
    assert "complete for 4, too few" in " ".join(page.split())
    assert "known stack" not in page
    assert "collect" not in page
