"""Who is silent together tells a stall, another's prompt and a preemption apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from latdiag.attribution.laws.laws import Laws, learn
from latdiag.attribution.laws.pauses import Pauses, pauses_of

from .probe_rows import MS, Reply, reply, seen
from .test_blackbox import STEP, WAITS, probe

#: Where the streams of these tests run: long after everything else of the probe.
AT, TOKENS = 900_000.0, 60


def laws() -> Laws:
    found = learn(seen(probe(WAITS)))
    assert found is not None
    return replace(found, transfer=None)


def streams(
    n: int, pauses: dict[int, tuple[int, float]], isl: int = 400, stagger: float = 0.0
) -> list[Reply]:
    """``n`` at once; ``pauses``: by stream the place of a gap, and by how many ms it is longer."""
    found = []
    for place in range(n):
        gaps = [STEP] * TOKENS
        if place in pauses:
            at, ms = pauses[place]
            gaps[at] += ms
        found.append(reply("S10", isl, AT + stagger * place, 40.0, gaps, scenario="segment-1"))
    return found


def pauses(replies: list[Reply]) -> Pauses:
    rows = seen([*(r for r in probe(WAITS) if r.stage != "S10"), *replies])
    return pauses_of(rows, rows.of("S10"), laws())


def test_all_at_once_without_a_prompt_is_a_stall() -> None:
    found = pauses(streams(5, dict.fromkeys(range(5), (20, 300.0))))
    assert found.stalled / MS == pytest.approx([300.0] * 5, rel=0.02)
    assert not found.lone.any() and not found.preempts


@pytest.mark.parametrize(("isl", "longer", "stalls"), [(8000, 1.0, False), (100, 30.0, True)])
def test_with_a_prompt_in_flight_it_is_no_longer_than_that_takes(
    isl: int, longer: float, stalls: bool
) -> None:
    """The prompt is there before the pause begins, and has its first token when it ends."""
    own = float(laws().own.at(np.array([isl]))[0]) / MS
    ms = max(own * longer, 200.0 if stalls else 0.0)
    begin = AT + 40.0 + 20 * STEP - 1.0
    prompt = reply("S10", isl, begin, ms, [STEP] * 3, scenario="segment-1")
    found = pauses([*streams(5, dict.fromkeys(range(5), (20, ms))), prompt])
    assert bool(found.stalled.any()) is stalls
    assert not found.lone.any()


def test_one_alone_again_and_again_and_as_long_as_its_prompt_is_preempted() -> None:
    alone = {place: (12 + 9 * place, 250.0) for place in range(5)}
    found = pauses(streams(12, alone))
    assert found.preempts
    assert np.sort(found.lone) / MS == pytest.approx([0.0] * 7 + [250.0] * 5, rel=0.02)
    assert not found.stalled.any()


def test_shorter_than_computing_it_again_it_is_not() -> None:
    again = float(laws().own.at(np.array([16_000]))[0]) / MS
    alone = {place: (12 + 9 * place, again / 5) for place in range(5)}
    found = pauses(streams(12, alone, isl=16_000))
    assert found.lone.any() and not found.preempts


def test_too_few_are_chance_and_two_streams_tell_nothing() -> None:
    assert not pauses(streams(12, {3: (20, 250.0)})).preempts
    found = pauses(streams(2, {0: (20, 250.0)}))
    assert not found.lone.any() and not found.stalled.any()


def test_what_comes_at_once_when_it_comes_was_held_on_the_way() -> None:
    """A lost segment: the tokens of the pause were made, and all come behind it."""
    held = streams(12, {})
    for place in range(5):
        at = 15 + 8 * place
        gaps = [STEP] * TOKENS
        gaps[at] += 20 * STEP
        gaps[at + 1 : at + 21] = [0.0] * 20
        held[place] = reply("S10", 400, AT, 40.0, gaps[:TOKENS], scenario="segment-1")
    found = pauses(held)
    assert not found.lone.any() and not found.preempts
