"""What servers state in their replies: timings in bodies and headers, as columns of durations.

The load keeps them unread as ``reply_timings``: ``{"body": {...}, HEADER: "..."}``. Here a path
becomes a column, and every value is held against the request that bears it: a server cannot have
spent longer on a request than the client waited for it.
"""

from __future__ import annotations

import itertools
import json
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from latdiag.model.units import NS_PER_MS, UNIT_NS
from latdiag.stacks.signal import Signal

if TYPE_CHECKING:
    from latdiag.store.batch import Batch

#: The columns of the table ``requests`` that are read here.
COLUMNS = ("sent_ns", "done_ns", "reply_timings", "tokens")
#: A server's duration may exceed the client's by so much: two clocks, and values that were
#: rounded to whole milliseconds.
TOLERANCE_NS = 2 * NS_PER_MS
_DRIFT = 1e-3
#: Of one row; the load keeps 4 KB.
_LONGEST = 8192
_DEEPEST = 6
_HEADER = "header:"
#: Figures of one reply, metrics of a Server-Timing header, parameters of a metric: more cost
#: milliseconds a reply, and come only from someone who makes them up.
_FIGURES, _METRICS, _PARAMS = 256, 64, 16
#: Characters of all replies: so many, and for each request as many again. Each costs 50 ns.
_ROOM, _EACH = 16 << 20, 2048

#: Where two unit names stand together, documents disagree; the first that fits all is right.
EITHER = "|"

_NUMBER = re.compile(r"[+-]?\d{1,20}(?:\.\d{1,20})?(?:[eE][+-]?\d{1,3})?", re.ASCII)
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}"
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_PARAM = re.compile(rf"[ \t]*;[ \t]*({_TOKEN})[ \t]*(?:=[ \t]*({_TOKEN}|{_QUOTED}))?")
_METRIC = re.compile(rf"[ \t]*({_TOKEN})")
#: What stands between commas that part: text, or quoted strings, of which the last may be open.
_PIECE = re.compile(r'(?:[^",]++|"(?:[^"\\]++|\\.)*+(?:"|\\?\Z))*+', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Stated:
    """One field over a run. ``rows``: places of the requests in reading order, ascending;
    ``values``: ns for durations, as stated where the unit is 1. ``unit``: the one used."""

    signal: Signal
    rows: NDArray[np.int64]
    values: NDArray[np.float64]
    unit: str


@dataclass(frozen=True, slots=True)
class Replies:
    """All fields that were stated at least once, by ``body:PATH`` and ``header:NAME``.

    ``refused``: values not used, by field and reason. ``unreadable``: rows whose
    ``reply_timings`` is not what the load writes. ``n``: rows read.
    """

    columns: dict[str, Stated]
    refused: dict[str, Counter[str]]
    unreadable: int
    n: int


@dataclass(slots=True)
class _Column:
    rows: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))
    #: what the request took by the client's clock, ns; -1 where that is not known
    took: array[int] = field(default_factory=lambda: array("q"))


