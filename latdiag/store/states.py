"""writers/WRITER.json: what a writing process last said of itself, by the kind of writer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from latdiag.model.document import OPTIONAL
from latdiag.store.shape import Amount, Count, Instant, accepted

#: REALTIME beside MONOTONIC, and how far apart two reads of the latter lay; see ``clock``.
_Sample = tuple[Instant, Instant, Count]


@dataclass(frozen=True, slots=True)
class _State:
    writer: str
    pid: Count
    #: ``closed``: it came to its end, and all that it took is in the run.
    state: Literal["open", "closed"]


@dataclass(frozen=True, slots=True)
class _Clocked(_State):
    clock_id: str
    clock: list[_Sample]
    clock_steps: list[tuple[Instant, Instant]]


@dataclass(frozen=True, slots=True)
class LagFigures:
    """Of ``n`` durations, in ns; None without any."""

    n: Count
    p50_ns: Count | None
    p99_ns: Count | None
    max_ns: Count | None


@dataclass(frozen=True, slots=True)
class AuditFigures:
    """The self-audit of a reader.

    Shares are of one core, or of wall time; None where the system does not tell.
    ``starved_share``: time in the run queue beyond what a wake of an idle core takes.
    """

    wall_ns: Count
    reader_cpu: Amount | None
    reader_cpu_worst_5s: Amount | None
    run_queue_share: Amount | None
    starved_share: Amount | None
    reader_peak_rss_kb: Count
    reader_peak_backlog_bytes: Count
    read_lag: LagFigures
    loop_lag: LagFigures
    writer_cpu_ns: Count


@dataclass(frozen=True, slots=True)
class RowCounts:
    """Requests: ``begun`` in all, ``rows`` written, ``open`` under way, ``failed``. ``lost``:
    begun and without a row; None until the end. ``unreadable``: events that were left out;
    ``marred``: good replies that held some. ``held``: replies that the client ended, since they
    went on after their end mark."""

    begun: Count
    rows: Count
    open: Count
    lost: Count | None
    failed: Count
    output_arrivals: Count
    unreadable: Count = field(default=0, metadata=OPTIONAL)
    marred: Count = field(default=0, metadata=OPTIONAL)
    held: Count = field(default=0, metadata=OPTIONAL)


LoadEnd = Literal["complete", "stopped", "reader_lost", "parent_lost", "disk"]


@dataclass(frozen=True, slots=True)
class LoadState(_Clocked):
    """Of a writer of requests. ``ended``: why; None while it writes."""

    ended: LoadEnd | None
    audit: AuditFigures
    counts: RowCounts


@dataclass(frozen=True, slots=True)
class _Problem:
    replica: str
    text: str
    count: Count


@dataclass(frozen=True, slots=True)
class _Sender:
    sender: str
    service: str
    known: bool
    spans: Count
    first_ns: int | None
    last_ns: int | None
    span_names: list[str]


@dataclass(frozen=True, slots=True)
class _Received:
    """``ingest.plan.Account`` as it stands in a run."""

    exports: Count
    accepted: Count
    refused: dict[str, Count]
    refused_exports: dict[str, Count]
    other_signals: dict[str, Count]
    dropped_attributes: Count
    rows: Count
    samples: Count
    bytes: Count
    lost: Count
    disk_cap_reached: bool
    forwarded: Count | None
    forward_failed: Count | None
    forward_failure: str | None
    scrapes: dict[str, Count]
    scrape_problems: list[_Problem]
    senders: list[_Sender]
    senders_total: Count
    unknown_senders: Count
    unknown_spans: Count
    cpu_ns: Count
    wrong_doors: dict[str, Count] = field(default_factory=dict, metadata=OPTIONAL)
    takes_spans: bool = field(default=True, metadata=OPTIONAL)


@dataclass(frozen=True, slots=True)
class CollectState(_Clocked):
    """Of the receiver. ``ended``: why; None while it receives."""

    kind: Literal["otlp"]
    ended: Literal["complete", "parent_lost", "bug", "disk"] | None
    counts: _Received


@dataclass(frozen=True, slots=True)
class _Read:
    """What an import wrote, and what it left out by reason."""

    rows: Count
    spans: Count
    samples: Count
    skipped: dict[str, Count]


@dataclass(frozen=True, slots=True)
class ImportState(_State):
    """Of an import; without counts until its end."""

    ended: Literal["complete"] | None
    counts: _Read | None = field(default=None, metadata=OPTIONAL)


def accepted_state(found: Mapping[str, object], verb: object) -> dict[str, object]:
    """A state of a writer of a run that ``verb`` made, without keys that none has.

    Raises ``shape.Unlike``, which names the field, where it is none.
    """
    receives = verb == "collect" or "kind" in found
    shape = CollectState if receives else ImportState if verb == "import" else LoadState
    state: dict[str, object] = accepted(shape, found)
    return state
