"""A probe against the simulated engine in virtual time: the design and the laws alone, fast.

No sockets and no waiting, so hundreds of servers can be tried while one works on the laws. What
the client adds (stamps, processes, lateness) is not in it: the bench proper does that for real.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from latdiag.measurement.observations import Observations
from latdiag.measurement.stages import Limits, PathStage, Stage
from latdiag.probe.design import probe
from latdiag.sim.engine import Engine
from latdiag.sim.params import Params
from latdiag.sim.truth import Truth

MS = 1_000_000
#: The client's own work on a request; from its last token to its last byte.
CLIENT_NS, REST_NS = 60_000, 100_000
#: Between two stages; one way over a hop; what a cheap GET takes.
_PAUSE_NS, _HOP_NS, _HTTP_NS = 300 * MS, 30_000, 400_000


@dataclass(slots=True)
class Row:
    """One request as the client sees it; ``key`` finds its truth."""

    stage: str
    scenario: str
    isl: int
    osl: int
    begin: int
    sent: int
    key: str = ""
    status: int = 200
    answer: int = -1
    arrivals: list[int] = field(default_factory=list)
    delivered: int = 0


class Virtual:
    """A server in virtual time, with the relay's delay in front of it."""

    def __init__(self, params: Params, seed: int) -> None:
        self.params = params
        self.engine = Engine(params, seed)
        self.random = random.Random(f"way {seed}")
        self.now = 1_000_000_000
        self.rows: list[Row] = []
        self.truths: dict[str, Truth] = {}
        self._serial = 0

    def _way(self) -> int:
        jitter = self.params.network_jitter_ms
        extra = self.random.expovariate(1 / jitter) if jitter else 0.0
        return round((self.params.network_ms + extra) * MS)

    def path(self, stage: PathStage) -> None:
        for _ in range(stage.gets):
            way = self._way() + self._way()
            answer = way + round(_HTTP_NS * self.random.lognormvariate(0, 0.2))
            self.rows.append(Row("S1", "get", 0, 0, self.now, self.now, answer=answer))
            self.now += answer + 50 * MS
        if "temperature" in self.params.refuses:
            return
        for isl in stage.refused:
            parse = self.params.frontend_ms * MS + self.params.frontend_us * 1000 * isl
            answer = self._way() + self._way() + round(parse) + _HTTP_NS // 4
            row = Row("S1", "refused", isl, 0, self.now, self.now, status=400, answer=answer)
            self.rows.append(row)
            self.now += answer + 50 * MS

    def run(self, stage: Stage) -> None:
        """All requests of a stage to their end."""
        start, open_ = self.now, {}
        self._beside(stage, start)
        waiting = list(stage.shots)
        due: list[tuple[int, int, Row]] = []

        def send(shot: Any, at: int) -> None:
            self._serial += 1
            scenario = f"segment-{stage.segment}" if stage.segment else ""
            row = Row(stage.name, scenario, shot.isl, shot.osl, at, at + CLIENT_NS)
            row.key = f"r{self._serial}"
            open_[row.key] = row
            self.rows.append(row)
            due.append((row.sent + _HOP_NS + self._way(), self._serial, row))

        if stage.slots:
            for _ in range(min(stage.slots, len(waiting))):
                send(waiting.pop(0), start + self._dither(stage))
        else:
            for shot in waiting:
                send(shot, start + shot.at_ns)
            waiting = []
        while open_:
            due.sort(key=lambda entry: entry[:2])
            upcoming = self.engine.next_ns()
            if due and (upcoming is None or due[0][0] <= upcoming):
                at, _, row = due.pop(0)
                self.engine.submit(row.key, at, row.isl, row.osl)
                continue
            assert upcoming is not None
            for emission in self.engine.advance(upcoming):
                row = open_[emission.key]
                arrived = max(emission.at_ns + self._way() + _HOP_NS, row.delivered)
                row.arrivals.append(arrived)
                row.delivered = arrived
                if emission.last:
                    del open_[emission.key]
                    self.truths[row.key] = self.engine.pop_truth(row.key)
                    self.now = max(self.now, arrived)
                    if waiting:
                        send(waiting.pop(0), arrived + 100_000 + self._dither(stage))
        self.now += _PAUSE_NS

    def _beside(self, stage: Stage, start: int) -> None:
        """GETs and refused POSTs beside a workload: the frontend has a process for each."""
        for isl, _, at in stage.beside:
            way, begin = self._way() + self._way(), start + at
            http = _HTTP_NS * self.random.lognormvariate(0, 0.2)
            if isl == 0:
                answer, name, status = way + round(http), "get", 200
            else:
                parse = self.params.frontend_ms * MS + self.params.frontend_us * 1000 * isl
                answer, name, status = way + round(parse) + _HTTP_NS // 4, "refused", 400
            row = Row("S7", name, isl, 0, begin, begin, status=status, answer=answer)
            self.rows.append(row)

    def _dither(self, stage: Stage) -> int:
        return round(self.random.random() * stage.dither_ns)

    def observed(self) -> Observations:
        return observations(self.rows)


def observations(rows: Iterable[Row]) -> Observations:
    rows = sorted(rows, key=lambda row: (row.sent, row.key))

    def ints(values: Iterable[int]) -> Any:
        return np.array(list(values), dtype=np.int64)

    usable = np.array([bool(row.arrivals) for row in rows])
    first = ints(row.arrivals[0] if row.arrivals else 0 for row in rows)
    last = ints(row.arrivals[-1] if row.arrivals else 0 for row in rows)
    begin = ints(row.begin for row in rows)
    client = np.where(usable, CLIENT_NS, 0)
    network = np.where(usable, 2 * _HOP_NS, 0)
    sizes = [len(row.arrivals) for row in rows]
    flat = ints(at for row in rows for at in row.arrivals)
    stages = np.array([row.stage for row in rows], dtype=object)
    return Observations(
        row=np.arange(len(rows)),
        stage=stages,
        scenario=np.array([row.scenario for row in rows], dtype=object),
        ok=np.array([row.status == 200 for row in rows]),
        status=ints(row.status for row in rows),
        usable=usable,
        isl=ints(row.isl for row in rows),
        osl=ints(row.osl for row in rows),
        begin=begin,
        sent=ints(row.sent for row in rows),
        first=first,
        last=last,
        done=last + np.where(usable, REST_NS, 0),
        client=client,
        network=network,
        network_lo=network,
        network_hi=network,
        server=np.where(usable, first - begin - client - network, 0),
        delayed=np.zeros(len(rows), dtype=bool),
        answer=ints(row.answer for row in rows),
        offsets=np.concatenate(([0], np.cumsum(sizes))).astype(np.int64),
        arrivals=flat,
        brought=np.ones(len(flat)),
        exact=np.ones(len(flat), dtype=bool),
        shed=np.array([row.status in (429, 503) for row in rows], dtype=bool),
        wait=np.full(len(rows), -1, dtype=np.int64),
    )


def probed(params: Params, seed: int, limits: Limits | None = None) -> Virtual:
    """A whole probe."""
    server = Virtual(params, seed)
    limits = limits or Limits("quick", 200_000, params.max_model_len, seed)
    design = probe(limits)
    stage = next(design, None)
    while stage is not None:
        if isinstance(stage, PathStage):
            server.path(stage)
        else:
            server.run(stage)
        try:
            stage = design.send(server.observed())
        except StopIteration:
            stage = None
    return server
