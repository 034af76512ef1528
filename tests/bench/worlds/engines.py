"""Continuous batching in the ways that engines do it: what waits, what fills, what decodes."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from .clock import At, Clock, Flag
from .costs import PromptCost, StepCost
from .habits import Habit
from .request import Event, Request
from .truth import Cause

Emit = Callable[[Request, Event], None]

QUEUE = Cause("queue.admission", "queue", ("slots",), load=True)
QUEUE_BEHIND = Cause("queue.admission", "queue", ("slots-behind",), load=True)
WINDOW = Cause("queue.admission", "batch window", ("constant",))
STEP_ENDS = Cause("queue.admission", "a step that ends", ("beside-others",), load=True)
CONTENTION = Cause("prefill.contention", "others in the steps", ("beside-others",), load=True)
PREFILL = Cause("prefill.own", "prompt", ("slope", "stretches"))
PREFILL_APART = Cause("prefill.own", "prompt elsewhere", ("slope",))
PREFILL_BEHIND = Cause("prefill.own", "prompt elsewhere", ("slope-behind",))
PREFILL_MIXED = Cause("prefill.own", "prompt on unlike replicas", ("two-prices",))
MISSED = Cause("prefill.own", "prefix not in the cache", ("two-prices",))
PREEMPTED = Cause("queue.preempted", "preempted", ("lone-silence",), load=True)
RECOMPUTE = Cause("prefill.recompute", "computed again", ("lone-silence",), load=True)
BASE = Cause("decode.base", "step", ("pace",))
BATCH = Cause("decode.batch", "batch", ("pace",), load=True)
INTERFERENCE = Cause("decode.interference", "others' prompts", ("pace",), load=True)
STALL = Cause("decode.stall", "stall", ("common-silence",), load=True)
UNSEEN = Cause("decode.base", "steps not shown", ("unseen-steps",))


class Engine(Protocol):
    """What takes requests and makes tokens."""

    def submit(self, request: Request) -> None:
        """It waits here from now on."""

    @property
    def load(self) -> int:
        """Requests inside."""


@dataclass(slots=True)
class Stalls:
    """Everything stands still for ``ns`` every ``every`` ns or so: a collector, a collective that
    hangs, a clock that is throttled."""

    draw: random.Random
    every: float
    ns: float
    _begin: float = 0.0
    _end: float = 0.0

    def at(self, now: int) -> int:
        """How long it stands still from now on. What fell into idle time harmed nobody."""
        while self._end <= now:
            gap = self.every * self.draw.uniform(0.6, 1.4)
            self._begin = (self._end or now - self.every * self.draw.random()) + gap
            self._end = self._begin + self.ns * self.draw.uniform(0.7, 1.3)
        return round(self._end) - now if self._begin <= now else 0


@dataclass(slots=True)
class Causes:
    """What an engine's times are called, which depends on what stands before it."""

    queue: Cause = QUEUE
    prefill: Cause = PREFILL


@dataclass(slots=True)
class Shape:
    """What makes an engine. ``most``: streams at once (a function of time: it may change).
    ``budget``: tokens of a step's prompts, 0: prompts are computed whole and alone while streams
    wait. ``order``: fifo, shortest or priority. ``window``: an idle engine waits so long, ns, for
    more to come, unless ``gather`` are there. ``cache``: tokens that its memory holds.
    ``overlap``: how much of the smaller of a step's two works hides in the larger. ``speed``: of
    time, as a factor of all durations. ``prefix``: (tokens of a prefix that all prompts have, how
    often it is not in the cache)."""

    step: StepCost
    prompt: PromptCost
    most: Callable[[int], int]
    budget: int = 2048
    order: str = "fifo"
    window: int = 0
    gather: int = 1
    cache: int = 1 << 40
    overlap: float = 0.0
    noise: float = 0.01
    speed: Callable[[int], float] = lambda now: 1.0
    prefix: tuple[int, float] = (0, 0.0)
    stalls: Stalls | None = None


