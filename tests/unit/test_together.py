"""Whether streams share a step, by the instants at which their tokens come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from latdiag.attribution.laws.delivery import delivery_of
from latdiag.attribution.laws.together import in_step, ticks
from latdiag.measurement.observations import Observations

from .probe_rows import Reply, reply, seen

STEP = 20.0


def streams(
    first: Callable[[int, float], float], jitter: float = 0.0, n: int = 40
) -> Observations:
    """A stream each 70 ms or so, of 24 tokens. ``first``: when its first token comes."""
    random, rows = np.random.default_rng(31), []
    for k in range(n):
        begin = 70.0 * k + random.uniform(0, 60)
        at = first(k, begin)
        ticks = at + STEP * np.arange(24) + random.normal(0, jitter, 24)
        rows.append(reply("S10", 64, begin, ticks[0] - begin, np.diff(ticks).tolist()))
    return seen(rows)


def on_the_step(k: int, begin: float) -> float:
    """One engine: whoever comes gets its tokens at the end of its steps."""
    return float(np.ceil((begin + 20.0) / STEP) * STEP)


def one_of_two(k: int, begin: float) -> float:
    """Engines in turn, whose steps have nothing to do with each other."""
    return on_the_step(k, begin) + (7.3 if k % 2 else 0.0)


def by_itself(k: int, begin: float) -> float:
    return begin + 20.0


@pytest.mark.parametrize("jitter", [0.0, 0.5])
def test_streams_of_one_engine_keep_step_and_those_that_are_paced_each_do_not(
    jitter: float,
) -> None:
    assert in_step(streams(on_the_step, jitter), jitter / STEP) is True
    assert in_step(streams(by_itself, jitter), jitter / STEP) is False


def test_some_streams_in_step_are_enough() -> None:
    assert in_step(streams(one_of_two), 0.0) is True


def test_events_of_a_step_that_leave_one_after_the_other_are_still_of_one() -> None:
    spread = streams(lambda k, begin: on_the_step(k, begin) + 0.8 * (k % 5))
    assert in_step(spread, 0.0) is True


def alone(at: Callable[[float], float]) -> Observations:
    """Requests one after the other, with idle times between; ``at``: the first token of one whose
    work is done then."""
    random, rows, begin = np.random.default_rng(35), [], 0.0
    for k in range(16):
        first = at(begin + 15.0)
        rows.append(reply("S3" if k else "S2", 64, begin, first - begin, [STEP] * 6))
        begin = first + 6 * STEP + random.uniform(20, 300)
    return seen(rows)


def test_a_timer_lets_tokens_go_at_instants_of_one_grid_and_an_engine_begins_when_work_comes() -> (
    None
):
    assert ticks(alone(lambda t: float(np.ceil(t / STEP) * STEP)))
    assert not ticks(alone(lambda t: t))


def test_few_pairs_and_a_way_that_shakes_tell_nothing() -> None:
    assert in_step(streams(by_itself, n=4), 0.0) is None
    assert in_step(streams(by_itself), 0.5) is None
    assert in_step(seen([]), 0.0) is None


# ---------------------------------------------------------------------- counted by nothing
def uncounted(size: int, lengths: tuple[int, ...]) -> list[Reply]:
    return [
        reply(
            stage,
            64,
            1000.0 * k,
            30.0 + 5.0 * min(asked, size),
            [5.0 * size] * (-(-asked // size) - 1),
        )
        for k, (stage, asked) in enumerate(
            zip(("S2", "S3", "S5", "S10") * 9, lengths, strict=False)
        )
    ]


@pytest.mark.parametrize("size", [2, 7, 16])
def test_arrivals_that_are_just_those_of_what_was_asked_for_show_how_many_tokens_each_brings(
    size: int,
) -> None:
    lengths = (400, 4, 128, 24, 12, 4, 128, 64, 90, 33, 17, 50, 8, 4, 16, 77)
    observed = seen(uncounted(size, lengths))
    asked = np.array(lengths)[np.argsort(observed.begin)]
    found = delivery_of(replace(observed, asked=asked))
    assert found.chunk == size and found.asked is not None
    shown = found.visible(replace(observed, asked=asked))
    assert shown.osl.tolist() == asked.tolist()
    # The first arrival holds as many steps as it brings tokens.
    assert found.gathered.tolist() == [min(n, size) - 1 for n in asked.tolist()]


def test_replies_that_end_when_the_model_likes_say_nothing_of_chunks() -> None:
    lengths = (400, 4, 128, 24, 12, 4, 128, 64, 90, 33, 17, 50, 8, 4, 16, 77)
    random = np.random.default_rng(33)
    rows = [
        reply("S10" if k % 3 else "S3", 64, 1000.0 * k, 30.0, [5.0] * int(random.integers(1, 9)))
        for k in range(len(lengths))
    ]
    observed = seen(rows)
    assert delivery_of(replace(observed, asked=np.array(lengths))).asked is None
