"""What a longer probe would decide: said where that is so, and spent where there is time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from latdiag.diagnosis.diagnose import result_of
from latdiag.diagnosis.longer import longer, would_decide
from latdiag.diagnosis.result import InvalidBecause, Result, Verdict
from latdiag.store.run import Run

from .comparison_sides import MS, partition
from .saved_probe import save
from .test_blackbox import WAITS, probe

LIMITS = {"rate": None, "concurrency": None}
QUICK = {"plan": {"designed": True, "budget": "quick", "limits": LIMITS}}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A probe of some 100 requests."""
    saved = save(tmp_path_factory.mktemp("saved") / "a.run", probe(WAITS))
    return result_of(Run.open(saved), "diagnose")


# ---------------------------------------------------------------------- whether more decides
def test_more_requests_part_what_chance_leaves_open_and_not_what_bounds_do() -> None:
    rng = np.random.default_rng(2)
    parts = partition(*(base + 16 * rng.normal(size=40) for base in (52.0, 48.0)))
    assert not would_decide(parts, 1) and would_decide(parts, 8)
    open_ = np.full(40, 6.0 * MS)
    bounded = replace(
        parts, slack={"queue": (open_, np.zeros(40)), "decode": (np.zeros(40), open_)}
    )
    assert not would_decide(bounded, 8) and not would_decide(bounded, 40)


# ---------------------------------------------------------------------- what is said
def test_the_next_budget_is_named_with_what_it_would_state(found: Result) -> None:
    assert found.load is not None and found.load.requests < 130
    text = longer(found, QUICK)
    assert text.startswith("--budget standard (about ") and "would also state p95" in text
    standard = {"plan": {**QUICK["plan"], "budget": "standard"}}
    assert longer(found, standard).startswith("--budget deep (")


@pytest.mark.parametrize("budget", ["deep", "vast", None])
def test_where_no_budget_is_larger_nothing_is_said(found: Result, budget: str | None) -> None:
    assert longer(found, {"plan": {**QUICK["plan"], "budget": budget}}) == ""
    assert longer(found, {}) == ""


def test_nothing_is_promised_that_it_would_not_state(found: Result) -> None:
    assert found.load is not None
    broken = InvalidBecause("schedule_lag", "late", 1.0, 2.0, "ms")
    assert longer(replace(found, invalid_because=(broken,)), QUICK) == ""
    # So slow that the larger budget sends hardly more.
    slow = replace(found, load=replace(found.load, duration_s=10_000.0))
    assert longer(slow, QUICK) == ""
    # Not the slowest 5 %, where 240 s hold fewer than 600 requests.
    some = replace(found, load=replace(found.load, duration_s=found.load.requests / 1.0))
    text = longer(some, QUICK)
    assert "p95" in text and "slowest" not in text


def test_an_open_verdict_is_told_what_would_decide_it(found: Result) -> None:
    rng = np.random.default_rng(2)
    parts = partition(*(base + 16 * rng.normal(size=40) for base in (52.0, 48.0)))
    open_ = Verdict(None, "mean", "inferred", "ambiguous", "...", "...")
    assert "which part is the largest" in longer(replace(found, verdict=open_, parts=parts), QUICK)


def test_a_probe_is_asked_whether_it_should_go_on(tmp_path: Path) -> None:
    from latdiag.diagnosis.undecided import undecided

    assert not undecided(save(tmp_path / "a.run", probe(WAITS)))
