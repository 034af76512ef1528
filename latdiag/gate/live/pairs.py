"""The course of a gate: both arms warmed, their load chosen, then pairs until it is enough."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from latdiag.gate.live.sending import Sending, arrivals
from latdiag.load.processes.run import Next
from latdiag.model.errors import LatdiagError, UsageFault
from latdiag.model.units import NS_PER_S

if TYPE_CHECKING:
    from latdiag.gate.plan import Plan
    from latdiag.gate.settings import Settings

#: Requests of a round of the warm-up, an arm; they go alone.
ROUND = 4
#: Rounds at most, and the share of the budget that they may take.
_ROUNDS, _WARM_SHARE = 12, 0.2
#: By how much the medians of two rounds of a warm arm may differ, and how many ns in any case.
_STEADY, _STEADY_NS = 0.1, 2_000_000
#: Requests in flight that are tried for a block, the most first, and by how much these may slow
#: each other: a gate near saturation sees nothing but the queue.
IN_FLIGHT = (8.0, 4.0, 2.0, 1.0, 0.5)
SLOWED = 1.5
#: Requests of a trial of a load.
_TRIAL = 25
#: How often what was measured is judged between looks.
_JUDGE_NS = 15 * NS_PER_S
#: Share of the budget by which the shortest plan may exceed it.
_LONGER = 0.25
#: A run that has taken so many times its budget ends.
_OVERTIME = 1.5
#: Blocks of an arm one after the other with more failures than replies that end a run.
DOWN = 3


class Observer(Protocol):
    """Who reads what was written: its times by number of request."""

    def begin(self, course: Course) -> None:
        """What another run had measured, if this one goes on with it, belongs to the course."""

    def median_e2e(self, since: int) -> tuple[int | None, int | None]:
        """Of each arm's usable requests of no pair from number ``since`` on; None: none."""

    def decided(self, course: Course) -> bool:
        """Whether measuring more pairs would change nothing."""


@dataclass(slots=True)
class Course:
    """What came of a gate so far. ``first``: the pair that it began with, where another run had
    measured some. ``seconds``: by pair from ``first`` on, whether the candidate came second.
    ``done``: pairs measured, those before ``first`` too. ``down``: the arm that answers no more.
    ``fault``: what ended it besides.
    ``steady``: whether each arm came to rest before the first pair. ``slowed``: how many times as
    long a request of the base takes under the load as alone."""

    first: int = 0
    plan: Plan | None = None
    rate: float | None = None
    done: int = 0
    seconds: list[bool] = field(default_factory=list)
    wall_ns: int = 0
    down: int | None = None
    fault: LatdiagError | None = None
    steady: list[bool] = field(default_factory=lambda: [True, True])
    slowed: float = 1.0


@dataclass(frozen=True, slots=True)
class Trial:
    """A load that was tried: requests/s, ns that a block took the slower arm, and how many times
    as long a request of the base took as alone."""

    rate: float
    block_ns: int
    slowed: float


