"""How much a kill can take: the promise holds at any age of a run."""

from __future__ import annotations

from itertools import pairwise

import pytest

from latdiag.store.flush import FIRST_S, LONGEST_S, MOST_LOST_S, Flushes


@pytest.mark.parametrize("slow_s", [0.0, 0.5, 1.99])
def test_between_two_flushes_lies_less_than_may_be_lost(slow_s: float) -> None:
    """A day of flushes that take ``slow_s`` each: what a kill takes is at most what came since
    the last whole flush began, up to the end of the next one."""
    flushes = Flushes(1000.0)
    begun = [flushes.first_s()]
    while begun[-1] < 1000.0 + 86_400:
        begun.append(max(flushes.next_s(begun[-1]), begun[-1] + slow_s))
    assert begun[0] - 1000.0 <= FIRST_S
    lost = [later + slow_s - earlier for earlier, later in pairwise(begun)]
    assert max(lost) <= MOST_LOST_S
    assert max(lost) >= LONGEST_S, "an old run writes larger parts"
    assert len(begun) < 86_400 / LONGEST_S + 120
