"""What a prompt meets in the engine: others that are computed in turn, or in the same steps.

Whoever waits its turn is in a queue; whoever shares its steps takes longer to prefill. Two equal
prompts at the same moment (S4) tell which: in turn the first is as fast as alone. Prompts beside
running streams (S8) tell what these cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from latdiag.attribution.laws.curves import Curve
    from latdiag.measurement.observations import Observations

#: Of the time that the second of two loses: what the first loses at most, if it has its turn.
_IN_TURN = 0.25
#: The second has to lose so much of its work for a pair to tell anything.
_LOSES = 0.3


@dataclass(frozen=True, slots=True)
class Turns:
    """``in_turn``: whether of two prompts at once one waits for the other; None: they did not
    tell. ``beside``: what running streams add to a prompt, as a share of its own work, by at most
    ``streams`` of them; None: not tried."""

    in_turn: bool | None
    beside: float | None
    streams: int


def turns_of(seen: Observations, own: Curve, step_ns: float, behind: float) -> Turns:
    """``step_ns``: a decode step alone; ``behind``: of the way of a GET."""
    thrown = seen.of("S8")
    long = thrown[np.diff(seen.offsets)[thrown] < 8]
    beside = None
    if len(long) >= 2 and len(long) < len(thrown):
        work = own.at(seen.isl[long]) - own.constant
        # A prompt comes while a step runs, half of which it waits for.
        more = seen.server[long] - behind - own.at(seen.isl[long]) - step_ns / 2
        if work.sum() > 0:
            beside = float(np.median(more / np.maximum(work, 1.0)))
    return Turns(_in_turn(seen, own, behind), beside, len(thrown) - len(long))


def _in_turn(seen: Observations, own: Curve, behind: float) -> bool | None:
    rows = seen.of("S4")
    shares = []
    for begin in np.unique(seen.begin[rows]):
        pair = rows[seen.begin[rows] == begin]
        if len(pair) != 2:
            continue
        alone = own.at(seen.isl[pair])
        lost = np.sort(seen.server[pair] - behind - alone)
        if lost[1] > _LOSES * (float(alone[0]) - own.constant):
            shares.append(float(lost[0] / lost[1]))
    return max(shares) < _IN_TURN if shares else None
