"""``latdiag report``: the page of one diagnosis."""

from __future__ import annotations

import hashlib
import html
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from latdiag.cli import run as latdiag
from latdiag.diagnosis.result import InvalidBecause, Target, Verdict
from latdiag.diagnosis.several import diagnosed
from latdiag.measurement.timeline import Reader
from latdiag.report.html.result_page import Origin, result_page
from latdiag.store.run import Run

from .golden import COLLECTED, RUNS, SHARED, said, unpack
from .html_pages import Page, check, check_numbers
from .probe_rows import Reply, reply
from .saved_probe import save

VENDOR = Path(__file__).parents[2] / "latdiag" / "report" / "html" / "vendor"
ORIGIN = Origin("latdiag load", "2026", "latdiag report x.run -o x.html")
ARCHIVES = [
    *sorted(RUNS.glob("*.run.tar.gz")),
    *(sorted(SHARED.glob("*.run.tar.gz")) if SHARED.exists() else ()),
]


def written(run: str, folder: Path, *options: str) -> tuple[str, Any]:
    """(The page of a run, the document of ``diagnose --json``)."""
    file = folder / "page.html"
    text = said("report", run, "-o", str(file), *options)
    assert "Saved " in text, text
    document = said("diagnose", run, *options, "--json")
    return file.read_text(encoding="utf-8"), json.loads(document.rpartition("exit")[0])


def made(path: Path, replies: list[Reply], **more: Any) -> str:
    return save(path, replies, designed=False, **more)


def load(n: int) -> list[Reply]:
    return [reply("", 100 + k, 100.0 * k, 20.0 + k % 7, [5.0] * 20) for k in range(n)]


def drawn(run: str, **changes: Any) -> str:
    """The page of a run whose result has these fields."""
    reader = Reader()
    result = diagnosed(Run.open(run), (), reader)
    return result_page(replace(result, **changes), reader.result(), ORIGIN)


# ---------------------------------------------------------------------- whole pages
@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: path.name.partition(".")[0])
def test_every_number_is_that_of_the_json(archive: Path, tmp_path: Path) -> None:
    run = str(tmp_path / unpack(archive, tmp_path))
    text, document = written(run, tmp_path)
    page = check(text)
    assert check_numbers(page, document) > 60
    verdict = document["verdict"]
    (heading,) = (inside for _, inside in page.all("h1"))
    assert " ".join(verdict["sentence"].split()) in " ".join(heading.split())
    assert all(each["code"] in text for each in document["caveats"])
    assert text.index('id="answer"') < text.index("<svg") < text.index('id="latencies"')


@pytest.mark.parametrize("name", ["probe-kv-spans", "load-metrics"])
def test_no_figure_of_a_table_is_without_its_place(name: str, tmp_path: Path) -> None:
    """A number in a cell is one of the document's, or of what this page alone draws."""
    run = str(tmp_path / unpack(RUNS / f"{name}.run.tar.gz", tmp_path))
    text, document = written(run, tmp_path)
    of_charts = ("Silences", "TTFT by input length")
    words = json.dumps(document, ensure_ascii=False)
    for table in text.split("<table")[1:]:
        table = table.split("</table>")[0]
        if any(f"<caption>{each}" in table for each in of_charts):
            continue
        for cell in table.split("<td")[1:]:
            cell = cell.partition(">")[2].split("</td>")[0]
            rest = re.sub(r"<data .*?</data>|<[^>]*>", "", cell)
            assert not re.search(r"\d", rest) or html.unescape(rest.strip()) in words, cell


def test_requests_that_are_taken_apart_are_those_of_the_table(tmp_path: Path) -> None:
    run = str(tmp_path / unpack(RUNS / "probe-kv-spans.run.tar.gz", tmp_path))
    text, _ = written(run, tmp_path)
    parts = [given for _, given, _ in check(text).elements if "data-part" in given]
    rows = {
        row["request_id"]: row
        for row in json.loads(said("requests", run, "--json").rpartition("exit")[0])["requests"]
    }
    longest = sorted(
        rows.values(), key=lambda row: -(row["e2e_ms"] + (row["schedule_lag_ms"] or 0))
    )
    totals = [given["data-request"] for given in parts if given["data-part"] == "total"]
    assert totals[1:] == [row["request_id"] for row in longest[:3]] and len(totals) == 4
    for given in parts:
        row = rows[given["data-request"]]
        name = "e2e" if given["data-part"] == "total" else given["data-part"]
        # The page counts from when a request was due: the client's lag is the client's.
        lag = (row["schedule_lag_ms"] or 0) if name in ("e2e", "client") else 0
        assert int(given["data-ns"]) == pytest.approx(1e6 * (row[f"{name}_ms"] + lag), abs=1)


def test_a_page_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    run = made(tmp_path / "a.run", load(12))
    file = tmp_path / "page.html"
    file.write_text("mine")
    for place, named, why in (
        (file, run, "exists already"),
        (tmp_path / "b.html", str(tmp_path), "not a run"),
        (tmp_path / "no" / "b.html", run, "cannot be written"),
    ):
        assert why in said("report", named, "-o", str(place), "--json")
    assert file.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["page.html"]


def test_json_is_the_document_whose_numbers_the_page_has(tmp_path: Path) -> None:
    run, file = made(tmp_path / "a.run", load(40)), tmp_path / "page.html"
    document = json.loads(said("report", run, "-o", str(file), "--json").rpartition("exit")[0])
    assert check_numbers(check(file.read_text()), document) > 30


def test_a_missed_objective_is_on_the_first_screen(tmp_path: Path) -> None:
    run = made(tmp_path / "a.run", load(80))
    text, _ = written(run, tmp_path, "--slo", "ttft.p50<1ms")
    assert "SLO ttft.p50&lt;1ms:" in text and "MISSED" in text


