"""Company: what runs beside a stream, against a painter who fills in every nanosecond."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latdiag.attribution.laws.overlap import Company

Stream = tuple[int, int, int]
_STREAM = st.tuples(st.integers(0, 40), st.integers(0, 20), st.integers(1, 5))


def company(streams: list[Stream]) -> Company:
    """Of (start, length, weight)."""
    starts = np.array([start for start, _, _ in streams], dtype=np.int64)
    ends = np.array([start + length for start, length, _ in streams], dtype=np.int64)
    return Company(starts, ends, np.array([float(weight) for _, _, weight in streams]))


def painted(streams: list[Stream], begin: int, end: int) -> float:
    """One cell a nanosecond."""
    cells = np.zeros(200)
    for start, length, weight in streams:
        cells[start : start + length] += weight
    return float(cells[begin:end].mean())


@given(st.lists(_STREAM, max_size=12), st.integers(0, 60), st.integers(1, 60))
def test_the_mean_is_the_painters(streams: list[Stream], begin: int, span: int) -> None:
    found = company(streams).between(np.array([begin]), np.array([begin + span]))
    assert found[0] == pytest.approx(painted(streams, begin, begin + span), abs=1e-9)


@given(st.lists(_STREAM, min_size=1, max_size=8), st.integers(0, 10**18))
def test_instants_of_any_size_keep_their_nanoseconds(streams: list[Stream], late: int) -> None:
    moved = [(start + late, length, weight) for start, length, weight in streams]
    found = company(moved).between(np.array([late + 3]), np.array([late + 17]))
    assert found[0] == pytest.approx(painted(streams, 3, 17), abs=1e-9)


def test_many_spans_at_once_and_none_at_all() -> None:
    two = company([(0, 10, 1), (5, 10, 2)])
    found = two.between(np.array([0, 0, 5, 12, 20]), np.array([5, 15, 10, 20, 30]))
    assert found.tolist() == pytest.approx([1.0, 2.0, 3.0, 0.75, 0.0])
    assert company([]).between(np.array([0]), np.array([5])).tolist() == [0.0]
