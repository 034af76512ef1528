"""Many simulated runs on all cores: what is to be counted, and the counts of every piece."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

from latdiag.gate.plan import Plan

from .score import Tally, settings, tally
from .world import REGIMES, Fault, Regime

#: Runs that one process does at a time: some seconds.
_PIECE = 25
SAME = Fault()


@dataclass(frozen=True)
class Job:
    """``runs`` runs of one kind, with the seeds from ``seed`` on."""

    runs: int
    seed: int
    pairs: int
    block: int
    alpha: float
    margin: float
    regime: Regime = REGIMES[0]
    fault: Fault = SAME
    fixed: bool = False
    rivals: bool = False

    @property
    def plan(self) -> Plan:
        """What the gate plans for it."""
        return Plan(
            self.pairs, self.block, True, settings(self.alpha, self.margin, fixed=self.fixed)
        )

    def counts(self, start: int, stop: int) -> Tally:
        """Of the runs from ``start`` to ``stop``."""
        seeds = range(self.seed + start, self.seed + min(stop, self.runs))
        return tally(self.regime, self.fault, self.plan, seeds, self.rivals)


def counted(jobs: Sequence[Job], processes: int) -> list[Tally]:
    """The counts of every job, in their order; the same whatever ``processes`` is."""
    pieces = [
        (place, start) for place, job in enumerate(jobs) for start in range(0, job.runs, _PIECE)
    ]
    whole = [Tally() for _ in jobs]
    if processes == 1:
        for place, start in pieces:
            whole[place].add(_piece(jobs[place], start))
        return whole
    with ProcessPoolExecutor(processes, get_context("fork")) as pool:
        found = pool.map(_piece, (jobs[place] for place, _ in pieces), (at for _, at in pieces))
        for (place, _), counts in zip(pieces, found, strict=True):
            whole[place].add(counts)
    return whole


def _piece(job: Job, start: int) -> Tally:
    return job.counts(start, start + _PIECE)
