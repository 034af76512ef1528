"""A server: hops on the way, an engine behind them, and others who use it too."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from latdiag.model.records import Kind

from .clock import At, Clock
from .course import Course, Turn
from .engines import Engine
from .request import GENERATE, GET, Event, Hop, Request, Turned
from .truth import Ledger

#: Where a POST with a senseless parameter is refused: before all gateways but the first hop of
#: the network, behind them before the frontend has read it, or by the frontend.
REFUSED_AT = ("gateway", "entry", "frontend")
#: What vLLM and SGLang say of a temperature below 0.
OWN_WORDS = "temperature must be non-negative, got -1.0."


@dataclass(slots=True, eq=False)
class World:
    """``hops``: from the client on; the first is the network. ``frontend``: the place of it among
    them. ``engine``: where requests end up. ``refused_at``: see above; ``words``: with which.
    ``described``: its pieces in words."""

    clock: Clock
    hops: Sequence[Hop]
    frontend: int
    engine: Engine
    refused_at: str = "frontend"
    words: str = ""
    #: whether the kernel of the first hop's other end may hold an ACK back
    lazy_acks: bool = False
    described: tuple[str, ...] = ()
    #: of a connection that is not there yet: a TLS handshake
    tls: bool = False
    course: Course = field(default_factory=Course)
    #: the instant at which it was made
    began: int = 0

    def __post_init__(self) -> None:
        self.began = self.clock.now

    def begin(self, request: Request) -> None:
        """It leaves the client now."""
        self.clock.start(self._serve(request))

    async def _serve(self, request: Request) -> None:
        last = len(self.hops)
        if request.kind == GET:
            last = self.frontend + 1
        elif request.kind != GENERATE:
            last = {"gateway": 1, "entry": self.frontend, "frontend": self.frontend + 1}[
                self.refused_at
            ]
        passed = 0
        try:
            for hop in self.hops[:last]:
                await hop.there(request)
                passed += 1
        except Turned as turned:
            event = Event(Kind.OTHER, 0, True, True, turned.status, wait_s=turned.wait_s)
            self._back(request, event, passed - 1)
            return
        if request.kind == GENERATE:
            self.engine.submit(request)
        else:
            status = 200 if request.kind == GET else 400
            words = "" if request.kind == GET else self.words
            self._back(request, Event(Kind.OTHER, 0, True, True, status, words=words), last - 1)

    def emit(self, request: Request, event: Event) -> None:
        """An engine's event begins its way back."""
        if request.ours:
            self._back(request, event, len(self.hops) - 1)

    def _back(self, request: Request, event: Event, place: int) -> None:
        if place < 0:
            request.receive(event)
        else:
            self.hops[place].back(
                request, event, lambda passed: self._back(request, passed, place - 1)
            )


@dataclass(slots=True)
class Tenants:
    """Others' requests, straight to the engine: ``rate`` per second, in spells of ``on`` ns with
    ``off`` ns between them."""

    draw: random.Random
    rate: float
    isl: int
    osl: int
    on: float = 0.0
    off: float = 0.0
    #: only from then to then
    turn: Turn | None = None

    def begin(self, clock: Clock, engine: Engine) -> None:
        clock.start(self._live(clock, engine))

    async def _live(self, clock: Clock, engine: Engine) -> None:
        spell = clock.now + self.draw.expovariate(1.0) * self.on
        while True:
            await At(clock.now + round(self.draw.expovariate(self.rate) * 1e9))
            if self.on and clock.now > spell:
                await At(clock.now + round(self.draw.expovariate(1.0) * self.off))
                spell = clock.now + self.draw.expovariate(1.0) * self.on
            if self.turn is not None and not self.turn.at <= clock.now < self.turn.until:
                continue
            isl = max(8, round(self.isl * self.draw.lognormvariate(0.0, 0.6)))
            osl = max(2, round(self.osl * self.draw.lognormvariate(0.0, 0.5)))
            engine.submit(Request(GENERATE, isl, osl, Ledger(clock.now), ours=False))
