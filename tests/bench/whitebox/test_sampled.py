"""Probes of real servers with spans, of which head sampling keeps 10 % or 70 %: no seed makes the
answer worse than the probe's own, or false by what all spans show."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sampled_spans import diagnosed, faults, sampled
from tests.unit.golden import RUNS, SHARED, unpack

pytestmark = pytest.mark.bench

RECORDED = [RUNS / "probe-kv-spans.run.tar.gz", *sorted(SHARED.glob("*.run.tar.gz"))]
SEEDS = range(8)


@pytest.mark.parametrize("archive", RECORDED, ids=lambda archive: archive.name.partition(".")[0])
def test_no_seed_makes_the_answer_worse(archive: Path, tmp_path: Path) -> None:
    run = tmp_path / unpack(archive, tmp_path)
    whole, alone = (diagnosed(sampled(run, share, 0, tmp_path)) for share in (1.0, 0.0))
    found = {
        (share, seed): faults(diagnosed(sampled(run, share, seed, tmp_path)), alone, whole)
        for share in (0.1, 0.7)
        for seed in SEEDS
    }
    assert {each: said for each, said in found.items() if said} == {}
