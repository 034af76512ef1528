"""When the engine works on a prompt, read off the streams that run beside it (S8).

A prompt that is thrown at running streams slows them from the moment at which the engine takes it
up until its first token: their gaps are longer then. What passes before that, the engine does not
do: a gateway, the server's frontend, or a wait until a batch is full. So the time of a prompt
alone falls into what comes before the engine and what the engine takes, without a word of any
server. Nothing can be said where prefill runs elsewhere, and streams do not notice it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from latdiag.attribution.laws.path import Path
    from latdiag.measurement.observations import Observations

#: A gap that is longer than so many of its stream's own holds more than a step.
_LONGER = 1.4
#: Arrivals of a stream outside of the prompt's time that tell its own pace.
_FEWEST_GAPS = 8
_FEWEST = 2
#: By how much, in shares of it, the same prompt may differ.
_UNEVEN = 0.6


@dataclass(frozen=True, slots=True)
class Before:
    """Time of a prompt before the engine takes it up: ``constant_ns + per_token_ns * tokens``.

    ``room_ns``: how far that may be off; ``values``, ``tokens``: of each prompt that was thrown.
    """

    constant_ns: float
    per_token_ns: float
    room_ns: float
    values: NDArray[np.float64]
    tokens: NDArray[np.float64]

    def at(self, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = np.maximum(
            self.constant_ns + self.per_token_ns * tokens.astype(float), 0.0
        )
        return found

    def again(self, random: np.random.Generator) -> Before:
        """What the same prompts might have shown: each begins anywhere in a step."""
        if not self.constant_ns:
            return self
        middle = random.choice(self.values, len(self.values)).mean() - self.values.mean()
        return replace(self, constant_ns=self.constant_ns + float(middle))


def before_engine(seen: Observations, path: Path | None) -> Before | None:
    """From the prompts that were thrown at streams; None where streams did not notice them.

    ``path``: there and back, since what streams show of the engine is on its way as long as a
    prompt is.
    """
    way, uneven = (path.floor_ns, path.jitter_ns) if path is not None else (0.0, 0.0)
    rows = seen.of("S8")
    if len(rows) < 3:
        return None
    streams = rows[np.diff(seen.offsets)[rows] >= _FEWEST_GAPS]
    found, tokens, rooms = [], [], []
    for prompt in np.setdiff1d(rows, streams).tolist():
        begin = int(seen.begin[prompt] + seen.client[prompt] + seen.network[prompt] + way)
        views = [_taken_up(seen, int(s), begin, int(seen.first[prompt])) for s in streams]
        known = np.array([view for view in views if view is not None])
        if len(known) < max(1, len(streams) / 2):
            continue
        start, step = np.median(known[:, 0]), float(np.median(known[:, 1]))
        # It comes while a step runs, half of which it waits for: that is no part of its way.
        found.append(float(start) - begin - step / 2)
        tokens.append(float(seen.isl[prompt]))
        rooms.append(step)
    if len(found) < _FEWEST:
        return None
    values, lengths = np.array(found), np.array(tokens)
    # A gap that is longer may hold the step that ran before it, or one of the stream's own.
    room = 1.5 * float(np.median(rooms)) + uneven
    for length in np.unique(lengths):
        alike = values[lengths == length]
        # A constant is the same each time; where it is not, servers differ, or streams stood still
        # for another reason.
        if np.ptp(alike) > max(2 * room, _UNEVEN * float(np.median(alike))):
            return None
    return _line(values, lengths, room)


def _line(values: NDArray[np.float64], tokens: NDArray[np.float64], room: float) -> Before:
    """Through prompts of two lengths; all of it constant where these do not differ beyond
    doubt."""
    short = tokens < (tokens.min() + tokens.max()) / 2
    slope = 0.0
    if short.any() and tokens.max() > 1.5 * tokens.min():
        rise = float(np.median(values[~short]) - np.median(values[short]))
        run = float(np.median(tokens[~short]) - np.median(tokens[short]))
        if rise > 2 * room:
            slope = rise / run
    constant = float(np.median(values - slope * tokens))
    # What may be nothing is nothing, and has its room.
    return Before(constant if constant > room else 0.0, slope, room, values, tokens)


def _taken_up(
    seen: Observations, stream: int, begin: int, first: int
) -> tuple[float, float] | None:
    """(when the stream's gaps grow for this prompt, its own pace); None where they do not.

    The longest gap between the prompt's coming and its first token, and those before it that are
    long as well: a prompt may be computed in several steps.
    """
    times = seen.arrivals[int(seen.offsets[stream]) : int(seen.offsets[stream + 1])]
    a = int(np.searchsorted(times, begin, side="right")) - 1
    b = int(np.searchsorted(times, first, side="left"))
    outside = np.concatenate([np.diff(times[: a + 1]), np.diff(times[b:])])
    if a < 1 or b >= len(times) or len(outside) < _FEWEST_GAPS // 2:
        return None
    # The mean, not the median: what comes in bursts has many gaps of nothing.
    pace = float(outside.mean())
    gaps = np.diff(times[a : b + 1])
    usual = max(pace, float(np.quantile(outside, 0.9)))
    longer = gaps > _LONGER * usual
    if not longer.any():
        return None
    at = int(np.flatnonzero(longer)[-1])
    while at > 0 and longer[at - 1]:
        at -= 1
    return min(float(times[a + at]), float(first)), pace
