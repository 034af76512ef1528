"""A probe before a change and one after it, with ``--like``: ``compare`` names what changed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from latdiag.cli import run
from latdiag.sim.demo import serving
from latdiag.sim.params import FAULTS
from latdiag.store.run import Run
from tests.schema import validate

Captured = pytest.CaptureFixture[str]
COLUMNS = ["stage", "scenario", "due_ns", "isl_wanted", "osl_wanted"]


def probed(url: str, saved: Path, capsys: Captured, *options: str) -> dict[str, Any]:
    code = run(["probe", url, "-o", str(saved), "--json", *options])
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    validate(result)
    assert code == 0 or (code == 12 and result["invalid_because"])
    return result


def workload(saved: Path) -> list[tuple[str, int, int, int]]:
    """(segment, ns from its first request, ISL, OSL) of each request of it."""
    rows = [
        r for r in Run.open(str(saved)).frame(COLUMNS).to_dict("records") if r["stage"] == "S10"
    ]
    first: dict[str, int] = {}
    for row in rows:
        first[row["scenario"]] = min(row["due_ns"], first.get(row["scenario"], row["due_ns"]))
    return sorted(
        (r["scenario"], r["due_ns"] - first[r["scenario"]], r["isl_wanted"], r["osl_wanted"])
        for r in rows
    )


def test_a_slower_step_is_named_by_the_comparison(tmp_path: Path, capsys: Captured) -> None:
    before, after = tmp_path / "before.run", tmp_path / "after.run"
    params = FAULTS["healthy"]
    with serving(params) as demo:
        probed(demo.url, before, capsys, "--osl", "30")
    with serving(replace(params, weights_ms=4 * params.weights_ms)) as demo:
        probed(demo.url, after, capsys, "--like", str(before))
    assert workload(after) == workload(before)
    seeds = [Run.open(str(each)).header["plan"]["seed"] for each in (before, after)]  # type: ignore[index]
    assert seeds[0] != seeds[1]
    code = run(["compare", str(before), str(after), "--json"])
    compared: dict[str, Any] = json.loads(capsys.readouterr().out)
    validate(compared)
    assert code in (0, 12)
    assert not any(each["unlike"] for each in compared["compared"]["differs"])
    sentence = compared["compared"]["sentence"]
    assert (
        sentence.startswith("B takes") and "Parts that changed beyond noise: decode +" in sentence
    )
