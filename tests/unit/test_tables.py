"""A result as CSV and as Markdown: every number that ``--json`` has of it, and no marks in it."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from latdiag.diagnosis.diagnose import result_of
from latdiag.diagnosis.result import Result, Target
from latdiag.report.tables import csv_of, markdown_of
from latdiag.store.run import Run

from .golden import RUNS, unpack


@pytest.fixture(scope="module", params=["probe-queue", "probe-kv-spans", "load-metrics"])
def result(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Result:
    folder = tmp_path_factory.mktemp(request.param)
    return result_of(
        Run.open(str(folder / unpack(RUNS / f"{request.param}.run.tar.gz", folder))), "diagnose"
    )


def test_every_number_of_the_csv_is_that_of_the_document(result: Result) -> None:
    document = json.loads(json.dumps(result.to_json()))
    rows = list(csv.DictReader(io.StringIO(csv_of(result))))
    metrics = [row for row in rows if row["kind"] == "metric"]
    shares = [row for row in rows if row["kind"] == "share"]
    assert metrics and shares
    for row in metrics:
        of = document["metrics"][row["name"]]
        entry = of if row["statistic"] == "total" else of[row["statistic"]]
        for key in ("value", "lo", "hi"):
            told = float(row[key]) if row[key] else None
            assert told == (None if entry[key] is None else pytest.approx(entry[key], rel=1e-8))
        assert (row["unit"], int(row["n"])) == (entry["unit"], entry["n"])
    told_sums: dict[str, float] = {}
    for row in shares:
        of = document["breakdown"][row["statistic"]]
        name = row["name"].split("+")[0]
        assert float(row["value"]) == pytest.approx(of[name]["share"], rel=1e-8, abs=1e-12)
        assert "+".join(of[name].get("members", [name])) == row["name"]
        told_sums[row["statistic"]] = told_sums.get(row["statistic"], 0.0) + float(row["value"])
    assert all(total == pytest.approx(1.0) for total in told_sums.values())


def test_markdown_is_short_and_begins_with_the_verdict(result: Result) -> None:
    text = markdown_of(result)
    assert text.startswith("**") and len(text.splitlines()) <= 40
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 2
    for table in tables:
        lines = table.splitlines()
        assert len(lines) <= 12 and len({line.count("|") for line in lines}) == 1
    assert "TTFT" in tables[0] and "| decode |" in tables[1]


HOSTILE = "a|b`c`<script>*x*\n# y\x1b[2J\u202e =HYPERLINK()"


def test_words_from_outside_stay_words(result: Result) -> None:
    target = Target(HOSTILE, HOSTILE, None, None)
    verdict = replace(result.verdict, sentence=HOSTILE, next=HOSTILE) if result.verdict else None
    text = markdown_of(replace(result, target=target, verdict=verdict))
    assert "\x1b" not in text and "\u202e" not in text and "\n#" not in text
    assert "<script>" not in text and "\\<script\\>" in text and "a\\|b\\`c\\`" in text
    sheet = csv_of(replace(result, verdict=replace(result.verdict, sentence="=1+1")))
    assert "'=1+1" in sheet and ",=1+1" not in sheet


def test_an_invalid_result_says_so_first(result: Result, tmp_path: Path) -> None:
    from latdiag.diagnosis.result import InvalidBecause

    broken = (InvalidBecause("rows_lost", "3 rows are lost", 3.0, 0.0, "rows"),)
    invalid = replace(result, invalid_because=broken)
    assert markdown_of(invalid).startswith("**INVALID**: 3 rows are lost")
    assert "\nvalid,,,0," in csv_of(invalid)
