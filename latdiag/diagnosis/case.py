"""What a verdict and its advice are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from latdiag.attribution.accounts import Rank
from latdiag.attribution.evidence import ServerState
from latdiag.attribution.parts import Parts
from latdiag.diagnosis.costs import Costs
from latdiag.diagnosis.health import Health
from latdiag.diagnosis.result import Breakdown, Share
from latdiag.measurement.backlog import Backlog
from latdiag.stacks.catalogue import Shown


@dataclass(frozen=True, slots=True)
class Case:
    """What a verdict is made from. ``leaves``: the leaves of each population."""

    breakdowns: Mapping[str, Breakdown]
    parts: Parts
    valid: bool
    leaves: Mapping[str, Mapping[str, Share]]
    health: Health | None = None
    #: share of the requests that failed
    failed: float = 0.0
    #: streams that a burst was let in with; None: all, or no burst was sent
    admitted: int | None = None
    #: whether a probe learned laws of the server
    probed: bool = False
    #: evidence of the run, whether the breakdown rests on it or not
    given: frozenset[Rank] = frozenset()
    #: requests that succeeded, explained or not
    requests: int = 0
    #: what latdiag listened for: spans, metrics
    listened: frozenset[str] = frozenset()
    #: planned concurrencies of the runs; None: of one that states none
    in_flight: frozenset[int | None] = frozenset()
    #: more was asked than the server finishes
    backlog: Backlog | None = None
    #: whether all streams together get the same tokens/s however many run
    one_rate: bool = False
    #: stacks that showed themselves
    stacks: tuple[Shown, ...] = ()
    #: what a probe learned of the price of things
    costs: Costs | None = None
    #: the fullest that servers said they were
    state: ServerState | None = None
    #: whether it is of a probe, whatever that learned: none is advised then
    of_probe: bool = False
