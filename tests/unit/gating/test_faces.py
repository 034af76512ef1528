"""The faces of a verdict: within their caps, escaped, and of one mind with it."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from xml.etree import ElementTree as Xml

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latdiag.gate.plan import Arms
from latdiag.gate.result import Component, Verdict
from latdiag.gate.validity import Reason
from latdiag.report.gate import github, gitlab, junit, markdown, text, words
from tests.bench.gate.world import Fault
from tests.profiles import examples

from .made import measured, with_settings

KINDS = ("red", "ok", "faster", "open", "void", "cut", "broken", "tail")
HOSTILE = "a|b`<img src=x onerror=1>\x1b[2J\n::error::x%\r\n@team #1 [x](y) --> \u202e"


@cache
def verdict(kind: str) -> Verdict:
    fast = with_settings(flips=999)
    if kind == "cut":
        run = measured(Fault(prefill=1.07), pairs=40, settings=fast)
        return replace(run, blocks=run.blocks.first(21)).verdict()
    faults = {
        "red": Fault(prefill=1.3),
        "faster": Fault(prefill=0.6, decode=0.6),
        "open": Fault(prefill=1.06, decode=1.06),
        "broken": Fault(prefill=3.0),
        "tail": Fault(stalls=0.2),
    }
    arms = Arms({"model": "a"}, {"model": "b"}) if kind == "void" else Arms()
    pairs = {"red": 24, "open": 16}.get(kind, 50)
    return measured(faults.get(kind, Fault()), pairs=pairs, settings=fast, arms=arms).verdict()


def hostile(base: Verdict) -> Verdict:
    """The same with texts from outside that mean harm, and many checks."""
    many = tuple(
        replace(o, name=f"{o.metric}.{o.statistic}[{HOSTILE}={n}]", level="error")
        for n in range(8)
        for o in base.outcomes
    )
    parts = tuple(
        Component(f"{HOSTILE}{n}", 10**9, 2 * 10**9, 0.5e9, 1.5e9, None) for n in range(30)
    )
    reasons = (Reason("run", HOSTILE),) if base.verdict == "INVALID" else ()
    return replace(
        base, outcomes=many, components=parts, cause=None, reasons=reasons, evidence=HOSTILE
    )


def lines(page: object) -> list[str]:
    return ["".join(span.text for span in line) for line in page.lines]  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", KINDS)
def test_the_kinds_are_what_they_are_called(kind: str) -> None:
    expected = {
        "red": "REGRESSED", "ok": "OK", "faster": "IMPROVED", "open": "INCONCLUSIVE",
        "void": "INVALID", "cut": "INCONCLUSIVE", "broken": "REGRESSED", "tail": "REGRESSED",
    }  # fmt: skip
    assert verdict(kind).verdict == expected[kind]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wild", [False, True])
def test_the_page_is_one_screen_with_the_verdict_first(kind: str, wild: bool) -> None:
    found = hostile(verdict(kind)) if wild else verdict(kind)
    shown = lines(text.gate_page(found, ascii_only=True))
    assert len(shown) <= 24 and max(map(len, shown)) <= 79
    assert shown[0].startswith(found.verdict)
    assert all(line.isascii() and line.isprintable() for line in shown)
    if not wild:
        assert all(any(line.startswith(words.label(o)) for line in shown) for o in found.votes)
        assert "…" not in "".join(shown) and not any(line.endswith("...") for line in shown)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wild", [False, True])
def test_the_comment_is_short_marked_and_harmless(kind: str, wild: bool) -> None:
    found = hostile(verdict(kind)) if wild else verdict(kind)
    made = markdown.comment(found, "serving")
    assert made.startswith("<!-- latdiag-gate:serving -->\n### latdiag gate: " + found.verdict)
    assert made.count("\n") <= markdown.MOST_LINES and len(made) <= markdown.MOST_CHARACTERS
    assert "\x1b" not in made and "\u202e" not in made
    assert not re.search(r"(?<!\\)<img|(?<!\u2060)@team|@team", made)
    widths = [re.sub(r"\\.", "", row).count("|") for row in made.splitlines() if row[:1] == "|"]
    assert set(widths) <= {7, 6}
    rows = [row for row in made.splitlines() if "**REGRESSED**" in row]
    assert all(">= +" in row for row in rows)
    if kind in ("red", "broken", "tail"):
        assert rows


def test_a_name_cannot_leave_the_marker() -> None:
    assert markdown.marker("a --> <b>") == "<!-- latdiag-gate:a-b -->"
    assert markdown.marker("ä") and markdown.marker("") == "<!-- latdiag-gate:default -->"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wild", [False, True])
def test_annotations_are_one_line_each_escaped_and_few(kind: str, wild: bool) -> None:
    found = hostile(verdict(kind)) if wild else verdict(kind)
    made = github.annotation_commands(found).splitlines()
    assert 1 <= len(made) <= 3 * github.MOST_ANNOTATIONS
    for line in made:
        match = re.fullmatch(r"::(error|warning|notice) title=([^:,]*)::(.*)", line)
        assert match and not re.search(r"%(?!25|0A|0D|3A|2C)", line)
    assert made[0].startswith("::error") == bool(found.exit_code)
    for level in ("error", "warning"):
        assert sum(line.startswith(f"::{level}") for line in made) <= github.MOST_ANNOTATIONS


def test_a_summary_that_would_not_be_shown_is_not_written() -> None:
    made = github.summary(verdict("red"), "serving")
    assert made == markdown.comment(verdict("red"), "serving")
    assert github.summary(verdict("red"), "serving", github.MOST_BYTES - 10) == ""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wild", [False, True])
def test_junit_has_a_case_a_check_and_the_reason_in_the_body(kind: str, wild: bool) -> None:
    found = hostile(verdict(kind)) if wild else verdict(kind)
    suite = Xml.fromstring(junit.junit(found, "serving"))
    cases = suite.findall("testcase")
    assert len(cases) == len(found.shown) == int(suite.get("tests", ""))
    assert len(suite.findall(".//failure")) == int(suite.get("failures", ""))
    bad = suite.findall(".//failure") + suite.findall(".//error")
    assert bool(bad) == bool(found.exit_code)
    assert all(len(each.text or "") > 20 for each in bad)


def test_junit_fails_what_is_not_decided_only_if_asked() -> None:
    strict = replace(verdict("open"), exit_code=11, on_inconclusive="fail")
    assert "<failure" in junit.junit(strict, "x") and "<skipped" in junit.junit(
        verdict("open"), "x"
    )
    assert "<failure" not in junit.junit(verdict("open"), "x")


@pytest.mark.parametrize("kind", KINDS)
def test_gitlabs_metrics_are_openmetrics_with_three_digits(kind: str) -> None:
    made = gitlab.metrics(hostile(verdict(kind)))
    assert made.endswith("# EOF\n")
    from prometheus_client.openmetrics.parser import text_string_to_metric_families

    samples = [s for family in text_string_to_metric_families(made) for s in family.samples]
    assert samples[-1].name == "latdiag_gate_exit_code"
    for line in gitlab.metrics(verdict(kind)).splitlines():
        if not line.startswith("#"):
            digits = re.sub(r"e.*|[-.]", "", line.rpartition(" ")[2]).lstrip("0")
            assert len(digits) <= 3


def test_the_sentence_says_the_bound_and_what_was_allowed() -> None:
    red = verdict("red")
    worst = words.worst(red)
    assert worst is not None and worst.worse_than is not None
    said = words.sentence(red)
    assert f"at least {100 * worst.worse_than:.1f} %" in said and "allowed 3 %" in said
    assert "prefill takes +" in words.cause(red)
    assert "model: base a, candidate b" in words.sentence(verdict("void"))
    assert "20 of 40 pairs" not in words.sentence(verdict("cut"))
    assert "21 of 40 pairs" in words.sentence(verdict("cut"))
    assert "clearly worse" in words.sentence(verdict("broken"))


@given(st.text(max_size=300))
@examples(200)
def test_escaped_text_stays_in_its_cell(outside: str) -> None:
    made = markdown.escaped(outside)
    assert not re.search(r"(?<!\\)(?:\\\\)*[|<`]", made) and "\n" not in made
