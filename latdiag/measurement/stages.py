"""What a probe is made of: requests in stages, what it may spend, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from latdiag.load.plan import LOADED_PATH, PATH
from latdiag.runtime.channel import message

#: The stage whose requests are explained; all others only teach.
WORKLOAD = "S10"
#: The same workload once more, at the server behind the target.
BEHIND = "S11"
#: The stages whose requests run one at a time.
ALONE = ("S2", "S3", "S5")
#: What shows by which rule a server refuses requests as too many.
REFUSALS = "S12"
#: The stages that are kept out of every metric.
DESIGNED = ("warmup", PATH, "S2", "S3", "S4", "S5", "S6", LOADED_PATH, "S8", REFUSALS, BEHIND)


@message
class Shot(NamedTuple):
    """One request. ``at_ns``: when it is due, from the start of its stage; -1: closed loop."""

    isl: int
    osl: int
    at_ns: int


@message
@dataclass(frozen=True, slots=True)
class Stage:
    """Requests that run together; the next stage begins when all have ended.

    ``slots``: closed loop with so many; 0: open loop. ``segment``: numbers independent repetitions
    of the workload from 1. ``dither_ns``: a closed loop waits up to so long before each request,
    at random, or it would keep step with a timer of the server, and ``pause_ns`` in any case.
    ``after_ns``: nothing is sent for so long before it, because the server asks for that.
    ``why``: what is found out, for people who wait. ``beside``: requests about the path that go
    out among those of an open loop: GETs where ``isl`` is 0, else POSTs that are refused.
    """

    name: str
    shots: tuple[Shot, ...]
    slots: int = 0
    why: str = ""
    segment: int = 0
    dither_ns: int = 0
    beside: tuple[Shot, ...] = ()
    pause_ns: int = 0
    after_ns: int = 0

    @property
    def tokens(self) -> int:
        return sum(shot.isl + shot.osl for shot in self.shots)


@message
@dataclass(frozen=True, slots=True)
class PathStage:
    """S0 and S1: ``gets`` cheap GETs, of which ``fresh`` on connections of their own, and a
    refused POST for every input length in ``refused``. ``after_ns``: as of a stage."""

    gets: int
    refused: tuple[int, ...]
    fresh: int
    name: str = PATH
    why: str = "the path to the server and its frontend"
    after_ns: int = 0


@message
@dataclass(frozen=True, slots=True)
class Limits:
    """What a probe may spend, and the user's own workload where there is one.

    ``isl``, ``osl``: lengths to use in turn. ``rate`` (requests/s) and ``concurrency`` exclude
    each other; with neither, the probe chooses a modest rate from what it has seen. ``behind``:
    the stages are for the server behind the target, and the workload for both. ``like``: the
    segments of an earlier workload, to be sent as they are; ``isl`` and ``osl`` are theirs.
    """

    budget: str
    max_tokens: int
    max_model_len: int | None
    seed: int
    isl: tuple[int, ...] | None = None
    osl: tuple[int, ...] | None = None
    rate: float | None = None
    concurrency: int | None = None
    behind: bool = False
    like: tuple[Stage, ...] = ()


class Cost(NamedTuple):
    """The most that a probe makes of requests and tokens, and the seconds that it plans for."""

    requests: int
    tokens: int
    seconds: float
