"""What a load is to do, complete and without any decision left to the processes that do it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from latdiag.load.trust import USUAL, Trust
from latdiag.stacks.signal import ReplyFields

#: Scenarios of the requests about the path to a server.
GET, REFUSED = "get", "refused"
#: Stages of such requests: alone, and beside the workload.
PATH, LOADED_PATH = "S1", "S7"
#: What says that requests are too many; 529 is what some hosted APIs answer when overloaded.
BUSY = frozenset({429, 503, 529})
#: How an error under status 200 says so: labels and words of APIs.
TOO_MANY = re.compile(
    r"overloaded|rate.?limit|too.many.requests|resource.?exhausted|at (full )?capacity|\b429\b",
    re.I,
)


class Work(NamedTuple):
    """One request to make, a GET where ``body`` is empty.

    ``due_ns`` is an offset from the start; -1 in closed loop. ``fresh``: on a connection of its
    own. ``wait_ns``: how long a stage about the path waits before it. ``other``: it goes to the
    plan's other target.
    """

    number: int
    due_ns: int
    isl: int
    osl: int
    stage: str
    body: bytes
    fresh: bool = False
    wait_ns: int = 0
    other: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go. ``headers`` hold credentials: they stay in memory."""

    url: str
    headers: tuple[tuple[str, str], ...] = ()
    trust: Trust = USUAL
    #: values that must never be stored or shown, wherever a server may echo them
    secrets: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """One load. All times in ns.

    ``slots``: start offset of every closed-loop slot; empty in open loop.
    ``stop_ns``: offset after which nothing new is sent; ``drain_ns``: patience after that.
    ``name`` begins the names of its writers: several loads of one run need names of their own.
    """

    target: Target
    dialect: str
    slots: tuple[int, ...]
    stop_ns: int | None
    timeout_ns: int
    drain_ns: int
    reuse: bool
    workers: int
    scenario: str = ""
    kernel_stamps: bool = True
    #: stop when more than this share of at least ten requests failed; None: never
    give_up: float | None = None
    #: readers run at real-time priority: for a machine that the server shares
    realtime: bool = False
    name: str = ""
    #: a closed loop's slot waits up to so long before each request, at random
    dither_ns: int = 0
    #: and so long in any case
    pause_ns: int = 0
    #: where replies state times that the run keeps
    reply_fields: ReplyFields = field(default_factory=ReplyFields)
    #: a second target, spoken to in the same dialect and trusted alike
    other: Target | None = None
    #: where GETs go, of a stage that has requests about the path to the server
    path_url: str = ""

    @property
    def targets(self) -> tuple[Target, Target]:
        """Whom a request goes to, by its ``other``."""
        return self.target, self.other or self.target

    @property
    def over_tls(self) -> bool:
        """Whether any request does."""
        return any(each.url.startswith("https") for each in self.targets)
