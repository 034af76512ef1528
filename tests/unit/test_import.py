"""``latdiag import``: figures against the raw files, read here with the standard library alone."""

from __future__ import annotations

import gzip
import json
import os
import re
import statistics
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from latdiag.cli import run
from latdiag.store.run import Run

from .capture_lines import NS0, imported, line, make
from .split_rows import clocks

CAPTURES = Path(__file__).parent.parent / "captures"
#: Whole captures and the requests that they must yield; the cut ones lie in tests/captures.
WHOLE = {
    "vllm-0.24.0-h200/tp1": 816,
    "vllm-0.24.0-h200/tp2": 944,
    "vllm-0.24.0-h200/pd": 400,
    "sglang-0.5.16-h200/tp1": 688,
    "sglang-0.5.16-h200/pd": 368,
}
CUT = WHOLE | dict.fromkeys(
    ("vllm-0.24.0-h200/tp2", "sglang-0.5.16-h200/tp1", "sglang-0.5.16-h200/pd"), 68
)


@pytest.fixture(autouse=True, scope="module")
def _read_once() -> Iterator[None]:
    """What the files hold is large: no later test is to carry it."""
    yield
    for held in (raw, raw_spans):
        held.cache_clear()


@cache
def raw(folder: Path) -> list[dict[str, Any]]:
    with gzip.open(folder / "client.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@cache
def raw_spans(folder: Path) -> dict[str, dict[str, Any]]:
    """Spans by their id."""
    found: dict[str, dict[str, Any]] = {}
    with gzip.open(folder / "spans.otlp.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in file:
            for block in json.loads(line)["resourceSpans"]:
                for scoped in block["scopeSpans"]:
                    found |= {span["spanId"]: span for span in scoped["spans"]}
    return found


def ms_of_first(said: dict[str, Any]) -> float:
    return float((said["chunks"][0][0] - said["send_ns"]) / 1e6)


@pytest.mark.parametrize("name", CUT)
def test_a_capture_becomes_a_run(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = CAPTURES / name, tmp_path / "a.run"
    said = imported(capsys, folder, "--out", out)
    lines, spans = raw(folder), raw_spans(folder)
    assert said["verb"] == "import" and said["run"] == str(out)
    read = said["imported"]
    assert read["requests"] == len(lines) == CUT[name]
    assert read["scenarios"] == Counter(line["scenario"] for line in lines)
    assert read["spans"] == sum(read["senders"].values()) == len(spans)
    assert read["scrapes"] == len(list((folder / "metrics").glob("*.prom.gz")))
    assert read["skipped"] == read["left_out"] == {}
    check_requests(Run.open(str(out)), lines)
    check_spans(Run.open(str(out)), lines, spans)


def check_requests(made: Run, lines: list[dict[str, Any]]) -> None:
    frame = made.frame().set_index("trace_id")
    assert frame["request_id"].is_unique and made.cut_short == made.caveats == []
    assert list(frame["sent_ns"]) == sorted(line["send_ns"] for line in lines)
    assert set(frame["outcome"]) == {"ok"} and set(frame["stamp_source"]) == {"user"}
    assert len(clocks(made)) == 1 and clocks(made)[0].startswith("capture:")
    rows = frame.to_dict("index")  # a frame takes a millisecond for each of its cells
    for said in lines:
        row = rows[said["trace_id"]]
        assert (row["response_id"], row["span_id"]) == (said["id"], said["span_id"])
        asked_as = said.get("rid") or said["id"].removeprefix("cmpl-")
        assert (row["request_id"], row["scenario"]) == (asked_as, said["scenario"])
        for column in ("headers_ns", "done_ns"):
            assert row[column] == said[column]
        assert row["sent_ns"] == said["send_ns"]
        assert row["arrivals_ns"].tolist() == [chunk[0] for chunk in said["chunks"]]
        assert row["arrivals_user_ns"].tolist() == row["arrivals_ns"].tolist()
        usage = said["usage"]
        assert (row["isl"], row["osl"]) == (usage["prompt_tokens"], usage["completion_tokens"])
        assert (row["isl_wanted"], row["osl_wanted"]) == (said["isl"], said["osl"])
        if row["tokens"] is not None:
            assert sum(row["tokens"]) == usage["completion_tokens"]
            assert max(row["tokens"]) == 1 and len(row["tokens"]) == len(said["chunks"])


#: What SGLang's recordings hold of others: of names that no stack has the first word is kept.
_NO_STACKS = ("Tokenizer(", "PrefillTokenizer(", "DecodeTokenizer(", "POST ")


def check_spans(made: Run, lines: list[dict[str, Any]], spans: dict[str, dict[str, Any]]) -> None:
    evidence = made.evidence()
    rows = evidence[evidence["kind"] == "span"]
    assert set(rows["source"]) == {"otlp/file"} and set(rows["span_id"]) == set(spans)
    assert {line["trace_id"] for line in lines} <= set(rows["trace_id"])
    for span_id, start, end, name in zip(
        rows["span_id"], rows["start_ns"], rows["end_ns"], rows["foreign_name"], strict=True
    ):
        span = spans[span_id]
        assert (start, end) == (int(span["startTimeUnixNano"]), int(span["endTimeUnixNano"]))
        # A name that no stack has, a worker's thread and its process, keeps its first word.
        first = re.match(r"[\w.:/-]*", span["name"])
        assert first and name in (span["name"], first[0])
        assert name == span["name"] or span["name"].startswith(_NO_STACKS)
    samples = evidence[evidence["kind"] != "span"]
    assert set(samples["source"]) == {"prometheus"}
    assert (samples["replica"] == samples["role"]).all()
    assert all(value.endswith((".before", ".after")) for value in samples["foreign_value"])
    assert set(samples["clock_id"]) == set(clocks(made))


def test_scrapes_bear_their_instant_and_what_they_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = CAPTURES / "vllm-0.24.0-h200/tp1", tmp_path / "a.run"
    imported(capsys, folder, "--out", out)
    evidence = Run.open(str(out)).evidence()
    family = "vllm:request_queue_time_seconds"
    for edge in ("before", "after"):
        with gzip.open(folder / f"metrics/c64.server.{edge}.prom.gz", "rt") as file:
            text = file.read().splitlines()
        rows = evidence[
            (evidence["foreign_name"] == family) & (evidence["foreign_value"] == f"c64.{edge}")
        ]
        (row,) = rows.to_dict("records")
        assert row["window_start_ns"] == row["window_end_ns"] == int(text[0].split()[-1])
        stated = {part: [x for x in text if x.startswith(family + part)] for part in _PARTS}
        assert row["value"] == float(stated["_sum"][0].split()[-1])
        counts = [float(one.split()[-1]) for one in stated["_bucket"]]
        assert row["bucket_count"].tolist() == counts
        assert row["bucket_count"][-1] == float(stated["_count"][0].split()[-1])


_PARTS = ("_sum", "_bucket", "_count")


def test_the_first_token_of_64_streams_came_after_665_ms(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = CAPTURES / "vllm-0.24.0-h200/tp1", tmp_path / "c64.run"
    said = imported(capsys, folder, "--scenario", "c64", "--out", out)["imported"]
    assert said["scenarios"] == {"c64": 192} and said["spans"] == 192 and said["scrapes"] == 2
    assert said["left_out"] == {"requests": 624, "spans": 624, "scrapes": 12}
    truth = [ms_of_first(line) for line in raw(folder) if line["scenario"] == "c64"]
    assert statistics.median(truth) == pytest.approx(665.4, abs=0.05)
    assert run(["diagnose", str(out), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["valid"] and result["load"]["requests"] == result["load"]["ok"] == 192
    ttft = result["metrics"]["ttft"]["p50"]
    assert ttft["value"] == pytest.approx(statistics.median(truth), abs=0.5)
    assert {caveat["code"] for caveat in result["caveats"]} >= {"LD201"}


@pytest.mark.parametrize("name", WHOLE)
def test_whole_captures_where_they_are(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = os.environ.get("LATDIAG_CAPTURES")
    if not place:
        pytest.skip("LATDIAG_CAPTURES does not name a folder of whole captures")
    folder, out = Path(place) / name, tmp_path / "a.run"
    said = imported(capsys, folder, "--out", out)["imported"]
    assert said["requests"] == len(raw(folder)) == WHOLE[name]
    assert said["spans"] == len(raw_spans(folder)) and said["skipped"] == {}
    check_requests(Run.open(str(out)), raw(folder))


def test_two_captures_in_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("vllm-0.24.0-h200/tp2", "sglang-0.5.16-h200/tp1", "vllm-0.24.0-h200/pd")
    out = tmp_path / "a.run"
    said = imported(capsys, *(CAPTURES / name for name in names), "--out", out)["imported"]
    assert said["requests"] == sum(CUT[name] for name in names) and said["skipped"] == {}
    made = Run.open(str(out))
    frame = made.frame(["request_id", "trace_id"])
    assert frame["request_id"].is_unique  # c16-0 of two captures is two requests
    assert len(clocks(made)) == 3
    evidence = made.evidence(["kind", "replica"])
    replicas = set(evidence[evidence["kind"] == "gauge"]["replica"])
    assert replicas == {"tp2/server", "tp1/server", "pd/prefill", "pd/decode"}


def test_the_same_capture_has_the_same_clock(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for out in ("a.run", "b.run"):
        imported(capsys, CAPTURES / "vllm-0.24.0-h200/tp2", "--out", tmp_path / out)
    both = Run.open(str(tmp_path / "a.run"), str(tmp_path / "b.run"))
    assert len(clocks(both)) == 1


def test_people_are_told_what_was_read_and_what_comes_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.run"
    folder = make(tmp_path / "c\x1b[31mapture", [line(0), line(1, scenario="\x1b]0;x\x07b")])
    (folder / "profile").mkdir()
    assert run(["import", str(folder), "--out", str(out), "--full"]) == 0
    told = capsys.readouterr()
    assert told.err == "reading c[31mapture\n"
    assert "requests  2: c1 1, ]0;xb 1\n" in told.out and "ignored   profile\n" in told.out
    assert told.out.replace("\n      ", "").endswith(f"Saved {out}\n")
    again = tmp_path / "c.run"
    assert run(["import", str(folder), "--out", str(again)]) == 0
    told = capsys.readouterr()
    assert "latdiag diagnose RUN --notes" in told.out and ": 2 requests in " in told.out
    assert told.out.replace("\n      ", "").endswith(f"Saved {again}\n")
    assert run(["import", str(folder), "--out", str(tmp_path / "b.run"), "--quiet"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("part", ["client", "spans", "metrics"])
def test_one_part_alone_is_a_capture(
    part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, folder = CAPTURES / "vllm-0.24.0-h200/tp2", tmp_path / "part"
    folder.mkdir()
    file = {"client": "client.jsonl.gz", "spans": "spans.otlp.jsonl.gz", "metrics": "metrics"}
    (folder / file[part]).symlink_to(source / file[part])
    said = imported(capsys, folder, "--out", tmp_path / "a.run")["imported"]
    counted = {"client": "requests", "spans": "spans", "metrics": "scrapes"}
    assert {name: said[name] > 0 for name in counted.values()} == {
        name: key == part for key, name in counted.items()
    }
    assert run(["diagnose", str(tmp_path / "a.run"), "--json"]) == 0


def test_strange_scrapes_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make(tmp_path / "capture", [line(0)])
    (folder / "metrics").mkdir()
    good = "# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds 1.5\n"
    texts = {
        "c1.s.before.prom": good,
        "c1.s.after.prom": f"# scraped_at_ns {NS0}\n{good}",
        "c2.s.after.prom": f"# scraped_at_ns {'9' * 20}\n{good}",
        "c1.x.before.prom": "<html>no</html>",
        "c1.y.before.prom.gz": "no gzip",
        "notes.txt": "",
    }
    for name, text in texts.items():
        (folder / "metrics" / name).write_text(text)
    (folder / "metrics" / "c1.z.after.prom").mkdir()
    said = imported(capsys, folder, "--out", tmp_path / "a.run")["imported"]
    assert (said["scrapes"], said["samples"]) == (3, 3)
    assert sorted(said["skipped"].values()) == [1, 1, 2]
    assert said["ignored"] == ["metrics/c1.z.after.prom", "metrics/notes.txt"]
    evidence = Run.open(str(tmp_path / "a.run")).evidence()
    assert evidence["window_start_ns"].dropna().tolist() == [NS0]


def test_a_capture_that_is_cut_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "cut"
    folder.mkdir()
    source = CAPTURES / "vllm-0.24.0-h200/tp2"
    for name in ("client.jsonl.gz", "spans.otlp.jsonl.gz"):
        data = (source / name).read_bytes()
        (folder / name).write_bytes(data[: 2 * len(data) // 3])
    said = imported(capsys, folder, "--out", tmp_path / "a.run")["imported"]
    assert 0 < said["requests"] < CUT["vllm-0.24.0-h200/tp2"]
    whys = sorted(said["skipped"])
    assert [why.partition(":")[0] for why in whys] == ["client line", "export of spans"]
    assert all("the gzip data is damaged or cut off" in why for why in whys)


def failed(capsys: pytest.CaptureFixture[str], *args: str | Path, code: int = 2) -> dict[str, str]:
    error = imported(capsys, *args, code=code)["error"]
    assert isinstance(error, dict) and "\n" not in error["text"] and error["remedy"]
    return error


def test_what_is_no_capture_is_told_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ("--out", tmp_path / "out.run")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "holds no part of a capture" in failed(capsys, empty, *out)["text"]
    assert "does not exist" in failed(capsys, tmp_path / "none", *out)["text"]
    file = tmp_path / "file"
    file.touch()
    assert failed(capsys, file, *out)["text"].endswith("export of spans: it is empty")
    only_dirs = tmp_path / "dirs"
    (only_dirs / "client.jsonl").mkdir(parents=True)
    assert "holds no part of a capture" in failed(capsys, only_dirs, *out)["text"]
    nothing = make(tmp_path / "nothing", ["{", "["])
    assert "could be read: client line: no JSON" in failed(capsys, nothing, *out)["text"]
    good = make(tmp_path / "good", [line(0)])
    assert "named more than once" in failed(capsys, good, tmp_path / "good/.", *out)["text"]
    missing = failed(capsys, good, "--scenario", "c1", "--scenario", "c\x1b9", *out)
    assert missing["text"] == "there is no scenario c9"
    assert "c1" in failed(capsys, good, "--scenario", "c9", *out)["remedy"]
    assert not (tmp_path / "out.run").exists()
    imported(capsys, good, *out)
    assert failed(capsys, good, *out)["code"] == "run"
    assert "is a run already" in failed(capsys, tmp_path / "out.run")["text"]


def test_many_requests_go_into_parts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from latdiag.ingest.importers import capture, client_lines

    monkeypatch.setattr(client_lines, "PART_ROWS", 30)
    monkeypatch.setattr(capture, "_PART_ROWS", 100)
    folder, out = CAPTURES / "sglang-0.5.16-h200/tp1", tmp_path / "a.run"
    imported(capsys, folder, "--out", out)
    assert len(list((out / "requests").glob("part-*"))) == 3
    assert len(list((out / "evidence").glob("part-*"))) > 10
    made = Run.open(str(out))
    assert len(made.frame(["request_id"])) == CUT["sglang-0.5.16-h200/tp1"]
    check_spans(made, raw(folder), raw_spans(folder))
