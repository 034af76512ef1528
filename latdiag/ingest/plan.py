"""What a collecting process does, and the messages between it and its parent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from latdiag.model.units import NS_PER_S
from latdiag.runtime.channel import message

if TYPE_CHECKING:
    from latdiag.ingest.otlp.endpoints import Endpoints
    from latdiag.ingest.otlp.forward import Destination
    from latdiag.ingest.otlp.keep import Keep

WRITER = "collector"
#: How often metrics are scraped between the edges.
SCRAPE_EVERY_NS = 10 * NS_PER_S


@dataclass(frozen=True, slots=True)
class CollectPlan:
    """What the child does. ``families``: names of metrics that are kept; ``max_disk``: bytes of
    evidence after which nothing more is taken, None for no cap."""

    run_path: str
    keep: Keep
    families: frozenset[str]
    otlp: Endpoints | None = None
    metrics: tuple[str, ...] = ()
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
class Counted(NamedTuple):
    """``counts``: what came so far, as in the state of the child's writer."""

    counts: dict[str, Any]


@message
class Finished(NamedTuple):
    """All is written. ``counts``: what came in all."""

    counts: dict[str, Any]
