"""Telemetry faults: they change what is said, each exactly its own part, and nothing else."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latdiag.sim.params import FAULTS as SERVERS
from latdiag.sim.spans import Asked, Context
from latdiag.sim.telemetry import FAULTS, Clock, Deliveries, Telemetry, telemetry_of
from latdiag.sim.truth import DECODE, PREFILL, WHOLE, Truth
from latdiag.sim.virtual import Told, play, told
from tests.profiles import examples

from .sim_load import MS

S = 1_000_000_000
REAL_NS = 1_700_000_000 * S
PARENT = "00f067aa0ba902b7"
#: Attributes of the wall clock; the others of latency are of the monotonic one.
WALL = ("gen_ai.latency.time_to_first_token", "gen_ai.latency.e2e")


@cache
def truths(fault: str, seed: int = 1) -> tuple[Truth, ...]:
    """Sixty requests, ten a second."""
    arrivals = [(str(n), n * S // 10, 20 + 7 * n % 50, 2 + n % 9) for n in range(60)]
    return tuple(truth for _, truth in play(SERVERS[fault], seed, arrivals).values())


def trace(truth: Truth) -> str:
    return f"{int(truth.key) + 1:032x}"


def books(found: tuple[Truth, ...]) -> str:
    return "".join(truth.line(f"r{truth.key}", trace(truth)) for truth in found)


def said(fault: str, faults: Telemetry, seed: int = 1) -> list[Told]:
    """What a collector gets."""
    asked = [
        (
            Context(f"00-{trace(truth)}-{PARENT}-01"),
            Asked(f"cmpl-r{truth.key}", chat=False, max_tokens=truth.osl),
            truth,
        )
        for truth in truths(fault)
    ]
    return told(asked, faults, seed, REAL_NS)


def by_span(found: list[Told]) -> dict[tuple[str, str], dict[str, Any]]:
    """By trace and server, without the random id."""
    out = {}
    for one in found:
        record = one.record._asdict()
        del record["span_id"]
        out[(record["trace_id"], one.part)] = record
    return out


SERVER = st.sampled_from(["queue", "kv-transfer"])
NAMES = st.sets(st.sampled_from(sorted(FAULTS)), min_size=1).map(",".join)


@given(SERVER, NAMES)
@examples(30)
def test_no_fault_of_what_is_said_moves_what_happens(server: str, names: str) -> None:
    before = books(truths(server))
    said(server, telemetry_of(names))
    assert books(truths.__wrapped__(server)) == before


@given(SERVER, st.floats(-5000, 5000), st.integers(0, 100))
@examples(40)
def test_skew_moves_spans_and_no_duration(server: str, skew_ms: float, seed: int) -> None:
    right = by_span(said(server, Telemetry(), seed))
    wrong = by_span(said(server, Telemetry(skew_ms=skew_ms), seed))
    assert right.keys() == wrong.keys()
    for key, ours in wrong.items():
        shift = round(skew_ms * 1e6) * (-1 if key[1] == DECODE else 1)
        assert ours["start_ns"] - right[key]["start_ns"] == shift
        assert ours["end_ns"] - right[key]["end_ns"] == shift
        assert ours["attributes"] == right[key]["attributes"]


@given(SERVER, st.floats(-500, 500), st.floats(0, 6))
@examples(40)
def test_a_step_is_in_the_wall_times_of_those_it_hits_and_of_no_others(
    server: str, step_ms: float, after_s: float
) -> None:
    origin = min(truth.arrived_ns for truth in truths(server))
    at_ns, step_ns = origin + round(after_s * 1e9), round(step_ms * 1e6)
    faults = Telemetry(step_ms=step_ms, step_after_s=after_s)
    right, wrong = by_span(said(server, Telemetry())), by_span(said(server, faults))
    for truth in truths(server):
        for visit in truth.visits:
            before, ours = (found[(trace(truth), visit.part)] for found in (right, wrong))
            instants = {"start_ns": visit.arrived_ns, "end_ns": visit.finished_ns}
            for name, instant in instants.items():
                assert ours[name] - before[name] == (step_ns if instant >= at_ns else 0)
            ends = dict(zip(WALL, (visit.first_ns, visit.finished_ns), strict=True))
            for name, value in ours["attributes"].items():
                hit = name in ends and visit.arrived_ns < at_ns <= ends[name]
                was = before["attributes"][name]
                expected = was + step_ns / 1e9 if hit else was
                assert value == pytest.approx(expected, abs=1e-9) if hit else value == was


@given(SERVER, st.floats(-300, 300))
@examples(40)
def test_drift_stretches_every_duration(server: str, drift_ppm: float) -> None:
    right = by_span(said(server, Telemetry()))
    wrong = by_span(said(server, Telemetry(drift_ppm=drift_ppm)))
    for key, ours in wrong.items():
        rate = drift_ppm / 1e6 * (-1 if key[1] == DECODE else 1)
        for name, value in ours["attributes"].items():
            was = right[key]["attributes"][name]
            if ".latency." in name:
                assert value == pytest.approx(was * (1 + rate), abs=3e-9)
            else:
                assert value == was
        origin = min(truth.arrived_ns for truth in truths(server))
        moved = ours["start_ns"] - right[key]["start_ns"]
        elapsed = right[key]["start_ns"] - REAL_NS - origin
        assert abs(moved - rate * elapsed) <= 1


@given(SERVER, st.integers(0, 1000))
@examples(40)
def test_what_is_lost_is_lost_and_the_rest_is_as_it_was(server: str, seed: int) -> None:
    right, found = said(server, Telemetry(), seed), said(server, Telemetry(lost=0.3), seed)
    whole, part = by_span(right), by_span(found)
    assert len(found) == len(part) and 0 < len(part) < len(whole)
    assert part.items() <= whole.items()
    # and which ones does not depend on the other faults
    others = replace(telemetry_of("skew,step,drift,late,repeated,unordered"), lost=0.3)
    assert by_span(said(server, others, seed)).keys() == part.keys()


def test_about_three_in_ten_are_lost_and_those_of_two_servers_apart() -> None:
    deliveries = {part: Deliveries(Telemetry(lost=0.3), part, 5) for part in (PREFILL, DECODE)}
    lost = {part: [not one.of(0) for _ in range(4000)] for part, one in deliveries.items()}
    for part, one in deliveries.items():
        assert one.lost == sum(lost[part])
        assert 0.27 < one.lost / 4000 < 0.33
    both = sum(a and b for a, b in zip(lost[PREFILL], lost[DECODE], strict=True))
    assert 0.06 < both / 4000 < 0.12


@given(SERVER, st.floats(0, 100))
@examples(20)
def test_what_is_late_is_the_same_later(server: str, late_s: float) -> None:
    right, found = said(server, Telemetry()), said(server, Telemetry(late_s=late_s))
    assert by_span(right) == by_span(found)
    assert [one.at_ns - round(late_s * 1e9) for one in found] == [one.at_ns for one in right]


@given(SERVER, st.integers(0, 1000))
@examples(20)
def test_what_is_repeated_comes_again_word_for_word(server: str, seed: int) -> None:
    right, found = said(server, Telemetry(), seed), said(server, Telemetry(repeated=0.3), seed)
    assert by_span(right) == by_span(found) and len(found) > len(right)
    copies: dict[str, list[Told]] = {}
    for one in found:
        copies.setdefault(one.record.span_id, []).append(one)
    assert len(copies) == len(right)
    assert {len(same) for same in copies.values()} == {1, 2}
    for same in copies.values():
        assert all(one.record == same[0].record for one in same)


def test_what_is_unordered_comes_in_another_order_and_not_too_late() -> None:
    right, found = said("queue", Telemetry()), said("queue", Telemetry(unordered_s=2.0))
    assert by_span(right) == by_span(found)
    ends = [one.record.end_ns for one in found]
    assert ends != sorted(ends)
    assert [one.at_ns for one in found] == sorted(one.at_ns for one in found)
    for one in found:
        assert 0 <= one.at_ns + REAL_NS - one.record.end_ns <= 2 * S


@given(st.integers(0, 10**9))
@examples(50)
def test_a_clock_that_is_right_says_the_instants_themselves(at_ns: int) -> None:
    for part in (WHOLE, PREFILL, DECODE):
        clock = Clock(Telemetry(), part, 5 * MS)
        assert clock.wall(at_ns) == clock.monotonic(at_ns) == at_ns


# --- told in words


def test_the_faults_have_names_and_can_have_values() -> None:
    assert telemetry_of("") == Telemetry()
    found = telemetry_of("skew, lost=0.5,late")
    assert (found.skew_ms, found.lost, found.late_s) == (500.0, 0.5, 60.0)
    assert telemetry_of("skew=-500").skew_ms == -500.0
    for name, (field, value) in FAULTS.items():
        assert telemetry_of(name) == replace(Telemetry(), **{field: value}) != Telemetry()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("skw", "there are skew, step"),
        ("lost=2", "a share"),
        ("lost=-1", "negative"),
        ("late=nan", "must be a number"),
        ("late=inf", "must be a number"),
        ("late=soon", "late=soon"),
        ("drift=1e6", "no clock"),
    ],
)
def test_what_is_no_fault_is_said(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        telemetry_of(text)


@given(
    st.builds(
        Telemetry,
        skew_ms=st.floats(-1e6, 1e6),
        step_after_s=st.floats(0, 1e5),
        lost=st.floats(0, 1),
        reset_after_s=st.floats(0, 1e5) | st.just(math.inf),
    )
)
def test_it_travels_as_json(faults: Telemetry) -> None:
    assert Telemetry.from_json(faults.to_json()) == faults
