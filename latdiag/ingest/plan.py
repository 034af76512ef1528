"""What a collecting process does, and the messages between it and its parent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from latdiag.model.units import NS_PER_S
from latdiag.runtime.channel import message

if TYPE_CHECKING:
    from latdiag.ingest.otlp.endpoints import Endpoints
    from latdiag.ingest.otlp.forward import Destination
    from latdiag.ingest.otlp.keep import Keep
    from latdiag.load.look import Headers, Origin
    from latdiag.load.trust import Trust

WRITER = "collector"
#: How often metrics are scraped between the edges.
SCRAPE_EVERY_NS = 10 * NS_PER_S


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A Prometheus server that scrapes the servers. ``match``: which of them, as conditions of a
    selector."""

    url: str
    match: str = ""
    headers: Headers = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class CollectPlan:
    """What the child does. ``families``: names of metrics that are kept; ``max_disk``: bytes of
    evidence after which nothing more is taken, None for no cap; ``metrics_headers``: what goes out
    with scrapes, by origin; ``trust``: over TLS, with the client's certificate for the origins
    ``targets`` alone."""

    run_path: str
    keep: Keep
    families: frozenset[str]
    otlp: Endpoints | None = None
    metrics: tuple[str, ...] = ()
    metrics_headers: Mapping[Origin, Headers] = field(default_factory=dict, repr=False)
    trust: Trust | None = None
    targets: tuple[Origin, ...] = ()
    prometheus: Prometheus | None = None
    forward: Destination | None = None
    max_disk: int | None = None
    scrape_every_ns: int = SCRAPE_EVERY_NS
    writer: str = WRITER


# ---------------------------------------------------------------------- the parent asks
@message
class ScrapeNow(NamedTuple):
    """Scrape all metrics now; answered by ``Scraped``. ``label``: stored with the samples."""

    label: str


@message
class CountNow(NamedTuple):
    """Say what came so far; answered by ``Counted``."""


@message
class Finish(NamedTuple):
    """Wait until no span came for ``wait_ns``, or ``limit_ns`` is over; then write and close.

    Answered by ``Finished``.
    """

    wait_ns: int
    limit_ns: int


@message
class Hurry(NamedTuple):
    """End the wait for late spans."""


# ---------------------------------------------------------------------- the child answers
@message
class Ready(NamedTuple):
    """It listens at these HOST:PORT, None for a door that is shut."""

    grpc: str | None
    http: str | None


@message
@dataclass(frozen=True, slots=True)
class Problem:
    """What a scrape lacks: of which server (``replica``), one sentence, and how many lines or
    series; 0 where the whole scrape is missing."""

    replica: str
    text: str
    count: int = 0


@message
class Scraped(NamedTuple):
    problems: list[Problem]


@message
@dataclass(frozen=True, slots=True)
class SenderCounts:
    """One that sent spans, in its own words; ``known``: a stack has names of its spans.

    ``first_ns``, ``last_ns``: of its spans, REAL. ``span_names``: the commonest first.
    """

    sender: str
    service: str
    known: bool
    spans: int
    first_ns: int | None
    last_ns: int | None
    span_names: list[str]


@message
@dataclass(frozen=True, slots=True)
class Account:
    """What came so far. It stands in the run as ``counts`` of the child's writer: a field is a
    key there, and ``diagnosis.collected`` reads it.

    ``accepted``: spans. ``lost``: rows of spans that were accepted, and of scrapes, that could not
    be written. ``refused``: spans by reason; ``refused_exports``: exports by reason;
    ``other_signals``: exports that are no spans. ``wrong_doors``: connections that spoke another
    protocol than their door, by the words for that. ``rows``, ``samples``, ``bytes``: as written.
    ``forwarded``: None where nothing is passed on. ``scrapes``: by label. ``senders``: those with
    most spans; ``senders_total`` and what follows are of all. ``takes_spans``: whether a door was
    open to them, or metrics were scraped only.
    """

    exports: int
    accepted: int
    refused: dict[str, int]
    refused_exports: dict[str, int]
    other_signals: dict[str, int]
    dropped_attributes: int
    rows: int
    samples: int
    bytes: int
    lost: int
    disk_cap_reached: bool
    forwarded: int | None
    forward_failed: int | None
    forward_failure: str | None
    scrapes: dict[str, int]
    scrape_problems: list[Problem]
    senders: list[SenderCounts]
    senders_total: int
    unknown_senders: int
    unknown_spans: int
    cpu_ns: int
    wrong_doors: dict[str, int]
    takes_spans: bool = True


@message
class Slip(NamedTuple):
    """It failed on an export, and goes on. ``where``: in the code; nothing of the export."""

    where: str


@message
class Counted(NamedTuple):
    """``account``: what came so far."""

    account: Account


@message
class Finished(NamedTuple):
    """All is written. ``account``: what came in all."""

    account: Account
