"""The traces of a run to a receiver of OTLP."""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from latdiag.export.delivery import Delivery, deliver
from latdiag.export.exported import Exported, NamedTrace, exported
from latdiag.export.senders import sender_of
from latdiag.export.spans import traces
from latdiag.model import span_names as names

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from latdiag.export.attempts import Attempts
    from latdiag.export.way import Way

#: Traces that are named, the longest first.
_NAMED = 3


def export_traces(
    attempts: Attempts, way: Way, progress: Callable[[Delivery], None] = lambda _: None
) -> Exported:
    """Send a trace for each of ``attempts``."""
    longest: list[tuple[int, str, str]] = []
    with contextlib.closing(sender_of(way)) as sender:
        found = deliver(_noting(traces(attempts), longest), sender, progress)
    longest.sort(reverse=True)
    return exported(
        attempts,
        "otlp",
        way.name,
        delivery=found,
        slowest=tuple(NamedTrace(trace, ident, ns) for ns, trace, ident in longest),
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
