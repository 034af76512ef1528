"""``latdiag report gate.json``: the verdict as a page, each number with its place in the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from latdiag.cli import run as latdiag
from latdiag.gate.document import dumped
from latdiag.gate.plan import Arms
from latdiag.report.gate import words
from tests.bench.gate.world import Fault
from tests.unit.golden import said
from tests.unit.html_pages import check, check_numbers

from . import made

HOSTILE = "</td><script>alert(1)</script>\u202e"
CASES = {
    "red": Fault(prefill=1.4),
    "same": made.SAME,
}


@pytest.mark.parametrize("case", CASES)
def test_every_number_is_that_of_the_file(case: str, tmp_path: Path) -> None:
    measured = made.measured(CASES[case])
    verdict, file = measured.verdict(), tmp_path / "gate.json"
    file.write_text(dumped(measured))
    page_file = tmp_path / "gate.html"
    assert latdiag(["report", str(file), "-o", str(page_file)]) == verdict.exit_code
    page = check(page_file.read_text(encoding="utf-8"))
    assert check_numbers(page, json.loads(file.read_text())) > 10
    ((_, heading),) = page.all("h1")
    assert heading.startswith(words.headline(verdict))
    assert len(page.all("circle")) == len([e for e in verdict.shown if e.effect is not None])


def test_an_invalid_measurement_shows_no_effects(tmp_path: Path) -> None:
    arms = Arms({"model": HOSTILE}, {"model": "b"}, broken=(f"it stalled {HOSTILE}",))
    file, page_file = tmp_path / "gate.json", tmp_path / "gate.html"
    file.write_text(dumped(made.measured(arms=arms)))
    assert latdiag(["report", str(file), "-o", str(page_file)]) == 12
    text = page_file.read_text(encoding="utf-8")
    page = check(text)
    ((_, heading),) = page.all("h1")
    assert heading.startswith("INVALID") and not page.all("circle")
    assert "script" not in [name for name, _, _ in page.elements] and "\u202e" not in text


def test_a_file_that_is_none_or_was_changed_is_refused(tmp_path: Path) -> None:
    file, page_file = tmp_path / "gate.json", tmp_path / "gate.html"
    good = dumped(made.measured())
    for text, why in (
        ("{}", "not a gate.json"),
        ("x", "not a gate.json"),
        (good.replace('"requests": ', '"requests": 1'), "changed after"),
    ):
        file.write_text(text)
        assert why in said("report", str(file), "-o", str(page_file), "--json")
    file.write_text(good)
    assert "alone" in said("report", str(file), str(file), "-o", str(page_file), "--json")
    assert not page_file.exists()
