"""3,000 mutated runs, diagnosed and compared, and 500 mutated captures, imported: no bug, no hang,
bounded memory. The seeds are kept: a fault is made again by its number."""

from __future__ import annotations

import collections
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.mutated_commands import batch, faults, sources

pytestmark = pytest.mark.bench

CAPTURES = Path(__file__).parents[1] / "captures"
SEEDS = {"diagnose": 3000, "compare": 3000, "import": 500}
#: Processes at a time, and seeds of one process (which forks a child for each).
_AT_ONCE, _EACH = 2, 250


@pytest.mark.parametrize("kind", SEEDS)
def test_no_mutation_ends_in_a_bug(tmp_path: Path, kind: str) -> None:
    (tmp_path / "sources").mkdir()
    if kind == "import":
        for name in ("tp1", "tp2", "pd"):
            shutil.copytree(CAPTURES / "vllm-0.24.0-h200" / name, tmp_path / "sources" / name)
    else:
        sources(tmp_path / "sources")
    seeds = range(SEEDS[kind])
    several = [list(seeds[at : at + _EACH]) for at in range(0, len(seeds), _EACH)]
    lines: list[dict[str, Any]] = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for some in pool.map(lambda each: batch(each, kind, tmp_path), several):
            lines += some
    codes = collections.Counter(line["code"] for line in lines)
    slowest = max(line["seconds"] for line in lines)
    largest = max(line["peak"] for line in lines) / 1e6
    print(
        f"\n{kind}: {len(lines)} ended with {dict(codes)}; {slowest} s, {largest:.0f} MB at most"
    )
    assert {line["seed"] for line in lines} == set(seeds)
    assert faults(lines) == []
