"""3,000 mutated runs, diagnosed and compared, and 500 mutated captures, imported: no bug, no hang,
bounded memory, and from a shell the same."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.bench.run_mutations import SEEDS, summary
from tests.mutated_commands import ask, faults

pytestmark = pytest.mark.bench


@pytest.mark.parametrize("kind", SEEDS)
def test_no_mutation_ends_in_a_bug(tmp_path: Path, kind: str) -> None:
    seeds = range(SEEDS[kind])
    lines = ask({kind: seeds}, tmp_path, processes=os.cpu_count() or 1)
    print(f"\n{kind}: {summary(lines, kind)}")
    assert {line["seed"] for line in lines} == set(seeds)
    assert faults(lines) == []
