"""Resampling of rows that depend on those before them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def block_length(n: int) -> int:
    """Rows to keep together: 4 n^(1/3), as dependence over a queue's busy periods needs."""
    return max(1, min(n, round(4.0 * math.cbrt(n))))


def resampled_sums(
    values: NDArray[Any],
    segments: NDArray[np.int64],
    times: int,
    random: np.random.Generator,
) -> NDArray[np.float64]:
    """``times`` sums of the columns of ``values`` (k, n) over rows drawn anew: (times, k).

    Moving blocks (Kunsch, Annals of Statistics 17, 1989) within each run of equal ``segments``
    (n), as many rows as there were. Rows are in the order of time.
    """
    total = np.zeros((times, len(values)))
    for segment in np.unique(segments):
        inside = values[:, segments == segment].astype(float)
        n = inside.shape[1]
        length = block_length(n)
        sums = np.concatenate([np.zeros((len(values), 1)), np.cumsum(inside, axis=1)], axis=1)
        # Every row must be drawn equally often: blocks may run over the end to the beginning.
        wrapped = np.concatenate([sums, sums[:, -1:] + sums[:, 1 : length + 1]], axis=1)
        whole, rest = divmod(n, length)
        for size in [length] * whole + [rest] * (rest > 0):
            starts = random.integers(0, n, times)
            total += (wrapped[:, starts + size] - wrapped[:, starts]).T
    return total
