"""How far a sender's clock may be from the client's, by causality alone.

A request cannot reach a server before it was sent, nor its last byte leave after it came::

    end - done  <=  server - client  <=  start - sent

Each request bounds the offset from both sides; of many the tightest hold (Cristian). Where no
offset fits two windows of requests, the clock was stepped between them. Only this report, and
the way of the network's share up or down, may depend on an offset: no component does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from latdiag.attribute.answered import Answered
from latdiag.attribute.spans import Spans

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Requests that are looked at together.
_WINDOW = 50
#: Stamps at both ends of one event may be so far out of order.
_TOLERANCE_NS = 1_000_000


@dataclass(frozen=True, slots=True)
class Offset:
    """``offset_ns``: sender's clock minus client's, the middle of what is possible, of the first
    stretch without a step; ``half_ns``: half of what is possible. ``steps``: (index of the
    request, ns) of each step. ``drift_ppm``: None where what is possible does not tell it."""

    sender: str
    n: int
    offset_ns: int
    half_ns: int
    steps: tuple[tuple[int, int], ...]
    drift_ppm: float | None


def offsets(spans: Spans, seen: Answered) -> list[Offset]:
    """Of every sender with joined spans whose requests are all of one client clock."""
    import numpy as np

    found = []
    for code, sender in enumerate(spans.senders):
        mine = np.flatnonzero(spans.sender == code)
        rows = np.unique(spans.row[mine])
        if not len(rows) or len(set(seen.clock_id[rows].tolist())) > 1:
            continue
        place = np.searchsorted(rows, spans.row[mine])
        start = np.full(len(rows), np.iinfo(np.int64).max)
        end = np.full(len(rows), np.iinfo(np.int64).min)
        np.minimum.at(start, place, spans.start[mine])
        np.maximum.at(end, place, spans.end[mine])
        most, least = start - seen.sent[rows], end - seen.done[rows]
        found.append(_offset(sender, least, most, seen.sent[rows]))
    return found


def _offset(
    sender: str, least: NDArray[np.int64], most: NDArray[np.int64], sent: NDArray[np.int64]
) -> Offset:
    stretches = _stretches(least, most)
    middles, halves, ends = [], [], []
    for begin, stop in stretches:
        lo, hi = int(least[begin:stop].max()), int(most[begin:stop].min())
        middles.append((lo + hi) // 2)
        halves.append(max(0, (hi - lo) // 2))
        ends.append(begin)
    steps = tuple(
        (at, new - old) for at, old, new in zip(ends[1:], middles[:-1], middles[1:], strict=True)
    )
    drift = _drift(least, most, sent) if len(stretches) == 1 else None
    return Offset(sender, len(least), middles[0], halves[0], steps, drift)


def _stretches(least: NDArray[np.int64], most: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Windows joined for as long as one offset fits all of them."""
    import numpy as np

    cuts = [0]
    lo, hi = np.iinfo(np.int64).min, np.iinfo(np.int64).max
    for at in range(0, len(least), _WINDOW):
        window = slice(at, at + _WINDOW)
        new_lo, new_hi = max(lo, int(least[window].max())), min(hi, int(most[window].min()))
        if new_lo > new_hi + _TOLERANCE_NS and at > cuts[-1]:
            cuts.append(at)
            new_lo, new_hi = int(least[window].max()), int(most[window].min())
        lo, hi = new_lo, new_hi
    return list(zip(cuts, [*cuts[1:], len(least)], strict=True))


def _drift(
    least: NDArray[np.int64], most: NDArray[np.int64], sent: NDArray[np.int64]
) -> float | None:
    """ns a ms between the first and the last quarter; None where none is as possible."""
    n = len(least) // 4
    span = int(sent[-1] - sent[0]) if len(sent) else 0
    if n < 1 or span <= 0:
        return None
    lo = [int(least[part].max()) for part in (slice(0, n), slice(-n, None))]
    hi = [int(most[part].min()) for part in (slice(0, n), slice(-n, None))]
    if lo[1] <= hi[0] and lo[0] <= hi[1]:
        return None
    return 1e6 * ((lo[1] + hi[1]) - (lo[0] + hi[0])) / 2 / (span * 3 / 4)
