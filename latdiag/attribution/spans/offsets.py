"""How far a sender's clock may be from the client's, by causality alone.

A request cannot reach a server before it was sent, nor its last byte leave after it came, and a
span ends soon after that::

    end - late - done  <=  server - client  <=  start - sent

Each request bounds the offset from both sides; of many the tightest hold (Cristian). Where no
offset fits all requests, but a line does, the clock drifts; where no line does either, it was
stepped where the first request does not fit those before it. Only this report, and
the way of the network's share up or down, may depend on an offset: no component does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.spans.columns import Spans
from latdiag.measurement.frame import Frame

#: Stamps at both ends of one event may be so far out of order.
_TOLERANCE_NS = 1_000_000
#: So long after its last byte has left may a server's span end (measured: up to 4 ms).
_LATE_NS = 5_000_000
#: Clocks are stepped now and then. What seems to be stepped more often than this share of the
#: requests is the end of spans: a busy server closes each as late as it gets to it.
_OFTEN, _FEW = 0.1, 2
#: As many bounds as a line is fitted to; of more requests, the tightest of each group.
_MOST = 400


@dataclass(frozen=True, slots=True)
class Offset:
    """``offset_ns``: sender's clock minus client's, the middle of what is possible, of the first
    stretch without a step; ``half_ns``: half of what is possible, None where the clock drifts.
    ``steps``: (index of the request, ns) of each step. ``drift_ppm``: None where it need not
    drift."""

    sender: str
    n: int
    offset_ns: int
    half_ns: int | None
    steps: tuple[tuple[int, int], ...]
    drift_ppm: float | None


def offsets(spans: Spans, seen: Frame) -> list[tuple[str, Offset]]:
    """(Clock of the client, offset) of every sender whose requests are all of one clock, and
    whose spans end when its work does."""
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
        most, least = start - seen.sent[rows], end - _LATE_NS - seen.done[rows]
        # A span that lasts longer than the request is of work after the reply: it bounds nothing.
        sound = least <= most + _TOLERANCE_NS
        rows, most, least = rows[sound], most[sound], least[sound]
        if not len(rows):
            continue
        order = np.argsort(seen.sent[rows], kind="stable")
        bounds = (each[order] for each in (least, most, seen.sent[rows]))
        offset = _offset(sender, *bounds)
        if len(offset.steps) <= max(_FEW, _OFTEN * len(rows)):
            found.append((str(seen.clock_id[rows[0]]), offset))
    return found


def _offset(
    sender: str, least: NDArray[np.int64], most: NDArray[np.int64], sent: NDArray[np.int64]
) -> Offset:
    drift = None
    stretches = _stretches(least, most)
    if len(stretches) > 1:
        drift = _drift(least, most, sent)
        if drift is not None:  # one line fits all: the clock ran on, at its own pace
            stretches = [(0, len(least))]
    middles, halves = [], []
    for begin, stop in stretches:
        lo, hi = int(least[begin:stop].max()), int(most[begin:stop].min())
        middles.append((lo + hi) // 2)
        halves.append(max(0, (hi - lo) // 2))
    places = [begin for begin, _ in stretches]
    steps = tuple(
        (at, new - old) for at, old, new in zip(places[1:], middles[:-1], middles[1:], strict=True)
    )
    half = None if drift is not None else halves[0]
    return Offset(sender, len(least), middles[0], half, steps, drift)


def _stretches(least: NDArray[np.int64], most: NDArray[np.int64]) -> list[tuple[int, int]]:
    """The longest stretches of requests, one after the other, that one offset each fits."""
    cuts = [0]
    lo, hi = int(least[0]), int(most[0])
    for at, (new_lo, new_hi) in enumerate(zip(least.tolist(), most.tolist(), strict=True)):
        lo, hi = max(lo, new_lo), min(hi, new_hi)
        if lo > hi + _TOLERANCE_NS:
            cuts.append(at)
            lo, hi = new_lo, new_hi
    return list(zip(cuts, [*cuts[1:], len(least)], strict=True))


def _drift(
    least: NDArray[np.int64], most: NDArray[np.int64], sent: NDArray[np.int64]
) -> float | None:
    """ppm of the line that breaks the bounds least; None where it breaks them by more than
    stamps may."""
    from scipy.optimize import linprog

    groups = np.array_split(np.arange(len(least)), min(_MOST, len(least)))
    tight = (
        [(int(sent[g[most[g].argmin()]]), int(most[g].min())) for g in groups],
        [(int(sent[g[least[g].argmax()]]), int(least[g].max())) for g in groups],
    )
    base, since = int(least[0]), int(sent[0])
    rows, limits = [], []
    for sign, bounds in ((1.0, tight[0]), (-1.0, tight[1])):
        for at, bound in bounds:
            # Milliseconds and seconds: the solver likes numbers near one.
            rows.append([sign, sign * (at - since) / 1e9, -1.0])
            limits.append(sign * (bound - base) / 1e6)
    found = linprog([0.0, 0.0, 1.0], rows, limits, bounds=[(None, None), (None, None), (0, None)])
    if not found.success or found.x[2] > _TOLERANCE_NS / 1e6:
        return None
    return float(found.x[1]) * 1000.0
