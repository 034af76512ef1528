"""The values of one metric as a run is read: exact while they fit, a histogram after that."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latdiag.stats.estimate import Estimate, mean, quantiles, refusal, share
from latdiag.stats.histogram import MOST_BLOCKS, BlockHistogram

#: Values of one metric that are kept as they are: 32 MB, and exact quantiles.
EXACT_LIMIT = 4_000_000


class Sample:
    """Values of rows (requests): one a row, or many (the gaps of a request), or none.

    The result does not depend on how the rows were split over calls of ``add``. Up to ``limit``
    values it is exact and time order is that of the keys; beyond, it is that of a
    ``BlockHistogram`` and time order is reading order.
    """

    def __init__(self, limit: int = EXACT_LIMIT) -> None:
        self.n = 0
        self._limit = limit
        self._values: list[NDArray[np.int64]] = []
        self._sizes: list[NDArray[Any]] = []
        self._order: list[NDArray[np.int64]] = []
        self._histogram: BlockHistogram | None = None

    def add(
        self,
        values: NDArray[np.int64],
        sizes: NDArray[Any],
        order: NDArray[np.int64],
    ) -> None:
        """Take in a stretch of rows.

        ``sizes`` says how many of ``values`` each row has (a mask where it is one or none);
        ``order`` is each row's place in time. Both have one entry a row and are kept by
        reference, so metrics of the same rows share them: do not write to them afterwards.
        """
        self.n += int(values.size)
        if self._histogram is None and self.n > self._limit:
            # So that there are about as many blocks as there may be, from the start.
            self._histogram = BlockHistogram(max(1, self._limit // MOST_BLOCKS))
            for held, of in zip(self._values, self._sizes, strict=True):
                self._histogram.add(held, of)
            self._values, self._sizes, self._order = [], [], []
        if self._histogram is not None:
            self._histogram.add(values, sizes)
        else:
            self._values.append(values)
            self._sizes.append(sizes)
            self._order.append(order)

    def copy(self) -> Sample:
        """A sample of the same values that goes its own way from here."""
        other = Sample(self._limit)
        other.n = self.n
        # The arrays are never written to, so both may hold them.
        other._values, other._sizes = self._values.copy(), self._sizes.copy()
        other._order = self._order.copy()
        other._histogram = copy.deepcopy(self._histogram)
        return other

    def exact(
        self,
    ) -> tuple[NDArray[np.int64], NDArray[Any] | None, NDArray[np.int64]]:
        """Values, sizes of the rows that have any (None: one each), and those rows' order."""
        sizes = np.concatenate(self._sizes)
        held = sizes > 0
        order = np.concatenate(self._order)[held]
        single = sizes.dtype == np.bool_ or int(sizes.max(initial=0)) <= 1
        return np.concatenate(self._values), None if single else sizes[held], order

    def quantiles(self, wanted: Sequence[float]) -> list[Estimate]:
        if self._histogram is not None:
            return [self._histogram.quantile(q) for q in wanted]
        if not self.n:
            return [refusal("no samples")] * len(wanted)
        values, sizes, order = self.exact()
        return quantiles(values, wanted, sizes, order)

    def mean(self) -> Estimate:
        if self._histogram is not None:
            return self._histogram.mean()
        return mean(*self.exact()) if self.n else refusal("no samples")

    def share(self) -> Estimate:
        """For values that are 0 or 1."""
        if self._histogram is not None:
            return self._histogram.share()
        if not self.n:
            return refusal("no samples")
        values, _, order = self.exact()
        return share(values == 1, order)
