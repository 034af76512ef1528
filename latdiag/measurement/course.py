"""How a run went over time: what is asked and finished, and what changed on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from latdiag.measurement.backlog import Backlog, Rows, backlog_of

if TYPE_CHECKING:
    from latdiag.measurement.frame import Frame


@dataclass(frozen=True, slots=True)
class Course:
    """``overload``: None where what is asked is finished."""

    overload: Backlog | None = None


def course_of(frame: Frame, open_loop: bool, planned: float | None) -> Course | None:
    """Of the workload of one run; None where nothing is to be said. ``planned``: the rate that was
    asked for, requests/s, None where nobody set one."""
    overload = backlog_of(Rows.of_frame(frame), planned) if open_loop else None
    return Course(overload) if overload is not None else None
