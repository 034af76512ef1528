"""How a run went over time: what is asked and finished, and what changed on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from latdiag.measurement.backlog import Backlog, Rows, backlog_of
from latdiag.measurement.changes import Change, changes_of, requests_of
from latdiag.measurement.company import lone
from latdiag.measurement.stages import ALONE, WORKLOAD

if TYPE_CHECKING:
    from latdiag.measurement.frame import Frame


@dataclass(frozen=True, slots=True)
class Stretch:
    """Requests of the workload before a change, or after it (in a spell): sent from ``from_s`` to
    ``until_s`` of the run. ``leader``: the members of the class that takes most of their time,
    ``share`` of it."""

    from_s: float
    until_s: float
    requests: int
    e2e_ms: float
    leader: tuple[str, ...]
    share: float


@dataclass(frozen=True, slots=True)
class Course:
    """``overload``: None where what is asked is finished. ``changes``: by time;
    none where requests pile up, for that changes all times. ``stretches``:
    what the means mix, two where a change lies within the workload, else none."""

    overload: Backlog | None = None
    changes: tuple[Change, ...] = ()
    stretches: tuple[Stretch, ...] = ()


def course_of(frame: Frame, open_loop: bool, planned: float | None) -> Course | None:
    """Of one run; None where nothing is to be said. ``planned``: the rate that was asked for,
    requests/s, None where nobody set one."""
    overload = backlog_of(Rows.of_frame(frame), planned) if open_loop else None
    workload = np.flatnonzero(frame.workload & frame.begun)
    if not len(workload) or len(frame.clocks) > 1:
        return None
    if overload is not None or not _is_one(frame, workload):
        return Course(overload) if overload is not None else None
    origin = int(frame.begin[frame.begun].min())
    alone = None
    if (designed := np.isin(frame.stage, ("warmup", *ALONE))).any():
        met_none = lone(frame, frame.begin, frame.done) & frame.workload
        alone = requests_of(frame, np.flatnonzero((designed | met_none) & frame.begun))
    changes = changes_of(requests_of(frame, workload), alone, origin)
    return Course(None, changes) if changes else None


def _is_one(frame: Frame, rows: NDArray[np.int64]) -> bool:
    """Whether one workload was sent all the time: scenarios of a capture are several."""
    names = set(frame.scenario[rows].tolist())
    return len(names) <= 1 or bool((frame.stage[rows] == WORKLOAD).all())
