"""The clock series: kernel stamps become instants of the monotonic clock, steps are marked."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latdiag.runtime.run_queue import RunQueue
from latdiag.store.clock import STEP_NS, ClockSample, ClockSeries, clock_id, sample
from tests.profiles import examples

SECOND = 1_000_000_000
#: REALTIME minus MONOTONIC of a machine that booted in 2026: beyond what a float64 holds exactly.
OFFSET = 1_795_000_000 * SECOND + 123_456_789
START = 3_600 * SECOND


def series(offsets: list[int], width: int = 0, every: int = SECOND) -> ClockSeries:
    """One sample every second from START, with these offsets relative to OFFSET."""
    found = ClockSeries()
    for number, offset in enumerate(offsets):
        mono = START + number * every
        found.add(ClockSample(mono, mono + OFFSET + offset, width))
    return found


def converted(found: ClockSeries, real: list[int], near: list[int]) -> list[int]:
    given_real, given_near = np.array(real, dtype=np.int64), np.array(near, dtype=np.int64)
    return [int(value) for value in found.monotonic(given_real, given_near)]


@given(
    ppm=st.integers(-500, 500),
    samples=st.integers(2, 40),
    at=st.lists(st.floats(0, 1), min_size=1, max_size=20),
    late=st.integers(0, 5_000_000),
)
def test_a_steady_drift_is_taken_out_to_the_nanosecond(
    ppm: int, samples: int, at: list[float], late: int
) -> None:
    """``late``: the read comes after the stamp; that moves the drift by ppm of it at most."""
    found = series([ppm * 1000 * number for number in range(samples)])
    assert found.steps == []
    span = (samples - 1) * SECOND
    mono = [START + round(part * span) for part in at]
    real = [m + OFFSET + round((m - START) * ppm * 1000 / SECOND) for m in mono]
    near = [min(m + late, START + span) for m in mono]
    bound = 2 + late * abs(ppm) // 1_000_000
    for value, truth in zip(converted(found, real, near), mono, strict=True):
        assert abs(value - truth) <= bound


@given(
    before=st.integers(1, 6),
    after=st.integers(1, 6),
    step=st.integers(STEP_NS + 1001, 10**18) | st.integers(-(10**18), -STEP_NS - 1001),
    width=st.integers(0, 2000),
)
def test_a_step_is_found_between_its_two_samples_and_nowhere_else(
    before: int, after: int, step: int, width: int
) -> None:
    found = series([0] * before + [step] * after, width)
    since, until = START + (before - 1) * SECOND, START + before * SECOND
    assert found.steps == ([(since, until)] if abs(step) > STEP_NS + width else [])


@pytest.mark.parametrize("step", [STEP_NS * 5, -STEP_NS * 5, 365 * 86_400 * SECOND])
def test_across_a_step_the_older_sample_stays_in_force(step: int) -> None:
    found = series([0, 0, step, step])
    since, until = found.steps[0]
    stamps = [since - 10, since + SECOND // 2, until - 2]
    assert converted(found, [m + OFFSET for m in stamps], stamps) == stamps
    later = [until, until + 10, until + SECOND]
    # Offsets that differ by a year leave a float64 some nanoseconds short.
    slack = 0 if abs(step) < 2**53 else 4
    for value, truth in zip(
        converted(found, [m + OFFSET + step for m in later], later), later, strict=True
    ):
        assert abs(value - truth) <= slack


@given(
    begun=st.integers(-5 * SECOND, 5 * SECOND),
    length=st.integers(1, 6 * SECOND),
    backward=st.booleans(),
)
def test_exactly_the_rows_astride_a_step_are_marked(
    begun: int, length: int, backward: bool
) -> None:
    found = series([0] * 3 + [-(10**7) if backward else 10**7] * 3)
    ((since, until),) = found.steps
    row = (START + begun, START + begun + length)
    overlaps = max(row[0], since) < min(row[1], until)
    assert found.stepped(*row) == overlaps


def test_several_steps_are_all_kept() -> None:
    found = series([0, 10**7, 10**7, -(10**7), 5])
    assert [since for since, _ in found.steps] == [START, START + 2 * SECOND, START + 3 * SECOND]
    stamps = [START + SECOND, START + 2 * SECOND, START + 4 * SECOND]
    real = [m + OFFSET + o for m, o in zip(stamps, (10**7, 10**7, 5), strict=True)]
    assert converted(found, real, stamps) == stamps


def test_a_slewed_clock_is_not_stepped() -> None:
    """The kernel slews by at most 500 ppm: half a millisecond from sample to sample."""
    assert series([500_000 * number for number in range(100)]).steps == []


def test_a_wide_sample_does_not_make_a_step() -> None:
    """A client that was stopped between the reads of a sample knows its offset badly."""
    found = ClockSeries()
    found.add(ClockSample(START, START + OFFSET, 100))
    found.add(ClockSample(START + SECOND, START + SECOND + OFFSET + 3 * STEP_NS, 5 * STEP_NS))
    assert found.steps == []


@examples(10)
@given(st.sets(st.integers(1, 9_999), min_size=1, max_size=8), st.integers(-400, 400))
def test_thinning_keeps_memory_bounded_and_every_step(places: set[int], ppm: int) -> None:
    """Ten thousand samples are near three hours; the drift stays, and so do the steps."""
    offset, offsets = 0, []
    for number in range(10_000):
        offset += (20 * STEP_NS if number in places else 0) + ppm * 1000
        offsets.append(offset)
    found = series(offsets)
    assert len(found.samples) <= 4_096 + 2 * len(places)
    assert [until for _, until in found.steps] == [START + p * SECOND for p in sorted(places)]
    held = {one.mono_ns for one in found.samples}
    assert all(since in held and until in held for since, until in found.steps)
    assert found.newest_ns == START + 9_999 * SECOND
    assert all(a.mono_ns < b.mono_ns for a, b in pairwise(found.samples))
    # Stamps anywhere but within a step convert as before, old or new.
    near = [START + number * SECOND for number in range(0, 10_000, 37)]
    real = [m + OFFSET + offsets[(m - START) // SECOND] for m in near]
    errors = [abs(v - m) for v, m in zip(converted(found, real, near), near, strict=True)]
    assert max(errors) <= 2


def test_without_a_sample_nothing_is_claimed() -> None:
    empty = ClockSeries()
    assert (empty.newest_ns, empty.offset_ns, empty.steps) == (0, 0, [])
    assert converted(empty, [5], [7]) == [5]
    assert not empty.stepped(0, 10**18)
    assert converted(series([0]), [], []) == []


def test_one_sample_holds_for_all_time() -> None:
    found = series([7])
    stamps = [START - 10 * SECOND, START + 10 * SECOND]
    assert converted(found, [m + OFFSET + 7 for m in stamps], stamps) == stamps


# ---------------------------------------------------------------------- the clock itself
def test_a_sample_takes_the_narrowest_of_its_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0, 1000, 2000, 2100, 3000, 3500])
    monkeypatch.setattr(time, "monotonic_ns", lambda: next(ticks))
    monkeypatch.setattr(time, "clock_gettime_ns", lambda _: 77)
    assert sample(3) == ClockSample(2050, 77, 100)


def test_a_sample_is_the_offset_of_the_two_clocks() -> None:
    one, two = sample(), sample()
    assert one.width_ns > 0 and two.mono_ns > one.mono_ns
    drift = (two.real_ns - two.mono_ns) - (one.real_ns - one.mono_ns)
    assert abs(drift) <= one.width_ns + two.width_ns + STEP_NS


def test_the_clock_has_one_name_which_tells_nothing_else() -> None:
    import socket

    assert clock_id() == clock_id() and len(clock_id()) == 16
    assert socket.gethostname() not in clock_id()


def test_the_run_queue_only_grows() -> None:
    queue = RunQueue()
    seen = [queue.delay_ns() for _ in range(100)]
    assert seen == sorted(seen)
    if not queue.known:
        assert set(seen) == {0}
