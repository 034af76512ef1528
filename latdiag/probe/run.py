"""Executing a probe: the planner names a stage, its requests are made, until the design ends."""

from __future__ import annotations

import heapq
import itertools
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, Protocol, Self

from latdiag.ingest.gathering import Gather, Heard
from latdiag.load.begin import Begun, begin
from latdiag.load.failures import hopeless, useless
from latdiag.load.plan import GET, REFUSED
from latdiag.load.processes import run
from latdiag.load.processes.counters import Counts
from latdiag.load.processes.run import LoadEnd
from latdiag.load.work.path import path_shots, path_work
from latdiag.load.work.prepare import Prepared, Wish
from latdiag.measurement.stages import WORKLOAD, Limits, PathStage, Stage
from latdiag.model.errors import TargetFault, of_run
from latdiag.model.text import without_credentials
from latdiag.model.units import NS_PER_S
from latdiag.probe.planner import Planner
from latdiag.runtime.signals import handled
from latdiag.store.header import LoadPlan, ProbeLimits

#: Share of failures at which it stops, once there are so many: a probe must not lean on a server
#: that is down. Refusals as too many are for the design to heed.
GIVE_UP, _ENOUGH = 0.2, 10
#: How often a wait looks whether it should go on, s.
_LOOK_S = 0.05


class Progress(Protocol):
    """Who is told how far it is."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: Any) -> None: ...
    def begin(self, label: str, total_requests: int | None) -> None: ...
    def update(self, begun: int, done: int, failed: int, tokens: int) -> None: ...


class WorkloadText(NamedTuple):
    """The user's own lengths as he wrote them; None for none."""

    isl: str | None
    osl: str | None


class Probed(NamedTuple):
    """A probe that has ended. ``cut``: why before its design did."""

    path: str
    end: LoadEnd
    cut: str | None
    heard: Heard


def run_probe(
    planner: Planner,
    wish: Wish,
    limits: Limits,
    out: str | None,
    gather: Gather,
    progress: Progress,
    workload: WorkloadText,
    behind: Wish | None = None,
) -> Probed:
    """Execute the design into a run. ``behind``: how the server behind the target is asked for,
    which the design is then about but for half of the workload.

    TargetFault where tokens were asked for and none came.
    """
    begun = begin("probe", wish, out, partial(_plan, limits, workload), behind)
    studied = begun.behind or begun.prepared
    limits = replace(limits, max_model_len=studied.found.max_model_len)
    probing = _Probing(begun, limits)
    with (
        of_run(begun.path),
        gather(begun.path) as heard,
        progress,
        run.stamps_kept_on(begun.prepared.plan),
        handled(probing.note),
    ):
        probing.attend = heard.attend
        planner.begin(begun.path, limits)
        end = probing.through(planner, progress)
        heard.stopped = end.signal
    end.signal = end.signal or heard.stopped
    if probing.useless and not end.signal and not end.faults:
        raise _useless(begun)
    return Probed(begun.path, end, probing.cut, heard)


def _useless(begun: Begun) -> TargetFault:
    """The fault of a target that answered no request for tokens, with the first one's words."""
    from latdiag.store.run import Run  # reads by numpy and pyarrow

    columns = ["scenario", "outcome", "error"]
    of_path = (GET, REFUSED)
    found: list[str] = []
    for batch in Run.open(begun.path).batches(columns):
        texts = zip(*(batch.texts[name].tolist() for name in columns), strict=True)
        found += [error or outcome for kind, outcome, error in texts if kind not in of_path]
    url = without_credentials((begun.behind or begun.prepared).plan.target.url)
    return useless(url, len(found), found[0], begun.path)


def _plan(limits: Limits, workload: WorkloadText, prepared: Prepared, plan: LoadPlan) -> LoadPlan:
    """What run.json says otherwise than of a load: the stages are not known in advance."""
    return replace(
        plan,
        requests=None,
        duration_ns=None,
        warmup=None,
        rate=None,
        arrivals=None,
        concurrency=None,
        isl=None,
        osl=None,
        designed=True,
        budget=limits.budget,
        limits=ProbeLimits(
            max_tokens=limits.max_tokens,
            max_model_len=prepared.found.max_model_len,
            isl=workload.isl,
            osl=workload.osl,
            rate=limits.rate,
            concurrency=limits.concurrency,
        ),
    )


