"""Whether tokens of different streams come at the same instants.

An engine makes a token for each of its streams in one step. Where streams that began at different
times bring their tokens together all the same, a step that they share sets their pace; whatever
paces each stream by itself keeps the phase that the stream began with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from latdiag.measurement.observations import Observations

#: Arrivals of a stream, and of it beside another, that show a phase.
_ARRIVALS = 6
#: Pairs that are looked at, those that show a step, and those that show that there is none.
_PAIRS, _FEWEST, _MANY = 300, 4, 24
#: All pairs keep step where the mean vector of their phases is as long; events of one step leave a
#: server one after the other, which spreads phases and keeps them together.
_ALL = 0.9
#: Some pairs do where more of the phases lie so near to nothing than evenly spread ones would, by
#: so many standard deviations.
_NEAR, _SURE = (0.02, 0.05), 3.5
#: Requests alone that show a grid, and how sharply.
_ALONE, _GRID = 8, 0.8
#: A way that delays by more of a step than this hides its phase.
_SHAKEN = 0.1


def in_step(seen: Observations, shaken: float, chunk: float = 1.0) -> bool | None:
    """True where streams of S8 and S10 keep step beyond chance (not all pairs perhaps: there may
    be several engines); False where none do; None where they do not tell. ``shaken``: by how much
    the way delays events unequally, in steps. ``chunk``: tokens of an arrival: so many steps lie
    in a gap, and streams that share them begin at any of these."""
    steps = max(1, round(chunk))
    phases = np.array(_phases(seen)) * steps % 1.0
    n = len(phases)
    if n < _FEWEST:
        return None
    if abs(np.exp(2j * np.pi * phases).mean()) > _ALL:
        return True
    apart = np.minimum(phases, 1 - phases)
    for near in _NEAR:
        chance = 2 * near * n
        if (apart < near).sum() > chance + _SURE * (chance * (1 - 2 * near)) ** 0.5 + 1:
            return True
    # Steps of a gap that are unlike hide the phase that is looked for.
    return False if n >= _MANY and shaken < _SHAKEN and steps == 1 else None


def ticks(seen: Observations) -> bool:
    """Whether requests alone, one after the other, bring their tokens at instants of one grid,
    idle times between them or not: an engine begins a step when work comes, a timer does not."""
    rows = seen.of("S2", "S3", "S5")
    rows = rows[np.argsort(seen.begin[rows], kind="stable")]
    gaps = [np.diff(_arrivals(seen, row)) for row in rows.tolist()]
    every = np.concatenate(gaps) if gaps else np.zeros(0)
    period = float(np.median(every)) if len(every) else 0.0
    if period <= 0 or len(rows) < _ALONE:
        return False
    between = (seen.first[rows][1:] - seen.last[rows][:-1]) / period
    return float(abs(np.exp(2j * np.pi * between).mean())) > _GRID


def _phases(seen: Observations) -> list[float]:
    """Of pairs of streams that began apart: where in the gaps of one the other's arrivals lie."""
    rows = seen.of("S8", "S10")
    rows = rows[np.diff(seen.offsets)[rows] >= _ARRIVALS]
    rows = rows[np.argsort(seen.first[rows], kind="stable")]
    found: list[float] = []
    for place, row in enumerate(rows.tolist()):
        for other in rows[place + 1 : place + 9].tolist():
            if seen.first[other] >= seen.last[row] or len(found) >= _PAIRS:
                break
            phase = _phase(_arrivals(seen, row), _arrivals(seen, other))
            if phase is not None:
                found.append(phase)
    return found


def _phase(a: NDArray[np.int64], b: NDArray[np.int64]) -> float | None:
    """Mean place of ``b`` in the gaps of ``a``, in [0, 1), on a circle; None where both began
    together, or run together too shortly."""
    inside = b[(b >= a[0]) & (b <= a[-1])]
    if len(inside) < _ARRIVALS or abs(int(b[0]) - int(a[0])) < np.median(np.diff(a)):
        return None
    at = np.clip(np.searchsorted(a, inside, side="right"), 1, len(a) - 1)
    gaps = np.maximum(a[at] - a[at - 1], 1)
    turns = np.exp(2j * np.pi * (inside - a[at - 1]) / gaps).mean()
    return float(np.angle(turns) / (2 * np.pi)) % 1.0


def _arrivals(seen: Observations, row: int) -> NDArray[np.int64]:
    return seen.arrivals[seen.offsets[row] : seen.offsets[row + 1]]