class Reader:
    """Takes what replies state as a run's rows go by.

    ``fields``: signals of the kinds reply and header. Several of one name are one column: what
    they share is the value, what differs is its meaning by role. A metric of a ``server-timing``
    header is called ``server-timing;NAME``. Values that are no numbers, negative, or durations
    longer than the request itself are counted and not used.
    """

    columns = COLUMNS

    def __init__(self, fields: Iterable[Signal]) -> None:
        self._found = {name: _Column() for signal in fields if (name := foreign_name(signal))}
        self._words: dict[str, int] = {}
        self._unreadable = self._n = 0
        self._room = _ROOM
        self._chunks: list[NDArray[np.int64]] = []
        #: whether a reply states anything beside headers, which go out before a stream ends
        self.bodies = False
        self._headers: Counter[str] = Counter()

    def add(self, batch: Batch) -> None:
        texts = batch.texts["reply_timings"]
        stated = np.flatnonzero(texts != None).tolist()  # noqa: E711 - elementwise
        self._chunks.append(_chunks(batch) if stated else np.zeros(batch.n, dtype=np.int64))
        took = _took(batch) if stated else []
        self._room += _EACH * batch.n
        for place in stated:
            text = texts[place]
            self.bodies = self.bodies or '"body"' in text
            fits = len(text) <= self._room
            self._room -= len(text) if fits else 0
            said = figures(text) if fits else None
            if said is None:
                self._unreadable += 1
                continue
            for name, value in said.items():
                if name.startswith(_HEADER) and len(self._headers) < _FIGURES:
                    self._headers[name] += 1
                column = self._found.get(name)
                if column is None:
                    continue
                number = as_number(value)
                if number is None:
                    self._words[name] = self._words.get(name, 0) + 1
                    continue
                column.rows.append(self._n + place)
                column.values.append(number)
                column.took.append(took[place])
        self._n += batch.n

    def replies(self, fields: Iterable[Signal]) -> Replies:
        """The values of ``fields``, which are among those that the reader was made for; of
        several of one name the first counts."""
        columns: dict[str, Stated] = {}
        refused: dict[str, Counter[str]] = {}
        for signal in fields:
            name = foreign_name(signal)
            if not name or name in refused:
                continue
            words = self._words.get(name, 0)
            refused[name] = Counter({"not a number": words} if words else {})
            checked = _checked(signal, self._found[name], refused[name])
            if len(checked.rows):
                columns[name] = checked
        refused = {name: reasons for name, reasons in refused.items() if reasons}
        return Replies(columns, refused, self._unreadable, self._n)

    def headers(self, least: int) -> frozenset[str]:
        """The headers that at least so many replies bore, of those that a run keeps."""
        return frozenset(
            name.removeprefix(_HEADER) for name, n in self._headers.items() if n >= least
        )

    @property
    def chunks(self) -> NDArray[np.int64]:
        """In how many pieces with tokens each row came that is of a batch with statements."""
        return np.concatenate([*self._chunks, np.zeros(0, dtype=np.int64)])


def replies(batches: Iterable[Batch], fields: Iterable[Signal]) -> Replies:
    """The values of ``fields`` in every request of the batches (columns ``COLUMNS``)."""
    fields = list(fields)
    reader = Reader(fields)
    for batch in batches:
        reader.add(batch)
    return reader.replies(fields)


def _chunks(batch: Batch) -> NDArray[np.int64]:
    tokens = batch.lists["tokens"]
    some = np.concatenate(([0], np.cumsum(tokens.values > 0)))
    pieces: NDArray[np.int64] = some[tokens.offsets[1:]] - some[tokens.offsets[:-1]]
    return pieces


def foreign_name(signal: Signal) -> str:
    """``body:PATH`` or ``header:NAME``, as the table ``evidence`` calls it; empty for signals of
    other kinds."""
    if signal.kind == "reply":
        return f"body:{signal.foreign}"
    return f"header:{signal.foreign.lower()}" if signal.kind == "header" else ""


def _took(batch: Batch) -> list[int]:
    """What each request took, ns; -1 where its end is not known."""
    sent, done = batch.ints["sent_ns"], batch.ints["done_ns"]
    known = sent.valid & done.valid & (done.values >= sent.values)
    took: list[int] = np.where(known, done.values - sent.values, -1).tolist()
    return took


def figures(text: str) -> dict[str, object] | None:
    """Every value of one ``reply_timings`` by ``body:PATH``, ``header:NAME`` and
    ``header:server-timing;METRIC``; None for a text that is not of that form, or has more than
    any server states. Never raises."""
    if len(text) > _LONGEST:
        return None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    found: dict[str, object] = {}
    for name, value in document.items():
        if name == "body":
            for path, inner in itertools.islice(_paths(value, "", 0), _FIGURES + 1):
                found.setdefault(f"body:{path}", inner)
        elif name == "server-timing" and isinstance(value, str):
            for metric, duration in server_timing(value).items():
                found[f"header:server-timing;{metric}"] = duration
        elif isinstance(value, str):
            found[f"header:{name}"] = value
        if len(found) > _FIGURES:
            return None
    return found


