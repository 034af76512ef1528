"""The requests of a workload by stage: each run of several, and each scenario of a capture."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latdiag.measurement.measure import Tally
from latdiag.measurement.measurement import Measurement
from latdiag.measurement.slo import Slo
from latdiag.measurement.stages import WORKLOAD
from latdiag.measurement.streams import Streams, read_streams
from latdiag.store.batch import Batch

#: Where there are more stages than this, none is told apart.
MOST = 100


@dataclass(frozen=True, slots=True)
class StageRows:
    """The requests of one stage. ``run``: which of the runs that are read together, from 0.
    ``scenario``: of a capture, empty where it names none; None in a probe, where it numbers
    repetitions of the same workload. ``rows``: their places in reading order (int64)."""

    run: int
    scenario: str | None
    measurement: Measurement
    rows: NDArray[np.int64]


class StageTallies:
    """A tally for each stage. As long as there is one stage, all rows are in the tally of the
    whole, and nothing is counted twice."""

    def __init__(self, slos: Sequence[Slo] = ()) -> None:
        self._slos = tuple(slos)
        self._places: dict[tuple[int, str | None], int] = {}
        self._tallies: list[Tally] = []
        #: the stage of each row in reading order; -1: it is not of the workload
        self._of: list[NDArray[np.int16]] = []
        self._too_many = False

    def add(
        self, batch: Batch, workload: NDArray[np.bool_], streams: Streams, whole: Tally
    ) -> None:
        """Take in some rows that ``whole`` has not taken in yet; ``streams`` are of them all."""
        if self._too_many:
            return
        stages = self._stages(batch, workload)
        if len(self._places) > MOST:
            self._too_many = True
            self._of, self._tallies = [], []
            return
        self._of.append(stages)
        if len(self._places) < 2:
            return
        if not self._tallies:
            self._tallies.append(copy.deepcopy(whole))
        while len(self._tallies) < len(self._places):
            self._tallies.append(Tally(self._slos))
        for stage in np.unique(stages[stages >= 0]).tolist():
            here = stages == stage
            part = batch if here.all() else batch.select(here)
            self._tallies[stage].add(part, streams if part is batch else read_streams(part))

    def _stages(self, batch: Batch, workload: NDArray[np.bool_]) -> NDArray[np.int16]:
        """The stage of each row."""
        stages = np.full(batch.n, -1, dtype=np.int16)
        of = zip(batch.texts["stage"].tolist(), batch.texts["scenario"].tolist(), strict=True)
        names = [None if stage == WORKLOAD else name or "" for stage, name in of]
        known = set(names)
        for name in dict.fromkeys(n for n, ours in zip(names, workload, strict=True) if ours):
            if len(self._places) > MOST:
                break
            stage = self._places.setdefault((batch.run, name), len(self._places))
            here = workload
            if len(known) > 1:
                here = workload & np.fromiter((each == name for each in names), bool, batch.n)
            stages[here] = stage
        return stages

    def result(self) -> list[StageRows]:
        """The stages in the order in which they came; none where there is one, or are too many."""
        if self._too_many or not self._tallies:
            return []
        of = np.concatenate(self._of)
        return [
            StageRows(run, scenario, self._tallies[stage].result(), np.flatnonzero(of == stage))
            for (run, scenario), stage in self._places.items()
        ]
