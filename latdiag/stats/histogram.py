"""A streaming histogram of nanoseconds in blocks of rows: quantiles of any number of values.

Buckets are log-linear: 2**11 to an octave, so a bucket is at most 2**-11 (0.05 %) of its values
wide. The index is read from the bit pattern of the value as float64: exponent and the first
eleven bits of the fraction, which is exact for 1 ns to 104 days and costs one shift a value.

Rows (requests) fall, in reading order, into blocks of at least a fixed number of values, each
with its own counts. When 64 blocks are full they are merged pairwise and the size doubles, so
that where a block ends depends on the rows alone, not on how they came in batches. How much the
blocks differ tells what the values are worth, as in the method of batch means.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from latdiag.stats.dependence import inner, worth
from latdiag.stats.estimate import (
    Estimate,
    interval_ranks,
    mean_estimate,
    rank,
    refusal,
    refused,
    share_estimate,
    without_interval,
)

#: Buckets to an octave, as a power of two.
BITS = 11
RESOLUTION = 2.0**-BITS
#: Blocks are kept between half of this and this.
MOST_BLOCKS = 64
#: Values in a block before the first merge.
FIRST_BLOCK = 1 << 16

_SHIFT = 52 - BITS
#: Bit pattern of 1.0, shifted: the index of the bucket that begins at 1 ns.
_ORIGIN = 1023 << BITS
_WIDTH_STEP = 1 << BITS


def buckets(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bucket of each value; all values must be > 0."""
    return _buckets(values.astype(np.float64))


def _buckets(floats: NDArray[np.float64]) -> NDArray[np.int64]:
    """The same, in place: an array of a million is not made twice."""
    index = floats.view(np.int64)
    index >>= _SHIFT
    index -= _ORIGIN
    return index


def edge(bucket: int) -> float:
    """Lower edge of a bucket in nanoseconds; the upper edge is that of the next."""
    octave, step = divmod(bucket, 1 << BITS)
    return float(2.0**octave * (1.0 + step * RESOLUTION))


class BlockHistogram:
    """Counts of positive values by bucket and block; zero and negative values counted apart.

    Column 0 of the counts holds negative values, column 1 zeros, column 2 + b bucket b.
    """

    def __init__(self, first_block: int = FIRST_BLOCK) -> None:
        self.n = 0
        self._size = first_block
        self._used = 1
        self._filled = 0
        self._counts = np.zeros((MOST_BLOCKS, 2 + _WIDTH_STEP), dtype=np.int64)
        self._totals = np.zeros(MOST_BLOCKS, dtype=np.int64)
        self._sums = np.zeros(MOST_BLOCKS, dtype=np.float64)
        self._squares = 0.0
        self._least = 0

    def add(self, values: NDArray[np.int64], sizes: NDArray[Any] | None = None) -> None:
        """Take in values in reading order; ``sizes`` values are one row (default: 1 each)."""
        done = 0
        ends = np.arange(1, values.size + 1) if sizes is None else np.cumsum(sizes)
        while done < values.size:
            room = self._size - self._filled
            # The block ends with the row that fills it.
            last = int(np.searchsorted(ends, done + room))
            full = last < ends.size
            until = int(ends[last]) if full else int(values.size)
            self._count(values[done:until])
            done = until
            if full:
                self._close()

    def _count(self, values: NDArray[np.int64]) -> None:
        block = self._used - 1
        self.n += values.size
        self._totals[block] += values.size
        self._filled += values.size
        floats = values.astype(np.float64)
        self._sums[block] += floats.sum()
        self._squares += inner(floats, floats)
        if values.min() <= 0:
            self._least = min(self._least, int(values.min()))
            self._counts[block, 0] += np.count_nonzero(values < 0)
            self._counts[block, 1] += np.count_nonzero(values == 0)
            floats = floats[values > 0]
        found = np.bincount(_buckets(floats))
        self._widen(found.size)
        self._counts[block, 2 : 2 + found.size] += found

    def _widen(self, size: int) -> None:
        lack = 2 + size - self._counts.shape[1]
        if lack > 0:
            more = -(-lack // _WIDTH_STEP) * _WIDTH_STEP
            self._counts = np.pad(self._counts, ((0, 0), (0, more)))

    def _close(self) -> None:
        """Begin the next block; where there is none left, halve their number first."""
        if self._used == MOST_BLOCKS:
            half = MOST_BLOCKS // 2
            for whole in (self._counts, self._totals, self._sums):
                # Row i only takes in rows 2i and 2i + 1, which no earlier row has written.
                for i in range(half):
                    whole[i] = whole[2 * i] + whole[2 * i + 1]
                whole[half:] = 0
            self._used = half
            self._size *= 2
        self._used += 1
        self._filled = 0

    def _held(self) -> int:
        """How many blocks hold values; the last one may just have been begun."""
        return self._used if self._filled else self._used - 1

    def _edges(self, column: int) -> tuple[float, float]:
        """Lower and upper bound of the values counted in a column."""
        if column == 0:
            return float(self._least), -1.0
        if column == 1:
            return 0.0, 0.0
        return edge(column - 2), edge(column - 1)

    def quantile(self, q: float) -> Estimate:
        """The middle of the bucket that holds the quantile; lo and hi are outer bucket edges."""
        if few := refused(q, self.n):
            return few
        counts = self._counts[: self._held()]
        ends = np.cumsum(counts.sum(axis=0))
        column = int(np.searchsorted(ends, rank(self.n, q)))
        n_effective = self._exceedance_worth(counts, column)
        value = sum(self._edges(column)) / 2
        if alone := without_interval(value, q, self.n, n_effective):
            return alone
        low, high = interval_ranks(self.n, n_effective, q)
        lo, _ = self._edges(int(np.searchsorted(ends, low)))
        _, hi = self._edges(int(np.searchsorted(ends, high)))
        method = f"order statistics of {self._source(len(counts))}"
        return Estimate(value, lo, hi, self.n, n_effective, method)

    def _exceedance_worth(self, counts: NDArray[np.int64], column: int) -> int:
        beyond = counts[:, column + 1 :].sum(axis=1)
        if not beyond.any():
            beyond = counts[:, column:].sum(axis=1)
        share = float(beyond.sum()) / self.n
        return worth(share, self.n, beyond - share * self._totals[: len(counts)])

    def _source(self, blocks: int) -> str:
        return f"a histogram of resolution {RESOLUTION:.3%} in {blocks} blocks"

    def mean(self) -> Estimate:
        """The exact mean (its sum does not pass through buckets); t over the blocks."""
        if not self.n:
            return refusal("no samples")
        held = self._held()
        center = float(self._sums.sum()) / self.n
        squares = max(0.0, self._squares - self.n * center * center)
        terms = self._sums[:held] - center * self._totals[:held]
        return mean_estimate(center, self.n, squares, terms, f"{held} blocks")

    def share(self) -> Estimate:
        """The mean of values that are 0 or 1, as a share."""
        if not self.n:
            return refusal("no samples")
        held = self._held()
        part = float(self._sums.sum()) / self.n
        terms = self._sums[:held] - part * self._totals[:held]
        return share_estimate(part, self.n, worth(part, self.n, terms))
