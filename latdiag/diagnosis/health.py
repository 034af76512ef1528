"""Whether there is anything to complain of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from latdiag.measurement.company import lone
from latdiag.measurement.stages import WORKLOAD
from latdiag.model.metrics import SLO_PRESETS
from latdiag.model.units import NS_PER_S, show_ms

if TYPE_CHECKING:
    from latdiag.attribution.parts import Parts
    from latdiag.diagnosis.result import Share
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
        if self.since != 1.0:
            changed = f" by now ({self.since:.1f} times as long as when it was asked alone first)"
        return (
            f"{self.n} requests over {self.span_s:.0f} s took at most {self.over_alone:.2f} times"
            f" what they take alone{changed}, and {met}"
        )


def _stands_out(share: Share) -> bool:
    """Whether a part is large, or may well be."""
    return (share.share or 0.0) >= _WORTH_A_NAME or (share.hi or 0.0) >= _MAY_BE


def health(seen: Observations, parts: Parts) -> Health | None:
    """From the workload's requests; None where there are none."""
    rows = seen.of(WORKLOAD)
    if parts.alone is None or not len(rows):
        return None
    later = seen.later(rows)
    many = later >= 1
    tpot = (seen.last - seen.first)[rows][many] / later[many]
    since = _since(seen, rows, parts)
    alone = parts.alone * since
    p95 = [np.quantile(values, 0.95) for values in (parts.total, alone, parts.ttft)]
    slow = float(np.quantile(tpot, 0.95)) if len(tpot) else 0.0
    summed = float(parts.total.sum()) / max(float(alone.sum()), 1.0)
    span = _shortest_segment(seen.begin[rows], parts)
    return Health(
        max(summed, float(p95[0] / max(p95[1], 1.0))),
        float(p95[2]),
        slow,
        len(rows),
        float(seen.begin[rows].max() - seen.begin[rows].min()) / NS_PER_S,
        span > _LONG_ENOUGH * float(np.median(parts.alone)),
        since,
    )


def _since(seen: Observations, rows: NDArray[np.int64], parts: Parts) -> float:
    """How many times as long requests take alone as they did in the designed stages: servers warm
    up, slow down and change. Of requests that met no other; 1 where there are too few."""
    solo = lone(seen, seen.begin[rows], seen.done[rows])
    if parts.alone is None or len(rows) != len(parts.total) or int(solo.sum()) < _FEWEST_LONE:
        return 1.0
    times = float(np.median(parts.total[solo] / np.maximum(parts.alone[solo], 1)))
    return times if abs(np.log(max(times, 1e-9))) > np.log(_CHANGED) else 1.0


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
