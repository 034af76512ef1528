"""Figures, bars, sparklines and line breaks of a report."""

from __future__ import annotations

from latdiag.model.units import figure, quantity
from latdiag.report.page import Page


def test_figures() -> None:
    assert [figure(v, "ms") for v in (0.0123, 1.234, 12.34, 123.4, 12345.6)] == [
        "0.012", "1.23", "12.3", "123", "12 346",
    ]  # fmt: skip
    assert quantity(0.924, "share") == "92.4\u00a0%"
    assert quantity(123_456.0, "ms") == "123\u00a0s"
    assert quantity(0, "") == "0"


def test_no_line_break_parts_a_number_from_its_unit() -> None:
    page = Page(ascii_only=True, width=20)
    page.paragraph(f"the lag was near to {quantity(1234.0, 'ms')} then")
    assert [line[0].text for line in page.lines] == ["the lag was near to", "1 234 ms then"]


def test_a_sparkline_shows_peaks_and_gaps() -> None:
    page = Page(ascii_only=False)
    assert page.sparkline([1.0, None, 8.0], 10) == "▁ █"
    assert page.sparkline([0.0] * 50 + [9.0] + [0.0] * 49, 10) == "▁▁▁▁▁█▁▁▁▁"
    assert page.sparkline([None], 10) == ""
    assert Page(ascii_only=True).sparkline([5.0, 5.0], 10) == "__"


def test_bars_are_as_long_as_their_share_and_never_vanish() -> None:
    for ascii_only in (True, False):
        page = Page(ascii_only)
        assert [len(page.bar(share, 20)) for share in (0.0, 0.5, 1.0, 7.0)] == [0, 10, 20, 20]
        assert page.bar(0.001, 20) in ("|", "▏") and page.bar(-0.5, 20) == ""
