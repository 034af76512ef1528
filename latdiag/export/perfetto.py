"""A run as a timeline for Perfetto: Chrome's trace event format, in JSON.

Events of one thread must nest (perfetto.dev, "Other formats": what overlaps goes to a track of its
own), so each request has a lane to itself for as long as it takes. Times are us since 1970.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, TextIO

from latdiag.export.phases import phases, whole_us
from latdiag.model.text import shown
from latdiag.model.units import NS_PER_US

if TYPE_CHECKING:
    from latdiag.export.attempts import Attempt, Attempts, Part

_Event = dict[str, object]
_TEXT = 1000


def write_perfetto(attempts: Attempts, file: TextIO) -> int:
    """Write the timeline; how many events it has."""
    between, count = "\n", 0
    file.write('{"displayTimeUnit": "ms", "traceEvents": [')
    for event in _events(attempts):
        file.write(between + json.dumps(event, allow_nan=False))
        between, count = ",\n", count + 1
    file.write("\n]}\n")
    return count


def lanes(spans: Iterable[tuple[int, int]]) -> list[int]:
    """A lane for each of ``spans`` (begin, end), from 1, in the given order: the lowest that is
    free when it begins. No two in one lane overlap, and there are no more lanes than spans that
    are open at once."""
    listed = list(spans)
    found = [0] * len(listed)
    busy: list[tuple[int, int]] = []
    free: list[int] = []
    for place in sorted(range(len(listed)), key=lambda each: (*listed[each], each)):
        begin, end = listed[place]
        while busy and busy[0][0] <= begin:
            heapq.heappush(free, heapq.heappop(busy)[1])
        lane = heapq.heappop(free) if free else len(busy) + 1
        found[place] = lane
        # What takes no time is drawn with some width, and keeps its lane for it.
        heapq.heappush(busy, (max(end, begin + 1), lane))
    return found


def _events(attempts: Attempts) -> Iterator[_Event]:
    rows = list(attempts)
    for number, path in enumerate(attempts.paths):
        mine = [row for row in rows if row.run == number]
        pid = number + 1
        yield _name("process_name", pid, 0, f"latdiag {shown(path, _TEXT)}")
        spans = [_span(row) for row in mine]
        chosen = lanes(spans)
        for lane in range(1, max(chosen, default=0) + 1):
            yield _name("thread_name", pid, lane, f"requests {lane}")
        drawn = zip(mine, spans, chosen, strict=True)
        yield from chain.from_iterable(
            _request(row, attempts.parts, span, pid, lane) for row, span, lane in drawn
        )
        yield from _counters(mine, pid)


def _span(row: Attempt) -> tuple[int, int]:
    begin = row.begin_ns // NS_PER_US
    return begin, begin + whole_us(max(row.total_ns, 0))


def _name(kind: str, pid: int, tid: int, name: str) -> _Event:
    return {"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": {"name": name}}


def _request(
    row: Attempt, parts: Sequence[Part], span: tuple[int, int], pid: int, lane: int
) -> Iterator[_Event]:
    begin, end = span
    where = {"ph": "X", "pid": pid, "tid": lane}
    args: dict[str, object] = {
        "request_id": shown(row.request_id, _TEXT),
        "attempt": row.attempt,
        "outcome": shown(row.outcome, _TEXT),
        "ns": row.total_ns,
        "isl": row.isl,
        "osl": row.osl,
        "ttft_ns": row.ttft_ns,
        "trace_id": shown(row.trace_id, _TEXT) if row.trace_id else None,
    }
    known = {name: value for name, value in args.items() if value is not None}
    title = "request" if row.outcome == "ok" else f"request: {shown(row.outcome, _TEXT)}"
    yield {
        **where,
        "name": title,
        "cat": "request",
        "ts": begin,
        "dur": end - begin,
        "args": known,
    }
    if row.parts is None:
        return
    ns = [int(part.ns[row.parts]) for part in parts]
    for phase in phases(row.total_ns, ns):
        part = parts[phase.place]
        yield {
            **where,
            "name": part.label.replace("+", " + "),
            "cat": "phase",
            "ts": begin + phase.start_us,
            "dur": phase.end_us - phase.start_us,
            "args": {
                "ns": ns[phase.place],
                "grade": part.grade_of(row.parts),
                "evidence": part.evidence,
            },
        }


def _counters(rows: Sequence[Attempt], pid: int) -> Iterator[_Event]:
    """How many requests wait for their first token, and how many stream."""
    changes: dict[int, Counter[str]] = {}
    for row in rows:
        begin, end = _span(row)
        sent = begin + whole_us(row.lag_ns)
        first = end if row.ttft_ns is None else min(sent + whole_us(row.ttft_ns), end)
        for at, name, by in (
            (sent, "waiting", 1), (first, "waiting", -1),
            (first, "streaming", 1), (end, "streaming", -1),
        ):  # fmt: skip
            changes.setdefault(at, Counter())[name] += by
    now: Counter[str] = Counter()
    for at in sorted(changes):
        now.update(changes[at])
        values = {name: now[name] for name in ("waiting", "streaming")}
        yield {"ph": "C", "name": "requests", "pid": pid, "tid": 0, "ts": at, "args": values}
