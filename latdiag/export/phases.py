"""The parts of a request as spans that follow each other: where each begins and ends.

Jaeger's critical path takes a span only if it ends *before* the next one begins (its UI's
``utils/findLastFinishingChildSpan.ts`` compares with a strict <), and it sees whole microseconds:
floor(start) and floor(duration). Spans that tile a request therefore lose their time to the
parent. So every boundary is a whole microsecond, and each phase but the last ends one before the
next begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from latdiag.model.units import NS_PER_US


@dataclass(frozen=True, slots=True)
class Phase:
    """``place``: of the part in the given order. ``start_us``, ``end_us``: from the beginning of
    the request."""

    place: int
    start_us: int
    end_us: int


def whole_us(ns: int) -> int:
    """The nearest microsecond; a half goes up."""
    return (ns + NS_PER_US // 2) // NS_PER_US


def phases(total_ns: int, parts_ns: Sequence[int]) -> list[Phase]:
    """A phase for each part that takes a microsecond or more, in the given order.

    The parts add up to ``total_ns``. Where some are negative, the others exceed it; then they are
    drawn shorter in proportion, so that they fill the request and none of them disappears.
    """
    positive = sum(ns for ns in parts_ns if ns > 0)
    end = whole_us(total_ns)
    edges, done = [0], 0
    for ns in parts_ns:
        done += max(ns, 0)
        drawn = done if positive <= total_ns else done * total_ns // positive
        edges.append(min(whole_us(drawn), end))
    kept = [place for place in range(len(parts_ns)) if edges[place + 1] > edges[place]]
    return [Phase(place, edges[place], edges[place + 1] - (place != kept[-1])) for place in kept]
