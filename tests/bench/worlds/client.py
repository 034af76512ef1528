"""A probe of a world: latdiag's own design, its requests in virtual time, and the rows of a run.

The client is a good one: it sends within some 0.1 ms of the due instant and stamps exactly. What
it can do wrong is judged elsewhere (``tests/bench/client``).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from latdiag.load.plan import BUSY, GET, LOADED_PATH, REFUSED
from latdiag.measurement.stages import Limits, PathStage, Shot, Stage

from . import request as requests
from .clock import At, Clock
from .path import Network
from .request import Event, Request
from .truth import SEND, Cause, Ledger, Truth
from .world import World

MS = 1_000_000
#: Between two stages: the client starts readers and plans.
_PAUSE = 250 * MS
#: A request has so long, as the plan of a load says by default.
TIMEOUT = 120_000 * MS
Ended = Callable[[], None]
CONNECT = Cause("network.tcp", "connect", ("ack",))
_LAZY_ACK = 40 * MS


@dataclass(slots=True, eq=False)
class Row:
    """A request as the client records it; instants are None where the kernel stamped none."""

    stage: str
    scenario: str
    request: Request
    due: int | None
    sent: int
    isl: int
    osl: int
    connected: int | None = None
    written: int = 0
    wire: int = 0
    wire_last: int = 0
    acked: int | None = None
    trip: int = 0
    head: int | None = None
    done: int | None = None
    status: int = 0
    wait_s: float | None = None
    words: str = ""
    events: list[tuple[int, Event]] = field(default_factory=list)

    @property
    def begin(self) -> int:
        return self.sent if self.due is None else min(self.due, self.sent)

    @property
    def ok(self) -> bool:
        return self.status == 200 and self.done is not None

    def truth(self) -> Truth:
        assert self.done is not None
        return Truth(self.begin, self.done, self.request.ledger.spent)


class Client:
    """Makes the requests of stages; ``rows`` in the order in which they ended."""

    def __init__(self, world: World, draw: random.Random) -> None:
        self._world, self._draw = world, draw
        self._clock: Clock = world.clock
        self._way = world.hops[0]
        assert isinstance(self._way, Network) and self._way.first
        self.rows: list[Row] = []
        self._idle = 0
        self._open = 0

    def execute(self, stage: Stage | PathStage) -> list[Row]:
        """All of a stage, to its end; its rows."""
        begun, self._idle = len(self.rows), 0
        self._clock.pass_to(self._clock.now + stage.after_ns)
        self._world.course.opened(stage, self._clock.now)
        if isinstance(stage, PathStage):
            self._path(stage)
        else:
            self._stage(stage)
        self._clock.pass_to(self._clock.now + _PAUSE)
        return self.rows[begun:]

    def _stage(self, stage: Stage) -> None:
        start, waiting = self._clock.now, iter(stage.shots)
        if stage.slots:
            for _ in range(min(stage.slots, len(stage.shots))):
                self._open += 1
                self._clock.start(self._slot(stage, waiting))
        else:
            for shot in stage.shots:
                self._open += 1
                self._clock.start(self._due(stage, shot, start + max(shot.at_ns, 0)))
            for shot in stage.beside:
                self._open += 1
                self._clock.start(self._beside(shot, start + shot.at_ns))
        self._clock.until(lambda: not self._open)

    async def _due(self, stage: Stage, shot: Shot, due: int) -> None:
        await At(due)
        await At(due + self._late())
        self._send(self._row(stage, shot, due), self._ended)

    async def _beside(self, shot: Shot, due: int) -> None:
        """A GET or a POST that is refused, among the requests of a workload."""
        await At(due)
        await At(due + self._late())
        now = self._clock.now
        kind, name = (requests.REFUSED, REFUSED) if shot.isl else (requests.GET, GET)
        request = Request(kind, shot.isl, 0, Ledger(now))
        self._send(Row(LOADED_PATH, name, request, due, now, shot.isl, 0), self._ended)

    async def _slot(self, stage: Stage, waiting: Iterator[Shot], began: bool = False) -> None:
        """One place of a closed loop: the next request when the last has ended."""
        waits = round(self._draw.random() * stage.dither_ns)
        await At(self._clock.now + waits + (stage.pause_ns if began else 0))
        shot = next(waiting, None)
        if shot is None:
            self._ended()
            return
        row = self._row(stage, shot, None)
        self._send(row, lambda: self._clock.start(self._slot(stage, waiting, True)))

    def _ended(self) -> None:
        self._open -= 1

    def _row(self, stage: Stage, shot: Shot, due: int | None) -> Row:
        now = self._clock.now
        request = Request(
            requests.GENERATE, shot.isl, shot.osl, Ledger(now if due is None else due)
        )
        request.notes["rank"] = self._draw.random()
        scenario = f"segment-{stage.segment}" if stage.segment else ""
        return Row(stage.name, scenario, request, due, now, shot.isl, shot.osl)

    def _late(self) -> int:
        """How long after it is due a request is sent: a wake, rarely a busy moment."""
        slow = self._draw.random() < 0.005
        return round(self._draw.expovariate(1.0) * (1.0 if slow else 0.06) * MS)

    # ------------------------------------------------------------------ the path
    def _path(self, stage: PathStage) -> None:
        kinds = [(True, 0)] * min(stage.fresh, stage.gets)
        kinds += [(False, 0)] * (stage.gets - len(kinds)) + [(False, n) for n in stage.refused]
        self._draw.shuffle(kinds)
        for fresh, isl in kinds:
            self._clock.pass_to(self._clock.now + round(self._draw.uniform(0, 100) * MS))
            now = self._clock.now
            kind = requests.REFUSED if isl else requests.GET
            request = Request(kind, isl, 0, Ledger(now))
            row = Row(stage.name, REFUSED if isl else GET, request, None, now, isl, 0)
            if fresh:
                self._idle = 0
            self._open = 1
            self._send(row, self._ended)
            self._clock.until(lambda: not self._open)
            if row.status in BUSY:
                return

    # ------------------------------------------------------------------ one request
    def _send(self, row: Row, ended: Ended) -> None:
        self._clock.start(self._make(row, ended))

    async def _make(self, row: Row, ended: Ended) -> None:
        clock, way, ledger = self._clock, self._way, row.request.ledger
        assert isinstance(way, Network)
        ledger.book(clock.now, SEND)
        if self._idle:
            self._idle -= 1
        else:
            await At(clock.now + 150_000 + way.way() + way.way())
            if self._world.tls:
                await At(clock.now + 900_000 + way.way() + way.way())
            ledger.book(clock.now, CONNECT)
            row.connected = clock.now
        row.written = clock.now + round(self._draw.lognormvariate(9.9, 0.4))
        row.wire = row.written + round(self._draw.lognormvariate(9.2, 0.3))
        await At(row.wire)
        ledger.book(clock.now, SEND)
        row.wire_last = row.wire + way.upload(row.request.bytes)
        row.trip = 2 * way.base + round(self._draw.random() * 0.1 * way.jitter)
        row.request.receive = lambda event: self._take(row, event, ended)
        clock.call(row.sent + TIMEOUT, self._give_up, row, ended)
        self._world.begin(row.request)

    def _give_up(self, row: Row, ended: Ended) -> None:
        if row.done is None:
            row.request.receive = lambda event: None
            row.status = 0
            self.rows.append(row)
            ended()

    def _acked(self, row: Row) -> int:
        """The other end's kernel may hold an ACK back; then it rides on the reply."""
        lazy = _LAZY_ACK if self._world.lazy_acks and self._draw.random() < 0.5 else 0
        return min(int(row.request.notes["acked"]) + lazy, self._clock.now)

    def _take(self, row: Row, event: Event, ended: Ended) -> None:
        now = self._clock.now
        if row.head is None:
            row.head, row.status, row.acked = now, event.status, self._acked(row)
            row.wait_s, row.words = event.wait_s, event.words
        if not event.head:
            row.events.append((now, event))
        if event.last:
            row.done = now
            row.request.ledger.book(now, SEND)
            self._idle += 1
            self.rows.append(row)
            ended()


def limits_of(budget: str, seed: int, workload: dict[str, object]) -> Limits:
    """What such a probe may spend, as ``latdiag probe`` sets it by default."""
    from latdiag.probe.budget import MAX_TOKENS

    return Limits(budget, MAX_TOKENS[budget], 32_768, seed, **workload)  # type: ignore[arg-type]
