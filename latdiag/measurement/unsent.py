"""Tokens that replies count and that no arrival is known to have brought.

They were made before the first arrival and never sent (hidden reasoning), or chunks hold several
tokens. Where only the total is known, nothing of a single reply tells these apart; over many, the
numbers of chunks may be just those that one size of chunk makes. Tokens made before the first
arrival took steps of decode there: at most as many as are not accounted for, each as long as from
one arrival to the next.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latdiag.measurement.frame import Frame

#: A stop token is counted and not sent.
_STOP = 1
#: A size of chunks is shown by as many different numbers of arrivals, and by this share of the
#: replies; no size is thought of that is larger.
_KINDS, _MOST, _LARGEST = 3, 0.95, 128
#: Arrivals from which a stream shows its own pace.
_PACED = 3


@dataclass(frozen=True, slots=True)
class Unsent:
    """One entry per row. ``tokens``: counted and not known to have come; ``withheld``: of these,
    those that surely did not come, because arrivals state their own. ``pace_ns``: from one token
    to the next as they came, infinite where nothing shows it. ``early``: tokens that may have been
    made before the first arrival, beyond the first token."""

    tokens: NDArray[np.int64]
    withheld: NDArray[np.int64]
    pace_ns: NDArray[np.float64]
    early: NDArray[np.int64]

    def early_ns(self, room: NDArray[np.int64]) -> NDArray[np.int64]:
        """Decode before the first arrival, at most: ns. ``room``: the time there."""
        return _within(self.early, self.pace_ns, room)

    def withheld_ns(self, room: NDArray[np.int64]) -> NDArray[np.int64]:
        """What the tokens that were not sent take at the pace of those that were, ns."""
        return _within(self.withheld, self.pace_ns, room)


def unsent_of(rows: Frame) -> Unsent:
    """Of replies with output; all others have none."""
    there = (rows.outputs > 0) & (rows.osl > 0)
    counted = there & (rows.carried > 0)
    size = _size(rows.outputs[there & ~counted], rows.osl[there & ~counted])
    sized = there & ~counted & (size > 0)
    brought = np.where(counted, rows.carried, rows.outputs)
    tokens = np.where(there & ~sized, np.maximum(rows.osl - brought, 0), 0)
    tokens = np.where(tokens > _STOP, tokens, 0)
    in_first = np.where(sized, np.minimum(rows.osl, size), rows.in_first)
    later = np.where(sized, rows.osl, brought) - in_first
    early = tokens + np.where(there, np.maximum(in_first - 1, 0), 0)
    return Unsent(tokens, np.where(counted, tokens, 0), _pace(rows, later), early)


def _size(arrivals: NDArray[np.int64], tokens: NDArray[np.int64]) -> int:
    """The size of chunks that makes just these numbers of arrivals of so many tokens; 0: none."""
    if len(set(arrivals.tolist())) < _KINDS:
        return 0
    sizes = np.arange(2, _LARGEST + 1)
    fits = [float((-(-tokens // size) == arrivals).mean()) for size in sizes]
    best = int(np.argmax(fits))
    return int(sizes[best]) if fits[best] >= _MOST else 0


def _pace(rows: Frame, later: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of each stream, or of the middle one where it is too short to show any or faster."""
    shows = (rows.outputs >= _PACED) & (later > 0)
    own = np.where(shows, (rows.last - rows.first) / np.maximum(later, 1), 0.0)
    middle = float(np.median(own[shows])) if shows.any() else np.inf
    return np.maximum(own, middle)


def _within(
    tokens: NDArray[np.int64], pace_ns: NDArray[np.float64], room: NDArray[np.int64]
) -> NDArray[np.int64]:
    most = np.where(tokens > 0, tokens * np.where(tokens > 0, pace_ns, 0.0), 0.0)
    found: NDArray[np.int64] = np.minimum(np.maximum(most, 0.0), np.maximum(room, 0)).astype(
        np.int64
    )
    return found
