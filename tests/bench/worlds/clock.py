"""Time in integer ns, and coroutines that wait for it: the core of a discrete-event simulation."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any

Job = Coroutine[Any, Any, None]


class Clock:
    """Calls in the order of their instants, those of one instant in the order they were asked for.

    ``now`` moves only in ``run``.
    """

    def __init__(self, now: int = 0) -> None:
        self.now = now
        self._due: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._asked = 0

    def call(self, at: int, what: Callable[..., None], *given: Any) -> None:
        self._asked += 1
        heapq.heappush(self._due, (max(at, self.now), self._asked, what, given))

    def start(self, job: Job) -> None:
        """Run ``job`` up to its first wait, then whenever that ends."""
        try:
            job.send(None).arm(self, job)
        except StopIteration:
            pass

    @property
    def next_ns(self) -> int | None:
        """When something will happen; None: never."""
        return self._due[0][0] if self._due else None

    def step(self) -> None:
        """Whatever comes next."""
        self.now, _, what, given = heapq.heappop(self._due)
        what(*given)

    def until(self, done: Callable[[], bool]) -> None:
        """Go on until ``done``; RuntimeError where nothing more will happen."""
        while not done():
            if not self._due:
                raise RuntimeError("nothing more happens in this world, and a request waits")
            self.step()

    def pass_to(self, at: int) -> None:
        """Everything up to ``at``, then it is ``at``."""
        while self._due and self._due[0][0] <= at:
            self.step()
        self.now = max(self.now, at)


class At:
    """``await At(t)``: goes on at ``t``, or now if that is past."""

    __slots__ = ("_at",)

    def __init__(self, at: int) -> None:
        self._at = at

    def arm(self, clock: Clock, job: Job) -> None:
        clock.call(self._at, clock.start, job)

    def __await__(self) -> Generator[At, None, None]:
        yield self


class Flag:
    """``await`` it: goes on once ``wave`` is called."""

    __slots__ = ("_clock", "_waiting")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: list[Job] = []

    def arm(self, _clock: Clock, job: Job) -> None:
        self._waiting.append(job)

    def __await__(self) -> Generator[Flag, None, None]:
        yield self

    def wave(self) -> None:
        waiting, self._waiting = self._waiting, []
        for job in waiting:
            self._clock.call(self._clock.now, self._clock.start, job)


class Slots:
    """``await`` for one of so many places, first come first served; ``free`` gives it back."""

    def __init__(self, clock: Clock, places: int) -> None:
        self._clock = clock
        self._free = places
        self._waiting: deque[Job] = deque()

    def arm(self, clock: Clock, job: Job) -> None:
        if self._free > 0:
            self._free -= 1
            clock.call(clock.now, clock.start, job)
        else:
            self._waiting.append(job)

    def __await__(self) -> Generator[Slots, None, None]:
        yield self

    def free(self) -> None:
        if self._waiting:
            self._clock.call(self._clock.now, self._clock.start, self._waiting.popleft())
        else:
            self._free += 1

    def widen(self, places: int) -> None:
        """So many more."""
        for _ in range(places):
            self.free()