class Pairs:
    """``settings``: the budget is that of this run. ``plan``: of the run that this one goes on
    with; ``rate``: requests/s within a block, None to choose. ``tell``: hears what is under way,
    as a phrase and how many requests it has. ``pilot``: pairs after which it ends in any case."""

    def __init__(
        self,
        sending: Sending,
        settings: Settings,
        fixed_length: bool,
        observer: Observer,
        course: Course,
        tell: Callable[[str, int | None], None],
        pilot: int | None = None,
    ) -> None:
        self._sending = sending
        self._settings = settings
        self._fixed_length = fixed_length
        self._observer = observer
        self._course = course
        self._tell = tell
        self._pilot = pilot
        self._failing = [0, 0]
        #: the first pair shows what is the same in all
        self._judged_ns = -_JUDGE_NS

    def work(self) -> Iterator[Next]:
        """All requests, for ``run_load``."""
        yield from self._sending.started()
        self._observer.begin(self._course)
        alone = yield from self._warm()
        if alone is None:
            return
        trials = yield from self._tried(alone)
        if self._course.plan is None:
            self._course.plan = self._chosen(trials)
        else:
            self._course.rate, self._course.slowed = trials[-1].rate, trials[-1].slowed
        yield from self._measure(self._course.plan)

    def _warm(self, arms: Sequence[int] = (0, 1)) -> Generator[Next, None, int | None]:
        """These arms in turn, until none gets faster or slower. The time that a request of the
        first takes alone; None where an arm answers none."""
        before: tuple[int | None, int | None] = (None, None)
        until_ns = self._sending.now_ns + _WARM_SHARE * self._settings.budget_ns
        self._tell("warming up", None)
        warm = self._sending.next_unpaired
        for turn in range(_ROUNDS):
            since = self._sending.next_unpaired
            for arm in arms if turn % 2 else arms[::-1]:
                yield from self._sending.alone(arm, ROUND)
            yield from self._sending.written()
            times = self._observer.median_e2e(since)
            for arm in arms:
                if times[arm] is None:
                    self._course.down = arm
                    return None
            for arm in arms:
                self._course.steady[arm] = _alike(before[arm], times[arm])
            if all(self._course.steady[arm] for arm in arms) or self._sending.now_ns > until_ns:
                break
            if turn == 0:
                warm = self._sending.next_unpaired  # the first ones may have woken something
            before = times
        return self._observer.median_e2e(warm)[arms[0]]

    def _tried(
        self, alone_ns: int, arms: Sequence[int] = (0, 1)
    ) -> Generator[Next, None, list[Trial]]:
        """Loads, the highest first, until requests hardly slow each other."""
        trials = []
        for in_flight in IN_FLIGHT:
            rate = self._course.rate or in_flight * NS_PER_S / alone_ns
            since, seed = self._sending.next_unpaired, self._settings.seed
            self._tell(f"trying {rate:.3g} requests/s", None)
            took = []
            for arm in arms:
                begun = self._sending.now_ns
                yield from self._sending.burst(arm, _TRIAL, arrivals(rate, _TRIAL, seed))
                took.append(self._sending.now_ns - begun)
            yield from self._sending.written()
            slowed = self._observer.median_e2e(since)[arms[0]]
            trials.append(Trial(rate, max(took), (slowed or alone_ns) / alone_ns))
            if self._course.rate or trials[-1].slowed <= SLOWED:
                break
        return trials

    def _chosen(self, trials: Sequence[Trial], starts_ns: int = 0) -> Plan:
        """Plan for the lowest load that was tried and that the budget has time for, beside what
        takes ``starts_ns``. UsageFault where it has for none."""
        from latdiag.gate.sizing import sized

        spent_ns = self._sending.now_ns + starts_ns
        refusal: UsageFault | None = None
        longer_ns = spent_ns - round(_LONGER * self._settings.budget_ns)
        for ahead_ns in (spent_ns, longer_ns):
            for trial in reversed(trials):
                request_ns = round(NS_PER_S / trial.rate)
                rest_ns = max(0, trial.block_ns - _TRIAL * request_ns)
                asked = (self._settings, request_ns, rest_ns, self._fixed_length)
                try:
                    plan = sized(*asked, ahead_ns)
                except UsageFault as fault:
                    refusal = refusal or fault
                    continue
                if plan.pairs < plan.spared or ahead_ns == longer_ns:
                    # Pairs to spare may take a little more than they should, and so may the least.
                    most = sized(*asked, longer_ns).pairs
                    plan = replace(plan, pairs=min(most, plan.spared))
                self._course.rate, self._course.slowed = trial.rate, trial.slowed
                return plan
        assert refusal is not None
        raise refusal

    def _measure(self, plan: Plan) -> Iterator[Next]:
        course, sending = self._course, self._sending
        rng = random.Random(f"{plan.settings.seed} {course.first}")
        looks = {look.pairs for look in plan.looks}
        until = min(plan.pairs, course.first + (self._pilot or plan.pairs))
        left = until - course.first
        self._tell(f"{left} pairs of {plan.block} requests an arm", 2 * plan.block * left)
        for pair in range(course.first, until):
            second = rng.random() < 0.5
            begun = sending.now_ns
            for arm in (0, 1) if second else (1, 0):
                yield from self._block(plan, pair, arm)
            course.seconds.append(second)
            course.done = pair + 1
            course.wall_ns += sending.now_ns - begun
            if max(self._failing) >= DOWN:
                self._give_up()
                return
            if course.done in looks or sending.now_ns > self._judged_ns + _JUDGE_NS:
                yield from sending.written()
                if self._observer.decided(course):
                    return
                self._judged_ns = sending.now_ns
            if sending.now_ns > _OVERTIME * self._settings.budget_ns:
                return

    def _give_up(self) -> None:
        """An arm is down: the pairs since then are none."""
        course = self._course
        course.down = self._failing.index(max(self._failing))
        course.done = max(course.first, course.done - DOWN)
        del course.seconds[course.done - course.first :]

    def _block(self, plan: Plan, pair: int, arm: int) -> Iterator[Next]:
        assert self._course.rate is not None
        offsets = arrivals(self._course.rate, plan.block, plan.settings.seed + 7_919 * pair)
        numbers = numbers_of(pair, arm, plan.block)
        prompts = range(pair * plan.block, (pair + 1) * plan.block)
        before = self._sending.failed
        yield from self._sending.block(arm, numbers, prompts, offsets)
        lost = self._sending.failed - before
        self._failing[arm] = self._failing[arm] + 1 if 2 * lost > plan.block else 0


def numbers_of(pair: int, arm: int, block: int) -> range:
    """The numbers of the requests of a block."""
    first = (2 * pair + arm) * block
    return range(first, first + block)


def place_of(number: int, block: int) -> tuple[int, int, int]:
    """(pair, arm, index) of a request by its number."""
    whole, index = divmod(number, block)
    pair, arm = divmod(whole, 2)
    return pair, arm, index


def _alike(one: int | None, other: int | None) -> bool:
    if one is None or other is None:
        return False
    return abs(one - other) <= max(_STEADY * min(one, other), _STEADY_NS)
