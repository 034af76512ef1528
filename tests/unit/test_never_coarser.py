"""More evidence on the same run never gives a coarser answer: on recorded runs of real servers.

The results are the goldens, which `test_goldens` holds to what is printed today.
"""

from __future__ import annotations

import gzip
import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

EXPECTED = Path(__file__).parent.parent / "goldens" / "expected"
#: (the result with less evidence, the result with more)
PAIRS = [
    *((f"h200/{name}.outside", f"h200/{name}.spans")
      for name in ("A-idle", "A-long", "A-mod", "B-c64", "B-over", "B-sat", "pd-mod", "tp2-idle")),
    *((f"captures/{name}-cut", f"captures/{name}")
      for name in ("vllm-0.24.0-h200-tp1", "vllm-0.24.0-h200-pd", "sglang-0.5.16-h200-tp1",
                   "sglang-0.5.16-h200-pd")),
]  # fmt: skip


def _read(name: str) -> dict[str, Any]:
    text = gzip.decompress((EXPECTED / f"{name}.json.txt.gz").read_bytes()).decode()
    found: dict[str, Any] = json.loads(text.rpartition("exit ")[0])
    return found


def _classes(result: dict[str, Any]) -> list[frozenset[str]]:
    mean = result["breakdown"].get("mean") or {}
    shares = {name: each for name, each in mean.items() if isinstance(each, dict)}
    return [frozenset(s.get("members") or (n,)) for n, s in shares.items() if "share" in s]


def _together(classes: list[frozenset[str]]) -> set[tuple[str, ...]]:
    return {pair for each in classes for pair in combinations(sorted(each), 2)}


@pytest.mark.parametrize(("less", "more"), PAIRS)
def test_more_evidence_merges_nothing_that_less_separates(less: str, more: str) -> None:
    poor, rich = _classes(_read(less)), _classes(_read(more))
    assert rich
    if not poor:
        return
    stated = frozenset[str]().union(*poor)
    merged = _together(rich) - _together(poor)
    assert {pair for pair in merged if stated.issuperset(pair)} == set()
    assert {name for pair in merged for name in pair} <= stated


@pytest.mark.parametrize(("less", "more"), PAIRS)
def test_the_parts_of_decode_stay(less: str, more: str) -> None:
    poor, rich = ((_read(name)["leaves"].get("mean") or {}) for name in (less, more))
    mine = {leaf for leaf in poor if leaf.startswith("decode.")}
    assert mine <= rich.keys()
    assert mine or not less.startswith("h200/")
