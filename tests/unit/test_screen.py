"""A screen in the worst case of each verb: 24 lines of 79 columns, the answer first."""

from __future__ import annotations

import copy
import io
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from latdiag.diagnosis.collected import Collected
from latdiag.diagnosis.compare import Comparison
from latdiag.diagnosis.result import Breakdown, Imported, InvalidBecause, Result, Share, Verdict
from latdiag.model import entries
from latdiag.model.caveat import Caveat
from latdiag.model.components import COMPONENTS
from latdiag.model.terms import AUDIT_RULES
from latdiag.report import compare_screen
from latdiag.report.console import compose, render
from latdiag.report.page import Block, Page, screen
from latdiag.report.time_table import SURE

from . import read_result
from .compared_runs import comparison, two_runs

FIXTURES = Path(__file__).parent.parent / "fixtures"
LONG = {
    "plain": "x" * 400,
    "words": "some words of a name " * 40,
    "wide": "模型" * 200,
    "combining": "e\u0301" * 400,
}
CODES = ("LD430", "LD201", "LD110", "LD421", "LD415", *(["LD108"] * 40))
MERGED = ("gateway", "frontend", "queue", "prefill", "interconnect")


def _fixture(name: str) -> dict[str, Any]:
    found = json.loads((FIXTURES / f"result_{name}.json").read_text())
    assert isinstance(found, dict)
    return found


def _even(population: str, insufficient: str | None, merged: bool) -> Breakdown:
    """Every component holds a ninth, or several of them are one."""
    names = [c for c in COMPONENTS if not merged or c == "gateway" or c not in MERGED]
    members = {"gateway": MERGED} if merged else {}
    shares = {
        name: Share(1 / 9, 0.01, 0.99, 10**14, "E", "a test", members.get(name, ()))
        for name in names
    }
    n = 600 if population == "mean" else 30
    return Breakdown("client_e2e", 9 * 10**14, n, 4, 0, insufficient, shares)


def _worst(name: str, text: str, tail: bool, merged: bool, valid: bool, objectives: int) -> Result:
    found = _fixture(name)
    found["caveats"] = [{"code": c, "text": text + ".", "remedy": text + "."} for c in CODES]
    found["target"] |= {"url": f"http://{text}/v1/chat/completions", "model": text}
    found["stacks"] = [{"name": text, "version": text, "grounds": text}] * 5
    found["load"]["failed"] = {"timeout": 10**6, "reset": 10**6, "cut": 10**6, "dns": 1, "tls": 2}
    slo = {"slo": text, "met": False, "sure": True, "reading": None, "reason": text}
    found["slo"] = [copy.deepcopy(slo) for _ in range(objectives)]
    found["run"] = f"runs/{text}.run"
    result = read_result.result(found)
    why = None if tail else "20 requests; 30 are needed for an interval"
    shares = {"mean": _even("mean", None, merged), "p95_tail": _even("p95_tail", why, merged)}
    broken = tuple(InvalidBecause(r.name, text, 1e9, 1.0, r.unit) for r in AUDIT_RULES)
    verdict = Verdict("gateway", "mean", "bounded", "bottleneck", text + ".", text + ".", text)
    return replace(
        result,
        breakdowns=shares,
        verdict=verdict,
        invalid_because=() if valid else broken,
        runs=tuple(f"{text}-{n}.run" for n in range(12)) if objectives else (),
    )


def _lines(page: Page) -> list[str]:
    return ["".join(span.text for span in line) for line in page.lines]


def _fits(lines: list[str], ascii_only: bool) -> None:
    assert len(lines) <= 24
    assert max(map(cell_len, lines)) <= 79
    assert not ascii_only or all(line.isascii() for line in lines)
    assert lines[0] and lines[-1]


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
@pytest.mark.parametrize("name", ["load", "probe", "diagnose", "invalid"])
@pytest.mark.parametrize("tail", [True, False])
def test_the_worst_case_fits(name: str, text: str, tail: bool) -> None:
    for merged, objectives, valid in itertools.product((True, False), (0, 9), (True, False)):
        result = _worst(name, text, tail, merged, valid, objectives)
        for ascii_only in (True, False):
            lines = _lines(compose(result, ascii_only))
            _fits(lines, ascii_only)
            first = "GATEWAY" if valid else "INVALID:"
            assert lines[0].startswith(first)
            assert any(line.startswith("Next:") for line in lines)
            assert sum(line.startswith("SLO ") for line in lines) <= 3
            assert any("--full" in line and "45 notes" in line for line in lines)
            foot = "Read " if result.verb == "diagnose" else "Saved "
            assert any(line.startswith((foot, "and ")) for line in lines[-8:])


