"""Samples out of a run's evidence are those that a scrape wrote, or none."""

from __future__ import annotations

import math
from typing import Any

from latdiag.attribution.metrics.deltas import Reader, samples
from latdiag.ingest.prometheus import columns_of
from latdiag.store.run import Run
from latdiag.store.writer import RunWriter, create_run
from tests.run_documents import header


def test_samples_pass_through_a_run(tmp_path: Any) -> None:
    text = """# TYPE q histogram
q_bucket{le="0.1",x="1"} 1
q_bucket{le="+Inf",x="1"} 2
q_sum{x="1"} 3
q_count{x="1"} 2
# TYPE g gauge
g 7
"""
    families = frozenset({"q", "g"})
    columns = columns_of(
        text, at_ns=3, replica="r", edge="begin", families=families, role="decode"
    )
    path = create_run(str(tmp_path / "x.run"), header())
    RunWriter(path, "metrics").write_evidence(columns)
    reader = Reader(families)
    Run.open(path).read_evidence(reader)
    read = reader.samples
    assert sorted(read, key=lambda one: one.name) == sorted(
        samples(columns), key=lambda one: one.name
    )
    assert read[1].bounds == (0.1, math.inf) and read[1].labels == (("x", "1"),)


def test_histograms_that_are_none_are_passed_over() -> None:
    good = {"kind": "histogram", "replica": "r", "foreign_name": "q", "value": 1.0}
    bad: list[tuple[Any, Any]] = [
        (None, None), ([], []), ([1.0], [1]), ([1.0, math.inf], [2, 1]),
        ([2.0, 1.0, math.inf], [1, 1, 1]), ([1.0, math.inf], [-1, 1]), ([math.inf], [1, 2]),
    ]  # fmt: skip
    columns: dict[str, list[Any]] = {name: [value] * len(bad) for name, value in good.items()}
    columns["bucket_le"], columns["bucket_count"] = (list(part) for part in zip(*bad, strict=True))
    assert samples(columns) == []
