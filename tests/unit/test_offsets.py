"""Clocks of senders against the client's, by causality alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from latdiag.attribution.spans import explain as whitebox
from latdiag.attribution.spans.offsets import Offset, offsets

from .random_traces import MS
from .test_whitebox import vllm


def clock(n: int, shift: object, seed: int = 7) -> Offset:
    """Of a server whose clock is so far (ns a request) from the client's."""
    spans, seen = vllm(n, np.random.default_rng(seed))
    wrong = np.broadcast_to(np.asarray(shift, dtype=np.int64), n)
    skewed = replace(spans, start=spans.start + wrong, end=spans.end + wrong)
    _, _, joined = whitebox.explain(skewed, seen)
    ((_, found),) = offsets(joined, seen)
    return found


@pytest.mark.parametrize("skew", [0, -500 * MS, 10**15])
def test_a_constant_is_found_within_what_is_possible(skew: int) -> None:
    found = clock(100, skew)
    assert found.half_ns is not None and found.half_ns <= 5 * MS
    assert abs(found.offset_ns - skew) <= found.half_ns + 2 * MS
    assert (found.steps, found.drift_ppm) == ((), None)


@pytest.mark.parametrize("n", [40, 400])
@pytest.mark.parametrize("at", [0.05, 0.1, 0.5, 0.5625, 0.975])
@pytest.mark.parametrize("by", [200 * MS, -200 * MS])
def test_a_step_is_found_where_it_was(n: int, at: float, by: int) -> None:
    place = round(at * n)
    found = clock(n, np.where(np.arange(n) >= place, by, 0))
    assert [where for where, _ in found.steps] == [place]
    assert found.steps[0][1] == pytest.approx(by, abs=10 * MS)
    assert found.drift_ppm is None


@pytest.mark.parametrize("ppm", [20, 100, -100])
def test_a_drift_is_a_drift_and_no_step(ppm: int) -> None:
    n = 600  # one a second
    found = clock(n, np.arange(n) * 1000 * MS // 1_000_000 * ppm)
    assert found.steps == ()
    assert found.drift_ppm == pytest.approx(ppm, abs=12)
    assert found.half_ns is None


def test_two_steps_are_two() -> None:
    shift = np.where(np.arange(300) >= 100, 200 * MS, 0)
    found = clock(300, shift - np.where(np.arange(300) >= 200, 300 * MS, 0))
    assert [where for where, _ in found.steps] == [100, 200]


@pytest.mark.parametrize("late", [[0], [0, 1, 2], list(range(40))])
def test_spans_that_outlast_their_requests_bound_nothing(late: list[int]) -> None:
    """A gateway's span may end long after the reply: its books are done then."""
    spans, seen = vllm(40, np.random.default_rng(3))
    _, _, joined = whitebox.explain(spans, seen)
    longer = np.isin(joined.row, late) * (10**12)
    found = offsets(replace(joined, end=joined.end + longer), seen)
    assert len(found) == (len(late) < 40)
    assert all(not one.steps and abs(one.offset_ns) < 10 * MS for _, one in found)


@pytest.mark.parametrize("seed", range(5))
def test_a_busy_server_that_ends_its_spans_late_has_no_clock_that_jumps(seed: int) -> None:
    """Ends that are late by up to half of what a request takes: each bound alone may hold."""
    random = np.random.default_rng(seed)
    spans, seen = vllm(60, random)
    _, _, joined = whitebox.explain(spans, seen)
    late = random.uniform(0.0, 0.5, seen.n) * (seen.done - seen.sent)
    # The work began late as well, so that the span is no longer than the request.
    late = np.where(random.random(seen.n) < 0.6, late, 0.0).astype(np.int64)
    shifted = replace(joined, start=joined.start + late[joined.row],
                      end=joined.end + late[joined.row])  # fmt: skip
    assert all(not one.steps for _, one in offsets(shifted, seen))


@pytest.mark.parametrize("late_ms", [20, 100, 400])
@pytest.mark.parametrize("busy", [(20, 40), (0, 30), (59, 60)])
def test_a_server_that_is_busy_for_a_while_has_no_clock_that_jumps(
    busy: tuple[int, int], late_ms: int
) -> None:
    """Of one machine with one clock: a stretch of spans begins and ends late, which up to two
    steps would explain as well."""
    spans, seen = vllm(60, np.random.default_rng(11))
    late = np.where((np.arange(60) >= busy[0]) & (np.arange(60) < busy[1]), late_ms * MS, 0)
    # Late to begin, so that no span is longer than its request; the last token came when it came.
    room = seen.first - seen.sent
    begun = np.minimum(late, room)
    _, _, joined = whitebox.explain(spans, seen)
    moved = {name: values.copy() for name, values in joined.values.items()}
    for name in ("time_to_first_token", "e2e"):
        moved[f"gen_ai.latency.{name}"] = (
            moved[f"gen_ai.latency.{name}"] - begun[joined.row] / 1e9
        ).clip(min=0.0)
    shifted = replace(joined, start=joined.start + begun[joined.row],
                      end=joined.end + late[joined.row], values=moved)  # fmt: skip
    for _, one in offsets(shifted, seen):
        assert not one.steps and one.drift_ppm is None
