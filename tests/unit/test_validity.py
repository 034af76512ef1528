"""The rules that make a measurement INVALID: limits, what does not apply, the worst of writers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latdiag.measurement.validity import Facts, Reading, facts_of_writers, readings

RULES = (
    "schedule_lag",
    "censored",
    "reader_cpu",
    "run_queue",
    "rows_lost",
    "clock_step",
    "loop_lag",
)
#: At every limit: nothing is broken yet.
AT_LIMITS = Facts(
    schedule_lag_p99_ns=1e6,
    median_ttft_ns=50e6,
    censored_share=0.01,
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
        ("schedule_lag", {"schedule_lag_p99_ns": 1.01e6}, "schedule lag (p99) is 1.01 ms"),
        ("censored", {"censored_share": 0.0123}, "overwritten stamp is 1.23 %, more than 1 %"),
        ("reader_cpu", {"reader_cpu_worst_5s": 0.99}, "busiest 5 s is 99 %, more than 80 %"),
        ("run_queue", {"run_queue_share": 0.5}, "others held is 50 %, more than 2 %"),
        ("rows_lost", {"rows_lost": 1234}, "not recorded is 1234 rows, more than 0 rows"),
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


def test_schedule_lag_is_held_against_the_median_ttft_where_that_is_long() -> None:
    slow = replace(AT_LIMITS, median_ttft_ns=2e9, schedule_lag_p99_ns=19e6)
    assert broken(slow) == [], "1 % of 2 s are 20 ms"
    assert broken(replace(slow, schedule_lag_p99_ns=21e6)) == ["schedule_lag"]
    assert by_rule(slow)["schedule_lag"].limit == 20.0
    unknown = replace(AT_LIMITS, median_ttft_ns=None, schedule_lag_p99_ns=2e6)
    assert broken(unknown) == ["schedule_lag"]


def test_what_does_not_apply_is_not_broken_and_gives_its_reason() -> None:
    found = by_rule(Facts())
    assert all(reading.reading is None and reading.reason for reading in found.values())
    assert broken(Facts()) == []
    assert all(reading.reason is None for reading in readings(AT_LIMITS))


def test_loop_lag_counts_in_user_stamp_mode_only() -> None:
    late = replace(AT_LIMITS, loop_lag_p99_ns=1e9)
    assert broken(late) == ["loop_lag"]
    assert broken(replace(late, user_stamps=False)) == []


@given(
    st.builds(
        Facts,
        **{
            name: st.none() | st.floats(0, 1e12)
            for name in (
                "schedule_lag_p99_ns",
                "median_ttft_ns",
                "censored_share",
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
    cpu: Any = 0.1, starved: Any = 0.0, lag: Any = 1000, lost: Any = 0, **more: Any
) -> dict[str, Any]:
    audit = {"reader_cpu_worst_5s": cpu, "starved_share": starved, "loop_lag": {"p99_ns": lag}}
    return {"audit": audit, "counts": {"lost": lost}, **more}


def test_the_worst_reader_speaks_for_all_and_losses_add_up() -> None:
    facts = facts_of_writers([writer(0.2, 0.01, 50, 2), writer(0.9, 0.0, 10, 3)])
    assert facts == Facts(
        reader_cpu_worst_5s=0.9, run_queue_share=0.01, loop_lag_p99_ns=50.0, rows_lost=5
    )


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