# ---------------------------------------------------------------------- odd runs
def test_a_run_of_one_request(tmp_path: Path) -> None:
    text, document = written(made(tmp_path / "a.run", load(1)), tmp_path)
    assert check_numbers(check(text), document)
    assert "The only request" not in text or "1 request" in text


def test_a_run_of_failed_requests_alone(tmp_path: Path) -> None:
    failed = [Reply("", 100, 10**8 * k, status=500) for k in range(12)]
    text, document = written(made(tmp_path / "a.run", failed), tmp_path)
    page = check(text)
    assert document["load"]["ok"] == 0 and check_numbers(page, document)
    assert "Requests that failed" in text and ">HTTP 500<" in text
    # Nothing streamed, so nothing is drawn, and what was not measured was not kept.
    assert not page.all("figure") and "<td>10.0\u00a0%</td>" not in text
    rules = [inside for _, inside in page.all("tr") if "first tokens without a stamp" in inside]
    assert rules and "yes" not in rules[0]


def test_a_run_without_a_request(tmp_path: Path) -> None:
    text, document = written(made(tmp_path / "a.run", []), tmp_path)
    assert check(text) and document["load"]["requests"] == 0


def test_what_was_collected_without_a_client_claims_no_measurement(tmp_path: Path) -> None:
    unpack(COLLECTED, tmp_path)
    text, document = written(str(tmp_path / "collect-dynamo.run"), tmp_path)
    page = check(text)
    assert check_numbers(page, document) > 20 and document["load"]["requests"] == 0
    badges = [inside for given, inside in page.all("p") if "badge" in given.get("class", "")]
    assert badges == ["the servers' own times"] and "since it was due" not in text
    assert (
        f"{document['collected']['accepted']:,}".replace(",", "\u00a0") + "</data> spans" in text
    )


def test_invalid_takes_the_place_of_the_verdict(tmp_path: Path) -> None:
    run = made(tmp_path / "a.run", load(40))
    broken = (InvalidBecause("loop_lag", "its event loop was late", 9.0, 5.0, "ms"),)
    page = check(drawn(run, invalid_because=broken))
    ((_, heading),) = page.all("h1")
    assert heading.startswith("INVALID Event-loop lag")
    verdict = diagnosed(Run.open(run)).verdict
    assert verdict is not None and verdict.sentence not in heading


HOSTILE = (
    "</script><script>alert(1)</script><img src=x onerror=alert(1)>\u202e\x1b[31m\u2066'\"`{{7*7}}"
)


def test_text_from_outside_is_text(tmp_path: Path) -> None:
    """Wherever a run or a result holds text: no element, no attribute, no direction of it."""
    run = tmp_path / "a.run"
    made(run, load(40), url=f"http://h/{HOSTILE}")
    header = json.loads((run / "run.json").read_text())
    plain = drawn(str(run))
    header["target"]["model"] = HOSTILE + "x" * 60_000
    header["command"] = HOSTILE
    header["stacks"] = [{"name": HOSTILE, "grounds": HOSTILE, "version": HOSTILE}]
    (run / "run.json").write_text(json.dumps(header))
    result = diagnosed(Run.open(str(run)))
    assert result.verdict is not None
    verdict = Verdict(HOSTILE, "mean", HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    caveats = tuple(replace(each, text=HOSTILE, remedy=HOSTILE) for each in result.caveats)
    text = drawn(str(run), verdict=verdict, caveats=caveats)
    target = replace(result.target or Target(None, None, None, None), model=HOSTILE * 150_000)
    assert len(drawn(str(run), target=target)) < len(text) + 5_000
    for page in (text, plain):
        names = [name for name, _, _ in check(page).elements]
        assert not {"\x1b", "\u202e", "\u2066"} & set(page) and "49" not in names
        assert names.count("script") == 2 and "img" not in names
    assert len(text) < len(plain) + 60_000


def test_numbers_that_are_none_break_nothing(tmp_path: Path) -> None:
    run = made(tmp_path / "a.run", load(80))
    result = diagnosed(Run.open(run))
    ttft = result.metrics["ttft"]
    for wild in (1e308, -1e308, math.inf, math.nan, 5e-324):
        statistics = {
            name: replace(each, value=wild, lo=wild, hi=wild)
            for name, each in ttft.statistics.items()
        }
        metrics = {**result.metrics, "ttft": replace(ttft, statistics=statistics)}
        text = drawn(run, metrics=metrics)
        check(text)
        drawings = text[text.index("<svg") : text.rindex("</svg>")].lower()
        assert "nan" not in drawings.replace("nanosecond", "") and '"inf' not in drawings


# ---------------------------------------------------------------------- what is vendored
@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("uPlot.iife.min.js", "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f"),
        ("uPlot.min.css", "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04"),
    ],
)
def test_the_vendored_files_are_those_of_uplot_1_6_32(name: str, digest: str) -> None:
    """As in the package uplot 1.6.32 on npm (``npm pack uplot@1.6.32``)."""
    data = (VENDOR / name).read_bytes()
    assert hashlib.sha256(data).hexdigest() == digest and b"</script" not in data
    assert "MIT" in (VENDOR / "uPlot.LICENSE").read_text()


def test_a_parser_that_could_not_fail_proves_nothing() -> None:
    for broken in ("<p><b></p></b>", "<p>", '<svg id="a" id="b"></svg>'):
        with pytest.raises(AssertionError):
            Page(broken)


def test_the_verb_is_told_apart_from_its_file(tmp_path: Path) -> None:
    assert latdiag(["report", str(tmp_path)]) == 2
