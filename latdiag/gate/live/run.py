"""Executing a gate: both arms under one plan by one process pair, into a run and a verdict."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

from latdiag.gate.live.kept import Facts, Kept
from latdiag.gate.live.pairs import Course, Pairs
from latdiag.gate.live.rounds import InTurn, Rounds
from latdiag.gate.live.sending import ARMS, Sending
from latdiag.ingest.gathering import Gather, Heard
from latdiag.load.begin import Begun, begin
from latdiag.load.processes.counters import Counts
from latdiag.load.processes.run import LoadEnd, run_load
from latdiag.load.signs import stacks_at
from latdiag.load.work.prepare import Prepared, Wish
from latdiag.model.errors import LocalFault, TargetFault, of_run
from latdiag.model.text import shown, without_credentials

if TYPE_CHECKING:
    from latdiag.gate.document import Measured
    from latdiag.gate.live.judging import Gathered
    from latdiag.gate.settings import Settings


class Progress(Protocol):
    """Who is told how far it is."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: Any) -> None: ...
    def begin(self, label: str, total_requests: int | None) -> None: ...
    def update(self, begun: int, done: int, failed: int, tokens: int) -> None: ...


class Gated(NamedTuple):
    """A gate that has ended. ``measured``: None where it ended before its first pair. ``down``:
    which arm answers no more. ``begun``: of the run that holds its requests."""

    measured: Measured | None
    course: Course
    end: LoadEnd
    heard: Heard
    begun: Begun


def run_gate(
    wishes: tuple[Wish, Wish],
    settings: Settings,
    rate: float | None,
    out: str | None,
    gather: Gather,
    progress: Progress,
    kept: Kept | None = None,
    same: bool = False,
    pilot: int | None = None,
    turns: InTurn | None = None,
    keep: Callable[[Measured], None] | None = None,
) -> Gated:
    """Measure both arms until the plan ends, a look decides, or something stops it.

    ``wishes``: how base and candidate are asked. ``rate``: requests/s within a block, None to
    choose. ``kept``: of a run that was cut, whose plan goes on. ``same``: both arms are one
    endpoint, and that is meant. ``pilot``: pairs after which it ends in any case.
    ``turns``: of arms that cannot be served at once. ``keep``: takes what was measured so far now
    and then, so that who is killed can go on too.
    """
    base, candidate = wishes
    stacks: dict[int, tuple[tuple[str, str | None], ...]] = {}

    @contextlib.contextmanager
    def up(arm: int) -> Iterator[None]:
        with turns.up(arm) if turns is not None else contextlib.nullcontext():
            yield
            stacks[arm] = _stacks(wishes[arm])

    begun = begin("gate", base, out, candidate=candidate, same=same, up=up)
    assert begun.candidate is not None
    arms = (begun.prepared, begun.candidate)
    fixed = _fixed_length(begun.prepared)
    course = Course(rate=rate)
    facts = [Facts(arm.found.model, stacks[place]) for place, arm in enumerate(arms)]
    with of_run(begun.path), gather(begun.path) as heard, progress:
        told = _Told(progress, heard)
        sending = Sending(arms, same)
        observer = _Observer(begun.path, facts, fixed, kept, keep)
        made = Pairs if turns is None else Rounds
        pairs = made(sending, settings, fixed, observer, course, told.begin, pilot)
        if turns is not None and isinstance(pairs, Rounds):
            pairs.turns = turns

        def attend(counts: Counts) -> None:
            sending.hear(counts)
            told.update(counts)

        plan = replace(
            arms[0].stage_plan("", 0), other=arms[1].plan.target, workers=1, give_up=None
        )
        end = run_load(plan, pairs.work(), begun.path, begun.tag, attend, sending.start)
        heard.stopped = end.signal
    end.signal = end.signal or heard.stopped
    measured = observer.result(course) if course.plan is not None and course.done else None
    return Gated(measured, course, end, heard, begun)


def down(gated: Gated, arms: tuple[Wish, Wish]) -> TargetFault:
    """The fault of an arm that answers no more."""
    which = gated.course.down
    assert which is not None
    url = without_credentials(arms[which].url)
    kept = f"; {gated.course.done} pairs before are kept" if gated.course.done else ""
    return TargetFault(
        f"the {ARMS[which]} ({shown(url, 100)}) no longer gives usable replies{kept}",
        "look into its log, then run the same command again: it goes on where this one ended"
        if gated.course.done
        else "look into its log",
        gated.begun.path,
    )


def _fixed_length(prepared: Prepared) -> bool:
    """Whether every reply must have the length that it was asked for."""
    workload = prepared.workload
    return "ignore_eos" in workload.extras and workload.osl is not None


class _Told:
    """Progress of one stretch after the other, from counts since the beginning."""

    def __init__(self, progress: Progress, heard: Heard) -> None:
        self._progress, self._heard = progress, heard
        self._now = self._before = Counts(0, 0, 0, 0)

    def begin(self, label: str, total: int | None) -> None:
        self._before = self._now
        self._progress.begin(label, total)

    def update(self, counts: Counts) -> None:
        self._now = counts
        since = (now - then for now, then in zip(counts[:4], self._before[:4], strict=True))
        self._progress.update(*since)
        self._heard.attend()


class _Observer:
    """``judging.Gathered``, which is heavy, from the moment that the processes are there."""

    def __init__(
        self,
        path: str,
        facts: Sequence[Facts],
        fixed_length: bool,
        kept: Kept | None,
        keep: Callable[[Measured], None] | None,
    ) -> None:
        self._path, self._facts, self._fixed_length, self._kept = path, facts, fixed_length, kept
        self._keep = keep
        self._gathered: Gathered | None = None

    def _made(self) -> Gathered:
        if self._gathered is None:
            from latdiag.gate.live.judging import gathered

            self._gathered = gathered(self._path, self._facts, self._fixed_length, self._kept)
        return self._gathered

    def begin(self, course: Course) -> None:
        self._made().begin(course)

    def median_e2e(self, since: int) -> tuple[int | None, int | None]:
        return self._made().median_e2e(since)

    def decided(self, course: Course) -> bool:
        if self._made().decided(course):
            return True
        if self._keep is not None:
            with contextlib.suppress(LocalFault):  # the end says so
                self._keep(self._made().result(course))
        return False

    def result(self, course: Course) -> Measured:
        return self._made().result(course)


def _stacks(wish: Wish) -> tuple[tuple[str, str | None], ...]:
    found = stacks_at(wish.url, wish.headers, wish.trust)
    return tuple((each.name, each.version) for each in found)
