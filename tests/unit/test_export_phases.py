"""Phases lose no time to their parent in Jaeger's critical path, wherever their edges fall."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latdiag.export.phases import phases, whole_us
from tests.jaeger_walk import Drawn, charged

PARTS = st.lists(st.integers(0, 4 * 10**9), min_size=1, max_size=9)
#: ns since 1970; a trace begins at a whole microsecond.
BEGIN = st.integers(10**15, 1_800_000_000 * 10**6)


def walk(begin_us: int, total: int, spans: list[tuple[str, int, int]]) -> dict[str, int]:
    """us by span, of a root over all and ``spans`` (name, start, end; ns from its beginning)."""
    begin = begin_us * 1000
    root = Drawn.of("root", None, begin, begin + total)
    return charged([root, *(Drawn.of(name, "root", begin + a, begin + b) for name, a, b in spans)])


def drawn(begin_us: int, parts: list[int]) -> tuple[dict[str, int], set[str]]:
    """(us by span, the spans) of parts as phases."""
    spans = [
        (str(phase.place), phase.start_us * 1000, phase.end_us * 1000)
        for phase in phases(sum(parts), parts)
    ]
    names = {name for name, _, _ in spans}
    return walk(begin_us, whole_us(sum(parts)) * 1000, spans), names


@given(BEGIN, PARTS)
def test_each_phase_has_its_time(begin_us: int, parts: list[int]) -> None:
    found, names = drawn(begin_us, parts)
    visible = {str(place) for place, ns in enumerate(parts) if ns >= 1000}
    assert visible <= names and names <= found.keys() | {"root"}
    for place, ns in enumerate(parts):
        assert abs(found.get(str(place), 0) - ns / 1000) <= 2
    assert found["root"] == max(len(names) - 1, 0)


def test_spans_that_tile_lose_phases() -> None:
    """So the walk can tell: without the gap of 1 us the same requests lose whole phases."""
    rng = random.Random(14)
    lost = dict.fromkeys(("whole us", "ns"), 0)
    for _ in range(500):
        parts = [rng.randrange(10**5, 3 * 10**9) for _ in range(5)]
        for kind, unit in (("whole us", 1000), ("ns", 1)):
            edges = [sum(parts[:n]) // unit * unit for n in range(6)]
            spans = [(str(n), edges[n], edges[n + 1]) for n in range(5)]
            found = walk(rng.randrange(10**15, 10**16), edges[-1], spans)
            lost[kind] += any(abs(found.get(str(n), 0) - parts[n] / 1000) > 2 for n in range(5))
    assert lost["whole us"] == 500 and lost["ns"] > 250


@given(PARTS, st.integers(1, 10**9))
def test_parts_that_exceed_the_whole_are_drawn_in_proportion(parts: list[int], less: int) -> None:
    """A negative part: the others fill the request, and those that are long enough all remain."""
    positive = sum(parts)
    spans = phases(positive, [*parts, 0]) if positive < less else phases(
        positive - less, [*parts, -less]
    )  # fmt: skip
    end = whole_us(positive if positive < less else positive - less)
    assert all(0 <= s.start_us <= s.end_us <= end for s in spans)
    assert not spans or (spans[0].start_us == 0 and spans[-1].end_us == end)
    for one, after in itertools.pairwise(spans):
        assert one.end_us == after.start_us - 1 and one.place < after.place


@pytest.mark.parametrize("parts", [[], [0], [499], [0, 0, 0]])
def test_a_request_without_time_has_no_phase(parts: list[int]) -> None:
    assert phases(sum(parts), parts) == []
