"""When requests are due, as nanoseconds from the start of the run.

Pure values: nothing here reads a clock or sleeps. Whoever sends compares the offsets with its own
clock, so a test needs no time at all. A late sender changes nothing: the next offset does not
depend on when the last request went out, so an open loop never silently becomes a closed one.

Several workers share one schedule: worker w of W takes ``islice(schedule.offsets(), w, None, W)``.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, cast, get_args

from latdiag.model.errors import UsageFault
from latdiag.model.units import NS_PER_S

Arrivals = Literal["poisson", "constant"]


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """Requests at ``rate`` per second, whatever the server does.

    ``poisson``: independent arrivals, as from many users who know nothing of each other.
    ``constant``: evenly spaced, the first at 0. During ``ramp_ns`` the rate grows linearly from
    0 to ``rate``.
    """

    rate: float
    kind: Arrivals = "poisson"
    ramp_ns: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.rate) and self.rate > 0):
            raise UsageFault(
                f"a rate of {self.rate} requests/s is not possible", "give a rate above 0"
            )
        if self.kind not in get_args(Arrivals):
            raise UsageFault(f"{self.kind!r} is not a kind of arrivals", "use poisson or constant")
        if self.ramp_ns < 0:
            raise UsageFault("a ramp cannot be negative", "leave out --ramp for no ramp")

    @classmethod
    def parse(cls, text: str, *, ramp_ns: int = 0, seed: int = 0) -> OpenLoop:
        """From ``10`` (Poisson), ``poisson:10`` or ``constant:10``."""
        kind, colon, number = text.strip().rpartition(":")
        try:
            rate = float(number)
        except ValueError:
            kind = "?"
            rate = 1.0
        if kind not in ("", *get_args(Arrivals)) or (colon and not kind):
            raise UsageFault(
                f"{text!r} is not a rate", "write for example 10, poisson:10 or constant:2.5"
            )
        return cls(rate, cast("Arrivals", kind or "poisson"), ramp_ns, seed)

    def expected(self, t_ns: float) -> float:
        """How many requests are due in [0, ``t_ns``] on average: the integral of the rate."""
        ramp = self.ramp_ns
        if t_ns <= 0:
            return 0.0
        if t_ns < ramp:
            return self.rate * (t_ns / NS_PER_S) * (t_ns / ramp) / 2
        return self.rate * (t_ns - ramp / 2) / NS_PER_S

    def offsets(self) -> Iterator[int]:
        """Due times, without end, never decreasing; the same ones at each call.

        Time rescaling: where the integral of the rate reaches the k-th point of a process of
        rate 1 (its points k, or sums of exponential gaps), there the k-th request is due. That
        holds through the ramp without approximation.
        """
        for count in self._unit_points():
            yield round(self._when(count))

    def _when(self, count: float) -> float:
        """The inverse of :meth:`expected`: the time at which ``count`` requests were due."""
        in_ramp = self.rate * self.ramp_ns / NS_PER_S / 2
        if count < in_ramp:
            return self.ramp_ns * math.sqrt(count / in_ramp)
        return count * NS_PER_S / self.rate + self.ramp_ns / 2

    def _unit_points(self) -> Iterator[float]:
        point = 0.0
        if self.kind == "constant":
            while True:
                yield point
                point += 1.0
        uniform = random.Random(self.seed).random
        while True:
            point -= math.log(1.0 - uniform())
            yield point


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """``concurrency`` slots; each sends its next request when its last one is done.

    During ``ramp_ns`` the slots start one after the other, evenly spread, the first at 0.
    """

    concurrency: int
    ramp_ns: int = 0

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise UsageFault(
                f"a concurrency of {self.concurrency} sends nothing", "give a number from 1 up"
            )
        if self.ramp_ns < 0:
            raise UsageFault("a ramp cannot be negative", "leave out --ramp for no ramp")

    def starts(self) -> list[int]:
        """The start of each slot; length ``concurrency``."""
        return [slot * self.ramp_ns // self.concurrency for slot in range(self.concurrency)]
