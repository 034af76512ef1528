"""The table of metrics keeps its columns, whatever the numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from latdiag.diagnosis.result import Result
from latdiag.measurement.measurement import MetricResult
from latdiag.model.metrics import METRICS
from latdiag.report.numbers import metrics as metrics_section
from latdiag.report.page import Page
from latdiag.stats.estimate import Estimate


@given(st.floats(0, 2e7), st.floats(0, 1), st.floats(0, 3))
def test_numbers_of_any_size_keep_their_columns(value: float, below: float, above: float) -> None:
    """From nothing to five hours: value, interval and n of each statistic stay apart."""
    ends = (1e6 * value, 1e6 * value * below, 1e6 * value * (1 + above))
    one = Estimate(*ends, 5_000_000, 123_456, "made up")
    metric = MetricResult("ms", dict.fromkeys(("p50", "p90", "p95", "p99", "mean"), one))
    page = Page(ascii_only=True)
    metrics_section(page, Result(verb="load", metrics={"e2e": metric}))
    rows = ["".join(span.text for span in line) for line in page.lines[1:]]
    label = 2 if rows[0].startswith("E2E s") else 1
    assert [len(row.split()) for row in rows] == [label + 6, 6]
    assert rows[0].endswith(" 5.0M") and rows[1].endswith(" (123k)")


def test_every_metric_has_a_label_that_fits_its_column() -> None:
    tabled = [m for m in METRICS if m.unit == "ms" and m.name != "ttft_wire"]
    for metric in tabled:
        found = Estimate(1e6, 5e5, 2e6, 700, 700, "made up")
        page = Page(ascii_only=True)
        one = MetricResult(metric.unit, {"p50": found})
        metrics_section(page, Result(verb="load", metrics={metric.name: one}))
        assert "..." not in page.lines[1][0].text, metric.name
