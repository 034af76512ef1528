"""Silences of a stream that no step explains: a stall, another's prompt, or a preemption.

Who is silent together with it tells them apart, and what was computed meanwhile:

- all own streams at once, and the prompts of ours that ended then are too short for it: a stall
- prompts of ours that were computed meanwhile, and it is no longer than these take: interference
- it alone, while others go on at their pace: it was preempted. It is computed again, so it pauses
  for no less than a prompt of its length so far takes

What comes late because something held it on the way is no pause: it comes at once when it comes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from latdiag.attribution.laws.laws import Laws
    from latdiag.measurement.observations import Observations

#: A pause is longer than so many steps of its stream beyond the one that it should have been, and
#: than so many times what the way varies by.
_STEPS, _JITTERS = 4.0, 4.0
#: Prompts that were computed meanwhile explain so many times what they take alone.
_EXPLAIN = 1.3
#: Whoever sends nothing in this middle part of a pause is silent too.
_MIDDLE = 0.7
#: Where there are stalls, so many, and this share, of the pauses of all begin without a prompt.
_SOME, _SHARE = 2, 0.2
#: Shares of the others that are silent: of all of them, or of none but a few.
_ALL, _FEW = 0.5, 1 / 3
#: So many others have to go on.
_OTHERS = 2
#: Events behind a pause that come so much faster than a step were made during it.
_CAUGHT_UP, _BEHIND = 0.5, 4
#: So many pauses of streams alone are no chance, if most of them last at least this share of what
#: computing the stream again takes.
_PAUSES, _MOST, _AGAIN = 4, 0.75, 0.5


@dataclass(frozen=True, slots=True)
class Pauses:
    """ns of each row of the workload. ``stalled``: all were silent; ``lone``: it was silent alone.
    ``preempts``: whether the lone ones are as long as computing the stream again takes."""

    stalled: NDArray[np.int64]
    lone: NDArray[np.int64]
    preempts: bool


def pauses_of(seen: Observations, rows: NDArray[np.int64], laws: Laws) -> Pauses:
    """The pauses of the streams ``rows``, beside all others of ``seen``."""
    stalled, lone = (np.zeros(len(rows), dtype=np.int64) for _ in range(2))
    held = laws.delivery.held is not None or laws.at_once or laws.pacing is not None
    if held or laws.paced_apart or not laws.step.n:
        return Pauses(stalled, lone, False)
    field = _Field(seen, laws)
    pauses = [
        pause for place, row in enumerate(rows.tolist()) for pause in field.pauses(place, row)
    ]
    together = [p for p in pauses if p.silent >= _ALL * p.others and p.extra_ns > p.prompts_ns]
    # A prompt that makes streams wait was there when the pause began.
    before = [each.free_ns > laws.step.base / 2 for each in together]
    some = sum(before) >= max(_SOME, _SHARE * len(together))
    for each, free in zip(together, before, strict=True):
        worst = 0.0 if free or some else each.worst_ns
        stalled[each.place] += max(round(each.extra_ns - each.prompts_ns - worst), 0)
    again = []
    for each in pauses:
        goes_on = each.others - each.silent >= _OTHERS and each.silent <= _FEW * each.others
        if goes_on and each.extra_ns > each.prompts_ns + each.worst_ns:
            lone[each.place] += round(each.extra_ns)
            again.append(each.extra_ns >= _AGAIN * each.again_ns)
    preempts = len(again) >= _PAUSES and float(np.mean(again)) >= _MOST
    return Pauses(stalled, lone, preempts)


@dataclass(frozen=True, slots=True)
class _Pause:
    """Of the stream ``place``: ns beyond a step, those of them before any prompt was there that
    may have been computed then, and what these prompts take alone, and at the most beyond that.
    ``again_ns``: what computing the stream so far takes. ``others``: streams that ran before and
    after, ``silent``: those of them that sent nothing meanwhile."""

    place: int
    extra_ns: float
    free_ns: float
    prompts_ns: float
    worst_ns: float
    again_ns: float
    others: int
    silent: int


class _Field:
    """The streams and prompts of a probe, to be asked what went on between two instants."""

    def __init__(self, seen: Observations, laws: Laws) -> None:
        self._seen, self._laws = seen, laws
        self._rows = np.flatnonzero(seen.usable)
        jitter = laws.path.jitter_ns if laws.path is not None else 0.0
        self._least = _JITTERS * jitter
        #: The second token may wait for a transfer.
        self._from = 1 if laws.transfer is not None else 0
        #: By how much a prompt alone took longer than the law: some miss a cache.
        self._worst = max(0.0, float((laws.own.relative * laws.own.scale).max()))

    def pauses(self, place: int, row: int) -> list[_Pause]:
        """Those of the stream ``row``."""
        found = []
        for begin, end, extra, tokens in self._long(row):
            prompts = self._prompts(row, begin, end)
            took = _EXPLAIN * float(self._laws.own.at(self._seen.isl[prompts]).sum())
            since = int(self._seen.begin[prompts].min()) if len(prompts) else end
            work = self._work_ns(int(self._seen.isl[row]) + tokens)
            free = float(np.clip(since - begin, 0, extra))
            company = self._company(row, begin, end)
            found.append(
                _Pause(place, extra, free, took, self._worst * len(prompts), work, *company)
            )
        return found

    def _work_ns(self, tokens: int) -> float:
        """What the engine works for a prompt of this length, alone."""
        own = self._laws.own
        return float(own.at(np.array([tokens]))[0]) - own.constant + self._laws.launch_ns

    def _long(self, row: int) -> list[tuple[int, int, float, int]]:
        """(begin, end, ns beyond a step, tokens so far) of the gaps of a stream that no step
        explains."""
        seen = self._seen
        span = slice(int(seen.offsets[row]), int(seen.offsets[row + 1]))
        times, brought, exact = seen.arrivals[span], seen.brought[span], seen.exact[span]
        if len(times) < 3:
            return []
        gaps, some = np.diff(times), np.maximum(brought[1:], 1.0)
        # Of its own pace, in whatever company it is: most gaps are no pauses.
        pace = max(float(np.median(gaps / some)), self._laws.step.base)
        extra = gaps - pace * some
        long = (extra > max(_STEPS * pace, self._least)) & exact[1:] & exact[:-1]
        long[: self._from] = False
        found, so_far = [], np.cumsum(brought)
        for at in np.flatnonzero(long).tolist():
            later = gaps[at + 1 : at + 1 + _BEHIND]
            made = some[at + 1 : at + 1 + _BEHIND].sum()
            if len(later) and later.sum() < _CAUGHT_UP * pace * made:
                continue
            found.append((int(times[at]), int(times[at + 1]), float(extra[at]), int(so_far[at])))
        return found

    def _prompts(self, row: int, begin: int, end: int) -> NDArray[np.int64]:
        """The prompts of others that may have been computed between two instants: their first
        tokens came after the one, and not long after the other."""
        seen, rows = self._seen, self._rows
        near = rows[(seen.first[rows] > begin) & (seen.begin[rows] < end) & (rows != row)]
        most = _EXPLAIN * self._laws.own.at(seen.isl[near]) + self._worst
        taken: NDArray[np.int64] = near[seen.first[near] - most < end + 2 * self._laws.step.base]
        return taken

    def _company(self, row: int, begin: int, end: int) -> tuple[int, int]:
        """(other streams that ran before and after, those of them that were silent)."""
        seen, rows = self._seen, self._rows
        others = rows[(seen.first[rows] <= begin) & (seen.last[rows] >= end) & (rows != row)]
        edge = (1 - _MIDDLE) / 2 * (end - begin)
        silent = 0
        for other in others.tolist():
            span = slice(int(seen.offsets[other]), int(seen.offsets[other + 1]))
            times = seen.arrivals[span]
            a, b = np.searchsorted(times, (begin + edge, end - edge))
            silent += int(a == b)
        return len(others), silent
