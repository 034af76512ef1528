"""Whether there is anything to complain of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from latdiag.measurement.company import lone
from latdiag.measurement.stages import ALONE, WORKLOAD
from latdiag.model.metrics import SLO_PRESETS
from latdiag.model.units import NS_PER_S, show_ms

if TYPE_CHECKING:
    from latdiag.attribution.laws.laws import Step
    from latdiag.attribution.parts import Parts
    from latdiag.diagnosis.result import Share
    from latdiag.measurement.changes import Change
    from latdiag.measurement.observations import Observations

#: What a person who reads along does not feel as slow.
PRESET = "mlperf:llama3.1-8b-interactive"
#: Under this load p95 may be so many times what the same requests take alone.
_OVER_ALONE = 1.3
#: Times a request's own time that a load must last to say anything of queues.
_LONG_ENOUGH = 5
#: Less than this, and it is not the requests' own time alone that was estimated.
_UNDER_ALONE = 0.8
#: Requests of the workload that met no other: from so many on they say how much faster or slower
#: the server has become since it was asked what a request takes alone.
_FEWEST_LONE = 5
#: A factor that is no change of the server: others' load may cost as much.
_CHANGED = 1.25
#: Tokens after the first that show a pace, and requests alone that show how unlike they are.
_PACED, _FEWEST_UNLIKE = 3, 10
#: Of these, as many that one replica served.
_FEWEST_ALIKE = 3
#: Replicas that differ by less than this factor do not show in so few requests.
_APART = 1.4
#: Where in a request's life its server is looked at.
_LIFE = (0.1, 0.3, 0.5, 0.7, 0.9)
#: Parts that a server can be without; from this share on, one of them is worth a name.
AVOIDABLE = ("client", "network", "gateway", "queue", "interconnect")
_WORTH_A_NAME, _MAY_BE = 0.2, 0.3


@dataclass(frozen=True, slots=True)
class Health:
    """``over_alone``: end to end over that of the same requests alone, of the sums or of the p95,
    whichever is more. Times in ns, p95."""

    over_alone: float
    ttft_ns: float
    tpot_ns: float
    n: int
    span_s: float = math.inf
    #: whether a queue had the time to build up: several times what a request takes
    long_enough: bool = True
    #: times as long as in the designed stages that requests take alone by now
    since: float = 1.0

    def good(self, shares: Mapping[str, Share]) -> bool:
        """Nothing avoidable stands out, load costs little, and nobody waits."""
        return self.keeps_all and self.known_alone and not self.doubtful(shares)

    @property
    def keeps_all(self) -> bool:
        """Whether nobody waits, and load costs little as far as that is known."""
        ttft, tpot = _limits()
        quick = self.ttft_ns <= ttft and self.tpot_ns <= tpot
        return quick and self.long_enough and self.over_alone <= _OVER_ALONE

    @property
    def known_alone(self) -> bool:
        """Whether requests took no less than they would alone: else that was not learned."""
        return self.over_alone >= _UNDER_ALONE

    def doubtful(self, shares: Mapping[str, Share]) -> list[str]:
        """The parts that may hold time that a server can be without, and are worth a name."""
        names = [
            name
            for name, share in shares.items()
            if self.avoidable(share.members or (name,)) and _stands_out(share)
        ]
        return sorted(names, key=lambda name: -shares[name].sum_ns)

    def avoidable(self, members: tuple[str, ...]) -> list[str]:
        """Those of a class that a server can be without, and that may be large."""
        few = [name for name in members if name in AVOIDABLE]
        if len(members) > 1 and self.known_alone and self.over_alone <= 1 / (1 - _WORTH_A_NAME):
            # What waits for others is no larger than what load costs.
            few = [name for name in few if name != "queue"]
        return few

    def open(self, shares: Mapping[str, Share]) -> bool:
        """Whether it may well be good, and what is not known alone leaves that open: how much of a
        merged class can be avoided, or what a request takes alone. A large class that is none of
        decode's leaves little hope that none of it can."""
        doubtful = [shares[name] for name in self.doubtful(shares)]
        if not self.keeps_all or (self.known_alone and not doubtful):
            return False
        return all(
            share.members and ("decode" in share.members or (share.share or 0.0) < _MAY_BE)
            for share in doubtful
        )

    @property
    def keeps_tpot(self) -> bool:
        """Whether no reader would call the pace of the tokens slow."""
        return self.tpot_ns <= _limits()[1]

    @staticmethod
    def limits() -> str:
        """What a reader wants kept, in words."""
        ttft, tpot = (show_ms(limit) for limit in _limits())
        return f"TTFT {ttft} ms and TPOT {tpot} ms ({PRESET})"

    def sentence(self) -> str:
        """Why: the load's price, and the limits that 95 in 100 of the requests keep to."""
        met = f"95 % of them met {self.limits()}"
        if not self.known_alone:
            return f"of {self.n} requests over {self.span_s:.0f} s, {met}"
        changed = ""
        if abs(math.log(self.since)) > math.log(_CHANGED):
            changed = f" by now ({self.since:.1f} times as long as when it was asked alone first)"
        return (
            f"{self.n} requests over {self.span_s:.0f} s took at most {self.over_alone:.2f} times"
            f" what they take alone{changed}, and {met}"
        )


def _stands_out(share: Share) -> bool:
    """Whether a part is large, or may well be."""
    return (share.share or 0.0) >= _WORTH_A_NAME or (share.hi or 0.0) >= _MAY_BE


