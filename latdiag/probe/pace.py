"""How fast a server has answered so far: what the design of the next stage needs to know.

Rough on purpose: it decides how long a stage takes, never what is reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.laws.admission import admitted
from latdiag.attribution.laws.limits import IN_FLIGHT, RATE, Refused, refused_of

if TYPE_CHECKING:
    from latdiag.measurement.observations import Observations

#: Stages whose requests ran alone.
ALONE = ("warmup", "S2", "S3", "S5")
_LEAST_GAP_NS = 100_000


@dataclass(frozen=True, slots=True)
class Pace:
    """``ttft = base + slope * isl`` of requests alone, ns; ``gap_ns``: median time per token.

    ``floor_ns``: TTFT that no prompt can go below: the path there and back. ``admitted``: streams
    that ran at once in the burst where not all did; None where all did. ``at_once``: requests that
    are in effect served at once in the burst that went best; None without one. ``chunk``: tokens
    that an arrival brings. ``longest_gap_ns``: between two arrivals of the long stream.
    ``refused``: by which rule requests are refused as too many.
    """

    base_ns: float
    slope_ns: float
    gap_ns: float
    floor_ns: float
    admitted: int | None
    chunk: float = 1.0
    longest_gap_ns: float = 0.0
    at_once: float | None = None
    refused: Refused | None = None

    @property
    def places(self) -> int | None:
        """Requests that may be under way at once; None: no limit is known."""
        law = self.refused
        return int(law.value) if law is not None and law.rule == IN_FLIGHT else None

    @property
    def most_rate(self) -> float | None:
        """Requests/s that are not refused; None: no limit is known."""
        law = self.refused
        return law.lo if law is not None and law.rule == RATE else None

    def ttft_ns(self, isl: float) -> float:
        """TTFT expected of a prompt of ``isl`` tokens, alone."""
        return self.base_ns + self.slope_ns * isl


def pace(seen: Observations) -> Pace:
    """From everything that was observed; needs one request that succeeded."""
    rows = seen.of("S2", "S3", "S5")
    if not len(rows):
        rows = seen.of(*ALONE)
    ttft = (seen.first - seen.begin)[rows].astype(float)
    isl = seen.isl[rows].astype(float)
    slope = _slope(isl, ttft)
    base = float(np.median(ttft - slope * isl)) if len(rows) else 0.0
    paths = seen.answer[(seen.scenario == "get") & (seen.answer >= 0)]
    trips = seen.network[seen.of(*ALONE)]
    floor = (float(np.median(paths)) if len(paths) else 0.0) + (
        float(np.median(trips)) if len(trips) else 0.0
    )
    gap, base = _gap(seen), max(base, 0.0)
    return Pace(
        *(base, slope, gap, floor, admitted(seen), _chunk(seen), _longest_gap(seen)),
        *(_at_once(seen, base, slope, gap), refused_of(seen)),
    )


def _at_once(seen: Observations, base: float, slope: float, gap: float) -> float | None:
    """How many times as fast as one after the other bursts were served, at best."""
    found = []
    for begin in np.unique(seen.begin[seen.stage == "S6"]):
        burst = np.flatnonzero((seen.stage == "S6") & (seen.begin == begin))
        if seen.usable[burst].all():
            alone = base + slope * seen.isl[burst] + gap * seen.later(burst)
            found.append(float(alone.sum() / max(seen.done[burst].max() - begin, 1)))
    return max(found, default=None)


def _slope(isl: NDArray[np.float64], ttft: NDArray[np.float64]) -> float:
    """Theil-Sen: the median of the slopes between all pairs (Sen 1968); 0 where there are none."""
    a, b = np.triu_indices(len(isl), 1)
    apart = isl[b] != isl[a]
    if not apart.any():
        return 0.0
    slopes = (ttft[b] - ttft[a])[apart] / (isl[b] - isl[a])[apart]
    return max(0.0, float(np.median(slopes)))


def _chunk(seen: Observations) -> float:
    """Tokens an arrival, of the longest reply so far."""
    sizes = np.diff(seen.offsets)
    row = int(sizes.argmax()) if len(sizes) and sizes.max() else None
    return max(1.0, float(seen.osl[row] / sizes[row])) if row is not None else 1.0


def _longest_gap(seen: Observations) -> float:
    found = [
        float(np.diff(seen.arrivals[seen.offsets[r] : seen.offsets[r + 1]]).max(initial=0))
        for r in seen.of("S2").tolist()
    ]
    return max(found, default=0.0)


def _gap(seen: Observations) -> float:
    """Median over rows of the mean time per token after the first."""
    rows = seen.of(*ALONE)
    span = (seen.last - seen.first)[rows].astype(float)
    more = np.maximum(seen.later(rows), 1.0)
    known = span > 0
    if not known.any():
        return float(_LEAST_GAP_NS)
    return max(float(_LEAST_GAP_NS), float(np.median((span / more)[known])))
