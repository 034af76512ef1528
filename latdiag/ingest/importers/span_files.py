"""Files of exports of spans in OTLP/JSON: as collectors, Jaeger and recorders write them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latdiag.ingest.importers.lines import LINE_BYTES, Skipped, lines, whole
from latdiag.ingest.otlp.document import request_of
from latdiag.model.text import shown

if TYPE_CHECKING:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTraceServiceRequest,
    )

#: What a line of a file may hold instead of spans.
_OTHER = ("resourceMetrics", "resource_metrics", "resourceLogs", "resource_logs")


@dataclass(slots=True)
class FileCounts:
    """What a file held: exports of traces, lines of other signals, lines that are neither, and
    ``bad_spans`` that are none in an export that has others.

    ``fault``: why the first broken line is broken; ``span_fault``: why the first such span
    is none. ``stopped``: why the rest was not read.
    """

    exports: int = 0
    other: int = 0
    broken: int = 0
    bad_spans: int = 0
    span_fault: str = ""
    fault: str = ""
    stopped: str = ""
    _skipped: Skipped = field(default_factory=Skipped, repr=False)

    def broke(self, why: str, rows: int = 1) -> None:
        """``rows`` more broken lines."""
        self.broken += rows
        self.fault = self.fault or shown(why, 200)


def exports(
    path: str | Path, counts: FileCounts | None = None
) -> Iterator[ExportTraceServiceRequest]:
    """The exports of traces in a file: ``.jsonl`` (a line each) or ``.json``, or ``.gz`` of them.

    A line or document is an export, or bears one: as ``body`` beside a ``signal`` or as
    ``result`` (Jaeger's reply); a document may be a list of such. Metrics, logs and broken lines
    are skipped and counted in ``counts``. Raises OSError where the file cannot be read.
    """
    counts = FileCounts() if counts is None else counts
    return requests_of(map(_body, _documents(Path(path), counts)), counts)


def requests_of(bodies: Iterable[Any], counts: FileCounts) -> Iterator[ExportTraceServiceRequest]:
    """The exports that OTLP/JSON states; None stands for what is of another signal. What cannot
    be read is counted."""
    for body in bodies:
        if body is None:
            counts.other += 1
            continue
        bad: list[str] = []
        try:
            request = request_of(body, bad)
        except ValueError as fault:
            counts.broke(str(fault))
            continue
        if bad and not any(s.spans for r in request.resource_spans for s in r.scope_spans):
            counts.broke(bad[0])
            continue
        if bad:  # the other spans of the line are read all the same
            counts.bad_spans += len(bad)
            counts.span_fault = counts.span_fault or shown(bad[0], 200)
        counts.exports += 1
        yield request


def _documents(path: Path, counts: FileCounts) -> Iterator[Any]:
    """Parsed JSON of the file, line by line or as a whole."""
    skipped = counts._skipped
    if path.name.removesuffix(".gz").endswith(".json"):
        try:
            document = _parsed(whole(path, Skipped()) or b"")
        except ValueError:  # some write a line per export under this name
            pass
        else:
            yield from document if isinstance(document, list) else [document]
            return
    for line in lines(path, skipped):
        try:
            document = _parsed(line)
        except ValueError as fault:
            counts.broke(str(fault))
        else:
            yield document
    if skipped.long:
        counts.broke(f"a line has more than {LINE_BYTES >> 20} MiB", skipped.long)
    counts.stopped = skipped.stopped


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError too
        raise ValueError("it is not JSON") from None


def _body(document: Any) -> Any:
    """What ``document`` has in the place of an export; None for that of another signal."""
    if not isinstance(document, dict):
        return document
    if "signal" in document and document["signal"] != "traces":
        return None
    for key in ("body", "result"):
        if isinstance(document.get(key), dict):
            document = document[key]
            break
    return None if any(name in document for name in _OTHER) else document


def keep_traces(request: Any, traces: set[bytes]) -> int:
    """Take the spans of other traces out of an export; how many there were."""
    gone = 0
    for scoped in _scopes(request):
        kept = [span for span in scoped.spans if span.trace_id in traces]
        if len(kept) != len(scoped.spans):
            gone += len(scoped.spans) - len(kept)
            del scoped.spans[:]
            scoped.spans.extend(kept)
    return gone


def _scopes(request: Any) -> Iterator[Any]:
    for block in request.resource_spans:
        yield from block.scope_spans
