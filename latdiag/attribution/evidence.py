"""What became of the evidence of a run, by kind: spans, replies, metrics. Types alone: what
reads evidence fills them, and a result holds them.

Counts are of requests unless a field says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from latdiag.model.document import OPTIONAL


# ---------------------------------------------------------------------- spans
@dataclass(frozen=True, slots=True)
class SenderSpans:
    """One sender: its stack if that is known, the roles of its spans, and how many."""

    sender: str
    stack: str | None
    roles: tuple[str, ...]
    spans: int
    requests: int


@dataclass(frozen=True, slots=True)
class ClockStep:
    """A clock jumped ``by_ms`` at a request, counted from 0 in the order of sending."""

    request: int
    by_ms: float


@dataclass(frozen=True, slots=True)
class SenderClock:
    """A sender's clock less the client's, and half of what is possible; None for not known."""

    sender: str
    n: int
    offset_ms: float | None
    half_width_ms: float | None
    steps: tuple[ClockStep, ...]
    drift_ppm: float | None


@dataclass(frozen=True, slots=True)
class HeldBack:
    """Tokens that came together although the server made them one by one: ``tokens`` at a time,
    ``every_ms``; a step takes ``step_ms``. ``held``: requests of which that is so."""

    requests: int
    held: int
    share_together: float
    tokens: float
    every_ms: float
    step_ms: float


@dataclass(frozen=True, slots=True)
class SpanEvidence:
    """``joined``: requests that spans were joined to, by what in ``joined_by``; ``told``: those
    in the breakdown. ``spans``, ``duplicates``: spans. ``medians_ms``: by component."""

    requests: int
    joined: int
    told: int
    joined_by: Mapping[str, int]
    contradicted: int
    partial: int
    spans: int
    duplicates: int
    senders: tuple[SenderSpans, ...]
    clocks: tuple[SenderClock, ...]
    medians_ms: Mapping[str, float]
    batching: HeldBack | None = field(default=None, metadata=OPTIONAL)


# ---------------------------------------------------------------------- replies
@dataclass(frozen=True, slots=True)
class ReplyTime:
    """One field in which the replies of a stack state a time, and its median over ``n``."""

    stack: str
    field: str
    n: int
    median_ms: float | None


@dataclass(frozen=True, slots=True)
class ReplyEvidence:
    """``stated``: replies with times; ``told``: those in the breakdown; ``refused``: values that
    are none; ``unreadable``: replies."""

    requests: int
    stated: int
    told: int
    partial: int
    contradicted: int
    refused: int
    unreadable: int
    times: tuple[ReplyTime, ...]


# ---------------------------------------------------------------------- metrics
@dataclass(frozen=True, slots=True)
class TailTime:
    """What the ``n`` slowest requests have of a component, ms a request: as it is shown, at
    least and at most, and as two assumptions on who has it would make it."""

    n: int
    mean_ms: float
    lo_ms: float
    hi_ms: float
    independent_ms: float
    comonotone_ms: float


@dataclass(frozen=True, slots=True)
class MetricClaim:
    """What counters and histograms say of ``n`` requests together: the mean of a component, or
    of one leaf, ms; None where only bounds are known."""

    of: tuple[str, ...]
    leaf: str | None
    role: str
    n: int
    mean_ms: float | None
    lo_ms: float
    hi_ms: float
    grade: str
    evidence: str
    tail: TailTime | None


@dataclass(frozen=True, slots=True)
class ReplicaMetrics:
    """One server: what it finished in ``seconds``, whosever that was, and what it had in flight
    at both edges. ``left_out``: why all of it is."""

    replica: str
    role: str | None
    seconds: float
    finished: int
    in_flight: tuple[int, int]
    claims: tuple[MetricClaim, ...]
    left_out: str | None = None
    series_left_out: int = 0


@dataclass(frozen=True, slots=True)
class MetricWindow:
    """One window between two scrapes, and whose traffic lay in it."""

    name: str | None
    seconds: float
    own: int
    finished: Mapping[str, int]
    in_flight: int
    bias: float
    verdict: str
    text: str


@dataclass(frozen=True, slots=True)
class SeriesLeftOut:
    """A series that is left out; ``name`` None: all of the server."""

    replica: str
    name: str | None
    why: str


@dataclass(frozen=True, slots=True)
class ServerState:
    """What engines said of themselves in ``scrapes`` scrapes while the load ran: the most of the
    KV cache of one that was used, of 1; requests of one that ran and waited at once; how many were
    evicted between the first scrape of all and the last. None: no engine says it."""

    scrapes: int
    kv_used: float | None
    running: int | None
    waiting: int | None
    preemptions: int | None


@dataclass(frozen=True, slots=True)
class MetricEvidence:
    """``of``: whose requests the windows hold: the workload, a whole probe, or any traffic.
    ``verdict``: whether these are the client's own. ``used``: in the breakdown; else ``why``
    not. ``finished``: by role. ``bias``: requests in flight at the edges, of 1. ``state``: how
    full the engines were."""

    of: str
    verdict: str
    used: bool
    why: str | None
    own: int
    finished: Mapping[str, int]
    in_flight: int
    bias: float
    windows: tuple[MetricWindow, ...]
    replicas: tuple[ReplicaMetrics, ...]
    claims: tuple[MetricClaim, ...]
    left: tuple[SeriesLeftOut, ...]
    doubts: tuple[str, ...]
    state: ServerState | None = field(default=None, metadata=OPTIONAL)
