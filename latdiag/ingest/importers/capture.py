"""A capture, a folder of what a client and its servers recorded, becomes the rows of a run.

::

    client.jsonl(.gz)                             a line per request: ``client_lines``
    spans.otlp.jsonl(.gz) or .json                exports of traces: ``span_files``
    metrics/SCENARIO.ROLE.before.prom(.gz)        /metrics before and after a scenario; the first
    metrics/SCENARIO.ROLE.after.prom(.gz)         line ``# scraped_at_ns N`` tells the instant

Any of the three may be missing. A file instead of a folder holds traces, in any form of
``trace_files``. Instants are of the capture's own clocks, REALTIME nanoseconds.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latdiag.ingest import prometheus
from latdiag.ingest.importers import trace_files
from latdiag.ingest.importers.client_lines import ClientRows, instant, scenario_of
from latdiag.ingest.importers.lines import LINE_BYTES, Skipped, lines, whole
from latdiag.ingest.importers.own_traces import OwnTraces
from latdiag.ingest.importers.span_files import FileCounts, exports, keep_traces
from latdiag.ingest.otlp.rows import SpanRows
from latdiag.model.errors import RunFault, UsageFault
from latdiag.model.text import shown
from latdiag.store.columns import row_count

if TYPE_CHECKING:
    from latdiag.ingest.otlp.keep import Keep
    from latdiag.store.writer import RunWriter

#: How the clocks of captures are named, whose instants are REALTIME.
CAPTURED = "capture:"
_CLIENT = ("client.jsonl", "client.jsonl.gz")
_SPANS = tuple(
    f"spans.otlp.{form}{packed}" for form in ("jsonl", "json") for packed in ("", ".gz")
)
_SCRAPE = re.compile(
    r"(?P<scenario>.+)\.(?P<role>[^.]+)\.(?P<edge>before|after)\.prom(\.gz)?", re.DOTALL
)
_SCRAPED_AT = re.compile(r"# scraped_at_ns (\d{1,20})[ \t]*(\r?\n|\Z)")
#: Names in a folder, scrapes of a capture, and rows of evidence that are held.
_NAMES = 10_000
_PART_ROWS = 20_000
_FORM = "a capture has client.jsonl.gz, spans.otlp.jsonl.gz or metrics/SCENARIO.ROLE.before.prom"


@dataclass(frozen=True, slots=True)
class Scrape:
    """A file of ``metrics/``. ``edge``: before or after."""

    path: Path
    scenario: str
    role: str
    edge: str


@dataclass(frozen=True, slots=True)
class Capture:
    """What a folder holds, or a file of traces (``trace_file``, then it is ``spans``). ``name`` is
    unique among the captures of one import; ``ignored``: names in the folder that no part of a
    capture bears."""

    name: str
    client: Path | None
    spans: Path | None
    scrapes: tuple[Scrape, ...]
    ignored: tuple[str, ...]
    trace_file: bool = False

    @property
    def clock_id(self) -> str:
        """The clock of the client's instants: by the folder's name and what the client wrote."""
        digest = hashlib.sha256(self.name.encode("utf-8", "surrogateescape") + b"\0")
        source = self.client or self.spans
        if source is not None:
            with source.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        return f"{CAPTURED}{digest.hexdigest()[:16]}"


@dataclass(slots=True)
class Imported:
    """What was read. ``requests``: rows by scenario (empty: it states none). ``senders``: spans
    by sender. ``skipped``: what could not be read, by what and why. ``left_out``: what other
    scenarios than the wanted have."""

    requests: Counter[str] = field(default_factory=Counter)
    spans: int = 0
    senders: Counter[str] = field(default_factory=Counter)
    scrapes: int = 0
    samples: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    ignored: list[str] = field(default_factory=list)

    @property
    def anything(self) -> bool:
        return bool(self.requests or self.spans or self.samples)


# ---------------------------------------------------------------------- what is there
def find(folders: Sequence[str]) -> list[Capture]:
    """The captures in ``folders``. UsageFault and RunFault for what is none, or named twice."""
    captures: list[Capture] = []
    places: set[str] = set()
    for folder in folders:
        place = os.path.realpath(folder)
        if place in places:
            raise UsageFault(f"{folder} is named more than once", "name every folder once")
        places.add(place)
        names = {capture.name for capture in captures}
        name, number = Path(place).name or "capture", 1
        while name in names:
            number += 1
            name = f"{Path(place).name}-{number}"
        captures.append(_capture(folder, name))
    return captures


def _capture(folder: str, name: str) -> Capture:
    path = Path(folder)
    if path.is_file():
        return Capture(name, None, path, (), (), trace_file=True)
    if not path.is_dir():
        what = "is neither file nor folder" if path.exists() else "does not exist"
        raise UsageFault(f"{shown(folder)} {what}", _FORM)
    inside = _names(path)
    if "run.json" in inside:
        raise RunFault(
            f"{shown(folder)} is a run already, not a capture", f"latdiag diagnose {folder}"
        )
    files = {entry for entry in inside if (path / entry).is_file()}
    client = next((path / entry for entry in _CLIENT if entry in files), None)
    spans = next((path / entry for entry in _SPANS if entry in files), None)
    has_metrics = "metrics" in inside and (path / "metrics").is_dir()
    scrapes, strange = _scrapes(path / "metrics") if has_metrics else ([], [])
    if client is None and spans is None and not scrapes:
        raise RunFault(f"{shown(folder)} holds no part of a capture", _FORM)
    taken = {part.name for part in (client, spans) if part is not None}
    if has_metrics:
        taken.add("metrics")
    ignored = [entry for entry in inside if entry not in taken]
    return Capture(name, client, spans, tuple(scrapes), (*ignored, *strange))


def _names(path: Path) -> list[str]:
    """The names in a folder, sorted. RunFault where they are too many."""
    names: list[str] = []
    with os.scandir(path) as entries:
        for entry in entries:
            if len(names) >= _NAMES:
                raise RunFault(f"{shown(path)} holds more than {_NAMES:,} files", _FORM)
            names.append(entry.name)
    return sorted(names)


def _scrapes(folder: Path) -> tuple[list[Scrape], list[str]]:
    """The scrapes of ``metrics/``, and the names of what else lies there."""
    scrapes, strange = [], []
    for name in _names(folder):
        match = _SCRAPE.fullmatch(name)
        if match is None or not (folder / name).is_file():
            strange.append(f"metrics/{name}")
        else:
            scrapes.append(Scrape(folder / name, match["scenario"], match["role"], match["edge"]))
    scrapes.sort(key=lambda scrape: (scrape.scenario, scrape.role, scrape.edge == "after"))
    return scrapes, strange


# ---------------------------------------------------------------------- into a run
def read(
    captures: Sequence[Capture],
    open_writer: Callable[[], RunWriter],
    keep: Keep,
    families: frozenset[str],
    scenarios: frozenset[str] = frozenset(),
) -> Imported:
    """Everything of ``captures`` into a run, in parts; what was read.

    ``open_writer`` is called when there is something to write. ``keep``: attributes of spans
    that may be stored; ``families``: of metrics. ``scenarios``: only these, empty for all; then
    of the spans only those of the traces of their requests, if all of these bear trace ids.
    UsageFault where there is no such scenario, RunFault where nothing could be read, OSError
    where a file cannot be.
    """
    if scenarios:
        _check_there(captures, scenarios)
    reading = _Reading(open_writer, keep, families, scenarios, len(captures) > 1)
    for capture in captures:
        reading.read(capture)
    imported = reading.imported
    if not imported.anything:
        why = next((f": {reason}" for reason in imported.skipped), "")
        if all(capture.trace_file for capture in captures):
            raise RunFault(f"no trace could be read{why}", trace_files.FORMS)
        raise RunFault(f"nothing in the capture could be read{why}", _FORM)
    reading.finish()
    return imported


def _check_there(captures: Sequence[Capture], wanted: frozenset[str]) -> None:
    """UsageFault for scenarios that no capture has. Reads the clients' lines, and keeps none."""
    there = {scrape.scenario for capture in captures for scrape in capture.scrapes}
    for capture in captures:
        if capture.client is not None:
            for line in lines(capture.client, Skipped()):
                if len(there) < _NAMES:
                    there.add(scenario_of(line))
    missing = sorted(wanted - there)
    if missing:
        named = ", ".join(shown(name, 60) for name in sorted(there - {""})[:20])
        raise UsageFault(
            f"there is no scenario {shown(', '.join(missing))}",
            f"those that are there: {named}" if named else "leave out --scenario",
        )