def _paths(value: object, path: str, depth: int) -> Iterator[tuple[str, object]]:
    """Leaves of nested objects, their keys joined by dots."""
    if not isinstance(value, dict):
        yield path, value
    elif depth < _DEEPEST:
        for key, inner in value.items():
            yield from _paths(inner, f"{path}.{key}" if path else key, depth + 1)


def as_number(value: object) -> float | None:
    """A JSON number, or a text that is one and nothing more; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:
            return None
    if not isinstance(value, str) or _NUMBER.fullmatch(value.strip(" \t")) is None:
        return None
    return float(value)


def server_timing(value: str) -> dict[str, float]:
    """Durations (ms) by metric of a Server-Timing header; metrics without ``dur`` are left out.

    The grammar of the W3C's Server Timing: ``name;param=value;..., name;...``, of repeated
    parameters the first counts, of repeated metrics too. What follows a part that cannot be read
    is skipped up to the next comma. Only the first metrics, and parameters of each, are read.
    """
    found: dict[str, float] = {}
    for member in itertools.islice(members(value), _METRICS):
        match = _METRIC.match(member)
        if match is None:
            continue
        at = match.end()
        for _ in range(_PARAMS):
            param = _PARAM.match(member, at)
            if param is None:
                break
            at = param.end()
            if param[1].lower() == "dur":
                number = as_number((param[2] or "").strip('"'))
                if number is not None:
                    found.setdefault(match[1], number)
                break
    return found


def members(value: str) -> Iterator[str]:
    """The parts of a header between commas that are not inside quotes."""
    place = 0
    while place <= len(value):
        piece = _PIECE.match(value, place)
        assert piece is not None  # it may be empty
        yield piece[0]
        place = piece.end() + 1


def _checked(signal: Signal, column: _Column, refused: Counter[str]) -> Stated:
    """The values of a column that can be true, in ns."""
    rows = np.array(column.rows, dtype=np.int64)
    values = np.array(column.values, dtype=np.float64)
    took = np.array(column.took, dtype=np.float64)
    sound = np.isfinite(values)
    refused["not finite"] += int(np.count_nonzero(~sound))
    refused["negative"] += int(np.count_nonzero(sound & (values < 0)))
    sound &= values >= 0
    rows, values, took = rows[sound], values[sound], took[sound]
    unit = signal.unit
    if unit.split(EITHER)[0] in UNIT_NS:
        refused["of a request without an end"] += int(np.count_nonzero(took < 0))
        known = took >= 0
        rows, values, took = rows[known], values[known], took[known]
        most = took * (1 + _DRIFT) + TOLERANCE_NS
        unit = _fitting(unit, values, most)
        # compared before it is scaled: a hostile 1e302 ms is no number of ns
        fits = values <= most / UNIT_NS[unit]
        refused["longer than the request itself"] += int(np.count_nonzero(~fits))
        rows, values = rows[fits], values[fits] * UNIT_NS[unit]
    for reason in [reason for reason, count in refused.items() if not count]:
        del refused[reason]
    return Stated(signal, rows, values, unit)


def _fitting(unit: str, values: NDArray[np.float64], most: NDArray[np.float64]) -> str:
    """The unit, of several the first by which no value is longer than its request.

    The larger unit stands first: taken for it, a value in the smaller one is a thousand times too
    long, which hardly any request is. Where none fits all, the last.
    """
    *others, last = unit.split(EITHER)
    return next((u for u in others if bool((values <= most / UNIT_NS[u]).all())), last)
