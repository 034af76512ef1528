"""White-box attribution against the books, in virtual time: every fault of a server under every
fault of what it says. Some servers of each in seconds, always; ``pytest -m bench -s`` takes those
of the probe's bench (``LATDIAG_BENCH_SEEDS=100:140`` draws others) and prints the table. What
sockets, processes and lateness add is for the bench in real time.
"""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from latdiag.sim.params import OF_SERVER, Params, draw
from latdiag.sim.telemetry import Telemetry, telemetry_of
from tests.profiles import repetitions

from . import score
from .attributed import attributed, told
from .cases import case
from .virtual import CLIENT_NS, REST_NS, Load, loaded, save

#: The faults that spans can have; ``step`` is in the middle of the load.
TOLD = (
    "",
    "skew=500",
    "skew=-500",
    "step",
    "drift",
    "lost",
    "late",
    "repeated",
    "unordered",
    "skew,step,drift,lost,late,repeated,unordered",
)
#: Of each fault so many servers; one in the profile ``dev``.
SEEDS = range(1, 1 + min(2, repetitions(2)))
#: What may not change a nanosecond of what is said, once all of it has come.
HARMLESS = ("skew=500", "skew=-500", "late", "repeated", "unordered")
BENCH_SEEDS = os.environ.get("LATDIAG_BENCH_SEEDS", "0:40")


@cache
def load(params: Params, seed: int) -> Load:
    return loaded(params, seed)


def drawn(fault: str, seed: int) -> Load:
    return load(draw(fault, 1000 * seed + 7), seed)


def faults_of(name: str, it: Load) -> Telemetry:
    return replace(telemetry_of(name), step_after_s=it.middle_s)


def books(it: Load, totals: list[int]) -> list[score.Books]:
    """Of the requests with these end-to-end times, which no two share."""
    by_total = {row.total: row for row in it.rows}
    assert len(by_total) == len(it.rows)
    return [
        score.books_of(total, CLIENT_NS, REST_NS, it.truths[by_total[total].key].leaves)
        for total in totals
    ]


def found(it: Load, name: str, path: Path) -> list[score.Error]:
    faults = faults_of(name, it)
    whole = save(it, faults, path)
    totals = told(path)
    keys = {row.total: row.key for row in it.rows}
    mine = {keys[total] for total in totals}
    assert mine <= whole, "evidence of all its servers, or none"
    # What a clock says that is set within a request may contradict the client.
    assert mine >= whole - (stepped(it, faults) if faults.step_ms else set())
    return score.errors(attributed(path), books(it, totals))


def stepped(it: Load, faults: Telemetry) -> set[str]:
    """The requests that are on a server when its clock is set."""
    begun = min(truth.arrived_ns for truth in it.truths.values())
    at_ns = begun + round(faults.step_after_s * 1e9)
    return {
        key
        for key, truth in it.truths.items()
        if any(visit.arrived_ns < at_ns <= visit.finished_ns for visit in truth.visits)
    }


def wrong(errors: list[score.Error]) -> list[score.Error]:
    return [one for one in errors if abs(one.said - one.true) > score.CLOSE]


@pytest.mark.repeated
@pytest.mark.parametrize("name", TOLD, ids=lambda name: name or "right")
@pytest.mark.parametrize("fault", OF_SERVER)
def test_every_component_is_within_a_point_of_the_books(
    fault: str, name: str, tmp_path: Path
) -> None:
    errors = []
    for seed in SEEDS:
        errors += found(drawn(fault, seed), name, tmp_path / f"{seed}.run")
    assert not wrong(errors), score.table(errors)


@pytest.mark.parametrize("fault", OF_SERVER)
def test_what_is_only_said_late_twice_or_by_a_wrong_clock_changes_nothing(
    fault: str, tmp_path: Path
) -> None:
    it = drawn(fault, 1)
    results = []
    for name in ("", *HARMLESS):
        save(it, faults_of(name, it), tmp_path / name)
        results.append(attributed(tmp_path / name))
    for result in results[1:]:
        assert result["breakdown"] == results[0]["breakdown"]
        assert result["leaves"] == results[0]["leaves"]
        assert result["by"] == results[0]["by"]


@pytest.mark.parametrize("fault", OF_SERVER)
def test_books_of_another_server_are_noticed(fault: str, tmp_path: Path) -> None:
    """A judge that any books would satisfy judges nothing."""
    it, other = drawn(fault, 1), drawn("decode" if fault != "decode" else "queue", 1)
    save(it, Telemetry(), tmp_path / "run")
    mine = books(it, told(tmp_path / "run"))
    theirs = [truth.leaves for truth in other.truths.values()]
    crossed = [
        score.books_of(one.total, CLIENT_NS, REST_NS, leaves)
        for one, leaves in zip(mine, theirs, strict=True)
    ]
    errors = score.errors(attributed(tmp_path / "run"), crossed)
    assert max(one.points for one in errors) > 5


@pytest.mark.bench
def test_drawn_servers_under_all_faults(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, last = (int(part) for part in BENCH_SEEDS.split(":"))
    errors: dict[str, list[score.Error]] = defaultdict(list)
    for seed in range(first, last):
        faults, params = case(seed)
        for name in TOLD:
            mine = found(load(params, seed), name, tmp_path / f"{seed}.{name or 'right'}")
            errors[name or "right"] += mine
            for one in wrong(mine):
                with capsys.disabled():
                    print(f"{seed} {'+'.join(faults)} under {name or 'nothing'}: {one}")
    every = [one for mine in errors.values() for one in mine]
    with capsys.disabled():
        for name, mine in errors.items():
            print(f"\n{name}\n{score.table(mine)}")
        print(f"\nall\n{score.table(every)}")
    assert not wrong(every)
