"""The rules that make a measurement INVALID: limits, what does not apply, the worst of writers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latdiag.measurement.validity import (
    Facts,
    Reading,
    facts_of_writers,
    lag_effect,
    readings,
)
from latdiag.stats.estimate import Estimate, refusal

RULES = (
    "schedule_lag",
    "censored",
    "first_censored",
    "reader_cpu",
    "run_queue",
    "rows_lost",
    "clock_step",
    "loop_lag",
)
#: At every limit: nothing is broken yet.
AT_LIMITS = Facts(
    lag_ns=1e6,
    censored_share=0.01,
    first_censored_share=0.1,
    reader_cpu_worst_5s=0.80,
    run_queue_share=0.02,
    rows_lost=0,
    clock_step_share=0.01,
    loop_lag_p99_ns=5e6,
    user_stamps=True,
)


def by_rule(facts: Facts) -> dict[str, Reading]:
    return {reading.rule: reading for reading in readings(facts)}


def broken(facts: Facts) -> list[str]:
    return [reading.rule for reading in readings(facts) if reading.broken]


def test_at_its_limit_no_rule_is_broken() -> None:
    assert tuple(by_rule(AT_LIMITS)) == RULES
    assert broken(AT_LIMITS) == []


@pytest.mark.parametrize(
    ("rule", "beyond", "sentence"),
    [
        (
            "schedule_lag",
            {"lag_ns": 1.01e6},
            "effect of late sending on TTFT is 1.01 ms, more than 1 ms",
        ),
        (
            "first_censored",
            {"first_censored_share": 0.2},
            "overwritten stamp is 20 %, more than 10 %",
        ),
        ("censored", {"censored_share": 0.0123}, "overwritten stamp is 1.23 %, more than 1 %"),
        ("reader_cpu", {"reader_cpu_worst_5s": 0.99}, "busiest 5 s is 99 %, more than 80 %"),
        ("run_queue", {"run_queue_share": 0.5}, "other programs is 50 %, more than 2 %"),
        (
            "rows_lost",
            {"rows_lost": 1234},
            "without a recorded end is 1234 rows, more than 0 rows",
        ),
        ("clock_step", {"clock_step_share": 1.0}, "clock step is 100 %, more than 1 %"),
        ("loop_lag", {"loop_lag_p99_ns": 5.1e6}, "event loop (p99) is 5.1 ms, more than 5 ms"),
    ],
)
def test_beyond_its_limit_one_rule_is_broken_and_says_so(
    rule: str, beyond: dict[str, Any], sentence: str
) -> None:
    facts = replace(AT_LIMITS, **beyond)
    assert broken(facts) == [rule]
    assert sentence in by_rule(facts)[rule].sentence()


def of(value: float, half: float | None = None) -> Estimate:
    lo, hi = (None, None) if half is None else (value - half, value + half)
    return Estimate(value, lo, hi, 100, 100, "a test")


@pytest.mark.parametrize(
    ("sent", "due", "effect"),
    [
        (of(50e6), of(50.4e6), (0.4e6, 1e6)),
        (of(2e9), of(2.019e9), (19e6, 20e6)),  # 1 % of it
        (of(50e6, 8e6), of(55e6, 9e6), (5e6, 8e6)),  # half its interval
        (of(50e6), of(49e6), (0.0, 1e6)),  # two estimates, one of them by another rule
        (refusal("too few"), of(50e6), (None, 1e6)),
        (of(50e6), refusal("closed loop"), (None, 1e6)),
    ],
)
def test_late_sending_is_held_against_what_is_printed(
    sent: Estimate, due: Estimate, effect: tuple[float | None, float]
) -> None:
    assert lag_effect([(sent, due)]) == (
        effect[0] if effect[0] is None else pytest.approx(effect[0]),
        pytest.approx(effect[1]),
    )


def test_of_several_statistics_the_one_that_bears_it_worst_speaks() -> None:
    mean, tail = (of(100e6, 20e6), of(110e6)), (of(300e6, 1e6), of(330e6))
    assert lag_effect([mean, tail]) == lag_effect([tail, mean]) == (30e6, 3e6)


def test_one_late_request_of_many_changes_nothing() -> None:
    """2 ms of a wait of 1.4 s made whole probes invalid."""
    lags = np.zeros(50)
    lags[7] = 2e6
    sent = np.random.default_rng(1).normal(1.4e9, 2e8, 50)
    pair = of(float(sent.mean()), 5e7), of(float((sent + lags).mean()), 5e7)
    added, limit = lag_effect([pair])
    assert added is not None and added < 0.01 * limit


def test_a_broken_rule_on_gaps_refuses_gaps_and_no_more() -> None:
    many = by_rule(replace(AT_LIMITS, censored_share=0.5))["censored"]
    assert many.broken and many.refuses == ("itl", "icl")
    others = [r for r in readings(AT_LIMITS) if r.rule != "censored"]
    assert not any(reading.refuses for reading in others)


def test_with_kernel_stamps_waiting_for_a_core_condemns_nothing_by_itself() -> None:
    waited = replace(AT_LIMITS, run_queue_share=0.9)
    assert broken(waited) == ["run_queue"]
    assert broken(replace(waited, user_stamps=False)) == []


def test_what_does_not_apply_is_not_broken_and_gives_its_reason() -> None:
    found = by_rule(Facts())
    assert all(reading.reading is None and reading.reason for reading in found.values())
    assert broken(Facts()) == []
    assert all(reading.reason is None for reading in readings(AT_LIMITS))


def test_loop_lag_counts_in_user_stamp_mode_only() -> None:
    late = replace(AT_LIMITS, loop_lag_p99_ns=1e9)
    assert broken(late) == ["loop_lag"]
    assert broken(replace(late, user_stamps=False)) == []


def test_a_closed_loop_whose_reader_waits_states_no_rates_and_stays_valid() -> None:
    facts = replace(AT_LIMITS, user_stamps=False, closed=True, run_queue_share=0.5)
    found = by_rule(facts)["run_queue"]
    assert found.broken and found.refuses == ("output_throughput", "request_rate", "goodput")
    # In user space every stamp waits too: that is no question of rates.
    assert by_rule(replace(facts, user_stamps=True))["run_queue"].refuses == ()


@given(
    st.builds(
        Facts,
        **{
            name: st.none() | st.floats(0, 1e12)
            for name in (
                "lag_ns",
                "censored_share",
                "first_censored_share",
                "reader_cpu_worst_5s",
                "run_queue_share",
                "clock_step_share",
                "loop_lag_p99_ns",
            )
        },
        rows_lost=st.none() | st.integers(0, 10**9),
        user_stamps=st.booleans(),
    )
)
def test_every_rule_always_has_a_reading_or_a_reason(facts: Facts) -> None:
    for reading in readings(facts):
        assert (reading.reading is None) == (reading.reason is not None)
        assert reading.unit and reading.title
        if reading.broken:
            assert reading.reading is not None and reading.reading > reading.limit
            assert "more than" in reading.sentence()


# ---------------------------------------------------------------------- several writers
def writer(
    cpu: Any = 0.1,
    starved: Any = 0.0,
    lag: Any = 1000,
    lost: Any = 0,
    wall: Any = 1e9,
    **more: Any,
) -> dict[str, Any]:
    audit = {"reader_cpu_worst_5s": cpu, "starved_share": starved, "loop_lag": {"p99_ns": lag}}
    audit["wall_ns"] = wall
    return {"audit": audit, "counts": {"lost": lost}, **more}


def test_the_worst_reader_speaks_for_all_and_losses_add_up() -> None:
    facts = facts_of_writers([writer(0.2, 0.01, 50, 2), writer(0.9, 0.0, 10, 3)])
    assert facts == Facts(
        reader_cpu_worst_5s=0.9, run_queue_share=0.005, loop_lag_p99_ns=50.0, rows_lost=5
    )


def test_a_reader_of_a_tenth_of_a_second_does_not_speak_for_all() -> None:
    warm, load = writer(starved=0.05, wall=1e8), writer(starved=0.001, wall=6e10)
    share = facts_of_writers([warm, load]).run_queue_share
    assert share == pytest.approx((0.05e8 + 0.001 * 6e10) / 6.01e10)


@pytest.mark.parametrize(
    ("lost", "total"),
    [((0, 0), 0), ((0, None), None), ((None, None), None), ((3, None), 3), ((), None)],
    ids=str,
)
def test_a_writer_without_a_count_hides_no_loss_of_another(
    lost: tuple[int | None, ...], total: int | None
) -> None:
    assert facts_of_writers([writer(lost=n) for n in lost]).rows_lost == total


def test_writers_that_say_nothing_of_use_are_borne() -> None:
    """A run directory may hold anything."""
    odd = [{}, {"audit": None, "counts": None}, writer("x", None, [], "many"), {"audit": {}}]
    assert facts_of_writers(odd) == Facts()
    assert facts_of_writers([writer(None), writer(0.5)]).reader_cpu_worst_5s == 0.5
