"""A few mutated runs and captures; all of them in ``tests/bench/test_run_mutations.py``."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.mutated_commands import batch, faults, sources
from tests.profiles import repetitions

from .golden import CAPTURES

#: Of each so many; a fifth of them in the profile ``dev``.
SEEDS = {"diagnose": 24, "compare": 5, "import": 6}


@pytest.mark.repeated
@pytest.mark.parametrize("kind", SEEDS)
def test_no_mutation_ends_in_a_bug(tmp_path: Path, kind: str) -> None:
    (tmp_path / "sources").mkdir()
    if kind == "import":
        shutil.copytree(CAPTURES / "vllm-0.24.0-h200" / "tp1", tmp_path / "sources" / "tp1")
    else:
        sources(tmp_path / "sources")
    seeds = range(min(SEEDS[kind], repetitions(SEEDS[kind])))
    lines = batch(list(seeds), kind, tmp_path)
    assert {line["seed"] for line in lines} == set(seeds)
    assert faults(lines) == []
    codes = {line["code"] for line in lines}
    if kind == "diagnose" and len(seeds) >= 20:
        assert {0, 2} <= codes, "some are read, and some refused"
