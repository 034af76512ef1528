"""Arms of which one can be served at a time: started, measured and stopped in turn, by rounds."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from latdiag.gate.live.pairs import DOWN, Pairs
from latdiag.gate.live.served import Served, serving
from latdiag.load.processes.run import Next
from latdiag.model.errors import LatdiagError

if TYPE_CHECKING:
    from latdiag.gate.plan import Plan


class InTurn:
    """Two servers that never run at once. ``rounds``: how often each is started."""

    def __init__(self, servers: tuple[Served, Served], rounds: int) -> None:
        self.servers, self.rounds = servers, rounds
        #: how long a start took, and the end, ns
        self.cycle_ns = 0

    @contextlib.contextmanager
    def up(self, arm: int) -> Iterator[None]:
        """This one alone, for the block's time."""
        begun = time.monotonic_ns()
        with serving(self.servers[arm]):
            started = time.monotonic_ns()
            yield
            ended = time.monotonic_ns()
        self.cycle_ns += started - begun + time.monotonic_ns() - ended

    def end(self) -> None:
        """Stop whichever runs."""
        for each in self.servers:
            each.stop()


def by_round(plan: Plan, rounds: int) -> Plan:
    """``plan`` with one pair a round where there are enough of these to decide: then what differs
    from start to start is in the test. With fewer rounds only the margin allows for it."""
    if rounds < plan.least_planned:
        return plan
    return replace(plan, pairs=rounds, block=max(1, plan.pairs * plan.block // rounds))


class Rounds(Pairs):
    """The course of a gate whose arms are served in turn: each round starts either once, in drawn
    order, and measures its share of the pairs, or one pair (``by_round``). ``turns`` is set before
    ``work`` is called."""

    turns: InTurn

    def work(self) -> Iterator[Next]:
        """See ``Pairs``."""
        yield from self._sending.started()
        self._observer.begin(self._course)
        try:
            yield from self._all()
        except LatdiagError as fault:  # what was measured before is kept
            self._course.fault = fault
        finally:
            self.turns.end()

    def _all(self) -> Iterator[Next]:
        course = self._course
        yield from self._up(0)
        alone = yield from self._warm((0,))
        if alone is None:
            return
        trials = yield from self._tried(alone, (0,))
        self.turns.servers[0].stop()
        if course.plan is None:
            chosen = self._chosen(trials, self.turns.rounds * self.turns.cycle_ns)
            course.plan = by_round(chosen, self.turns.rounds)
        else:
            course.rate, course.slowed = trials[-1].rate, trials[-1].slowed
        yield from self._by_rounds(course.plan)

    def _by_rounds(self, plan: Plan) -> Iterator[Next]:
        course = self._course
        rng = random.Random(f"{plan.settings.seed} {course.first}")
        left = plan.pairs - course.first
        rounds = min(left, self.turns.rounds)
        borders = [course.first + left * n // rounds for n in range(rounds)]
        self._tell(f"{left} pairs in {rounds} rounds", 2 * plan.block * left)
        for first, until in zip(borders, [*borders[1:], plan.pairs], strict=True):
            second = rng.random() < 0.5
            begun = self._sending.now_ns
            for arm in (0, 1) if second else (1, 0):
                yield from self._up(arm)
                if (yield from self._warm((arm,))) is None:
                    return
                for pair in range(first, until):
                    yield from self._block(plan, pair, arm)
                    if max(self._failing) >= DOWN:
                        course.down = arm
                        return
                self.turns.servers[arm].stop()
            course.seconds += [second] * (until - first)
            course.done = until
            course.wall_ns += self._sending.now_ns - begun
            yield from self._sending.written()
            if self._observer.decided(course):
                return

    def _up(self, arm: int) -> Iterator[Next]:
        """Start this one and wait for it, while the processes of the load go on."""
        server = self.turns.servers[arm]
        server.start()
        for _ in server.until_healthy():
            yield None