@pytest.mark.parametrize("columns", ["0", "40", "79", "200"])
def test_the_width_of_the_terminal_changes_nothing(
    columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    out = io.StringIO()
    result = read_result.result(_fixture("diagnose"))
    render(result, Console(file=out, highlight=False))
    assert out.getvalue().splitlines() == _lines(compose(result, True))


def test_figures_of_a_row_are_never_cut() -> None:
    for tail in (True, False):
        for merged in (True, False):
            result = _worst("probe", "a", tail, merged, True, 0)
            page = "\n".join(_lines(compose(result, True)))
            assert "..." not in page.split("mean of 600 requests")[1].split("Valid")[0]


def test_more_runs_than_rows_are_counted() -> None:
    result = _worst("diagnose", "a", False, True, True, 1)
    lines = _lines(compose(result, True))
    shown = sum(line.startswith("Read ") for line in lines)
    assert 1 <= shown <= 6 and f"and {12 - shown} more runs: --full" in lines


# ---------------------------------------------------------------------- servers alone
def _collected(text: str) -> Collected:
    senders = [{"sender": f"{text}{n}", "service": text, "known": False, "spans": 10**9}
               for n in range(40)]  # fmt: skip
    return replace(
        Collected.read({"accepted": 10**12, "samples": 10**12, "senders": senders}),
        duration_ns=10**15,
    )


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_servers_alone_show_themselves_and_no_zeros(text: str) -> None:
    notes = tuple(Caveat(code, text, text) for code in CODES)
    collected = Result(verb="collect", run=text, collected=_collected(text), caveats=notes)
    read = Imported(0, {}, 10**9, {text: 3}, 9, 10**9, {text: 3}, {text: 4}, (text,) * 40)
    imported = Result(verb="import", run=text, imported=read, caveats=notes)
    for result in (collected, imported):
        for ascii_only in (True, False):
            lines = _lines(compose(result, ascii_only))
            _fits(lines, ascii_only)
            assert lines[0].startswith("NO VERDICT: ")
            assert not any(line.startswith(("TTFT", "0 requests")) for line in lines)
    assert any("more servers: --full" in line for line in _lines(compose(collected, True)))


def test_nothing_is_said_to_have_arrived_where_nothing_did() -> None:
    lines = _lines(compose(Result(verb="collect", run="a", collected=Collected.read({})), True))
    assert lines[0].startswith("NOTHING ARRIVED: ")


# ---------------------------------------------------------------------- compare
@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    runs = two_runs(tmp_path_factory.mktemp("runs"))
    return comparison(runs / "a.run", runs / "b.run")


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_a_comparison_fits_and_begins_with_its_answer(compared: Comparison, text: str) -> None:
    broken = tuple(InvalidBecause(r.name, f"A: {text}", 1e9, 1.0, r.unit) for r in AUDIT_RULES)
    side = replace(compared.a, runs=(text,) * 9)
    facts = (
        [replace(compared.differs[0], what=text, a=text, b=text)] * 20 if compared.differs else []
    )
    for worse in (compared, replace(compared, a=side, b=side, differs=tuple(facts))):
        for invalid in (False, True):
            one = replace(worse, broken=broken) if invalid else worse
            for ascii_only in (True, False):
                lines = _lines(compare_screen.compose(one, ascii_only))
                _fits(lines, ascii_only)
                first = "INVALID: " if invalid else one.sentence.partition(":")[0]
                assert lines[0].startswith(first)


# ---------------------------------------------------------------------- the mechanism
def test_blocks_give_up_lines_by_their_rank() -> None:
    def block(name: str, n: int, least: int, rank: int) -> Block:
        def draw(page: Page, room: int) -> None:
            for place in range(min(n, room)):
                page.line(f"{name}{place}")

        return Block(draw, least, rank)

    page = screen([block("a", 9, 2, 1), block("b", 9, 3, 0), block("c", 9, 4, 2)], True, 12)
    counts = {name: sum(line.startswith(name) for line in _lines(page)) for name in "abc"}
    assert counts == {"a": 2, "b": 6, "c": 4}
    few = screen([block("a", 9, 2, 1), block("b", 9, 3, 0), block("c", 9, 4, 2)], True, 4)
    assert [line[0] for line in _lines(few)] == ["a", "b", "b", "b"]


# ---------------------------------------------------------------------- words
WORDS = (
    *COMPONENTS, *SURE.values(),
    "TTFT", "TPOT", "ITL", "E2E", "p50", "p95", "n", "mean", "slo", "invalid", "valid", "run",
    "span", "interval", "bottleneck", "healthy", "ambiguous", "insufficient", "self-audit",
    "stamp", "note", "slowest 5 %", "base", "batch", "stall", "server", "failed", "samples",
    "scrapes",
)  # fmt: skip


@pytest.mark.parametrize("word", WORDS)
def test_every_word_of_a_screen_is_explained(word: str) -> None:
    assert entries.look_up(word, entries.all_entries())


@pytest.mark.parametrize(
    "url", ["https://api.example.com/v1/chat/completions", "https://" + "h" * 300]
)
def test_whose_key_went_out_is_seen(url: str) -> None:
    result = read_result.result(_fixture("probe"))
    assert result.target is not None
    asked = replace(result.target, url=url, model="m" * 80, api_key_env="OPENAI_API_KEY")
    page = compose(replace(result, target=asked), Page(True), "screen")
    text = "\n".join("".join(span.text for span in line) for line in page.lines)
    assert "key OPENAI_API_KEY" in text
    assert all(cell_len(line) <= 79 for line in text.splitlines())
