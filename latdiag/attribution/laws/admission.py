"""How many streams the server runs at once, read off the bursts of a probe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.laws.delivery import delivery_of, held_back_ns
from latdiag.measurement.stages import WORKLOAD

if TYPE_CHECKING:
    from latdiag.measurement.observations import Observations

#: Streams of a burst that were admitted at once begin within this share of the others' wait.
_TOGETHER = 0.25
#: Requests that show a limit of the workload's own; how many have to wait, and for how much of
#: that time as many have to run.
_FEWEST_ROWS, _WAITING, _STEADY = 10, 3, 0.85
#: So many streams or more, which run so often, are a limit too where so often no other number is
#: reached from below.
_FEW, _OFTEN, _REACHED = 4, 0.5, 3


def admitted(seen: Observations, takes: NDArray[np.float64] | None = None) -> int | None:
    """How many streams of a burst ran at once, in the smallest burst where not all did.

    Who was not admitted gets its first token only after another of its burst has ended, and later
    than the first of them by half of a whole reply at least. Replies that ended early say
    nothing: one may end before another has begun although all were admitted. ``takes``: ns of each
    reply, where it is more than from its first arrival to its last.
    """
    rows = seen.of("S6")
    whole = rows[seen.osl[rows] >= 0.8 * seen.osl[rows].max()] if len(rows) else rows
    hold = held_back_ns(seen) if len(whole) else 0.0
    lasts = seen.last - seen.first if takes is None else takes
    for begin in np.unique(seen.begin[whole]):
        burst = whole[seen.begin[whole] == begin]
        if len(burst) < int((seen.begin[rows] == begin).sum()):
            continue
        first, last = seen.first[burst], seen.last[burst]
        half = float(np.median(lasts[burst])) / 2 + hold
        late = (first >= last.min()) & (first - first.min() > half)
        # Where each waits for the one before (prompts or transfers in a row), the first ones
        # come as far apart as the last.
        early = first[~late] - first.min()
        if late.any() and early.max(initial=0) < _TOGETHER * float(
            (first[late] - first.min()).min()
        ):
            return max(1, int((~late).sum()))
    return None


def _reply_ns(seen: Observations) -> NDArray[np.float64]:
    """What each reply takes from its first token to its last: some are made before any arrives,
    hidden or held for the first one that does. Infinite where all are: nothing shows it then."""
    opens = np.minimum(seen.offsets[:-1], max(len(seen.brought) - 1, 0))
    gathered = seen.brought[opens] - 1.0 if len(seen.brought) else np.zeros(seen.n)
    hidden = delivery_of(seen).hidden
    early = np.where(np.diff(seen.offsets) > 0, np.maximum(gathered, 0.0), 0.0) + hidden
    later = np.maximum(seen.osl - 1.0 - early, 0.0)
    stream = (seen.last - seen.first).astype(float)
    scaled = stream * (1.0 + early / np.maximum(later, 1.0))
    return np.where((later < 1.0) & (early >= 1.0), np.inf, scaled)


@dataclass(frozen=True, slots=True)
class Streams:
    """``value`` streams run at once and no more, of ``most`` that were there. ``of_workload``: the
    workload itself shows it, and no burst."""

    value: int
    most: int
    of_workload: bool


def streams_of(seen: Observations) -> Streams | None:
    """The limit of streams that run at once; None where all that were tried did.

    What the workload shows does not hold where a larger burst ran at once, nor what a burst shows
    where more ran at once elsewhere: one of several servers was full, or others' requests were
    there.
    """
    rows, bursts = seen.of(WORKLOAD), seen.of("S6")
    sizes = np.unique(seen.begin[bursts], return_counts=True)[1]
    limit = admitted(seen, _reply_ns(seen))
    if limit is not None:
        most = max(_streaming(seen, bursts), _streaming(seen, rows))
        return Streams(limit, int(sizes.max()), False) if most <= limit + 1 else None
    limit = _plateau(seen, rows)
    if limit is None or limit < int(sizes.max(initial=0)):
        return None
    ends = np.sort(seen.last[rows])
    under_way = np.arange(1, len(rows) + 1) - np.searchsorted(ends, np.sort(seen.begin[rows]))
    return Streams(limit, int(under_way.max()), True)


def _streaming(seen: Observations, rows: NDArray[np.int64]) -> int:
    """The most of these rows that streamed at once."""
    first, last = np.sort(seen.first[rows]), np.sort(seen.last[rows])
    running = np.arange(1, len(rows) + 1) - np.searchsorted(last, first)
    return int(running.max(initial=0))


def at_once(seen: Observations) -> int | None:
    """Streams that run at once; None where all that were tried did."""
    found = streams_of(seen)
    return found.value if found is not None else None


def tried(seen: Observations) -> int:
    """The largest burst in which all requests ran at once; 0: none."""
    rows = seen.of("S6")
    return int(np.unique(seen.begin[rows], return_counts=True)[1].max(initial=0))


def at_limit(seen: Observations, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Rows that came while as many streams ran as ever run at once: they wait for one to end.

    The limit is that of a burst (``admitted``), or what the workload itself shows: so many stream
    whenever more are in flight.
    """
    none = np.zeros(len(rows), dtype=bool)
    limit = admitted(seen) or _plateau(seen, rows)
    if limit is None:
        return none
    first, last, begin = seen.first[rows], seen.last[rows], seen.begin[rows]
    full = none
    for place in range(len(rows)):
        at = begin[place]
        # Those that run, and those that came no later and get their turn before.
        there = (last > at) & ((first <= at) | ((begin <= at) & (first < first[place])))
        full[place] = int(there.sum()) >= limit
    return full


def _plateau(seen: Observations, rows: NDArray[np.int64]) -> int | None:
    """Streams of the workload that run nearly all the time in which clearly more are in flight;
    None: it varies, or more were hardly ever in flight."""
    if len(rows) < _FEWEST_ROWS:
        return None
    begin, first, last = (np.sort(each[rows]) for each in (seen.begin, seen.first, seen.last))
    edges = np.unique(np.concatenate([begin, first, last]))
    at, spans = edges[:-1], np.diff(edges)
    begun, answered, ended = (np.searchsorted(e, at, side="right") for e in (begin, first, last))
    crowded = begun - answered >= _WAITING
    streaming, spans = (answered - ended)[crowded], spans[crowded]
    if int(crowded.sum()) < _FEWEST_ROWS:
        return None
    most, whole = int(streaming.max()), spans.sum()
    # One has just ended where the next begins.
    steady = spans[streaming >= max(1, most - 1)].sum() / whole
    if most >= 1 and steady >= _STEADY:
        return most
    # An engine's limit counts prompts that it computes, which do not stream yet; but more often
    # than any other number as many stream as ever, again and again, and never one more.
    times = np.bincount(streaming, weights=spans)
    reached = int(((streaming[1:] == most) & (streaming[:-1] < most)).sum())
    often = steady >= _OFTEN and int(times.argmax()) == most
    return most if most >= _FEW and often and reached >= _REACHED else None
