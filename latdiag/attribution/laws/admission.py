"""How many streams the server runs at once, read off the bursts of a probe."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from latdiag.measurement.observations import Observations

#: Streams of a burst that were admitted at once begin within this share of the others' wait.
_TOGETHER = 0.25


def admitted(seen: Observations) -> int | None:
    """How many streams of a burst ran at once, in the smallest burst where not all did.

    Who was not admitted gets its first token only after another of its burst has ended, and later
    than the first of them by half of a whole reply at least. Replies that ended early say
    nothing: one may end before another has begun although all were admitted.
    """
    rows = seen.of("S6")
    whole = rows[seen.osl[rows] >= 0.8 * seen.osl[rows].max()] if len(rows) else rows
    for begin in np.unique(seen.begin[whole]):
        burst = whole[seen.begin[whole] == begin]
        if len(burst) < int((seen.begin[rows] == begin).sum()):
            continue
        first, last = seen.first[burst], seen.last[burst]
        half = float(np.median(last - first)) / 2
        late = (first >= last.min()) & (first - first.min() > half)
        # Where each waits for the one before (prompts or transfers in a row), the first ones
        # come as far apart as the last.
        early = first[~late] - first.min()
        if late.any() and early.max(initial=0) < _TOGETHER * float(
            (first[late] - first.min()).min()
        ):
            return max(1, int((~late).sum()))
    return None
