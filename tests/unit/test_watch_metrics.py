"""The table of watch's metrics: names that Prometheus takes, units that stand in them."""

from __future__ import annotations

import re

import pytest

from latdiag.watch.metrics import BY_NAME, METRICS, Metric


def test_each_name_stands_once() -> None:
    assert len(BY_NAME) == len(METRICS)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_names_units_and_buckets_are_those_of_openmetrics(metric: Metric) -> None:
    assert re.fullmatch(r"latdiag_[a-z_]+", metric.name)
    assert not metric.name.endswith(("_total", "_bucket", "_sum", "_count"))
    assert not metric.unit or metric.name.endswith(f"_{metric.unit}")
    assert all(re.fullmatch(r"[a-z]+", label) for label in metric.labels)
    assert (metric.kind == "histogram") == bool(metric.buckets)
    assert list(metric.buckets) == sorted(set(metric.buckets))
    assert metric.help.endswith(".")
