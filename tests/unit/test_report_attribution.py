"""Where the time went, on paper: leaves, what is insufficient, what was learned, the claims."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from latdiag.diagnosis.result import Result
from latdiag.diagnosis.why import Why
from latdiag.model import entries as explained
from latdiag.report import json as report_json
from latdiag.report import where
from latdiag.report.console import compose
from latdiag.report.learned import learned as learned_section
from latdiag.report.page import Page
from latdiag.report.why import claims as claims_section
from tests.schema import SCHEMA, validate

from . import read_result

FIXTURES = Path(__file__).parent.parent / "fixtures"
HOSTILE = "\x1b[31m\u202e" + "[bold]x[/bold] 模型 " * 80


def diagnosed() -> dict[str, Any]:
    found = json.loads((FIXTURES / "result_diagnose.json").read_text())
    assert isinstance(found, dict)
    return found


def text_of(page: Page) -> str:
    lines = ["".join(span.text for span in line) for line in page.lines]
    assert all(cell_len(line) <= 79 for line in lines)
    return "\n".join(lines) + "\n"


def flat(text: str) -> str:
    return " ".join(text.split())


def where_of(result: dict[str, Any]) -> str:
    page = Page(ascii_only=True)
    where.breakdowns(page, read_result.result(result))
    return text_of(page)


def learned_of(**changes: Any) -> str:
    page = Page(ascii_only=True)
    result = diagnosed()
    result["learned"] |= changes
    learned_section(page, read_result.result(result))
    return text_of(page)


# ---------------------------------------------------------------------- populations
def test_what_is_insufficient_shows_its_reason_and_no_figure() -> None:
    result = diagnosed()
    text = where_of(result)
    mean, tail = text.split("Where the time of the slowest 5 % went")
    assert "insufficient: 5 requests; 30 are needed for an interval" in flat(tail)
    assert "[" not in tail and "#" not in tail and "decode" not in tail
    assert "decode" in mean and "insufficient" not in mean
    result["breakdown"]["p95_tail"]["insufficient"] = None
    assert "decode" in where_of(result).split("Where the time of the slowest 5 % went")[1]
    result["breakdown"]["mean"]["insufficient"] = "they are all of one queue " * 9
    text = where_of(result)
    assert "insufficient: they are all of one queue" in flat(text.split("slowest")[0])


def test_the_title_says_how_many_requests_and_in_how_many_segments() -> None:
    result = diagnosed()
    result["breakdown"]["mean"].update(n=36, segments=2)
    assert "(36 requests in 2 segments, " in flat(where_of(result))
    result["breakdown"]["mean"]["segments"] = 1
    assert "(36 requests, " in flat(where_of(result))


def test_leaves_stand_below_their_component() -> None:
    result = diagnosed()
    why = {"evidence": "made up"}
    result["leaves"]["mean"] = {
        "decode.base": {"share": 0.48, "lo": None, "hi": None, "sum_ns": 4, "grade": "C"} | why,
        "decode.interference": {"share": 0.12, "lo": 0.1, "hi": 0.14, "sum_ns": 1, "grade": "C"}
        | why,
        "queue.admission": {"share": None, "lo": None, "hi": None, "sum_ns": 0, "grade": "B"}
        | why,
    }
    lines = where_of(result).splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("  decode "))
    assert re.match(r"    decode\.base +48 % +C  #+$", lines[at + 1])
    assert re.match(r"    decode\.interference +12 % \[10, 14\] +C  #+$", lines[at + 2])
    at = next(n for n, line in enumerate(lines) if line.startswith("  queue "))
    assert re.match(r"    queue\.admission +unknown +B$", lines[at + 1])
    assert "B from the server's metrics or documentation" in flat("\n".join(lines))
    # The percent signs of components and leaves stand in one column.
    columns = {line.index(" %") for line in lines if re.match(r" {2,4}[a-z.]+ .* % ", line)}
    assert len(columns) == 1


# ---------------------------------------------------------------------- what was learned
def test_what_was_learned_has_units_intervals_and_counts() -> None:
    text = learned_of(
        alone_ms=[
            {"isl": 128, "value": 3.456, "lo": 3.40, "hi": 3.52},
            {"isl": 512, "value": 12.91, "lo": 12.8, "hi": 13.0},
            {"isl": 1024, "value": 25.4, "lo": 25.1, "hi": 25.7},
        ],
        alone_n=23,
        frontend_ms=[{"isl": 128, "value": 1.13, "lo": 1.0, "hi": 1.2}],
        path_ms={"value": 0.403, "lo": 0.39, "hi": 0.412, "n": 10, "is_way": False},
        step_ms=4.05,
        step_per_stream_ms=0.0213,
        step_per_1000_context_ms=0.5,
        step_blocks=57,
        let_in=2,
        tried=4,
        bursts_ms=250.0,
        transfer_ms={"value": 214.0, "per_1000_tokens": 300.0, "n": 23, "proven": True},
    )
    lines = text.splitlines()
    assert lines[1].split() == ["tokens", "of", "prompt", "128", "512", "1", "024"]
    assert re.fullmatch(r"  a prompt alone, ms \(23 requests\) +3\.46 +12\.9 +25\.4", lines[2])
    assert lines[3].split() == ["3.40-3.52", "12.8-13.0", "25.1-25.7"]
    assert re.fullmatch(r"    of it the frontend, ms +1\.13", lines[4])
    assert "path behind the first hop 0.403 ms [0.390, 0.412], 10 GETs: normal for HTTP" in flat(
        text
    )
    assert "opening a connection 0.164 ms (median of 3, 0.121 to 0.392 ms)" in flat(text)
    assert "round trip of TCP 0.030 ms (median of 100, " in flat(text)
    assert "a decode step alone 4.05 ms (from 57 runs of tokens)" in flat(text)
    assert "each further request +0.021 ms" in flat(text)
    assert "1 000 tokens of context +0.500 ms" in flat(text)
    assert "requests admitted at once 2; others wait" in flat(text)
    assert "KV transfer 214 ms (median of 23 requests); 300 ms per 1 000 tokens" in flat(text)
    assert "tokens arrive in bursts, 250 ms apart" in flat(text)
    assert "something else" not in text
    doubted = {"value": 9.0, "per_1000_tokens": 0.0, "n": 23, "proven": False}
    assert "300 ms per 1 000 tokens; it may be" not in text
    assert "per 1 000 tokens; it may be something else" in flat(learned_of(transfer_ms=doubted))


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (
            "shared",
            "Long prompts slow running requests down (78 % of their time, at most 40 % of it",
        ),
        (
            "separate",
            "Long prompts do not slow running requests down: prefill may run on another server.",
        ),
        ("unknown", "Whether long prompts slow running requests down was not measured."),
    ],
)
def test_whether_long_prompts_slow_streams(verdict: str, words: str) -> None:
    text = learned_of(
        prefill_stops_decode=verdict, prefill_stops_decode_share=0.78, prefill_pause_share=0.4
    )
    assert words in flat(text)


def test_what_could_not_be_learned_is_said_to_be_unknown() -> None:
    text = flat(
        learned_of(
            connect_ms=None,
            round_trip_ms=None,
            path_ms=None,
            frontend_ms=None,
            transfer_ms=None,
            let_in=None,
        )
    )
    assert "path behind the first hop unknown: no cheap GET was answered" in text
    assert "of it the frontend, ms: unknown, not separate from prefill" in text
    assert "opening a connection unknown" in text and "round trip of TCP unknown" in text
    # Never more than was tried.
    assert "requests admitted at once all 8 that were tried" in text
    assert "KV transfer none seen between" in text and "tokens arrive one at a time" in text
    bare = learned_of(prefill_stops_decode="shared", prefill_stops_decode_share=None,
                      prefill_pause_share=None)  # fmt: skip
    assert "Long prompts slow running requests down\n" in bare
    page = Page(ascii_only=True)
    learned_section(page, Result(verb="probe"))
    assert page.lines == []


def test_a_load_says_nothing_of_laws() -> None:
    for name in ("load", "probe"):
        result = json.loads((FIXTURES / f"result_{name}.json").read_text())
        page = compose(read_result.result(result), True, "full")
        assert "What the probe learned" not in text_of(page)


# ---------------------------------------------------------------------- claims
def claims_of(result: dict[str, Any], component: str) -> str:
    document = Why(read_result.result(result), component)
    validate(json.loads(report_json.dump(document)))
    page = Page(ascii_only=True)
    claims_section(page, document)
    return text_of(page)


def test_used_claims_come_first_and_grades_are_explained() -> None:
    result = diagnosed()
    result["claims"]["queue"].reverse()
    text = claims_of(result, "queue")
    assert text.index("  used") < text.index("  lost")
    assert "Of the time of all requests, end to end (100 requests in 2 segments):" in flat(text)
    assert "weaker evidence: it merges more components" in flat(text)
    assert "grade: C identified by a probe; E cannot be separated" in flat(text)


def test_a_component_without_claims_says_so() -> None:
    assert "no evidence in this run measures it" in flat(claims_of(diagnosed(), "interconnect"))


def test_hostile_words_in_claims_stay_words() -> None:
    result = diagnosed()
    for claim in result["claims"]["queue"]:
        claim["evidence"] = HOSTILE
    result["breakdown"]["p95_tail"]["insufficient"] = HOSTILE
    document = Why(read_result.result(result), "queue")
    for ascii_only in (True, False):
        page = Page(ascii_only)
        claims_section(page, document)
        text = text_of(page)
        assert "\x1b" not in text and "\u202e" not in text
        assert not ascii_only or text.isascii()


# ---------------------------------------------------------------------- runs and words
def test_a_diagnosis_names_every_run_that_it_read() -> None:
    result = diagnosed()
    text = text_of(compose(read_result.result(result), ascii_only=True, view="full"))
    assert [f"Read {path}" in text for path in result["runs"]] == [True, True]
    assert "Saved" not in text
    del result["runs"]
    assert f"Read {result['run']}" in text_of(compose(read_result.result(result), True, "full"))


def test_every_word_of_the_new_parts_of_a_result_is_explained() -> None:
    entries = explained.all_entries()
    result = diagnosed()
    kinds = SCHEMA["$defs"]["verdict"]["properties"]["kind"]["enum"]
    learned = set(result["learned"]) & {"path_ms", "frontend_ms", "alone_ms", "step_ms", "let_in",
                                        "transfer_ms", "prefill_stops_decode", "connect_ms",
                                        "round_trip_ms", "bursts_ms"}  # fmt: skip
    words = {*kinds, *learned, *result["leaves"]["mean"], *result["claims"], *result["breakdown"]}
    words |= {"segments", "insufficient", "claims", "learned", "used", "lost", "segment", "budget",
              "designed stage", "path", "frontend law", "prefill alone", "let in", "KV transfer",
              "healthy", "ambiguous", "demo", "grade C", "S1", "S10", "LD117"}  # fmt: skip
    for word in words:
        assert explained.look_up(word, entries), word


def test_the_document_is_not_changed_by_showing_it() -> None:
    result = diagnosed()
    before = copy.deepcopy(result)
    compose(read_result.result(result), ascii_only=True)
    Why(read_result.result(result), "queue").to_json()
    assert result == before
