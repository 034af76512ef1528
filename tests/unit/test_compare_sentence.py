"""The sentence of a comparison: no row below it proves what it calls noise."""

from __future__ import annotations

from latdiag.diagnosis.compare import _sentence
from latdiag.diagnosis.comparison import (
    Amount,
    Component,
    ComponentDifference,
    PopulationDifference,
    Whole,
    WholeDifference,
)
from latdiag.diagnosis.difference import Difference

MS = 1_000_000
UNKNOWN = Difference(100.0, "ms", "no interval; A: 60 values count as 1")


def sentence(whole: Difference, **parts: Difference) -> str:
    amounts = Amount(300 * MS, 1, 1), Amount(400 * MS, 1, 1)
    sides = [Whole(amount, 1, 0) for amount in amounts]
    components = [Component(amount, None, "A", "a test") for amount in amounts]
    classes = tuple(
        ComponentDifference((name,), *components, difference, 0)
        for name, difference in parts.items()
    )
    return _sentence(
        PopulationDifference("mean", "client_e2e", WholeDifference(*sides, whole, 0), classes)
    )


def test_parts_that_prove_most_of_a_whole_without_interval_are_the_answer() -> None:
    said = sentence(UNKNOWN, decode=Difference(90.0, "ms", "a test", 85.0, 95.0))
    assert said.startswith("Parts changed beyond noise: decode +90.0 ms, 95 % interval +85.0")
    assert "No interval for the whole: +100 ms end to end" in said
    assert "A: 60 values count as 1." in said


def test_what_is_small_opposite_or_unproven_does_not_answer_for_the_whole() -> None:
    for part in (
        Difference(6.0, "ms", "a test", 5.0, 7.0),
        Difference(-90.0, "ms", "a test", -95.0, -85.0),
        Difference(90.0, "ms", "a test", -5.0, 185.0),
        UNKNOWN,
    ):
        assert sentence(UNKNOWN, decode=part).startswith("No interval, so this may be noise: +100")
    assert sentence(UNKNOWN).startswith("No interval, so this may be noise: +100 ms")
    none = Difference(0.0, "ms", "no interval; A: 60 values count as 1")
    assert sentence(none).startswith("No interval")
