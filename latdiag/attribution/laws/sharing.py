"""Whether prompts slow the streams that run: what S8 teaches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from latdiag.attribution.laws.curves import Curve
    from latdiag.attribution.laws.path import Refusals
    from latdiag.measurement.observations import Observations


@dataclass(frozen=True, slots=True)
class Sharing:
    """Whether prefill and decode share an engine. ``verdict``: shared, separate or unknown.

    ``lost``: time that running streams lose while a long prompt runs, as a share of its time.
    ``pause``: the longest gap of a stream then, as a share of it: near 1, prefill is not cut.
    """

    verdict: str
    lost: float
    pause: float
    n: int


#: Streams that lose this share of a prompt's time share an engine with it; that little: they do
#: not. Between the two, nothing is said.
_SHARED, _SEPARATE = 0.4, 0.1
#: Arrivals from which on a request of S8 is a stream, and no prompt that was thrown at one.
_FEWEST_GAPS = 8


def sharing_of(seen: Observations, own: Curve, refusals: Refusals | None) -> Sharing:
    """What running streams lost while long prompts were computed (S8), as a share of what these
    cost beyond short ones: a constant may be anybody's. ``own``: a prompt alone; ``refusals``:
    what of it the engine does not do."""
    rows = seen.of("S8")
    if len(rows) < 3:
        return Sharing("unknown", 0.0, 0.0, 0)
    thrown = seen.isl[rows] > (seen.isl[rows].min() + seen.isl[rows].max()) / 2
    streams = np.diff(seen.offsets)[rows] >= _FEWEST_GAPS
    lost, pauses, steps = [], [], []
    for prompt in rows[thrown].tolist():
        work = _work(own, refusals, int(seen.isl[prompt]))
        for stream in rows[streams & ~thrown].tolist():
            found = _loss(seen, prompt, stream, work)
            if found is not None:
                lost.append(found[0])
                pauses.append(found[1])
                steps.append(found[2])
    if len(lost) < 2:
        return Sharing("unknown", 0.0, 0.0, len(lost))
    share, pause = float(np.median(lost)), float(np.median(pauses))
    verdict = "unknown"
    if share >= _SHARED:
        verdict = "shared"
    elif share <= _SEPARATE and float(np.median(steps)) >= 3:
        verdict = "separate"
    return Sharing(verdict, share, pause, len(lost))


def _work(own: Curve, refusals: Refusals | None, isl: int) -> float:
    """ns that the engine has to work for a prompt: what grows with its length."""
    at = np.array([isl])
    work = float(own.at(at)[0]) - own.constant
    if refusals is not None:
        work -= float(refusals.at(at)[0]) - refusals.constant_ns
    return work


def _loss(
    seen: Observations, prompt: int, stream: int, own: float
) -> tuple[float, float, float] | None:
    """(time lost, longest gap, both as shares of the prompt's own time; that time in steps)."""
    span = slice(int(seen.offsets[stream]), int(seen.offsets[stream + 1]))
    times, tokens = seen.arrivals[span], np.cumsum(seen.brought[span])
    begin, end = int(seen.begin[prompt]), int(seen.first[prompt])
    a = int(np.searchsorted(times, begin, side="right")) - 1
    b = int(np.searchsorted(times, end, side="left"))
    if a < 1 or b >= len(times) or own <= 0 or len(times) < _FEWEST_GAPS:
        return None
    # The stream's own pace, outside the prompt's time; a sum, because a way may deliver in bursts.
    outside = (times[a] - times[0]) + (times[-1] - times[b])
    more = (tokens[a] - tokens[0]) + (tokens[-1] - tokens[b])
    if outside <= 0 or more <= 0:
        return None
    step = float(outside / more)
    lost = times[b] - times[a] - step * (tokens[b] - tokens[a])
    longest = float(np.diff(times[a : b + 1]).max()) - step
    return lost / own, longest / own, own / step
