"""Gaps between chunks, counted by when they ended and how long they were.

A key is a step of time and a bucket of length. Steps start at 1 ms and double whenever more than
``_MOST_STEPS`` would be needed, so any run fits the same few megabytes. Buckets are 4 % wide.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from latdiag.model.units import NS_PER_MS, NS_PER_S

_MOST_STEPS = 2_048
#: Buckets of a factor of two, and of all: up to 2^32 us.
_PER_OCTAVE, _BUCKETS = 16, 512
#: Keys this far apart are counted in place; others are sorted.
_DENSE = 1 << 22


class GapCounts:
    """Counts of gaps by time and length."""

    def __init__(self) -> None:
        self._width = NS_PER_MS
        self._keys = np.zeros(0, dtype=np.int64)
        self._counts = np.zeros(0, dtype=np.int64)

    def add(self, gaps: NDArray[np.int64], at: NDArray[np.int64]) -> None:
        """``gaps`` (ns) that ended at the instants ``at``."""
        sound = (gaps >= 0) & (at >= 0)
        if not sound.any():
            return
        gaps, at = gaps[sound], at[sound]
        size = np.log2(np.maximum(gaps, 1_000) / 1_000.0) * _PER_OCTAVE
        bucket = np.minimum(size.astype(np.int64), _BUCKETS - 1)
        self._widen(int(at.min()), int(at.max()))
        keys, counts = _counted((at // self._width) * _BUCKETS + bucket)
        self._merge(np.concatenate((self._keys, keys)), np.concatenate((self._counts, counts)))

    def _widen(self, since: int, until: int) -> None:
        if len(self._keys):
            since = min(since, int(self._keys[0]) // _BUCKETS * self._width)
            until = max(until, int(self._keys[-1]) // _BUCKETS * self._width)
        before = self._width
        while until // self._width - since // self._width >= _MOST_STEPS:
            self._width *= 2
        if self._width != before and len(self._keys):
            step, bucket = np.divmod(self._keys, _BUCKETS)
            self._merge(step // (self._width // before) * _BUCKETS + bucket, self._counts)

    def _merge(self, keys: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        self._keys, place = np.unique(keys, return_inverse=True)
        self._counts = np.bincount(place, counts, len(self._keys)).astype(np.int64)

    @property
    def n(self) -> int:
        return int(self._counts.sum())

    def median(self) -> float:
        """ns; 0 where there is none."""
        n, values, at = self.distribution(0)
        return 0.0 if not n else values[int(np.searchsorted(at, 0.5))] * NS_PER_MS

    def distribution(self, most: int) -> tuple[int, tuple[float, ...], tuple[float, ...]]:
        """(n, the upper ends of buckets in ms, the share of gaps up to each); at most so many
        (0: all)."""
        counts = np.bincount(self._keys % _BUCKETS, self._counts, _BUCKETS)
        some = np.flatnonzero(counts)
        if not len(some):
            return 0, (), ()
        shares = np.cumsum(counts[some]) / counts.sum()
        if most and len(some) > most:
            kept = np.unique(np.linspace(0, len(some) - 1, most).astype(int))
            some, shares = some[kept], shares[kept]
        return self.n, tuple(_ms(some + 1).tolist()), tuple(shares.tolist())

    def over_time(
        self, origin: int, steps: int
    ) -> tuple[tuple[float, ...], tuple[float | None, ...], tuple[float | None, ...]]:
        """(The middle of each step in s from ``origin``, its median gap in ms, its p95); None
        where no gap ended in it."""
        if not len(self._keys):
            return (), (), ()
        step, bucket = np.divmod(self._keys, _BUCKETS)
        each_of = -(-(int(step[-1]) - int(step[0]) + 1) // steps)
        group = (step - step[0]) // each_of
        grid = np.zeros((int(group[-1]) + 1, _BUCKETS), dtype=np.int64)
        np.add.at(grid, (group, bucket), self._counts)
        sizes = grid.sum(axis=1)
        share = np.cumsum(grid, axis=1) / np.maximum(sizes, 1)[:, np.newaxis]
        lines = [
            tuple(v if n else None for v, n in zip(each.tolist(), sizes.tolist(), strict=True))
            for each in (_ms(np.argmax(share >= q, axis=1) + 0.5) for q in (0.5, 0.95))
        ]
        since = int(step[0]) * self._width - origin
        middles = (since + (np.arange(len(sizes)) + 0.5) * each_of * self._width) / NS_PER_S
        return tuple(middles.tolist()), lines[0], lines[1]


def _ms(bucket: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.float64]:
    """What a bucket begins with; halves lie between."""
    found: NDArray[np.float64] = 2.0 ** (bucket / _PER_OCTAVE) / 1_000
    return found


def _counted(keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    least, most = int(keys.min()), int(keys.max())
    if most - least > _DENSE:
        found, counts = np.unique(keys, return_counts=True)
        return found, counts.astype(np.int64)
    counts = np.bincount(keys - least)
    found = np.flatnonzero(counts)
    return found + least, counts[found].astype(np.int64)