@dataclass(slots=True, eq=False)
class StepEngine:
    """Steps, one after the other; in each, running streams get a token and prompts a piece."""

    clock: Clock
    draw: random.Random
    shape: Shape
    habit: Habit
    emit: Emit
    causes: Causes = field(default_factory=Causes)
    #: prompts come computed: it only decodes
    decodes_only: bool = False
    waiting: list[Request] = field(default_factory=list)
    filling: list[Request] = field(default_factory=list)
    running: list[Request] = field(default_factory=list)
    _came: Flag = field(init=False)

    def __post_init__(self) -> None:
        self._came = Flag(self.clock)
        self.clock.start(self._live())

    @property
    def load(self) -> int:
        return len(self.waiting) + len(self.filling) + len(self.running)

    def submit(self, request: Request) -> None:
        request.notes["came"] = self.clock.now
        if not self.decodes_only:
            self.habit.begin(request, self.draw, lambda event: self.emit(request, event))
        self.waiting.append(request)
        self._came.wave()

    # ------------------------------------------------------------------ the loop
    async def _live(self) -> None:
        while True:
            if not self.load:
                await self._came
                continue
            await self._gather()
            self._admit()
            pieces = self._pieces()
            alone = bool(pieces) and not self.shape.budget
            streams = [] if alone else list(self.running)
            if not pieces and not streams:
                await self._came
                continue
            factor = self.draw.lognormvariate(0.0, self.shape.noise) * self.shape.speed(
                self.clock.now
            )
            took, pause = self._took(streams, pieces, factor)
            await At(self.clock.now + pause + took)
            self._book_streams(self.running, streams, pause, factor)
            self._fill(pieces, factor)
            for request in streams:
                self._make(request)

    async def _gather(self) -> None:
        """An idle engine waits for a batch."""
        shape = self.shape
        if not shape.window or self.running or self.filling:
            return
        began = self.clock.now
        until = max(began, self.waiting[0].notes["came"] + shape.window)
        self.clock.call(until, self._came.wave)
        while len(self.waiting) < shape.gather and self.clock.now < until:
            await self._came
        for request in self.waiting:
            # Before it was idle it made them wait for places, from then on for a batch.
            request.ledger.book(max(began, request.ledger.at), self.causes.queue)
            request.ledger.book(self.clock.now, WINDOW)

    def _admit(self) -> None:
        if self.shape.order == "shortest":
            self.waiting.sort(key=lambda r: ("lost" not in r.notes, r.isl))
        elif self.shape.order == "priority":
            self.waiting.sort(key=lambda r: ("lost" not in r.notes, r.notes.get("rank", 0)))
        while self.waiting and self.load - len(self.waiting) < self.shape.most(self.clock.now):
            request = self.waiting[0]
            held = sum(r.isl + r.made for r in (*self.running, *self.filling))
            if held and held + request.isl + request.made > self.shape.cache:
                break
            self.waiting.pop(0)
            lost = "lost" in request.notes
            waited = self.causes.queue if "blocked" in request.notes else STEP_ENDS
            request.ledger.book(self.clock.now, PREEMPTED if lost else waited)
            if self.decodes_only:
                self.running.append(request)
                if not request.made:
                    self._make(request)  # the token that the prompt's pool has made
                continue
            request.notes["own"] = request.notes["missed"] = 0.0
            request.notes["todo"] = request.isl + request.made + self._prefix(lost)
            request.computed = 0
            self.filling.append(request)
        for request in self.waiting:
            request.notes["blocked"] = True

    def _prefix(self, lost: bool) -> int:
        tokens, misses = self.shape.prefix
        return tokens if tokens and not lost and self.draw.random() < misses else 0

    def _pieces(self) -> list[tuple[Request, int]]:
        """What of which prompt this step computes."""
        if not self.shape.budget:
            return [(self.filling[0], self.filling[0].notes["todo"])] if self.filling else []
        left, pieces = max(16, self.shape.budget - len(self.running)), []
        for request in self.filling:
            size = min(left, request.notes["todo"] - request.computed)
            if size <= 0:
                break
            pieces.append((request, size))
            left -= size
        return pieces

    def _took(
        self, streams: list[Request], pieces: list[tuple[Request, int]], factor: float
    ) -> tuple[int, int]:
        context = sum(r.isl + r.made for r in streams)
        decode = self.shape.step(len(streams), context) if streams else 0.0
        prompts = sum(self.shape.prompt(size, r.computed) for r, size in pieces)
        small, large = sorted((decode, prompts))
        took = round((large + (1 - self.shape.overlap) * small) * factor)
        return took, self.shape.stalls.at(self.clock.now) if self.shape.stalls else 0

    # ------------------------------------------------------------------ the books
    def _book_streams(
        self, running: list[Request], streams: list[Request], pause: int, factor: float
    ) -> None:
        step, now = self.shape.step, self.clock.now
        context = sum(r.isl + r.made for r in streams)
        whole = step(len(streams), context) * factor if streams else 0.0
        for request in running:
            alone = min(whole, step(1, request.isl + request.made) * factor) if streams else 0.0
            base = UNSEEN if self.habit.unseen(request) else BASE
            request.ledger.book_parts(
                now,
                INTERFERENCE,
                (STALL, pause),
                (base, round(alone)),
                (BATCH, round(whole - alone)),
            )

    def _fill(self, pieces: list[tuple[Request, int]], factor: float) -> None:
        now = self.clock.now
        for request, size in pieces:
            request.notes["own"] += self.shape.prompt(size, request.computed) * factor
            request.computed += size
            if request.computed < request.notes["todo"]:
                continue
            self.filling.remove(request)
            own = round(request.notes["own"])
            if request.notes.pop("lost", False):
                request.ledger.book(now, RECOMPUTE)
            elif request.notes["todo"] > request.isl:
                extra = 1 - request.isl / request.notes["todo"]
                missed = round(own * extra)
                request.ledger.book_parts(
                    now, CONTENTION, (MISSED, missed), (self.causes.prefill, own - missed)
                )
            else:
                request.ledger.book_parts(now, CONTENTION, (self.causes.prefill, own))
            self.running.append(request)
            self._make(request)

    def _make(self, request: Request) -> None:
        """Its next token is there."""
        if request not in self.running:
            return  # it was pushed out by one that came before it in this step
        request.made += 1
        if self.habit.token(request, lambda event: self.emit(request, event)):
            self.running.remove(request)
            return
        while (
            len(self.running) > 1 and sum(r.isl + r.made for r in self.running) > self.shape.cache
        ):
            victim = self.running.pop()
            victim.notes["lost"] = True
            victim.ledger.book(self.clock.now, BASE)
            self.waiting.insert(0, victim)