@dataclass(slots=True)
class _Probing:
    """A probe under way. ``cut``: why it ended before its design did."""

    begun: Begun
    limits: Limits
    signalled: int = 0
    cut: str | None = None
    #: called now and then, while requests are made
    attend: Callable[[], None] = lambda: None
    _forwarded: bool = False
    _spent: int = 0
    #: of the stage under way; of the stages before
    _counts: Counts | None = None
    _done: int = 0
    _failed: int = 0
    #: stages that asked for tokens, and requests that got them
    _asking: int = 0
    _served: int = 0
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def note(self, number: int, _frame: object) -> None:
        """Handler of the signals that end a probe after what it does now; a load has its own."""
        self.signalled = self.signalled or number

    def through(self, planner: Planner, progress: Progress) -> LoadEnd:
        """Stage after stage, until the design or something else ends it; how the last ended."""
        end = LoadEnd()
        for place in itertools.count():
            step = planner.step(lambda: self.signalled > 0)
            if step is None or step.stage is None:
                self.cut = step.why if step is not None else None
                break
            if not self._allowed(step.stage):
                break
            end = self._execute(step.stage, place, progress)
            self._count(step.stage)
            if end.signal or end.faults or self._hopeless(end):
                break
        end.signal = end.signal or self.signalled
        if end.signal:
            self.cut = f"stopped by {signal.Signals(end.signal).name}"
        return end

    @property
    def useless(self) -> bool:
        """Whether tokens were asked for and none came."""
        return self._asking > 0 and not self._served

    def _allowed(self, stage: Stage | PathStage) -> bool:
        """Whether a stage may begin: the last guard, whatever the design says."""
        tokens = getattr(stage, "tokens", 0)
        if self._spent + tokens > self.limits.max_tokens:
            left = self.limits.max_tokens - self._spent
            self.cut = f"{stage.name} needs {tokens:,} tokens, and only {left:,} are left"
        self._spent += tokens
        return self.cut is None and not self.signalled

    def _count(self, stage: Stage | PathStage) -> None:
        if (counts := self._counts) is None:
            return
        self._done += counts.done
        self._failed += counts.failed - counts.shed
        if not isinstance(stage, PathStage):
            self._asking += 1
            self._served += counts.done - counts.failed

    def _rest(self, ns: int, progress: Progress) -> None:
        """Nothing is sent for so long, because the server asked for it."""
        until = time.monotonic() + ns / NS_PER_S
        if ns:
            progress.begin(f"waiting {ns / NS_PER_S:.0f} s, as the server limits requests", None)
        while not self.signalled and time.monotonic() < until:
            self.attend()
            time.sleep(_LOOK_S)

    def _hopeless(self, end: LoadEnd) -> bool:
        """Whether too many requests failed, in the last stage or in all."""
        failing = self._done >= _ENOUGH and self._failed > GIVE_UP * self._done
        if end.gave_up or failing:
            self.cut = hopeless(self.begun.wish)
        return self.cut is not None

    def _asked(self, stage: Stage | PathStage) -> Prepared:
        """Whom a stage is for: of two servers the one behind, but for the workload."""
        behind = None if stage.name == WORKLOAD else self.begun.behind
        return behind or self.begun.prepared

    def _execute(self, stage: Stage | PathStage, place: int, progress: Progress) -> LoadEnd:
        prepared, path, tag = self._asked(stage), self.begun.path, self.begun.tag

        def told(counts: Counts) -> None:
            self._counts = counts
            progress.update(*counts[:4])
            self.attend()
            if self.signalled and not self._forwarded:
                # It came in the moment before the load took the signals over.
                self._forwarded = True
                signal.raise_signal(self.signalled)

        self._rest(stage.after_ns, progress)
        self._counts = None
        if self.signalled:
            return LoadEnd()
        if isinstance(stage, PathStage):
            return self._execute_path(stage, place, progress, told)
        progress.begin(f"{stage.name}: {stage.why}", len(stage.shots))
        segment = f"segment-{stage.segment}" if stage.segment else ""
        plan = prepared.stage_plan(
            *(f"{stage.name.lower()}-{place}-", stage.slots, segment),
            *(stage.dither_ns, stage.pause_ns),
        )
        work = prepared.shots(stage.name, stage.shots, self._numbers)
        if stage.beside:
            plan = prepared.with_path(plan)
            beside = path_shots(stage.beside, prepared.workload.refusable, self._numbers)
            work = heapq.merge(work, beside, key=lambda each: each.due_ns)
        return run.run_load(plan, work, path, tag, told)

    def _execute_path(
        self, stage: PathStage, place: int, progress: Progress, told: Callable[[Counts], None]
    ) -> LoadEnd:
        prepared, path, tag = self._asked(stage), self.begun.path, self.begun.tag
        work = path_work(
            stage.name,
            stage.gets,
            stage.fresh,
            stage.refused,
            prepared.workload.refusable,
            self._numbers,
            random.Random(self.limits.seed),
        )
        progress.begin(f"{stage.name}: {stage.why}", len(work))
        plan = prepared.path_plan(f"{stage.name.lower()}-path-{place}-")
        return run.run_load(plan, iter(work), path, tag, told)
