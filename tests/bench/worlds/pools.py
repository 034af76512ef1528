"""Other ways to compute: time shared evenly, batches that nobody joins, two pools, replicas."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from .clock import At, Clock, Flag
from .costs import PromptCost, StepCost
from .engines import (
    BASE,
    BATCH,
    CONTENTION,
    UNSEEN,
    WINDOW,
    Causes,
    Emit,
    Engine,
    StepEngine,
)
from .habits import Habit
from .request import Request
from .truth import Cause

HANDOVER = Cause("interconnect.wait", "hand-over", ("constant",))
LINK = Cause("interconnect.kv", "link", ("slope",))
HANDOVER_LATE = Cause("interconnect.wait", "hand-over after the first token", ("second-gap",))
LINK_LATE = Cause("interconnect.kv", "link after the first token", ("second-gap-slope",))
LINK_BUSY = Cause("interconnect.wait", "busy link", ("beside-others",), load=True)


@dataclass(slots=True, eq=False)
class SharingEngine:
    """All requests run at once, each at an even share of ``power`` times the pace of one alone,
    and never faster than alone (llama.cpp with slots, a GPU shared by processes)."""

    clock: Clock
    draw: random.Random
    token: float
    prompt: PromptCost
    power: float
    habit: Habit
    emit: Emit
    causes: Causes = field(default_factory=Causes)
    inside: list[Request] = field(default_factory=list)
    _at: int = 0
    _turn: int = 0

    @property
    def load(self) -> int:
        return len(self.inside)

    def submit(self, request: Request) -> None:
        self._move()
        self.habit.begin(request, self.draw, lambda event: self.emit(request, event))
        request.notes["left"] = request.notes["own"] = self._noisy(self.prompt(request.isl, 0))
        self.inside.append(request)
        self._plan()

    def _noisy(self, work: float) -> float:
        return work * self.draw.lognormvariate(0.0, 0.02)

    def _move(self) -> None:
        """All advance to now."""
        if self.inside:
            pace = min(1.0, self.power / len(self.inside))
            done = (self.clock.now - self._at) * pace
            for request in self.inside:
                request.notes["left"] -= done
        self._at = self.clock.now

    def _plan(self) -> None:
        self._turn += 1
        if self.inside:
            pace = min(1.0, self.power / len(self.inside))
            left = min(request.notes["left"] for request in self.inside)
            self.clock.call(self.clock.now + max(1, round(left / pace)), self._due, self._turn)

    def _due(self, turn: int) -> None:
        if turn != self._turn:
            return
        self._move()
        for request in [r for r in self.inside if r.notes["left"] < 1.0]:
            self._make(request)
        self._plan()

    def _make(self, request: Request) -> None:
        now, own = self.clock.now, round(request.notes["own"])
        if not request.made:
            request.ledger.book_parts(now, CONTENTION, (self.causes.prefill, own))
        else:
            base = UNSEEN if self.habit.unseen(request) else BASE
            request.ledger.book_parts(now, BATCH, (base, own))
        request.made += 1
        if self.habit.token(request, lambda event: self.emit(request, event)):
            self.inside.remove(request)
        else:
            request.notes["left"] = request.notes["own"] = self._noisy(self.token)


@dataclass(slots=True, eq=False)
class StaticBatches:
    """A batch is collected for ``window`` ns or until ``most`` are there, and runs to its end;
    whoever comes then waits for the next (Triton's batcher before a model, FasterTransformer)."""

    clock: Clock
    draw: random.Random
    step: StepCost
    prompt: PromptCost
    most: int
    window: int
    habit: Habit
    emit: Emit
    causes: Causes = field(default_factory=Causes)
    waiting: list[Request] = field(default_factory=list)
    running: list[Request] = field(default_factory=list)
    _came: Flag = field(init=False)

    def __post_init__(self) -> None:
        self._came = Flag(self.clock)
        self.clock.start(self._live())

    @property
    def load(self) -> int:
        return len(self.waiting) + len(self.running)

    def submit(self, request: Request) -> None:
        request.notes["came"] = self.clock.now
        self.habit.begin(request, self.draw, lambda event: self.emit(request, event))
        self.waiting.append(request)
        self._came.wave()

    async def _live(self) -> None:
        while True:
            while not self.waiting:
                await self._came
            began = self.clock.now
            self.clock.call(began + self.window, self._came.wave)
            while len(self.waiting) < self.most and self.clock.now < began + self.window:
                await self._came
            batch, self.waiting = self.waiting[: self.most], self.waiting[self.most :]
            for request in batch:
                # What it waited while the machine was free is the window's.
                free = max(began, request.ledger.at)
                request.ledger.book(free, self.causes.queue)
                request.ledger.book(self.clock.now, WINDOW)
            await self._run(batch)

    async def _run(self, batch: list[Request]) -> None:
        longest = max(request.isl for request in batch)
        noise = self.draw.lognormvariate(0.0, 0.02)
        # Padded to the longest, and computed together.
        took = self.prompt(longest, 0) * (1 + 0.7 * (len(batch) - 1)) * noise
        await At(self.clock.now + round(took))
        self.running = list(batch)
        for request in batch:
            own = round(self.prompt(request.isl, 0) * noise)
            request.ledger.book_parts(self.clock.now, CONTENTION, (self.causes.prefill, own))
            self._make(request)
        while self.running:
            noise = self.draw.lognormvariate(0.0, 0.02)
            context = sum(r.isl + r.made for r in self.running)
            # Who has ended keeps its place in the batch.
            step = self.step(len(batch), context) * noise
            await At(self.clock.now + round(step))
            for request in list(self.running):
                alone = min(step, self.step(1, request.isl + request.made) * noise)
                base = UNSEEN if self.habit.unseen(request) else BASE
                request.ledger.book_parts(self.clock.now, BATCH, (base, round(alone)))
                self._make(request)

    def _make(self, request: Request) -> None:
        request.made += 1
        if self.habit.token(request, lambda event: self.emit(request, event)):
            self.running.remove(request)


@dataclass(slots=True, eq=False)
class TwoPools:
    """Prompts are computed by ``workers``, one after the other each; what they leave in memory
    crosses a link (``handover`` ns, then ``token`` ns for each token of it, one transfer at a time
    where ``serial``) to an engine that only decodes. ``early``: the first token is sent before."""

    clock: Clock
    draw: random.Random
    prompt: PromptCost
    workers: int
    handover: float
    token: float
    decoder: StepEngine
    habit: Habit
    emit: Emit
    causes: Causes = field(default_factory=Causes)
    early: bool = False
    serial: bool = False
    waiting: list[Request] = field(default_factory=list)
    _inside: int = 0
    _free: int = 0
    _came: Flag = field(init=False)

    def __post_init__(self) -> None:
        self._came = Flag(self.clock)
        for _ in range(self.workers):
            self.clock.start(self._work())

    @property
    def load(self) -> int:
        return len(self.waiting) + self._inside + self.decoder.load

    def submit(self, request: Request) -> None:
        self.habit.begin(request, self.draw, lambda event: self.emit(request, event))
        self.waiting.append(request)
        self._came.wave()

    async def _work(self) -> None:
        while True:
            while not self.waiting:
                await self._came
            request = self.waiting.pop(0)
            self._inside += 1
            request.ledger.book(self.clock.now, self.causes.queue)
            work = self.prompt(request.isl, 0) * self.draw.lognormvariate(0.0, 0.015)
            await At(self.clock.now + round(work))
            request.ledger.book(self.clock.now, self.causes.prefill)
            ended = False
            if self.early:
                request.made += 1
                ended = self._tell(request)
            if ended:
                self._inside -= 1
            else:
                self.clock.start(self._move(request))

    def _tell(self, request: Request) -> bool:
        return self.habit.token(request, lambda event: self.emit(request, event))

    async def _move(self, request: Request) -> None:
        handover, link = (HANDOVER_LATE, LINK_LATE) if self.early else (HANDOVER, LINK)
        await At(self.clock.now + round(self.handover * self.draw.lognormvariate(0.0, 0.1)))
        request.ledger.book(self.clock.now, handover)
        took = round(self.token * request.isl * self.draw.lognormvariate(0.0, 0.05))
        begin = max(self.clock.now, self._free) if self.serial else self.clock.now
        if self.serial:
            self._free = begin + took
        await At(begin)
        request.ledger.book(begin, LINK_BUSY)
        await At(begin + took)
        request.ledger.book(self.clock.now, link)
        self._inside -= 1
        self.decoder.submit(request)


@dataclass(slots=True, eq=False)
class Replicas:
    """Several engines behind one name. ``rule``: turn, load or chance."""

    draw: random.Random
    engines: Sequence[Engine]
    rule: str
    _turn: int = 0

    @property
    def load(self) -> int:
        return sum(engine.load for engine in self.engines)

    def submit(self, request: Request) -> None:
        if self.rule == "load":
            chosen = min(self.engines, key=lambda engine: engine.load)
        elif self.rule == "chance":
            chosen = self.draw.choice(self.engines)
        else:
            chosen = self.engines[self._turn % len(self.engines)]
            self._turn += 1
        chosen.submit(request)
