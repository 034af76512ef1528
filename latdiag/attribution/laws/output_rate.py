"""Tokens per second of all streams together, where that stays the same however many there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from latdiag.measurement.observations import Observations

#: Rates of two batch sizes that differ by less are the same.
_ALIKE = 0.06
#: Tokens that a rate is counted from: of these, the first may have come of an allowance.
_FEWEST = 16
#: A batch of twice the streams makes no more tokens in all: so many sizes have to show it.
_SIZES = 2
#: A stream alone may be slower than all together by this, and the limit still says one at a time.
_ONE = 0.08
#: A limit shows the same rate at so many sizes, and within so much; or at two, and within less.
_SEVERAL, _EXACT, _VERY = 3, 0.01, 0.005


@dataclass(frozen=True, slots=True)
class OutputRate:
    """``rate``: tokens/s of all streams, between ``lo`` and ``hi``, of bursts of ``sizes``
    streams. ``alone``: one stream alone is as fast. ``spends``: one stream alone is faster than
    all together: what it has in hand is spent, as no engine has anything in hand."""

    rate: float
    lo: float
    hi: float
    sizes: tuple[int, ...]
    alone: bool
    spends: bool = False

    @property
    def is_exact(self) -> bool:
        """Whether it is as steady as a limit: what an engine computes at most changes a little
        with every stream."""
        exact = _EXACT if len(self.sizes) >= _SEVERAL else _VERY
        return self.hi < (1 + exact) * self.lo


def output_rate_of(seen: Observations) -> OutputRate | None:
    """From the bursts (S6) and from long streams alone (S2, S5); None where more streams bring
    more tokens, or too few came to say."""
    by_size = {}
    rows = seen.of("S6")
    for begin in np.unique(seen.begin[rows]):
        burst = rows[seen.begin[rows] == begin]
        found = _rate(seen, burst)
        if found is not None:
            by_size[len(burst)] = found
    alone = [r for row in seen.of("S2", "S5") if (r := _rate(seen, np.array([row]))) is not None]
    sizes = sorted(by_size)
    if len(sizes) < _SIZES:
        return None
    last = sizes[-1]
    same = [size for size in sizes if abs(by_size[size] / by_size[last] - 1) <= _ALIKE]
    # Sizes without a break up to the largest.
    same = [size for size in same if all(other in same for other in sizes if other >= size)]
    if len(same) < _SIZES or same[-1] < 2 * same[0]:
        return None
    rates = [by_size[size] for size in same]
    own = float(np.median(alone)) if alone else 0.0
    more = own / float(np.median(rates)) - 1
    one = bool(alone) and abs(more) <= _ONE
    ends = min(rates), max(rates)
    return OutputRate(float(np.median(rates)), *ends, tuple(same), one, more > _ONE)


def _rate(seen: Observations, rows: NDArray[np.int64]) -> float | None:
    """Tokens/s while all of ``rows`` stream, in the second half of that time; None: too few."""
    begin, end = int(seen.first[rows].max()), int(seen.last[rows].min())
    middle = (begin + end) // 2 if len(rows) > 1 else begin + (end - begin) // 3
    at, tokens = [], []
    for row in rows.tolist():
        span = slice(int(seen.offsets[row]), int(seen.offsets[row + 1]))
        at.append(seen.arrivals[span])
        tokens.append(seen.brought[span])
    times, brought = np.concatenate(at), np.concatenate(tokens)
    order = np.argsort(times, kind="stable")
    times, brought = times[order], brought[order]
    inside = (times >= middle) & (times <= end)
    if end <= begin or brought[inside].sum() < _FEWEST:
        return None
    first, last = int(times[inside][0]), int(times[inside][-1])
    if last <= first:
        return None
    # Who comes at the first instant opened the span.
    count = float(brought[inside & (times > first)].sum())
    return count * 1e9 / (last - first)
