"""Gateways: what nginx, HAProxy, Envoy, LiteLLM and guardrails do to requests and streams."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

from .clock import At, Clock, Slots
from .path import Onward, later
from .request import GENERATE, GET, Event, Request, Turned
from .truth import Cause

Held = tuple[Event, Onward]


def _now_on(_hop: object, _request: Request, event: Event, onward: Onward) -> None:
    onward(event)


@dataclass(slots=True, eq=False)
class Delay:
    """So long for each POST: a key that is checked elsewhere, a guardrail that reads the prompt
    (``byte`` ns for each byte of it). ``gets``: a GET takes it too; most gateways answer or route
    these otherwise."""

    clock: Clock
    draw: random.Random
    ns: float
    byte: float = 0.0
    gets: bool = False
    spread: float = 0.08
    refused: bool = False

    async def there(self, request: Request) -> None:
        if request.kind == GET and not self.gets:
            return
        took = self.ns * self.draw.lognormvariate(0.0, self.spread) + self.byte * request.bytes
        await At(self.clock.now + round(took))
        request.ledger.book(self.clock.now, self.cause)

    @property
    def cause(self) -> Cause:
        if self.gets and not self.byte:
            return DELAY_OF_ALL
        return DELAY_OF_REFUSED if self.refused else SCAN if self.byte else DELAY

    back = _now_on


DELAY = Cause("gateway.proc", "delay of POSTs", ("constant",))
SCAN = Cause("gateway.proc", "scan of the body", ("slope",))
DELAY_OF_REFUSED = Cause("gateway.proc", "delay of POSTs", ("refused",))
DELAY_OF_ALL = Cause("gateway.proc", "delay", ("get",))


@dataclass(slots=True, eq=False)
class PerEvent:
    """Each event costs ``ns`` of one process's time (a callback, a log line, JSON decoded and
    encoded again). ``shared``: all streams stand in one line; else each in its own."""

    clock: Clock
    draw: random.Random
    ns: float
    shared: bool
    _free: int = 0

    async def there(self, request: Request) -> None:
        if self.shared and request.kind == GENERATE:
            self._free = max(self._free, self.clock.now) + round(self.ns)
            await At(self._free)
            request.ledger.book(self.clock.now, EVENTS)

    def back(self, request: Request, event: Event, onward: Onward) -> None:
        if request.kind != GENERATE:
            onward(event)
            return
        work = round(self.ns * self.draw.lognormvariate(0.0, 0.15))
        free = self._free if self.shared else request.notes.get((self, "free"), 0)
        free = max(free, self.clock.now) + work
        if self.shared:
            self._free = free
        else:
            request.notes[self, "free"] = free
        later(self.clock, request, event, onward, free, self, EVENTS)


EVENTS = Cause("gateway.proc", "work on each event", ("paced",))


@dataclass(slots=True, eq=False)
class Admission:
    """So many requests at once; the others wait in the gateway, until a reply has ended.
    ``turns``: beyond that they get 429 at once. ``all_posts``: refused POSTs need a place too."""

    clock: Clock
    places: int
    turns: bool = False
    all_posts: bool = False
    slots: Slots = field(init=False)
    _inside: int = 0

    def __post_init__(self) -> None:
        self.slots = Slots(self.clock, self.places)

    async def there(self, request: Request) -> None:
        if request.kind == GET or (request.kind != GENERATE and not self.all_posts):
            return
        if self.turns and self._inside >= self.places:
            raise Turned(429)
        self._inside += 1
        await self.slots
        request.notes[self, "inside"] = True
        request.ledger.book(self.clock.now, ADMISSION_OF_ALL if self.all_posts else ADMISSION)

    def back(self, request: Request, event: Event, onward: Onward) -> None:
        if event.last and request.notes.pop((self, "inside"), False):
            self._inside -= 1
            self.slots.free()
        onward(event)


ADMISSION = Cause("gateway.proc", "admission", ("slots",), load=True)
ADMISSION_OF_ALL = Cause("gateway.proc", "admission", ("slots", "refused-loaded"), load=True)


@dataclass(slots=True, eq=False)
class Bucket:
    """Tokens of replies by a bucket that fills at ``rate`` tokens per second and holds ``burst``:
    the events of all streams of a key wait for it."""

    clock: Clock
    rate: float
    burst: float
    _empty: float = 0.0

    async def there(self, request: Request) -> None:
        return

    def back(self, request: Request, event: Event, onward: Onward) -> None:
        if request.kind != GENERATE or not event.tokens:
            later(self.clock, request, event, onward, self.clock.now, self, BUCKET)
            return
        # When as many tokens as this one and all before it will have been granted.
        step = 1e9 / self.rate
        begin = max(self._empty, self.clock.now - self.burst * step)
        self._empty = begin + event.tokens * step
        later(self.clock, request, event, onward, round(self._empty), self, BUCKET)


BUCKET = Cause("gateway.proc", "token bucket", ("paced",), load=True)


@dataclass(slots=True, eq=False)
class Flush:
    """Holds the stream back and lets it go in bursts: every ``period`` ns, or when ``size`` bytes
    are there. ``ticks``: by a timer of its own, else so long after the first event that waits.
    ``end``: the last event waits too; else it takes all with it."""

    clock: Clock
    period: int
    size: int = 0
    ticks: bool = False
    end: bool = True
    phase: int = 0

    async def there(self, request: Request) -> None:
        return

    def back(self, request: Request, event: Event, onward: Onward) -> None:
        if request.kind != GENERATE or event.head:
            onward(event)
            return
        held: list[Held] = request.notes.setdefault((self, "held"), [])
        first = not held
        held.append((event, onward))
        full = self.size and sum(each.size for each, _ in held) >= self.size
        if full or (event.last and not self.end):
            self._go(request, held)
        elif first and self.period:
            at = self.clock.now + self.period
            if self.ticks:
                at -= (at - self.phase) % self.period
            self.clock.call(at, self._go_if, request, held)

    def _go_if(self, request: Request, held: list[Held]) -> None:
        if request.notes.get((self, "held")) is held and held:
            self._go(request, held)

    def _go(self, request: Request, held: list[Held]) -> None:
        request.notes[self, "held"] = []
        for event, onward in held:
            if event.last:
                request.ledger.book(self.clock.now, FLUSH)
            onward(event)


FLUSH = Cause("gateway.flush", "flush", ("bursts",))


@dataclass(slots=True, eq=False)
class HoldEnd:
    """The reply ends ``ns`` after its last token: usage is counted and logged first."""

    clock: Clock
    draw: random.Random
    ns: float

    async def there(self, request: Request) -> None:
        return

    def back(self, request: Request, event: Event, onward: Onward) -> None:
        if request.kind != GENERATE or not event.last:
            onward(event)
            return
        at = self.clock.now + round(self.ns * self.draw.lognormvariate(0.0, 0.2))
        later(self.clock, request, event, onward, at, self, HOLD)


HOLD = Cause("gateway.proc", "end of the reply held", ("end",))


@dataclass(slots=True, eq=False)
class InFlight:
    """429 (503 of some) for whoever comes while ``most`` are inside. ``wait_s``: Retry-After."""

    most: int
    status: int = 429
    wait_s: float | None = None
    _inside: int = 0

    async def there(self, request: Request) -> None:
        if request.kind != GENERATE:
            return
        if self._inside >= self.most:
            raise Turned(self.status, self.wait_s)
        self._inside += 1
        request.notes[self] = True

    def back(self, request: Request, event: Event, onward: Onward) -> None:
        if event.last and request.notes.pop(self, False):
            self._inside -= 1
        onward(event)


@dataclass(slots=True, eq=False)
class PerSecond:
    """429 for whoever comes when the bucket of requests is empty."""

    clock: Clock
    rate: float
    burst: float
    wait_s: float | None = None
    _at: float = -1e18

    async def there(self, request: Request) -> None:
        if request.kind == GET:
            return
        step = 1e9 / self.rate
        begin = max(self._at, self.clock.now - self.burst * step)
        if begin + step > self.clock.now:
            raise Turned(429, self.wait_s)
        self._at = begin + step

    back = _now_on


@dataclass(slots=True, eq=False)
class PerWindow:
    """429 for whoever comes when ``number`` have come in this window of ``window`` ns, which begin
    at even times. ``tells``: Retry-After says when the next begins."""

    clock: Clock
    number: int
    window: int
    phase: int = 0
    tells: bool = False
    _begun: int = -1
    _count: int = 0

    async def there(self, request: Request) -> None:
        if request.kind == GET:
            return
        begun = self.clock.now - (self.clock.now - self.phase) % self.window
        if begun != self._begun:
            self._begun, self._count = begun, 0
        if self._count >= self.number:
            left = (begun + self.window - self.clock.now) / 1e9
            raise Turned(429, math.ceil(left) if self.tells else None)
        self._count += 1

    back = _now_on


Gateway = (
    Delay | PerEvent | Admission | Bucket | Flush | HoldEnd | InFlight | PerSecond | PerWindow
)
