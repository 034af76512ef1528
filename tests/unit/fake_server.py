"""A server that answers a probe's stages at once, in time of its own: slots, first come first
served, a prompt law and a fixed gap."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from hypothesis import strategies as st

from latdiag.measurement.stages import Limits, PathStage, Shot, Stage
from latdiag.probe.design import probe

from .probe_rows import MS, Reply, seen

_PAUSE = 100 * MS


@dataclass
class FakeServer:
    """``longest``: prompts beyond are refused. ``fails``: of every so many requests one fails, 0:
    none, 1: all. ``slots``: how many it lets in. ``rows``: what a client has seen so far."""

    base_ms: float = 5.0
    token_us: float = 20.0
    gap_ms: float = 10.0
    slots: int = 64
    longest: int = 1 << 30
    fails: int = 0
    parses: bool = True
    rows: list[Reply] = field(default_factory=list)
    stages: list[Stage | PathStage] = field(default_factory=list)
    now: int = 0
    made: int = 0

    def answer(self, stage: Stage | PathStage) -> None:
        self.stages.append(stage)
        self.now += stage.after_ns
        if isinstance(stage, PathStage):
            self._path(stage)
        else:
            self._run(stage)
        self.now += _PAUSE

    def _path(self, stage: PathStage) -> None:
        for _ in range(stage.gets):
            answer = -1 if self.fails == 1 else MS // 2
            self.rows.append(Reply("S1", 0, self.now, scenario="get", answer=answer))
            self.now += MS
        for isl in stage.refused:
            status = 400 if self.parses else 200
            self.rows.append(Reply("S1", isl, self.now, (), "refused", None, status, MS))
            self.now += MS

    def _run(self, stage: Stage) -> None:
        """Each request takes the slot that is free first; a closed loop sends when one ended."""
        begin, free, client = self.now, [self.now] * self.slots, [self.now] * (stage.slots or 1)
        for shot in stage.shots:
            place = client.index(min(client))
            due = begin + shot.at_ns if shot.at_ns >= 0 else client[place]
            end = self._one(stage, shot, due, free)
            if shot.at_ns < 0:
                client[place] = end + stage.pause_ns
            self.now = max(self.now, end)

    def _one(self, stage: Stage, shot: Shot, due: int, free: list[int]) -> int:
        self.made += 1
        segment = f"segment-{stage.segment}" if stage.segment else ""
        if shot.isl > self.longest or (self.fails and self.made % self.fails == 0):
            self.rows.append(Reply(stage.name, shot.isl, due, scenario=segment, status=500))
            return due + MS
        slot = free.index(min(free))
        start = max(due, free[slot])
        first = start + round(self.base_ms * MS + shot.isl * self.token_us * 1000)
        gap = round(self.gap_ms * MS)
        arrivals = tuple(first + k * gap for k in range(shot.osl))
        free[slot] = arrivals[-1]
        self.rows.append(Reply(stage.name, shot.isl, due, arrivals, segment))
        return arrivals[-1]


def probed(server: FakeServer, limits: Limits) -> FakeServer:
    """The whole probe, to its end."""
    for _ in steps(server, limits):
        pass
    return server


def steps(
    server: FakeServer, limits: Limits, undecided: Callable[[], bool] = lambda: False
) -> Iterator[Stage | PathStage]:
    """The stages of a probe, each after it was answered."""
    design = probe(limits, undecided)
    stage = next(design, None)
    while stage is not None:
        server.answer(stage)
        yield stage
        try:
            stage = design.send(seen(server.rows))
        except StopIteration:
            return


def servers() -> st.SearchStrategy[FakeServer]:
    """Fast and slow ones, ones that refuse, fail, or let in one at a time."""
    return st.builds(
        FakeServer,
        base_ms=st.sampled_from([0.01, 5.0, 800.0, 20_000.0]),
        token_us=st.sampled_from([0.0, 0.1, 20.0, 3000.0]),
        gap_ms=st.sampled_from([0.0, 0.05, 10.0, 900.0]),
        slots=st.sampled_from([1, 2, 5, 64]),
        longest=st.sampled_from([0, 60, 500, 2000, 1 << 30]),
        fails=st.sampled_from([0, 0, 1, 2, 7]),
        parses=st.booleans(),
    )
