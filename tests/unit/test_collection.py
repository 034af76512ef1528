"""What ``collect`` says while it waits, by a clock of the test's own."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from latdiag.diagnosis.collected import Collected, caveats
from latdiag.ingest.collection import Waiting
from latdiag.ingest.plan import Account, Problem
from latdiag.model.document import document

NOTHING = Account(
    *(0, 0, {}, {}, {}, 0, 0, 0, 0, 0, False, None, None, None, {}, [], [], 0, 0, 0, 0, {})
)


@dataclass
class Clock:
    """Sleeps end at once; ``pauses``: at which second the process is stopped, and for how long.

    ``snapshot`` takes ``slow`` seconds.
    """

    now: float = 100.0
    pauses: dict[int, float] = field(default_factory=dict)
    slow: float = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for at in [at for at in self.pauses if self.now - 100 >= at]:
            self.now += self.pauses.pop(at)


class Child:
    """A collecting child that has nothing to say, in place of ``Collector``."""

    grpc, http, gone = "127.0.0.1:4317", None, False

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def edge(self, _label: str) -> list[Problem]:
        return []

    def snapshot(self) -> Account:
        self.clock.now += self.clock.slow
        return NOTHING

    def finish(self, _wait_ns: int, on_wait: object) -> Account:
        return NOTHING


def progress_of(clock: Clock, seconds: int) -> list[int]:
    """The seconds at which a line came, in a collection of so many."""
    said: list[str] = []
    waiting = Waiting(
        Child(clock),  # type: ignore[arg-type]
        [],
        said.append,
        lambda _account, elapsed: [f"at {elapsed}"],
        lambda: clock.now,
        clock.sleep,
    )
    waiting.run(seconds * 10**9, 0)
    return [int(line.split()[1]) for line in said if line.startswith("at ")]


def test_a_line_comes_every_ten_seconds() -> None:
    assert progress_of(Clock(), 55) == [10, 20, 30, 40, 50]


def test_a_pause_of_minutes_costs_one_line() -> None:
    lines = progress_of(Clock(pauses={25: 300}), 400)
    assert lines[:2] == [10, 20] and sum(300 < at < 333 for at in lines) == 1
    assert all(later - earlier >= 10 for earlier, later in itertools.pairwise(lines))


def test_a_child_that_answers_late_gives_no_two_lines_at_once() -> None:
    lines = progress_of(Clock(slow=25.0), 200)
    assert all(later - earlier >= 10 for earlier, later in itertools.pairwise(lines))
    assert len(lines) == len(set(lines)) > 3


@pytest.mark.parametrize(
    ("change", "codes", "channels"),
    [
        ({}, ["LD424"], {"spans"}),
        ({"accepted": 3, "exports": 1}, [], {"spans"}),
        ({"takes_spans": False, "samples": 5, "scrapes": {"begin": 1}}, [], {"metrics"}),
        (
            {"takes_spans": False, "scrape_problems": [Problem("http://a", "HTTP 404", 1)]},
            ["LD425"],
            {"metrics"},
        ),
        ({"samples": 5, "scrapes": {"begin": 1}}, ["LD424"], {"spans", "metrics"}),
    ],
)
def test_what_was_listened_for_and_did_not_come_is_said(
    change: dict[str, Any], codes: list[str], channels: set[str]
) -> None:
    counts = Collected.read(document(replace(NOTHING, **change)))
    assert [each.code for each in caveats(counts)] == codes
    assert counts.channels == channels


def test_a_run_that_does_not_say_whether_a_door_was_open_is_read_by_what_came() -> None:
    old = {k: v for k, v in document(NOTHING).items() if k != "takes_spans"}
    assert Collected.read(old).channels == {"spans"}
    assert Collected.read(old | {"scrapes": {"begin": 1}}).channels == {"metrics"}
