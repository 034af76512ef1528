"""When an engine takes a prompt up, read off the streams beside it; what prompts meet there."""

from __future__ import annotations

import numpy as np
import pytest

from latdiag.attribution.laws.curves import Curve, scale_of
from latdiag.attribution.laws.engine_time import Before, before_engine
from latdiag.attribution.laws.pacing import pacing_of
from latdiag.attribution.laws.turns import turns_of

from .probe_rows import CLIENT, MS, TRIP, Reply, reply, seen

STEP = 10.0


def work(isl: int) -> float:
    return 0.05 * isl


def thrown(
    before: list[float], lengths: list[int], chunk: float | None = None, seed: int = 0
) -> list[Reply]:
    """S8: four streams of ``STEP`` ms; a prompt waits ``before`` ms, then the engine works on it
    alone, or in steps that are ``chunk`` ms longer."""
    random = np.random.default_rng(seed)
    hop, now, instants, prompts = (CLIENT + TRIP) / MS, 0.0, [0.0], []
    for wait, isl in zip(before, lengths, strict=True):
        for _ in range(20):
            now += STEP
            instants.append(now)
        come = now - random.random() * STEP
        while now < come + wait:
            now += STEP
            instants.append(now)
        steps = [work(isl)] if chunk is None else [STEP + chunk] * round(work(isl) / chunk)
        first = now + (work(isl) if chunk is None else sum(steps))
        now = first + (STEP if chunk is None else 0.0)
        instants += [now] if chunk is None else (now - sum(steps) + np.cumsum(steps)).tolist()
        prompts.append(reply("S8", isl, come, first - come, [STEP]))
    instants += (now + STEP * np.arange(1, 60)).tolist()
    # Both are seen behind the same hop.
    streams = [reply("S8", 32, instants[0], 0.0, np.diff(instants).tolist()) for _ in range(4)]
    assert hop > 0
    return streams + prompts


def found(rows: list[Reply]) -> Before:
    before = before_engine(seen(rows), None)
    assert before is not None
    return before


@pytest.mark.parametrize("chunk", [None, 25.0])
@pytest.mark.parametrize("wait", [0.0, 120.0, 400.0])
def test_what_passes_before_the_engine_is_seen_to_a_step(wait: float, chunk: float | None) -> None:
    lengths = [4096, 1024, 4096, 1024]
    before = found(thrown([wait] * 4, lengths, chunk))
    at = before.at(np.array(lengths)) / MS
    assert np.abs(at - wait).max() <= before.room_ns / MS <= 2 * STEP
    if not wait:
        assert (at == 0).all(), "what may be nothing is nothing"


def test_what_grows_with_the_prompt_is_told_from_a_constant() -> None:
    lengths = [4096, 1024, 4096, 1024]
    before = found(thrown([40.0 + 0.05 * n for n in lengths], lengths))
    assert before.per_token_ns * 1000 / MS == pytest.approx(50.0, rel=0.15)
    assert before.constant_ns / MS == pytest.approx(40.0, abs=2 * STEP)


def test_prompts_that_differ_for_no_reason_of_theirs_say_nothing() -> None:
    """Unlike replicas: one answers at once, the other had something to do."""
    assert before_engine(seen(thrown([0.0, 0.0, 600.0, 0.0], [4096] * 4)), None) is None


def test_streams_that_notice_nothing_say_nothing() -> None:
    rows = [row for row in thrown([0.0] * 4, [4096] * 4) if row.isl == 32]
    steady = [reply("S8", 32, 0.0, 20.0, [STEP] * 300) for _ in rows]
    prompts = [reply("S8", 4096, 500.0 + 700 * k, 200.0, [STEP]) for k in range(3)]
    assert before_engine(seen(steady + prompts), None) is None


# ---------------------------------------------------------------------- in turn, or side by side
def law() -> Curve:
    tokens = np.array([32.0, 256.0, 1024.0, 2048.0, 4096.0] * 3)
    values = (5.0 + 0.05 * tokens) * MS
    return Curve.fit(tokens, values, scale_of(values, 0.05 * MS))


@pytest.mark.parametrize(
    ("lost", "in_turn"),
    [((0.0, 1.0), True), ((1.0, 1.0), False), ((0.6, 1.0), False), ((0.0, 0.1), None)],
    ids=["in turn", "side by side", "shared steps", "two replicas"],
)
def test_two_prompts_at_once_show_who_waits(
    lost: tuple[float, float], in_turn: bool | None
) -> None:
    alone, own = 5.0 + work(2048), work(2048)
    rows = [
        reply("S4", 2048, at, alone + share * own, [STEP])
        for at in (0.0, 2000.0)
        for share in lost
    ]
    assert turns_of(seen(rows), law(), STEP * MS, 0.0).in_turn is in_turn


# ---------------------------------------------------------------------- events one by one
def burst(apart: float, size: int = 8, steps: int = 30) -> list[Reply]:
    """S6: streams whose events leave a step together, each ``apart`` ms behind the last."""
    every = max(STEP, apart * size)
    return [reply("S6", 32, 0.0, 20.0 + apart * k, [every] * steps) for k in range(size)]


def test_events_of_one_step_that_leave_together_are_not_paced() -> None:
    assert pacing_of(seen(burst(0.03))) is None


@pytest.mark.parametrize("apart", [2.0, 15.0])
def test_events_that_leave_one_by_one_are(apart: float) -> None:
    observed = seen(burst(apart))
    pacing = pacing_of(observed)
    assert pacing is not None and pacing.event_ns == pytest.approx(apart * MS, rel=0.05)
    rows = observed.of("S6")
    inside = pacing.inside(observed.first[rows], observed.last[rows])
    assert (inside >= 0.9 * (observed.last - observed.first)[rows]).all()
