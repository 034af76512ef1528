"""The network and frontends: what a request passes besides gateways and engines."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from .clock import At, Clock
from .request import GENERATE, GET, Event, Request
from .truth import Cause

Onward = Callable[[Event], None]


def later(
    clock: Clock,
    request: Request,
    event: Event,
    onward: Onward,
    at: int,
    key: object,
    cause: Cause,
    own: int = 0,
) -> None:
    """``onward`` at ``at``, not before what went ahead of it. ``own``: ns that the event takes for
    itself; the rest is ``cause``'s."""
    at = max(at, request.notes.get(key, 0))
    request.notes[key] = at

    def arrive() -> None:
        if event.last:
            request.ledger.book_parts(clock.now, cause, (DETOKENISE, own))
        onward(event)

    if at <= clock.now:
        arrive()
    else:
        clock.call(at, arrive)


@dataclass(slots=True, eq=False)
class Network:
    """A hop of the network. ``base``: one way, ns; ``jitter``: mean of what comes on top;
    ``rate``: bytes per ns; ``loss``: share of messages that are sent again after a timeout.
    ``first``: its other end acknowledges what this client sends."""

    clock: Clock
    draw: random.Random
    base: int
    jitter: float
    rate: float
    loss: float = 0.0
    first: bool = True

    def way(self) -> int:
        extra = self.draw.gammavariate(2.0, self.jitter / 2) if self.jitter else 0.0
        if self.loss and self.draw.random() < self.loss:
            extra += max(200_000_000, 3 * self.base)
        return self.base + round(extra)

    def upload(self, size: int) -> int:
        """From its first to its last byte, ns."""
        return round(size / self.rate)

    async def there(self, request: Request) -> None:
        sent = self.upload(request.bytes)
        arrives = self.clock.now + sent + self.way()
        if self.first:
            request.notes["acked"] = arrives + self.way()
        await At(arrives)
        request.ledger.book(self.clock.now, self._cause("network.upload"))

    def back(self, request: Request, event: Event, onward: Onward) -> None:
        at = self.clock.now + self.way()
        later(self.clock, request, event, onward, at, self, self._cause("network.download"))

    def _cause(self, leaf: str) -> Cause:
        return Cause(leaf, "network" if self.first else "far hop", (
            "ack" if self.first else "get",
        ))  # fmt: skip


@dataclass(slots=True, eq=False)
class Frontend:
    """Each request and event is worked on at once, whoever else is there: ``parse`` ns and
    ``token`` ns for each token of the prompt; ``event`` ns for each event (detokenising)."""

    clock: Clock
    draw: random.Random
    parse: float
    token: float
    event: float
    #: a refused POST takes this time too
    refused: bool = False

    async def there(self, request: Request) -> None:
        took = _reading(self.parse, self.token, request)
        await At(self.clock.now + round(took * self.draw.lognormvariate(0.0, 0.08)))
        request.ledger.book(self.clock.now, PARSE if self.refused else PARSE_UNSEEN)

    def back(self, request: Request, event: Event, onward: Onward) -> None:
        at = self.clock.now + (0 if event.head else round(self.event))
        later(self.clock, request, event, onward, at, self, DETOKENISE)


def _reading(parse: float, token: float, request: Request) -> float:
    """ns; a list of models takes no template and no tokeniser, however slow these are."""
    return min(parse / 3, _LIST) if request.kind == GET else parse + token * request.isl


#: What a frontend needs for a cheap GET at most, ns.
_LIST = 1_000_000.0
PARSE = Cause("frontend.parse", "frontend", ("refused",))
PARSE_UNSEEN = Cause("frontend.parse", "frontend", ("slope",))
DETOKENISE = Cause("frontend.parse", "detokeniser", ("constant",))


@dataclass(slots=True, eq=False)
class LoopFrontend:
    """One event loop does everything, one thing after the other: a long prompt that is tokenised
    makes all streams wait, and many streams make each other wait."""

    clock: Clock
    draw: random.Random
    parse: float
    token: float
    event: float
    refused: bool = False
    _free: int = 0

    def _turn(self, work: float) -> tuple[int, int]:
        """When it will be done, and how long it takes by itself."""
        took = round(work * self.draw.lognormvariate(0.0, 0.1))
        self._free = max(self._free, self.clock.now) + took
        return self._free, took

    async def there(self, request: Request) -> None:
        done, took = self._turn(_reading(self.parse, self.token, request))
        await At(done)
        own = PARSE if self.refused else PARSE_UNSEEN
        wait = LOOP_WAIT if self.refused else LOOP_WAIT_UNSEEN
        request.ledger.book_parts(self.clock.now, wait, (own, took))

    def back(self, request: Request, event: Event, onward: Onward) -> None:
        if request.kind != GENERATE:
            onward(event)
            return
        at, took = self._turn(self.event)
        later(self.clock, request, event, onward, at, self, LOOP_EVENTS, took)


LOOP_WAIT = Cause("frontend.parse", "busy loop", ("refused-loaded",), load=True)
LOOP_WAIT_UNSEEN = Cause("frontend.parse", "busy loop", ("any-wait",), load=True)
LOOP_EVENTS = Cause("frontend.parse", "loop of events", ("paced",), load=True)