def health(
    seen: Observations,
    parts: Parts,
    changes: Sequence[Change] = (),
    origin: int = 0,
    step: Step | None = None,
) -> Health | None:
    """From the workload's requests; None where there are none. ``changes``: of the server on the
    way, in seconds from ``origin``, ns. ``step``: the law of the pace, where streams show it."""
    rows = seen.of(WORKLOAD)
    if parts.alone is None or not len(rows):
        return None
    later = seen.later(rows)
    many = later >= 1
    tpot = (seen.last - seen.first)[rows][many] / later[many]
    unlike = _unlike(seen, changes, origin, step)
    since, known = np.ones(len(rows)), True
    if len(unlike) == 1 or changes:
        # Of unlike replicas, those that met no other are of one or the other.
        since, known = _since(seen, rows, parts, changes, origin)
    alone = np.outer(parts.alone * since, unlike)
    p95 = [np.quantile(values, 0.95) for values in (parts.total, alone, parts.ttft)]
    slow = float(np.quantile(tpot, 0.95)) if len(tpot) else 0.0
    summed = float(parts.total.mean()) / max(float(alone.mean()), 1.0)
    span = _shortest_segment(seen.begin[rows], parts)
    return Health(
        max(summed, float(p95[0] / max(p95[1], 1.0))) if known else 0.0,
        float(p95[2]),
        slow,
        len(rows),
        float(seen.begin[rows].max() - seen.begin[rows].min()) / NS_PER_S,
        span > _LONG_ENOUGH * float(np.median(np.minimum(parts.alone * since, parts.total))),
        float((parts.alone * since).sum()) / max(float(parts.alone.sum()), 1.0),
    )


def _since(
    seen: Observations,
    rows: NDArray[np.int64],
    parts: Parts,
    changes: Sequence[Change],
    origin: int,
) -> tuple[NDArray[np.float64], bool]:
    """How many times as long each request takes alone as it did in the designed stages, and
    whether that is known: servers warm up, slow down and change. By the course of what changed,
    and where enough requests met no other, by these."""
    if parts.alone is None or len(rows) != len(parts.total):
        return np.ones(len(parts.total)), True
    course = _course(seen, rows, changes, origin)
    solo = lone(seen, seen.begin[rows], seen.done[rows])
    # Before a step the server is as it was when it was asked alone.
    stepped = {each.kind for each in changes if _of_server(each)} == {"step"}
    done = np.abs(course) / np.abs(course).max() if stepped else np.ones(len(rows))
    solo = solo & (done > 0.5)
    if int(solo.sum()) >= _FEWEST_LONE:
        times = np.log(np.maximum(parts.total[solo], 1) / np.maximum(parts.alone[solo], 1))
        level = float(np.median(times - course[solo]))
        if course.any() or abs(level) > np.log(_CHANGED):
            course = course + level * done
    elif course.any() and not stepped:
        if all(each.alone for each in changes if _of_server(each)):
            return np.ones(len(rows)), False  # how it went on in the workload did not show
        designed = seen.of(*ALONE)
        if len(designed):
            course = course - float(np.mean(_course(seen, designed, changes, origin)))
    return np.exp(course), True


def _unlike(
    seen: Observations, changes: Sequence[Change], origin: int, step: Step | None
) -> NDArray[np.float64]:
    """How many times as long as by the law requests took that were alone, where replicas differ:
    then their paces are two clusters, with next to nothing in between. What stalls, holds back or
    is uneven has paces in between, and says nothing of what a request takes alone elsewhere."""
    rows = seen.of(*ALONE)
    later = seen.later(rows)
    paced = (later >= _PACED) & (seen.last > seen.first)[rows]
    rows, later = rows[paced], later[paced]
    if step is None or len(rows) < _FEWEST_UNLIKE:
        return np.ones(1)
    pace = (seen.last - seen.first)[rows] / later
    pace = np.log(pace / step.alone(seen.isl[rows] + seen.osl[rows] / 2))
    pace = np.sort(pace - _course(seen, rows, changes, origin))
    split = int(np.diff(pace).argmax()) + 1
    sides = pace[:split], pace[split:]
    middles = [float(np.median(side)) for side in sides]
    apart = middles[1] - middles[0]
    near = [np.abs(side - middle) for side, middle in zip(sides, middles, strict=True)]
    tight = all(len(side) >= _FEWEST_ALIKE and np.median(side) < apart / 8 for side in near)
    between = sum(int((side > apart / 3).sum()) for side in near)
    if not tight or apart < np.log(_APART) or between > len(rows) // 8:
        return np.ones(1)
    times: NDArray[np.float64] = np.exp(pace)
    return times


def _course(
    seen: Observations, rows: NDArray[np.int64], changes: Sequence[Change], origin: int
) -> NDArray[np.float64]:
    """The logarithm of what changes of the server add, over the life of each row."""
    added = np.zeros(len(rows))
    lives = [seen.begin[rows] + share * (seen.done - seen.begin)[rows] for share in _LIFE]
    for change in changes:
        if _of_server(change):
            for at in lives:
                added += change.log_factor((at - origin) / NS_PER_S) / len(lives)
    return added


def _of_server(change: Change) -> bool:
    """A spell may be others' load, and TTFT changes with more than the server."""
    return change.what == "tpot" and change.kind != "spell"


def _shortest_segment(begin: NDArray[np.int64], parts: Parts) -> float:
    """ns over which the shortest independent repetition sent its requests."""
    segment = parts.segment if parts.segment is not None else np.zeros(len(begin), int)
    spans = [float(np.ptp(begin[segment == each])) for each in np.unique(segment)]
    return min(spans)


def _limits() -> tuple[float, float]:
    """(TTFT, TPOT) of the preset, ns."""
    found = {slo.partition(".")[0]: slo for slo in SLO_PRESETS[PRESET]}
    return _nanoseconds(found["ttft"]), _nanoseconds(found["tpot"])


def _nanoseconds(objective: str) -> float:
    from latdiag.model.units import parse_duration

    return float(parse_duration(objective.partition("<")[2]))
