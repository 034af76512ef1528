"""How many other streams were decoding, and with how much context, during a span of time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Company:
    """The integral over time of what runs: streams [start, end) with a weight each."""

    def __init__(
        self,
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
        weights: NDArray[np.float64],
    ) -> None:
        self._since = int(starts.min()) if len(starts) else 0
        times = np.concatenate([starts, ends]) - self._since
        steps = np.concatenate([weights, -weights])
        order = np.argsort(times, kind="stable")
        self._times = times[order].astype(np.float64)
        level = np.cumsum(steps[order])
        spans = np.diff(self._times, append=self._times[-1:])
        area = np.cumsum(level * spans)
        self._area = np.concatenate([[0.0], area[:-1]]) if len(area) else area

    def between(self, begin: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.float64]:
        """Mean weight that ran between ``begin`` and ``end`` (each n; begin < end)."""
        if not len(self._times):
            return np.zeros(len(begin))
        low = np.interp((begin - self._since).astype(float), self._times, self._area)
        high = np.interp((end - self._since).astype(float), self._times, self._area)
        mean: NDArray[np.float64] = (high - low) / np.maximum(end - begin, 1)
        return mean
