"""Files of exports of spans: in lines or not, gzipped, wrapped, broken, too long."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from latdiag.ingest.importers import lines as bounded
from latdiag.ingest.importers.span_files import FileCounts, exports


def export(**span: Any) -> dict[str, Any]:
    """An export of one span with the given fields."""
    return {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}


def written(path: Path, text: str | bytes) -> Path:
    data = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def names(path: Path, counts: FileCounts) -> list[str]:
    return [
        span.name
        for request in exports(path, counts)
        for block in request.resource_spans
        for scoped in block.scope_spans
        for span in scoped.spans
    ]


@pytest.mark.parametrize("ending", ["s.jsonl", "s.jsonl.gz", "s.json", "s.json.gz"])
def test_lines_bare_wrapped_and_broken(tmp_path: Path, ending: str) -> None:
    lines = [
        json.dumps(export(name="bare")),
        json.dumps({"signal": "traces", "metadata": {}, "body": export(name="wrapped")}),
        json.dumps({"result": export(name="jaeger")}),
        json.dumps({"resourceMetrics": []}),
        json.dumps({"signal": "logs", "body": {"resourceLogs": []}}),
        json.dumps({"signal": "metrics", "body": {}}),
        "",
        "{broken",
        "[" * 100_000,
        json.dumps({"body": 7}),
        json.dumps(export(traceId="?")),
        "\xff\x00",
        json.dumps(export(name="last")),
    ]
    counts = FileCounts()
    path = written(tmp_path / ending, "\n".join(lines).encode("latin-1"))
    assert names(path, counts) == ["bare", "wrapped", "jaeger", "last"]
    assert (counts.exports, counts.other, counts.broken) == (4, 3, 5)
    assert counts.fault == "it is not JSON" and not counts.stopped


@pytest.mark.parametrize("indent", [None, 2])
def test_a_document_that_is_not_in_lines(tmp_path: Path, indent: int | None) -> None:
    counts = FileCounts()
    one = written(tmp_path / "a.json", json.dumps(export(name="a"), indent=indent))
    assert names(one, counts) == ["a"]
    both = [export(name="a"), {"result": export(name="b")}, 7]
    several = written(tmp_path / "b.json.gz", json.dumps(both, indent=indent))
    counts = FileCounts()
    assert names(several, counts) == ["a", "b"]
    assert (counts.exports, counts.broken) == (2, 1)


def test_gzip_that_is_cut_or_is_none(tmp_path: Path) -> None:
    text = "".join(json.dumps(export(name=f"n{i}")) + "\n" for i in range(2000))
    data = gzip.compress(text.encode())
    cut, none = tmp_path / "cut.jsonl.gz", tmp_path / "none.jsonl.gz"
    cut.write_bytes(data[: len(data) // 2])
    none.write_bytes(text.encode())
    counts = FileCounts()
    found = names(cut, counts)
    assert found == [f"n{i}" for i in range(len(found))] and len(found) > 10
    assert counts.stopped == "the gzip data is damaged or cut off"
    counts = FileCounts()
    assert names(none, counts) == [] and counts.stopped


def test_a_line_beyond_the_bound_is_skipped_and_the_next_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded.lines, "__defaults__", (1000,))
    long = json.dumps(export(name="x" * 3_000_000))
    for name in ("a.jsonl", "a.jsonl.gz"):
        path = written(tmp_path / name, f"{long}\n{json.dumps(export(name='after'))}\n{long}")
        counts = FileCounts()
        assert names(path, counts) == ["after"]
        assert counts.broken == 2 and "MiB" in counts.fault


def test_a_file_that_inflates_without_end_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded, "_FREE", 1 << 20)
    path = written(tmp_path / "bomb.jsonl.gz", b"\n" * (8 << 20))
    counts = FileCounts()
    assert names(path, counts) == []
    assert counts.stopped == "it inflates to more than 1 MiB"


def test_bad_spans_beside_good_ones_are_left_out_and_counted(tmp_path: Path) -> None:
    spans: list[Any] = [
        {"name": "first"},
        {"name": "no id", "traceId": "?"},
        {"name": "second", "attributes": [{"key": "a", "value": {"intValue": "1"}}]},
        7,
        {"name": "bad value", "attributes": [{"key": "a", "value": {"intValue": "x"}}]},
        {"name": ["no text"]},
        {"name": "third"},
    ]
    both = {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}
    none = {"resourceSpans": [{"scopeSpans": [{"spans": spans[3:6]}]}]}
    for file in ("a.jsonl", "b.json", "c.jsonl.gz"):
        counts = FileCounts()
        text = "\n".join(map(json.dumps, [both, export(name="alone"), none]))
        assert names(written(tmp_path / file, text), counts) == [
            "first",
            "second",
            "third",
            "alone",
        ]
        # An export of which no span is one is a broken line, not a line with bad spans.
        assert (counts.exports, counts.bad_spans, counts.broken) == (2, 4, 1)
        assert counts.span_fault == "traceId is not an id of 16 bytes"
        assert counts.fault == "an entry of spans is a number, not an object"


def test_what_all_spans_of_an_export_share_breaks_the_export(tmp_path: Path) -> None:
    group = {"resource": {"attributes": 5}, "scopeSpans": [{"spans": [{"name": "a"}]}]}
    counts = FileCounts()
    path = written(tmp_path / "a.jsonl", json.dumps({"resourceSpans": [group]}))
    assert names(path, counts) == [] and (counts.broken, counts.bad_spans) == (1, 0)
