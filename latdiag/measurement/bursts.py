"""Streams that come in bursts: how often, how large, and how long tokens waited for one.

Whatever holds tokens back and lets them go together (a proxy with a buffer or a timer, TCP that
waits for an acknowledgement) leaves the same trace: several events at one instant, then nothing,
again and again, from the first token on. Three others look alike and hold nothing back. An event
of k tokens is one event. An engine that makes several tokens in a step (speculative decoding)
and writes an event for each makes the first token alone. A stall ends in a burst too, but rarely.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latdiag.measurement.chunks import TOGETHER_NS
from latdiag.model.units import NS_PER_MS

#: An event this close behind another, in shares of the stream's mean gap, came with it.
_BEHIND = 0.1
#: So close it belongs to the same burst, of a stream that has some.
_WITHIN = 0.4
#: No engine makes the tokens of one stream faster (20,000 a second).
_FASTEST_NS = 50_000
#: In the long gaps of a stream that has several: by so much a path may draw a burst out.
_DRAWN = 0.15
#: In periods: streams that last no longer came in one burst.
SHORT = 0.2
#: Where events come this fast, being close says nothing; then only a part of the gap counts.
_CLOSEST = 0.25
#: Fewer events than this show no rhythm.
_FEWEST_EVENTS = 6
#: Streams have bursts when so many of their gaps are next to nothing: two events a burst.
_MANY = 0.5
#: So many of the streams have to come in bursts to speak of all.
_MOST = 0.5
#: Where so many streams begin with one event alone, an engine makes the others in one step.
_ALONE = 0.8
#: Deviation of period and of size, in shares of each, from which on neither is a rhythm.
_IRREGULAR = 0.4
#: A path whose delay varies makes bursts of all lengths, but none that are so far apart and so
#: large: these something holds back, be it without a rhythm (as a buffer that is emptied early).
_FAR_NS, _LARGE = 100 * NS_PER_MS, 4
#: In steps of the stream: by more than this the period of no timer varies.
_SHAKEN = 0.5
#: By how much the pace of streams has to differ to tell a timer from a step that grows.
_APART = 1.3


@dataclass(frozen=True, slots=True)
class Trains:
    """The bursts of n streams: a burst is the events that come together, of one or of more.

    ``events``: with output; ``known``: gaps between them whose ends have stamps of their own,
    ``near``: those that are next to nothing. ``tokens``: in all. ``groups``: bursts.
    ``first_events``, ``first_tokens``: of the first burst; ``last_tokens``: of the last, if it is
    another. ``inner_groups``, ``inner_tokens``: of the bursts between the first and the last;
    ``inner_ns``: from the first burst to the last but one, in which these came; ``period_sq``,
    ``size_sq``: sums of the squares of their periods (ns^2) and tokens. ``last_ns``: between the
    last two bursts, 0 for one.
    """

    events: NDArray[np.int64]
    known: NDArray[np.int64]
    near: NDArray[np.int64]
    tokens: NDArray[np.float64]
    groups: NDArray[np.int64]
    first_events: NDArray[np.int64]
    first_tokens: NDArray[np.float64]
    last_tokens: NDArray[np.float64]
    inner_groups: NDArray[np.int64]
    inner_tokens: NDArray[np.float64]
    inner_ns: NDArray[np.float64]
    period_sq: NDArray[np.float64]
    size_sq: NDArray[np.float64]
    last_ns: NDArray[np.float64]

    def select(self, rows: NDArray[Any]) -> Trains:
        """These rows alone, in the given order."""
        return Trains(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


@dataclass(frozen=True, slots=True)
class Bursts:
    """How the streams of a run come where most of them come in bursts.

    ``kind``: "timer" (bursts come after a time), "size" (after a number of tokens), "irregular"
    (after neither), "whole" (a reply comes at once, at its end) or "step" (an engine makes
    several tokens at a time and holds none back). ``period_ns``: between bursts, 0 for "whole";
    ``jitter_ns``: its standard deviation within a stream. ``tokens``: in a burst. ``step_ns``:
    per token, behind what holds them back; 0 where nothing shows it. ``of_stream``: the share of
    a stream's tokens that its first burst holds. ``share``: of the ``streams`` that could be
    judged.
    """

    kind: str
    period_ns: float
    jitter_ns: float
    tokens: float
    step_ns: float
    of_stream: float
    share: float
    streams: int

    @property
    def held(self) -> bool:
        """Whether tokens wait for a burst."""
        return self.kind != "step"


def trains_of(
    stamps: NDArray[np.int64],
    offsets: NDArray[np.int64],
    brought: NDArray[Any],
    exact: NDArray[np.bool_],
) -> Trains:
    """The bursts of n streams whose output events lie flat: stream i has ``offsets[i]`` to
    ``offsets[i + 1]`` of ``stamps`` (ns), ``brought`` (tokens, at most 0 where not known) and
    ``exact`` (whether the stamp is the event's own)."""
    offsets = np.asarray(offsets, dtype=np.int64)
    events = np.diff(offsets)
    tokens = np.where(brought > 0, brought, 1).astype(float)
    gaps = np.diff(stamps, prepend=stamps[:1]).astype(float)
    starts = offsets[:-1][events > 0]
    gaps[starts] = 0.0
    pace = _sums(gaps, offsets) / np.maximum(events - 1, 1)
    limit = np.maximum(_BEHIND * pace, np.minimum(TOGETHER_NS, _CLOSEST * pace))
    # A whole reply at one instant has no pace; the path may have drawn it out.
    limit[pace * np.maximum(events - 1, 1) <= TOGETHER_NS] = TOGETHER_NS
    limit[(pace <= _FASTEST_NS) & (events >= _FEWEST_EVENTS)] = np.inf
    near = gaps <= np.repeat(limit, events)
    near[starts] = False
    # A way that shakes draws a burst out a little; what comes between two is far more than this.
    known = exact.copy()
    known[1:] &= exact[:-1]
    known[starts] = False
    wide = np.maximum(limit, _WITHIN * pace)
    bursty = _sums(known & near, offsets) >= _MANY * np.maximum(_sums(known, offsets), 1)
    bursty &= events >= _FEWEST_EVENTS
    wide[bursty] = np.maximum(wide, _drawn_out(gaps, offsets, pace, bursty))[bursty]
    joined = gaps <= np.repeat(wide, events)
    joined[starts] = False
    return Trains(
        events,
        _sums(known, offsets).astype(np.int64),
        _sums(known & near, offsets).astype(np.int64),
        _sums(tokens, offsets),
        **_groups(stamps, offsets, tokens, ~joined),
    )


def _drawn_out(
    gaps: NDArray[np.float64],
    offsets: NDArray[np.int64],
    pace: NDArray[np.float64],
    chosen: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Gaps (ns) up to which a shaken path may have drawn the bursts of each chosen stream out.

    Where half of a stream's time lies in a few long gaps, all that is far shorter than these, and
    no longer than the mean, lies within a burst. One long gap alone may be a stall: 0.
    """
    found = np.zeros(len(pace))
    events = np.diff(offsets)
    row = np.repeat(np.arange(len(events)), events)
    there = chosen[row]
    row, gaps = row[there], gaps[there]
    order = np.lexsort((gaps, row))
    row, gaps = row[order], gaps[order]
    sizes = events[chosen]
    ends = np.cumsum(sizes)
    before = np.concatenate([[0.0], np.cumsum(gaps)])
    middle = (before[ends - sizes] + before[ends]) / 2
    # The gap at which half of the stream's time is reached, and whether another is as long.
    at = np.clip(np.searchsorted(before, middle, side="left") - 1, ends - sizes, ends - 1)
    long = gaps[at]
    second = gaps[np.maximum(ends - 2, ends - sizes)]
    found[chosen] = np.where(second >= long / 2, np.minimum(_DRAWN * long, pace[chosen]), 0.0)
    return found


def _groups(
    stamps: NDArray[np.int64],
    offsets: NDArray[np.int64],
    tokens: NDArray[np.float64],
    opens: NDArray[np.bool_],
) -> dict[str, NDArray[Any]]:
    """The columns of ``Trains`` about bursts; ``opens``: the events that begin one."""
    at = np.flatnonzero(opens)
    bounds = np.searchsorted(at, offsets)
    groups = np.diff(bounds)
    sizes = np.diff(np.append(at, len(stamps)))
    held = np.add.reduceat(tokens, at) if len(at) else np.zeros(0)
    since = np.diff(stamps[at], prepend=0).astype(float)  # read of no group that opens a stream
    place = np.arange(len(at)) - np.repeat(bounds[:-1], groups)
    inner = (place > 0) & (place < np.repeat(groups, groups) - 1)
    first, last = bounds[:-1], bounds[1:] - 1
    one, two = groups > 0, groups > 1

    def taken(values: NDArray[Any], where: NDArray[np.int64], there: NDArray[Any]) -> NDArray[Any]:
        found = np.zeros(len(there), dtype=values.dtype)
        found[there] = values[where[there]]
        return found

    def summed(values: NDArray[Any]) -> NDArray[np.float64]:
        return _sums(np.where(inner, values, 0.0), bounds)

    return {
        "groups": groups,
        "first_events": taken(sizes, first, one),
        "first_tokens": taken(held, first, one),
        "last_tokens": taken(held, last, two),
        "inner_groups": np.maximum(groups - 2, 0),
        "inner_tokens": summed(held),
        "inner_ns": summed(since),
        "period_sq": summed(since * since),
        "size_sq": summed(held * held),
        "last_ns": taken(since, last, two),
    }


def _sums(values: NDArray[Any], bounds: NDArray[np.int64]) -> NDArray[np.float64]:
    """The sum of each row's values."""
    before = np.zeros(len(values) + 1)
    np.cumsum(values, out=before[1:])
    found: NDArray[np.float64] = before[bounds[1:]] - before[bounds[:-1]]
    return found


def joined_trains(pieces: Sequence[Trains]) -> Trains:
    """The rows of one piece after the other."""
    if not pieces:
        none = np.zeros(0, dtype=np.int64)
        return trains_of(none, np.zeros(1, dtype=np.int64), none, none.astype(bool))
    return Trains(
        **{f.name: np.concatenate([getattr(p, f.name) for p in pieces]) for f in fields(Trains)}
    )


# ---------------------------------------------------------------------- what they say
def bursts_of(trains: Trains) -> Bursts | None:
    """How the streams come; None where they come token by token, or too little is known."""
    judged = (trains.events >= _FEWEST_EVENTS) & (2 * trains.known >= trains.events - 1)
    if not judged.any():
        return None
    rows = trains.select(judged)
    bursty = rows.near >= _MANY * np.maximum(rows.known, 1)
    share, streams = float(bursty.mean()), int(judged.sum())
    if share < _MOST:
        return None
    rows = rows.select(bursty)
    if not (rows.inner_groups >= 1).any():
        return _without_rhythm(rows, share, streams)
    # What came in one burst has no period, whatever shook it.
    inner = rows.select(rows.inner_groups >= 1)
    spans = inner.inner_ns / inner.inner_groups
    inner = inner.select(spans >= SHORT * spans.max())
    # Long streams show a rhythm best; of a short one the whole may be its end.
    inner = inner.select(inner.inner_groups >= min(2, int(inner.inner_groups.max())))
    period = inner.inner_ns / inner.inner_groups
    size = inner.inner_tokens / inner.inner_groups
    timed = _variation(inner.inner_groups, period, inner.period_sq)
    sized = _variation(inner.inner_groups, size, inner.size_sq)
    middle = float(np.median(period))
    irregular = min(timed, sized) > _IRREGULAR
    if irregular and (middle < _FAR_NS or float(np.median(size)) < _LARGE):
        return None
    return Bursts(
        _kind(rows, period, size, timed, sized, irregular),
        middle,
        timed * middle,
        float(np.median(size)),
        float(np.median(period / size)),
        _of_stream(rows),
        share,
        streams,
    )


def _of_stream(rows: Trains) -> float:
    """Median over streams; both are in tokens."""
    return float(np.median(rows.first_tokens / np.maximum(rows.tokens, 1.0)))


def _variation(
    count: NDArray[np.int64], mean: NDArray[np.float64], squares: NDArray[np.float64]
) -> float:
    """Standard deviation in shares of the mean: within a stream where some have several bursts,
    else from stream to stream."""
    many = count >= 2
    if not many.any():
        return _deviation(np.log(mean))
    n, mean = count[many], mean[many]
    variance = np.maximum(squares[many] / n - mean**2, 0.0) * n / (n - 1)
    return float(np.median(np.sqrt(variance) / mean))


def _without_rhythm(rows: Trains, share: float, streams: int) -> Bursts | None:
    """Streams of one burst or two: too short for a period of their own."""
    whole = rows.groups == 1
    tokens = float(np.median(rows.first_tokens))
    if 2 * int(whole.sum()) >= len(whole):
        return Bursts("whole", 0.0, 0.0, tokens, 0.0, 1.0, share, streams)
    two = rows.select(~whole)
    if float(np.mean(two.first_events == 1)) >= _ALONE:
        return None  # one gap after the first token is no rhythm
    # The end of a reply may let go what was held, so a period is at least the longest.
    period = float(two.last_ns.max())
    return Bursts("timer", period, 0.0, tokens, 0.0, _of_stream(rows), share, streams)


def _kind(
    rows: Trains,
    period: NDArray[np.float64],
    size: NDArray[np.float64],
    timed: float,
    sized: float,
    irregular: bool,
) -> str:
    """What makes the bursts. A timer keeps its period where tokens come faster or slower; a
    buffer and an engine's step keep their size. ``timed``, ``sized``: how much each varies."""
    pace = period / size
    slow, fast = np.quantile(pace, 0.9), np.quantile(pace, 0.1)
    kept: str | None = None
    if len(pace) >= 4 and slow > _APART * fast:
        periods, sizes = _deviation(np.log(period)), _deviation(np.log(size))
        kept = "timer" if periods < sizes else "size"
    if float(np.mean(rows.first_events == 1)) >= _ALONE:
        # Of a steady stream a timer lets go as many tokens each time, or one more.
        return "timer" if kept == "timer" and sized * float(np.median(size)) <= 1 else "step"
    if irregular:
        return "irregular"
    if kept is None:
        # A timer that starts with the next token varies by a step: too little to tell.
        shaken = timed > _SHAKEN / float(np.median(size))
        kept = "size" if shaken and sized < timed / 2 else "timer"
    return kept


def _deviation(values: NDArray[np.float64]) -> float:
    return float(1.4826 * np.median(np.abs(values - np.median(values))))
