"""A comparison on the terminal: 79 columns, nothing cut off, no judgement."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from latdiag.cli import run
from latdiag.diagnosis.compare import Comparison
from latdiag.report.compare_page import compose

from .compared_runs import comparison, load, result, said, two_runs, with_header

JUDGING = ("regress", "better", "worse", "improve", "degrad", "faster", "slower")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def of(runs: Path) -> Comparison:
    """Of the two runs: a page shows a comparison, and changes none."""
    return comparison(runs / "a.run", runs / "b.run")


# ---------------------------------------------------------------------- the terminal
def shown(of: Comparison, ascii_only: bool, bars: bool) -> list[str]:
    lines = compose(of, ascii_only, bars).lines
    return ["".join(span.text for span in line) for line in lines]


def test_the_verb_prints_the_comparison(
    runs: Path, of: Comparison, capsys: pytest.CaptureFixture[str]
) -> None:
    document = result(capsys, runs / "a.run", runs / "b.run")
    assert document == json.loads(json.dumps(of.result().to_json()))


@pytest.mark.parametrize("bars", [True, False])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_79_columns_and_no_judgement(ascii_only: bool, bars: bool, of: Comparison) -> None:
    lines = shown(of, ascii_only, bars)
    assert all(len(line) <= 79 for line in lines)
    text = "\n".join(lines)
    assert "..." not in text and "…" not in text, "nothing is cut off"
    assert not ascii_only or text.isascii()
    spoken = (text + json.dumps(of.result().to_json())).lower()
    assert not any(word in spoken for word in JUDGING)
    assert ("●" in text) == (bars and not ascii_only)
    assert ("--o" in text or "o--" in text) == (bars and ascii_only)


def test_every_figure_of_the_document_is_on_the_page(of: Comparison) -> None:
    """The interval stands below its difference, n below its side; nothing runs together."""
    from latdiag.model.units import figure

    document: Any = of.result().to_json()
    lines = shown(of, True, False)
    mean = document["compared"]["components"]["mean"]
    at = next(n for n, line in enumerate(lines) if line.startswith("decode"))
    apart = mean["decode"]["difference"]
    assert lines[at].split()[1:3] == [figure(mean["decode"][s]["ms"], "ms") for s in "ab"]
    ends = [figure(abs(apart[key]), "ms") for key in ("lo", "hi")]
    assert all(end in lines[at + 1] for end in ends)
    ttft = next(n for n, line in enumerate(lines) if line.startswith("TTFT mean"))
    counts = document["compared"]["metrics"]["ttft"]["mean"]["a"]
    worth = counts["n_effective"]
    assert lines[ttft + 1].split()[0] == "700" and (
        worth == 700 or f"({worth})" in lines[ttft + 1]
    )


def test_a_bar_has_its_interval_and_its_zero_in_place(runs: Path, of: Comparison) -> None:
    def bar(of: Comparison) -> str:
        lines = shown(of, True, True)
        return next(line for line in lines if line.startswith("TTFT mean"))[60:]

    more, less = bar(of), bar(comparison(runs / "b.run", runs / "a.run"))
    assert more.index("|") < more.index("o"), "0 is left of an interval that leaves it out"
    assert less.index("o") < less.index("|")


HOSTILE = "\x1b]0;owned\x07\x1b[2J[bold red]m[/bold red] a\u202eb\u2066\u200b\r\nSaved"


def test_hostile_words_stay_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = with_header(tmp_path, "a.run", load(60), target__url=HOSTILE)
    other = with_header(
        tmp_path, "b.run", load(60, seed=2), target__url=HOSTILE * 200,
        stacks=[{"name": HOSTILE, "version": "模型" * 300, "grounds": HOSTILE}],
    )  # fmt: skip
    hostile = comparison(one, other)
    for ascii_only in (True, False):
        text = "\n".join(shown(hostile, ascii_only, True))
        assert "\x1b" not in text and "\u202e" not in text and "[bold red]" in text
    out = said(capsys, one, other)
    assert "\x1b" not in out and all(len(line) <= 79 for line in out.splitlines())
    model = with_header(tmp_path, "c.run", load(60, seed=3), target__model=HOSTILE)
    capsys.readouterr()
    assert run(["compare", one, model]) == 13
    assert "\x1b" not in capsys.readouterr().err


def test_it_is_explained_and_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0 and "compare" in capsys.readouterr().out
    assert run(["explain", "LD121"]) == 0 and "--force" in capsys.readouterr().out
