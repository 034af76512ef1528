"""One world: made, probed, judged. What the processes of the board do."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from latdiag.diagnosis.diagnose import result_of
from latdiag.diagnosis.result import Result
from latdiag.store.run import Run

from . import baselines
from .bounds import Named, bounds_of, limits_named
from .client import Row, limits_of
from .course import Happening, Noticed, named_in, noticed
from .judge import Answer, Book, Judged, answer_of, book_of, judge
from .kinds import drawn
from .rundir import probed
from .turns import capacity
from .world import World


class Task(NamedTuple):
    kind: str
    seed: str
    budget: str
    runs: Path

    @property
    def name(self) -> str:
        return f"{self.kind}/{self.seed}"

    @property
    def run(self) -> Path:
        return self.runs / f"{self.kind}-{self.seed}-{self.budget}.run"


@dataclass(slots=True)
class Record:
    """A judged run. ``answers``: by tool, latdiag's first. ``cut``: how the probe ended before its
    design. ``failed``: what went wrong with the world or the estimator itself."""

    task: Task
    book: Book
    says: tuple[str, ...] = ()
    sentence: str = ""
    cpu_s: float = 0.0
    requests: int = 0
    lasted_s: float = 0.0
    judged: dict[str, Judged] = field(default_factory=dict)
    noticed: Noticed = field(default_factory=Noticed)
    failed: str = ""
    limits: Named = field(default_factory=Named)


LATDIAG, NAIVE, COMMONEST, UNDECIDED = "latdiag", "naive split", "three commonest", "ambiguous"
_NOTHING = Book({}, {}, None, frozenset(), 0, 0)


def rows_of(task: Task) -> tuple[list[Row], World]:
    """The rows of a probe of a world, into ``task.run``, and the world."""
    world, draft = drawn(task.kind, task.seed)
    number = random.Random(task.name).randrange(1 << 31)
    limits = limits_of(task.budget, number, draft.workload)
    return probed(world, limits, task.run, random.Random(number)), world


def result(task: Task) -> Result:
    """As ``latdiag diagnose`` reads the run."""
    return result_of(Run.open(str(task.run)), "diagnose")


def worked(task: Task) -> Record:
    """Never raises: a world that cannot be judged is in the table all the same."""
    begun = time.process_time()
    record = Record(task, _NOTHING)
    try:
        rows, world = rows_of(task)
        record.says, course = world.described, world.course
        workload = [row for row in rows if row.stage == "S10"]
        record.requests, record.lasted_s = len(rows), _seconds(rows)
        record.book = book_of(workload) if workload else _NOTHING
        record.judged[NAIVE] = judge(baselines.naive(workload), record.book)
        record.judged[UNDECIDED] = judge(baselines.AMBIGUOUS, record.book)
        said = result(task).to_json()
        record.sentence = str(said["verdict"]["sentence"])  # type: ignore[index]
        record.limits = limits_named(said, bounds_of(world, rows))
        answer = answer_of(said)
        record.judged[LATDIAG] = judge(answer, record.book)
        named, happened = named_in(said), list(course.happenings)
        if any(each.kind == "overload" for each in named):
            happened = _with_capacity(task, happened)
        record.noticed = noticed(named, happened, workload, rows)
    except Exception as fault:
        record.failed = f"{type(fault).__name__}: {fault}"
        # Whoever raises has not answered; that is no excuse for the judge to look away.
        record.judged[LATDIAG] = judge(Answer("insufficient"), record.book)
    record.cpu_s = time.process_time() - begun
    return record


def _with_capacity(task: Task, happened: list[Happening]) -> list[Happening]:
    """Whoever calls a server overloaded is judged by what it really finishes."""
    if any(each.kind == "overload" for each in happened):
        return happened
    _, draft = drawn(task.kind, task.seed)
    return [*happened, Happening("overload", capacity=capacity(draft))]


def _seconds(rows: list[Row]) -> float:
    ends = [row.done for row in rows if row.done is not None]
    return (max(ends) - min(row.begin for row in rows)) / 1e9 if ends else 0.0
