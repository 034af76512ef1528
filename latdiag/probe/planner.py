"""The design of a probe, thought out in a process of its own.

A design computes with numpy on the rows so far, and whoever forks readers must stay light. So the
planner is forked first, reads the run between two stages, and names the next one by a message.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from latdiag.measurement.stages import Limits, PathStage, Stage
from latdiag.model.errors import LatdiagError, LocalFault
from latdiag.probe.earlier import Earlier, earlier
from latdiag.runtime.channel import Channel, Fault, message
from latdiag.runtime.children import fork_talking

if TYPE_CHECKING:
    from latdiag.measurement.observations import Observations
    from latdiag.store.batch import Batch

#: How often a wait looks whether it should go on, and how long a planner has for its end.
_LOOK_S, _PATIENCE_S = 0.1, 2.0


class Design(NamedTuple):
    """What a planner thinks with. ``columns``: those of the table requests that are observed.
    ``undecided``: whether more requests would decide what a run leaves open."""

    probe: Callable[
        [Limits, Callable[[], bool]], Generator[Stage | PathStage, Observations, str | None]
    ]
    observe: Callable[[Iterable[Batch]], Observations]
    columns: tuple[str, ...]
    undecided: Callable[[str], bool]


@message
class Recall(NamedTuple):
    """The workload of the run at ``run_path`` is wanted."""

    run_path: str


@message
class Begin(NamedTuple):
    """There is a run, at ``run_path``; its probe may spend ``limits``."""

    run_path: str
    limits: Limits


@message
class Written(NamedTuple):
    """The rows of the last stage are in the run."""


@message
class Step(NamedTuple):
    """What comes next: a stage, or None at the design's end; ``why`` it ends before its time."""

    stage: Stage | PathStage | None
    why: str | None = None


def the_design(judging: Callable[[], Callable[[str], bool]]) -> Design:
    """latdiag's own design, and at once the packages that it will need. ``judging``: what tells of
    the run at a path whether more requests would decide what it leaves open."""
    import numpy  # noqa: F401 - while the target is still being asked what it is
    import pyarrow.parquet  # noqa: F401

    from latdiag.measurement import observations
    from latdiag.probe import design

    return Design(design.probe, observations.observe, observations.COLUMNS, judging())


class Planner:
    """Context manager: the planning process lives as long. Fork it before anything is heavy.

    ``begin`` once there is a run; then ``step`` before each stage. Whatever is raised in there is
    raised by ``step``: LatdiagErrors as they are, all else as a bug of ours.
    """

    def __init__(self, design: Callable[[], Design]) -> None:
        self._design = design
        self._begun = False

    def __enter__(self) -> Self:
        try:
            self._child, self._channel = fork_talking(
                lambda channel: _live(self._design, channel), "latdiag-plan"
            )
        except OSError as fault:
            raise LocalFault(
                f"the planning process cannot be started: {fault.strerror}",
                "raise the limits of processes and open files (ulimit -u, ulimit -n)",
            ) from fault
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._channel.close()
        self._child.end()  # it only reads and thinks: there is nothing that it must finish

    @property
    def pid(self) -> int:
        return self._child.pid

    def recall(self, run_path: str) -> Earlier:
        """The workload of an earlier run, before there is one of this probe's own."""
        self._channel.send(Recall(run_path))
        answer = self._answer()
        assert isinstance(answer, Earlier)
        return answer

    def begin(self, run_path: str, limits: Limits) -> None:
        """Name the run, which exists by now, and what the probe may spend."""
        self._channel.send(Begin(run_path, limits))

    def step(self, interrupted: Callable[[], bool] = lambda: False) -> Step | None:
        """What to do next, now that the stage before is written; None where ``interrupted``."""
        if self._begun:
            self._channel.send(Written())
        self._begun = True
        answer = self._answer(interrupted)
        assert answer is None or isinstance(answer, Step)
        return answer

    def _answer(self, interrupted: Callable[[], bool] = lambda: False) -> object:
        while (answer := self._channel.receive(_LOOK_S)) is None:
            if self._channel.ended:
                raise self._lost()
            if interrupted():
                return None
        if isinstance(answer, Fault):
            raise answer.error()
        return answer

    def _lost(self) -> LatdiagError:
        self._child.ends_within(_PATIENCE_S)
        return LocalFault(
            f"the planning process ended unexpectedly ({self._child.end_words})",
            "what reached the disk is kept; check whether this machine ran out of memory",
        )


# ---------------------------------------------------------------------- inside the process
def _live(design: Callable[[], Design], channel: Channel) -> None:
    """The planner's life: until its channel ends, which is when the parent does."""
    try:
        thinking = design()
        begin = channel.receive()
        if isinstance(begin, Recall):
            channel.send(earlier(begin.run_path))
            begin = channel.receive()
        if not isinstance(begin, Begin):
            return
        for step in _steps(thinking, begin.run_path, begin.limits):
            if not channel.send(step) or channel.receive() is None:
                return
    except Exception as fault:
        channel.send(Fault.of(fault, "planning the probe failed"))
        raise


def _steps(design: Design, run_path: str, limits: Limits) -> Iterator[Step]:
    """Every step; goes on when the stage that it named is written."""
    stages = design.probe(limits, lambda: design.undecided(run_path))
    try:
        stage = next(stages)
        while True:
            yield Step(stage)
            stage = stages.send(_observed(design, run_path))
    except StopIteration as end:
        yield Step(None, end.value)


def _observed(design: Design, run_path: str) -> Observations:
    """All rows so far."""
    from latdiag.store.run import Run

    return design.observe(Run.open(run_path).batches(design.columns))
