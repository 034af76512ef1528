"""The traces of a run to a receiver of OTLP, and what is said of that."""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from latdiag.export import names
from latdiag.export.delivery import Delivery, deliver
from latdiag.export.spans import traces

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from latdiag.export.attempts import Attempts
    from latdiag.export.senders import Way

#: Traces that are named, the longest first.
_NAMED = 3


@dataclass(frozen=True, slots=True)
class NamedTrace:
    """A trace by which a request can be looked up."""

    trace_id: str
    request_id: str
    ns: int


@dataclass(frozen=True, slots=True)
class Exported:
    """``to``: the form; ``place``: URL or file. Requests: ``of`` in the workload, ``matching``
    those asked for, ``exported`` of them; ``unplaced``: those without a time of day.
    ``rows``: of a file. ``delivery``: of traces."""

    to: str
    place: str
    runs: tuple[str, ...]
    of: int
    matching: int
    exported: int
    unplaced: int = 0
    sampled: bool = False
    rows: int | None = None
    delivery: Delivery | None = None
    slowest: tuple[NamedTrace, ...] = ()

    @property
    def complete(self) -> bool:
        return self.delivery is None or self.delivery.complete

    def to_json(self) -> dict[str, object]:
        """The document of ``export --json``."""
        found: dict[str, object] = {
            "schema": 1,
            "verb": "export",
            "run": self.runs[0],
            "runs": list(self.runs),
            "to": self.to,
            "place": self.place,
            "complete": self.complete,
            "requests": {
                "of": self.of,
                "matching": self.matching,
                "exported": self.exported,
                "sampled": self.sampled,
                "unplaced": self.unplaced,
            },
        }
        if self.rows is not None:
            found["rows"] = self.rows
        if self.delivery is not None:
            sent = self.delivery
            found["spans"] = {
                name: getattr(sent, name)
                for name in ("spans", "delivered", "rejected", "lost", "unsent")
            }
            found["batches"] = {"sent": sent.batches, "repeated": sent.repeated}
            found["reasons"] = [
                {"text": text, "spans": spans} for text, spans in sent.reasons.most_common()
            ]
            found["warnings"] = list(sent.warnings)
            found["slowest"] = list(self.slowest)
        return found


def export_traces(
    attempts: Attempts, way: Way, progress: Callable[[Delivery], None] = lambda _: None
) -> Exported:
    """Send a trace for each of ``attempts``."""
    longest: list[tuple[int, str, str]] = []
    with contextlib.closing(way.sender()) as sender:
        found = deliver(_noting(traces(attempts), longest), sender, progress)
    return Exported(
        to="otlp",
        place=way.name,
        runs=tuple(attempts.paths),
        of=attempts.choice.of,
        matching=attempts.choice.matching,
        exported=len(attempts),
        unplaced=attempts.unplaced,
        sampled=attempts.choice.sampled,
        delivery=found,
        slowest=tuple(NamedTrace(trace, ident, ns) for ns, trace, ident in sorted(longest)[::-1]),
    )


def _noting(
    made: Iterator[list[ReadableSpan]], longest: list[tuple[int, str, str]]
) -> Iterator[Sequence[ReadableSpan]]:
    """``made``, while the longest are noted."""
    for trace in made:
        root = trace[0]
        attributes = root.attributes or {}
        ns, ident = attributes[names.NS], attributes.get(names.REQUEST_ID, "")
        assert isinstance(ns, int)
        entry = (ns, f"{root.context.trace_id:032x}", str(ident))
        (heapq.heappush if len(longest) < _NAMED else heapq.heappushpop)(longest, entry)
        yield trace
