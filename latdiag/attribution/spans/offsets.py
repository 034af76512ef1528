"""How far a sender's clock may be from the client's, by causality alone.

A request cannot reach a server before it was sent, nor can its first token come before the server
says that it made it, and a span ends soon after the last byte has left::

    start + time to first token - first, end - late - done  <=  server - client  <=  start - sent

Each request bounds the offset from both sides; of many the tightest hold (Cristian). The end of a
span is as late as a busy server gets to it, so it only narrows an offset: that a clock drifts or
was stepped, the others must show, on both sides. Where no offset fits them all, but a line does,
it drifts; where no line does either, it was stepped where the first request does not
fit those before it. Only this report, and the way of the network's share up or down, may depend
on an offset: no component does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.spans.columns import LONGEST_NS, Spans
from latdiag.measurement.frame import Frame
from latdiag.model.units import UNIT_NS
from latdiag.stacks.signal import Place

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
        sure = _not_late(spans, seen, mine, rows)
        if (sure > most + _TOLERANCE_NS)[sound].any():
            # What it calls the first token is not what came first, as where another server sent
            # that: then it has begun before the reply ends, and no more is sure.
            sure = start - seen.done[rows]
        rows, most, least, sure = (each[sound] for each in (rows, most, least, sure))
        if not len(rows):
            continue
        order = np.argsort(seen.sent[rows], kind="stable")
        bounds = (each[order] for each in (least, sure, most, seen.sent[rows]))
        offset = _offset(sender, *bounds)
        if len(offset.steps) <= max(_FEW, _OFTEN * len(rows)):
            found.append((str(seen.clock_id[rows[0]]), offset))
    return found


def _not_late(
    spans: Spans, seen: Frame, mine: NDArray[np.int64], rows: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Per row of ``rows`` the least that the offset can be, by nothing that a busy server may be
    late with: a span has begun before the reply ends, and what it states from its begin on (until
    the first token, or the end) is over when that comes. ``mine``: the sender's."""
    place = np.searchsorted(rows, spans.row[mine])
    found = np.full(len(rows), np.iinfo(np.int64).max)
    np.minimum.at(found, place, spans.start[mine] - seen.done[spans.row[mine]])
    for stack in {int(code) for code in np.unique(spans.stack[mine])}:
        for signal in spans.stacks[stack].signals:
            if signal.starts != Place("start") or signal.foreign not in spans.values:
                continue
            bears = [one.name == signal.bearer for one in spans.signals]
            ours = (spans.stack[mine] == stack) & (spans.signal[mine] >= 0)
            ours &= np.array([*bears, False])[spans.signal[mine]]
            ours &= np.array(
                [not signal.roles or str(r) in signal.roles for r in spans.role[mine]]
            )
            chosen = mine[ours]
            stated = spans.values[signal.foreign][chosen] * UNIT_NS[signal.unit]
            good = np.isfinite(stated) & (stated >= 0) & (stated < LONGEST_NS)
            at = spans.start[chosen[good]] + np.rint(stated[good]).astype(np.int64)
            until = seen.first if signal.first_token else seen.done
            np.maximum.at(found, place[ours][good], at - until[spans.row[chosen[good]]])
    return found


def _offset(
    sender: str,
    least: NDArray[np.int64],
    sure: NDArray[np.int64],
    most: NDArray[np.int64],
    sent: NDArray[np.int64],
) -> Offset:
    """``least`` may be as late as ends are, ``sure`` may not."""
    drift = None
    shown = _stretches(sure, most)
    stretches = [(0, len(least))]
    if len(shown) > 1:
        drift = _drift(sure, most, sent)
        if drift is None:  # no line fits all: it did not run on at its own pace
            closer = _stretches(least, most)
            stretches = closer if len(closer) == len(shown) else shown
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
