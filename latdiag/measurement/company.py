"""Which requests met others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from latdiag.measurement.frame import Frame
    from latdiag.measurement.observations import Observations


def lone(
    seen: Observations | Frame, begin: NDArray[np.int64], end: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Of the spans [begin, end] of requests of ``seen``, ns: those in which no other request of
    it that succeeded was under way."""
    others = np.flatnonzero(seen.ok & (seen.done > seen.begin))
    starts, ends = np.sort(seen.begin[others]), np.sort(seen.done[others])
    # Begun before the end, less ended by the begin: itself, and whom it met. The next one of a
    # closed loop begins when the last has ended.
    met = np.searchsorted(starts, end) - np.searchsorted(ends, begin, side="right")
    apart: NDArray[np.bool_] = met <= 1
    return apart
