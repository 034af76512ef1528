"""Whose the pace of streams is: an engine's, or something's before it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from latdiag.attribution.laws import laws as all_laws
from latdiag.attribution.laws.laws import Laws, learn
from latdiag.attribution.laws.output_rate import output_rate_of
from latdiag.attribution.laws.sharing import Sharing

from .probe_rows import Reply, gets, reply, seen


def measured() -> Laws:
    rows = gets([0.3] * 8)
    for k, isl in enumerate((32, 128, 512, 1024) * 3):
        rows.append(reply("S3", isl, 1000 * k + 500, 10 + 0.02 * isl, [10.0] * 8))
    found = learn(seen(rows))
    assert found is not None
    return found


def paced(stream: float, sharing: str, in_step: bool | None, **more: bool) -> bool:
    """``stream``: what each further one adds to a step of 10 ms, as a share of it."""
    laws = measured()
    step = replace(laws.step, stream=stream * laws.step.base, together=40)
    shared = Sharing(sharing, 0.0, 0.0, 8)
    return replace(laws, step=step, sharing=shared, in_step=in_step, **more).paced_apart


def test_streams_out_of_step_that_nothing_slows_have_a_pace_of_their_own() -> None:
    assert paced(0.0, "separate", False)
    assert paced(0.001, "unknown", False)


def test_an_engine_that_serves_by_turns_is_slowed_by_prompts_and_by_each_stream() -> None:
    assert not paced(1.0, "shared", False)
    assert paced(1.0, "separate", False), "prompts do not slow them: who says that it is an engine"
    assert paced(0.01, "shared", False), "streams do not"


def test_what_spends_an_allowance_or_keeps_time_is_no_engine() -> None:
    assert paced(1.0, "shared", False, spends=True)
    assert paced(1.0, "shared", False, ticks=True)


def test_one_rate_for_streams_that_share_a_step_is_something_elses() -> None:
    assert paced(1.0, "unknown", True, one_rate=True)
    assert not paced(0.05, "shared", True)


def bursts(rate: float, alone: float, sizes: tuple[int, ...]) -> list[Reply]:
    """``rate``: tokens/s of all streams of a burst; ``alone``: of one."""
    rows = gets([0.3] * 8)
    for k in range(4):
        rows.append(reply("S2", 64, 10_000 * k + 500, 10, [1000 / alone] * 40))
    for k, size in enumerate(sizes):
        gap = 1000 * size / rate
        for _ in range(size):
            rows.append(reply("S6", 64, 100_000 * (k + 1), 10, [gap] * 40))
    return rows


@pytest.mark.parametrize(("alone", "spends"), [(90.0, True), (50.0, False), (20.0, False)])
def test_one_alone_that_is_faster_than_all_together_spends_what_it_has(
    alone: float, spends: bool
) -> None:
    found = output_rate_of(seen(bursts(50.0, alone, (4, 8))))
    assert found is not None and found.is_exact and found.sizes == (4, 8)
    assert found.spends == spends


def test_two_sizes_have_to_agree_more_closely_than_three() -> None:
    def exact(sizes: tuple[int, ...], off: float) -> bool:
        rows = bursts(50.0, 20.0, sizes[:-1]) + [
            replace(each, begin=each.begin + 10**12, arrivals=tuple(
                a + 10**12 for a in each.arrivals))
            for each in bursts(50.0 * (1 + off), 20.0, sizes[-1:])
        ]  # fmt: skip
        found = output_rate_of(seen(rows))
        return found is not None and found.is_exact

    assert exact((4, 8), 0.001) and exact((2, 4, 8), 0.007)
    assert not exact((4, 8), 0.007) and not exact((2, 4, 8), 0.03)


def test_the_share_that_slows_is_far_beyond_what_moves_nothing() -> None:
    assert all_laws._SLOWED > 3 * all_laws._MOVED
