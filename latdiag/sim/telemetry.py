"""What is wrong with what a server says of itself, while nothing is wrong with what it does.

Clocks that are off, spans that are lost, late, doubled or out of order, and a process whose
counters begin anew. None of it moves an instant of a request or a line of the truth file.
"""

from __future__ import annotations

import json
import math
import random
from dataclasses import asdict, dataclass, replace

from latdiag.sim.truth import DECODE, Visit

#: The second copy of a doubled span leaves at most so much later, seconds.
_SECOND_COPY_S = 2.0


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Faults of what is said; the defaults have none. Raises ValueError for what cannot be.

    Times ``after`` count from the first request. Where prefill and decode are apart the clock of
    the first server is ahead by what the clock of the second is behind.
    """

    skew_ms: float = 0.0  # the wall clock is ahead of this machine's
    step_ms: float = 0.0  # it is set forward, once
    step_after_s: float = 15.0
    drift_ppm: float = 0.0  # the server's oscillator is fast: all of its clocks are
    lost: float = 0.0  # share of the spans that never arrive
    late_s: float = 0.0  # every span arrives so much later
    repeated: float = 0.0  # share of the spans that arrive twice
    unordered_s: float = 0.0  # each span arrives later by a time of its own, up to this
    reset_after_s: float = math.inf  # the counters of /metrics begin anew

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            endless = name == "reset_after_s" and value == math.inf
            if not (math.isfinite(value) or endless):
                raise ValueError(f"{name} is {value}; it must be a number")
            if value < 0 and name not in ("skew_ms", "step_ms", "drift_ppm"):
                raise ValueError(f"{name} is {value}; it must not be negative")
        for name in ("lost", "repeated"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a share, 1 at most")
        if abs(self.drift_ppm) > 1e5:
            raise ValueError(f"drift_ppm is {self.drift_ppm}; no clock is off by a tenth")

    def to_json(self) -> str:
        """As one line of JSON; ``from_json`` reads it back."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Telemetry:
        """Raises ValueError or TypeError for what ``to_json`` did not write."""
        return cls(**json.loads(text))


#: The faults by name: the field that each sets, and to what unless it is told.
FAULTS: dict[str, tuple[str, float]] = {
    "skew": ("skew_ms", 500.0),
    "step": ("step_ms", 200.0),
    "drift": ("drift_ppm", 100.0),
    "lost": ("lost", 0.3),
    "late": ("late_s", 60.0),
    "repeated": ("repeated", 0.3),
    "unordered": ("unordered_s", 2.0),
    "reset": ("reset_after_s", 15.0),
}


def telemetry_of(text: str) -> Telemetry:
    """The faults of a list such as ``skew,lost`` or ``skew=-500,late=2``. Else ValueError."""
    found = Telemetry()
    for part in filter(None, (one.strip() for one in text.split(","))):
        name, told, value = part.partition("=")
        if name not in FAULTS:
            raise ValueError(f"no telemetry fault {name!r}; there are {', '.join(FAULTS)}")
        field, usual = FAULTS[name]
        try:
            found = replace(found, **{field: float(value) if told else usual})
        except ValueError as exc:
            raise ValueError(f"telemetry fault {part!r}: {exc}") from exc
    return found


class Clock:
    """A server's clocks, out of instants of the engine (ns), to the nanosecond.

    ``origin_ns``: the instant of its first request. ``part``: which of the servers it is.
    """

    __slots__ = ("_drift", "_skew_ns", "_step_at_ns", "_step_ns", "origin_ns")

    def __init__(self, faults: Telemetry, part: str, origin_ns: int) -> None:
        sign = -1 if part == DECODE else 1
        self.origin_ns = origin_ns
        self._skew_ns = sign * round(faults.skew_ms * 1e6)
        self._drift = sign * faults.drift_ppm / 1e6
        self._step_ns = round(faults.step_ms * 1e6)
        self._step_at_ns = origin_ns + round(faults.step_after_s * 1e9)

    def monotonic(self, at_ns: int) -> int:
        """Only its oscillator matters: nobody sets this clock."""
        return at_ns + round(self._drift * (at_ns - self.origin_ns))

    def wall(self, at_ns: int) -> int:
        """What ``time.time()`` would be off by is in it; REALTIME minus MONOTONIC is not."""
        stepped = self._step_ns if at_ns >= self._step_at_ns else 0
        return self.monotonic(at_ns) + self._skew_ns + stepped


def stated(visit: Visit, clock: Clock) -> dict[str, int]:
    """What vLLM says of a request, in ns: ttft, e2e, queue, prefill, decode, inference.

    ``ttft`` and ``e2e`` are differences of the wall clock of its front end, the others of the
    monotonic clock of its engine.
    """
    wall, monotonic = clock.wall, clock.monotonic
    arrived, scheduled = wall(visit.arrived_ns), monotonic(visit.scheduled_ns)
    first, finished = monotonic(visit.first_ns), monotonic(visit.finished_ns)
    return {
        "ttft": wall(visit.first_ns) - arrived,
        "e2e": wall(visit.finished_ns) - arrived,
        "queue": scheduled - monotonic(visit.queued_ns),
        "prefill": first - scheduled,
        "decode": finished - first,
        "inference": finished - scheduled,
    }


class Deliveries:
    """When the spans of a server arrive. Each fault has a random stream of its own, so that what
    one does is the same whatever the others are."""

    def __init__(self, faults: Telemetry, part: str, seed: int) -> None:
        self._faults = faults
        streams = (random.Random(f"{seed} {part} {name}") for name in ("lost", "twice", "order"))
        self._lost, self._twice, self._order = streams
        self.lost = self.repeated = 0

    def of(self, at_ns: int) -> list[int]:
        """The instants at which the next span arrives, which would have at ``at_ns``."""
        faults = self._faults
        lost = self._lost.random() < faults.lost
        again, gap = self._twice.random() < faults.repeated, self._twice.random()
        due_ns = at_ns + round((faults.late_s + faults.unordered_s * self._order.random()) * 1e9)
        self.lost += lost
        self.repeated += again and not lost
        if lost:
            return []
        return [due_ns, due_ns + round(gap * _SECOND_COPY_S * 1e9)] if again else [due_ns]
