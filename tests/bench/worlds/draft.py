"""A world before it is built: the parameters of its pieces, drawn for an ordinary server."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from . import costs
from .clock import Clock
from .costs import MS, US, S, log_uniform
from .course import Course
from .engines import (
    PREFILL,
    PREFILL_APART,
    PREFILL_BEHIND,
    PREFILL_MIXED,
    QUEUE,
    QUEUE_BEHIND,
    Causes,
    Emit,
    Engine,
    Shape,
    StepEngine,
)
from .gateways import Delay, Gateway
from .habits import COUNTS, Habit
from .path import Frontend, LoopFrontend, Network
from .pools import SharingEngine
from .request import Hop
from .world import OWN_WORDS, Tenants, World

#: The virtual instant at which every world begins.
EPOCH = 5_000 * S
Engines = Callable[["Draft", Clock, Emit, Causes], Engine]


def steps(draft: Draft, clock: Clock, emit: Emit, causes: Causes) -> Engine:
    """One engine with continuous batching."""
    return StepEngine(clock, draft.draw, draft.shape, draft.habit, emit, causes)


@dataclass(slots=True)
class Draft:
    """An ordinary server; kinds change it. ``workload``: options of the probe. ``says``: what was
    drawn, in words. ``shared``: prompts are computed where tokens are made. ``unlike``: replicas
    differ."""

    draw: random.Random
    shape: Shape
    network: Callable[[Clock], Network]
    frontend: Callable[[Clock], Frontend | LoopFrontend]
    habit: Habit = field(default_factory=Habit)
    gateways: list[Callable[[Clock], Gateway | Network]] = field(default_factory=list)
    engine: Engines = steps
    refused_at: str = "frontend"
    #: whether the server refuses in the words of an engine that people run
    known: bool = True
    tenants: Tenants | None = None
    workload: dict[str, object] = field(default_factory=dict)
    says: list[str] = field(default_factory=list)
    shared: bool = True
    unlike: bool = False
    tls: bool = False
    lazy_acks: bool = False
    course: Course = field(default_factory=Course)
    token: float = 20 * MS
    prompt_token: float = 30 * US

    def built(self, clock: Clock) -> World:
        way, front = self.network(clock), self.frontend(clock)
        hops: list[Hop] = [way, *(make(clock) for make in self.gateways), front]
        late = self.refused_at == "frontend"
        front.refused = late
        for hop in hops:
            if isinstance(hop, Delay):
                hop.refused = self.refused_at != "gateway"
        prefill = PREFILL if self.shared else PREFILL_BEHIND if late else PREFILL_APART
        if self.unlike:
            prefill = PREFILL_MIXED
        # What is refused unread, in nobody's words, may have been refused anywhere.
        behind = late or (self.known and self.refused_at == "entry")
        causes = Causes(QUEUE_BEHIND if behind else QUEUE, prefill)
        world: World | None = None

        def emit(request, event):  # type: ignore[no-untyped-def]
            assert world is not None
            world.emit(request, event)

        engine = self.engine(self, clock, emit, causes)
        world = World(
            clock,
            hops,
            len(hops) - 1,
            engine,
            self.refused_at,
            "" if self.refused_at == "gateway" else OWN_WORDS if self.known else "not allowed",
            self.lazy_acks,
            tuple(self.says),
            self.tls,
            self.course,
        )
        if self.tenants is not None:
            self.tenants.begin(clock, engine)
        return world

    def say(self, text: str) -> None:
        self.says.append(text)

    def reshape(self, **changes: object) -> None:
        self.shape = replace(self.shape, **changes)  # type: ignore[arg-type]


def ordinary(draw: random.Random) -> Draft:
    """A server as most are: one engine, a frontend, a short way, nothing to complain of."""
    token = log_uniform(draw, 5, 28) * MS
    prompt = log_uniform(draw, 8, 60) * US
    step, fill = draw.choice(costs.STEPS), draw.choice(costs.PROMPTS)
    most = draw.choice((48, 64, 128, 256))
    shape = Shape(
        step=step(draw, token),
        prompt=fill(draw, prompt),
        most=lambda now: most,
        budget=draw.choice((512, 1024, 2048, 2048, 8192, 0)),
        overlap=draw.uniform(0.0, 0.7),
        noise=draw.uniform(0.003, 0.03),
    )
    draft = Draft(draw, shape, _way(draw), _front(draw), token=token, prompt_token=prompt)
    draft.say(
        f"{step.__name__} steps from {token / MS:.1f} ms, {fill.__name__} prompts"
        f" of {prompt / US:.0f} us a token, {shape.budget} tokens a step, {most} streams"
    )
    _habits(draft)
    _own_workload(draft)
    if draw.random() < 0.4:
        thin = log_uniform(draw, 0.1, 2.0) * MS
        draft.gateways.append(lambda clock: Delay(clock, draw, thin, gets=True))
        draft.say(f"a proxy of {thin / MS:.2f} ms")
    draft.refused_at = draw.choice(("frontend", "frontend", "frontend", "entry", "gateway"))
    draft.say(f"refuses at the {draft.refused_at}")
    draft.known = draw.random() < 0.7
    draft.say("in words that are known" if draft.known else "in words of its own")
    draft.lazy_acks, draft.tls = draw.random() < 0.15, draw.random() < 0.3
    return draft


def _way(draw: random.Random) -> Callable[[Clock], Network]:
    base, rate = log_uniform(draw, 0.03, 8.0) * MS, log_uniform(draw, 0.005, 1.0)
    jitter = base * draw.uniform(0.01, 0.25)
    return lambda clock: Network(clock, draw, round(base), jitter, rate)


def _front(draw: random.Random) -> Callable[[Clock], Frontend | LoopFrontend]:
    parse, token = log_uniform(draw, 0.3, 5.0) * MS, log_uniform(draw, 0.2, 4.0) * US
    event = log_uniform(draw, 0.02, 0.3) * MS
    if draw.random() < 0.3:
        return lambda clock: LoopFrontend(clock, draw, parse, token, event)
    return lambda clock: Frontend(clock, draw, parse, token, event)


def _habits(draft: Draft) -> None:
    draw = draft.draw
    draft.habit = Habit(
        thinks=draw.choice((0.0, 0.0, 0.0, 0.5)),
        head=draw.choice(("early", "early", "first")),
        role=draw.choice(("first", "first", "early", "none")),
        counts=draw.choice(COUNTS),
        usage=draw.random() < 0.9,
    )


def _own_workload(draft: Draft) -> None:
    """In half of the probes the user names lengths, a rate or a concurrency of his own."""
    draw = draft.draw
    if draw.random() < 0.5:
        return
    isl = tuple(
        draw.choice((64, 128, 256, 512, 800, 1024, 2000)) for _ in range(draw.randint(1, 3))
    )
    osl = tuple(draw.choice((16, 24, 32, 64, 96)) for _ in range(draw.randint(1, 2)))
    draft.workload = {"isl": isl, "osl": osl}
    if draw.random() < 0.4:
        draft.workload["concurrency"] = draw.choice((1, 2, 4, 6))
    draft.say(f"asked with {draft.workload}")


def press(draft: Draft, places: int) -> None:
    """Enough at once that places matter."""
    draw = draft.draw
    if draw.random() < 0.5:
        draft.workload.pop("rate", None)
        draft.workload["concurrency"] = places * draw.randint(1, 4) + draw.randint(0, 2)
        draft.say(f"{draft.workload['concurrency']} at once")


def sharing(power: float) -> Callable[[Draft, Clock, Emit, Causes], Engine]:
    def made(draft: Draft, clock: Clock, emit: Emit, causes: Causes) -> Engine:
        return SharingEngine(
            clock, draft.draw, draft.token, draft.shape.prompt, power, draft.habit, emit, causes
        )

    return made
