"""Whether something sends events one after the other, however many streams run.

An engine makes a token for each of its streams in one step, and they leave it together. Where they
come one by one, never closer than some time, something takes that time for each event: a proxy
that opens every one, a frontend with one loop, a limit of tokens per second. What a stream spends
while that is busy is not the engine's step alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.laws.overlap import Company
from latdiag.measurement.chunks import TOGETHER_NS

if TYPE_CHECKING:
    from latdiag.measurement.observations import Observations

_FEWEST = 24
#: Of the spaces between events, the share that may be closer than the time of one.
_CLOSER = 0.1
#: Spaces are never less than one event's time where nearly the shortest is so much of the usual.
_NEVER_LESS = 0.3
#: By how much the halves of a workload's end may differ in that time, as a share.
_ALIKE = 0.2
#: Streams that have to run for events to have a chance to come at once.
_COMPANY = 3
#: A space of no more than this is one event's time: it came right behind another.
_BEHIND = 1.5
#: Events in a row that make a line.
_LINE = 3


@dataclass(frozen=True, slots=True)
class Pacing:
    """``event_ns``: between two events of any streams, at least; ``busy``: when it has a line."""

    event_ns: float
    busy: Company

    def inside(self, begin: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.float64]:
        """ns of each span in which events stood in line."""
        found: NDArray[np.float64] = self.busy.between(begin, np.maximum(end, begin + 1)) * (
            end - begin
        )
        return found


def pacing_of(seen: Observations) -> Pacing | None:
    """None where events of streams come together, as those of one step do. From the bursts (S6),
    where many streams run at once, and from the workload where as many do."""
    rows = seen.of("S6")
    least = _least(_events(seen, rows)) if len(rows) >= 4 else None
    if least is None:
        # What lets many events go at once before it begins to pace does so in the bursts.
        rows = seen.of("S10")
        events = _events(seen, rows)
        running = np.searchsorted(np.sort(seen.first[rows]), events, side="right")
        running = running - np.searchsorted(np.sort(seen.last[rows]), events)
        crowd = events[running >= _COMPANY]
        crowd = crowd[len(crowd) // 2 :]  # by then, what it lets go at once is spent
        least = _least(crowd)
        halves = [_least(half) or 0.0 for half in np.array_split(crowd, 2)]
        if least is not None and abs(halves[0] - halves[1]) > _ALIKE * least:
            return None
    if least is None:
        return None
    every = _events(seen, np.flatnonzero(seen.usable))
    return Pacing(least, _lines(every, _BEHIND * least))


def _least(events: NDArray[np.int64]) -> float | None:
    """The time between two events of streams that run together, where it is never less; None
    where some come at once, or too few came."""
    if len(events) < _FEWEST:
        return None
    spaces = np.diff(events)
    least = float(np.quantile(spaces, _CLOSER))
    apart = least > 3 * TOGETHER_NS and least >= _NEVER_LESS * float(np.median(spaces))
    return least if apart else None


def _events(seen: Observations, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    spans = [seen.arrivals[seen.offsets[r] : seen.offsets[r + 1]] for r in rows.tolist()]
    return np.sort(np.concatenate(spans)) if spans else np.zeros(0, dtype=np.int64)


def _lines(events: NDArray[np.int64], behind: float) -> Company:
    """When events follow each other as closely as they can, some in a row."""
    close = np.diff(events) <= behind
    edges = np.diff(np.concatenate(([0], close.astype(int), [0])))
    begins, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    long = ends - begins >= _LINE - 1
    starts, stops = events[begins[long]], events[np.minimum(ends[long], len(events) - 1)]
    return Company(starts, stops, np.ones(len(starts)))