class _Reading:
    """An import under way: a writer that is made with the first part, and counts."""

    def __init__(
        self,
        open_writer: Callable[[], RunWriter],
        keep: Keep,
        families: frozenset[str],
        scenarios: frozenset[str],
        several: bool,
    ) -> None:
        self.imported = Imported()
        self._open_writer = open_writer
        self._writer: RunWriter | None = None
        self._keep, self._families = keep, families
        self._scenarios, self._several = scenarios, several
        self._seen: set[int] = set()

    def read(self, capture: Capture) -> None:
        prefix = f"{capture.name}/" if self._several else ""
        self.imported.ignored += [shown(f"{prefix}{name}") for name in capture.ignored[:100]]
        clock_id = capture.clock_id
        rows = ClientRows(clock_id, self._scenarios, self._seen)
        if capture.client is not None:
            self._requests(capture.client, rows)
        if capture.spans is not None and capture.trace_file:
            self._traces(capture.spans, clock_id)
        elif capture.spans is not None:
            every = not self._scenarios or capture.client is None or rows.untraced > 0
            self._spans(capture.spans, None if every else rows.traces)
        self._metrics(capture.scrapes, clock_id, prefix)

    def finish(self) -> None:
        """Close the run."""
        imported = self.imported
        counts = {
            "rows": imported.requests.total(),
            "spans": imported.spans,
            "samples": imported.samples,
            "skipped": dict(imported.skipped),
        }
        self._made().write_state({**self._state("closed", "complete"), "counts": counts})

    def _made(self) -> RunWriter:
        if self._writer is None:
            self._writer = self._open_writer()
            self._writer.write_state(self._state("open", None))
        return self._writer

    def _state(self, state: str, ended: str | None) -> dict[str, object]:
        name = self._writer.writer_name if self._writer is not None else ""
        return {"writer": name, "pid": os.getpid(), "state": state, "ended": ended}

    def _skip(self, what: str, counts: Counter[str]) -> None:
        for why, n in counts.items():
            self.imported.skipped[f"{what}: {why}"] += n

    # ------------------------------------------------------------------ requests
    def _requests(self, path: Path, rows: ClientRows) -> None:
        skipped = Skipped()
        for line in lines(path, skipped):
            rows.add(line)
            if rows.full:
                self._write_requests(rows)
        self._write_requests(rows)
        if skipped.long:
            rows.rejected[f"a line of more than {LINE_BYTES >> 20} MiB"] += skipped.long
        if skipped.stopped:
            rows.rejected[f"the rest, as {skipped.stopped}"] += 1
        self.imported.requests.update(rows.taken)
        if rows.other:
            self.imported.left_out["requests"] += rows.other
        self._skip("client line", rows.rejected)

    def _write_requests(self, rows: ClientRows) -> None:
        columns = rows.take()
        if columns:
            self._made().write_part(columns)

    # ------------------------------------------------------------------ spans
    def _spans(self, path: Path, traces: set[bytes] | None) -> None:
        counts = FileCounts()
        self._evidence(exports(path, counts), counts, traces)

    def _traces(self, path: Path, clock_id: str) -> None:
        """A file of traces. Those that latdiag has exported are requests again."""
        counts, own = FileCounts(), OwnTraces(clock_id, self._seen)
        others = (own.without(request) for request in trace_files.exports(path, counts))
        self._evidence(others, counts, None)
        for requests, evidence in own.parts():
            self._made().write_part(requests)
            self._made().write_evidence(evidence)
        self.imported.requests.update(own.taken)
        self.imported.spans += own.spans
        self._skip("trace", own.rejected)

    def _evidence(
        self, made: Iterator[Any], counts: FileCounts, traces: set[bytes] | None
    ) -> None:
        rows = SpanRows(self._keep)
        for request in made:
            if traces is not None:
                left_out = keep_traces(request, traces)
                if left_out:
                    self.imported.left_out["spans"] += left_out
            self.imported.spans += rows.add(request, "otlp/file", None)
            if len(rows) >= _PART_ROWS:
                self._made().write_evidence(rows.take())
        if len(rows):
            self._made().write_evidence(rows.take())
        for sender, sent in rows.senders.seen.items():
            self.imported.senders[sender] += sent.spans
        refused: Counter[str] = Counter(
            {f"over the limit on {why}": n for why, n in rows.refused.items()}
        )
        self._skip("span", refused)
        if counts.broken:
            self.imported.skipped[f"export of spans: {counts.fault}"] += counts.broken
        if counts.bad_spans:
            self.imported.skipped[f"span: {counts.span_fault}"] += counts.bad_spans
        if counts.other:
            self.imported.skipped["export: metrics or logs, not spans"] += counts.other
        if counts.stopped:
            self.imported.skipped[f"export of spans: the rest, as {counts.stopped}"] += 1

    # ------------------------------------------------------------------ metrics
    def _metrics(self, scrapes: Sequence[Scrape], clock_id: str, prefix: str) -> None:
        held: dict[str, list[Any]] = {}
        for scrape in scrapes:
            if self._scenarios and scrape.scenario not in self._scenarios:
                self.imported.left_out["scrapes"] += 1
                continue
            try:
                columns = self._scrape(scrape, clock_id, prefix)
            except ValueError as fault:
                self.imported.skipped[f"scrape: {fault}"] += 1
                continue
            self.imported.scrapes += 1
            self.imported.samples += row_count(columns)
            for name, values in columns.items():
                held.setdefault(name, []).extend(values)
            if row_count(held) >= _PART_ROWS:
                self._made().write_evidence(held)
                held = {}
        if held and row_count(held):
            self._made().write_evidence(held)

    def _scrape(self, scrape: Scrape, clock_id: str, prefix: str) -> dict[str, list[Any]]:
        """Columns of a scrape. ValueError, one sentence, for a file that is none."""
        skipped = Skipped()
        data = whole(scrape.path, skipped)
        if data is None:
            raise ValueError(skipped.stopped)
        text = data.decode("utf-8", "replace")
        stamp = _SCRAPED_AT.match(text)
        at_ns = instant(int(stamp[1])) if stamp else None
        dropped: Counter[str] = Counter()
        columns = prometheus.columns_of(
            text,
            at_ns=at_ns or 0,
            replica=f"{prefix}{scrape.role}",
            edge=f"{scrape.scenario}.{scrape.edge}",
            families=self._families,
            role=scrape.role,
            dropped=dropped,
        )
        self._skip("sample", dropped)
        n = row_count(columns)
        if at_ns is None:
            self.imported.skipped["scrape without a time"] += 1
            columns |= {"window_start_ns": [None] * n, "window_end_ns": [None] * n}
        return columns | {"clock_id": [clock_id] * n}
