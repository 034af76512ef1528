"""Pauses of all streams at once: no stream that ran received a chunk.

What is stated is what was seen: a stall of the server, another's long prompt and a broken network
look alike here. The causes are told apart by ``attribution``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latdiag.model.units import NS_PER_MS, NS_PER_S

#: The longest gaps that are kept.
_KEPT = 1 << 14
#: A gap is long when it takes so many times the median, and at least so long.
_TIMES, _LEAST_NS = 8.0, 50 * NS_PER_MS
#: Streams that have to be silent together; one alone shows nothing of the others.
_TOGETHER = 2
#: Silences that are stated, the longest.
_STATED = 40


@dataclass(frozen=True, slots=True)
class Silence:
    """From ``from_s`` to ``until_s`` of the run none of ``streams`` streams received anything."""

    from_s: float
    until_s: float
    streams: int


class LongGaps:
    """The longest gaps between chunks of a run."""

    def __init__(self) -> None:
        self.gap = self.end = self.row = np.zeros(0, dtype=np.int64)

    def add(self, gaps: NDArray[np.int64], end: NDArray[np.int64], row: NDArray[np.int64]) -> None:
        """``gaps`` (ns) that ended at ``end``, of the streams of these rows."""
        long = gaps >= _LEAST_NS
        self.gap = np.concatenate((self.gap, gaps[long]))
        self.end = np.concatenate((self.end, end[long]))
        self.row = np.concatenate((self.row, row[long]))
        if len(self.gap) > 2 * _KEPT:
            kept = np.argpartition(-self.gap, _KEPT)[:_KEPT]
            self.gap, self.end, self.row = self.gap[kept], self.end[kept], self.row[kept]


def silences_of(
    longest: LongGaps,
    first: NDArray[np.int64],
    end: NDArray[np.int64],
    median_ns: float,
    origin: int,
) -> tuple[Silence, ...]:
    """``first``, ``end``: of each stream, its first chunk (0: none) and its last instant."""
    long = longest.gap >= max(_TIMES * median_ns, _LEAST_NS)
    gap, until = longest.gap[long], longest.end[long]
    if len(gap) < _TOGETHER:
        return ()
    edges = np.concatenate((until - gap, until))
    order = np.argsort(edges, kind="stable")
    silent = np.cumsum(np.concatenate((np.ones(len(gap)), -np.ones(len(gap))))[order])[:-1]
    edges = edges[order]
    middle = edges[:-1] + np.diff(edges) // 2
    begun = first > 0
    running = np.searchsorted(np.sort(first[begun]), middle, side="right")
    running -= np.searchsorted(np.sort(end[begun]), middle, side="right")
    # A stream whose first token came and that has one chunk alone has no gap: it is not running.
    quiet = (silent >= _TOGETHER) & (silent >= running) & (np.diff(edges) > 0)
    found = _merged(edges, quiet, silent)
    longest_first = sorted(found, key=lambda each: each[0] - each[1])[:_STATED]
    return tuple(
        Silence((lo - origin) / NS_PER_S, (hi - origin) / NS_PER_S, n)
        for lo, hi, n in sorted(longest_first)
        if hi - lo >= _LEAST_NS
    )


def _merged(
    edges: NDArray[np.int64], quiet: NDArray[np.bool_], silent: NDArray[np.float64]
) -> list[tuple[int, int, int]]:
    """Stretches of neighbouring quiet segments: (from, until, most streams silent)."""
    place = np.flatnonzero(quiet)
    if not len(place):
        return []
    starts = np.flatnonzero(np.diff(place, prepend=place[0] - 2) > 1)
    most = np.maximum.reduceat(silent[place], starts)
    lows, highs = edges[place[starts]], edges[place[np.append(starts[1:] - 1, len(place) - 1)] + 1]
    return list(zip(lows.tolist(), highs.tolist(), most.astype(int).tolist(), strict=True))
