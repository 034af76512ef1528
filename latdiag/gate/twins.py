"""What two arms measured: a row per request, and twins side by side.

Twins are the same prompt at the same offset of arrival in both arms; their key is (pair, index).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
#: In a column of whole numbers: not known.
MISSING = -1
BASE, CANDIDATE = 0, 1


@dataclass(frozen=True, slots=True)
class Twins:
    """Columns with a row per request. Rows need no order; warm-up requests are not in them, nor
    pairs that were cut before both blocks ended (a request that is not there counts as failed).

    ``pair`` counts in the order of time from 0, ``index`` within a block from 0, ``arm`` is BASE
    or CANDIDATE, ``second`` whether that arm's block came second in its pair. ``times_ns``: ttft,
    tpot, itl (a quantile of the request's own gaps), e2e; ``lag_ns``: how late it was sent.
    ``late``: sent so late, or stamped so badly, that its times are the client's; ``stepped``: a
    clock was set meanwhile. ``tokens`` came out, ``prompt`` went in, ``cached`` of these were in a
    cache. ``labels``: what a check's ``where`` asks for. ``parts_ns``: the request's time from end
    to end by component. MISSING is what is not known.
    """

    pair: Ints
    index: Ints
    arm: Ints
    second: Mask
    times_ns: Mapping[str, Ints]
    tokens: Ints
    ok: Mask
    late: Mask
    stepped: Mask
    lag_ns: Ints
    prompt: Ints
    cached: Ints
    labels: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)
    parts_ns: Mapping[str, Ints] = field(default_factory=dict)


class Grid:
    """The rows of ``Twins`` as (pairs, block, 2): base and candidate of each twin side by side.

    ValueError for a row outside the plan and for two rows of one place.
    """

    def __init__(self, twins: Twins, block: int) -> None:
        self._twins = twins
        pairs = int(twins.pair.max(initial=-1)) + 1
        self.shape = (pairs, block, 2)
        low = min((int(c.min(initial=0)) for c in (twins.pair, twins.index, twins.arm)), default=0)
        if low < 0 or twins.index.max(initial=0) >= block or twins.arm.max(initial=0) > 1:
            raise ValueError("a request lies outside the plan of pairs and blocks")
        self._place = (twins.pair * block + twins.index) * 2 + twins.arm
        if len(np.unique(self._place)) != len(self._place):
            raise ValueError("two requests have the same pair, index and arm")
        self.there = self.mask(np.ones(len(twins.pair), dtype=bool))

    def mask(self, column: Mask) -> Mask:
        """(pairs, block, 2); False where there is no request."""
        dense = np.zeros(self.shape, dtype=bool)
        dense.ravel()[self._place] = column
        return dense

    def values(self, column: Ints) -> Floats:
        """(pairs, block, 2); NaN where there is no request or no value."""
        dense = np.full(self.shape, np.nan)
        dense.ravel()[self._place] = np.where(column == MISSING, np.nan, column)
        return dense

    def times(self, metric: str) -> Floats:
        """Nanoseconds of a metric; all NaN where it was not measured."""
        column = self._twins.times_ns.get(metric)
        return np.full(self.shape, np.nan) if column is None else self.values(column)

    def labelled(self, where: tuple[tuple[str, str], ...]) -> Mask:
        """(pairs, block): twins of which both have these labels."""
        kept = self.there.all(axis=2)
        for key, value in where:
            column = self._twins.labels.get(key)
            kept = kept & (
                self.mask(np.asarray(column == value)).all(axis=2) if column is not None else False
            )
        return np.asarray(kept)
