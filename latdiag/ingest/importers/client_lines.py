"""The lines of ``client.jsonl`` in a capture, as rows of the table ``requests``.

A line is an object: ``send_ns``, ``headers_ns``, ``done_ns`` and ``chunks`` ([instant, number of
characters]) in REALTIME nanoseconds of the client, read in user space; ``scenario``, ``status``,
``id``, ``trace_id``, ``span_id``, ``usage``, ``isl`` and ``osl`` (asked for), ``rid``. Everything
else in it is left where it is: it may hold texts.
"""

from __future__ import annotations

import json
from array import array
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from latdiag.model.records import Kind, Outcome, StampSource, TokenSource
from latdiag.model.secrets import holds_secret
from latdiag.store.batch import Lists

#: Rows and arrivals that are held before they are written.
PART_ROWS = 10_000
PART_ARRIVALS = 4 << 20
#: Chunks of one reply; lines that long are over the bound on lines, mostly.
CHUNKS = 1_000_000
#: Requests of one import; each costs the 120 bytes by which its ids are known again.
REQUESTS = 2_000_000
SCENARIOS = 1_000
_ID_LIMIT = 128
#: 2001 to 2096: what lies outside is not in nanoseconds since 1970.
_FIRST_NS, _LAST_NS = 10**18, 4 * 10**18
_LONGEST_NS = 7 * 86_400 * 10**9
_MOST_TOKENS = 2**31 - 1
#: What OpenAI's API, and servers like it, put before the id that the request came with.
_PREFIXES = ("chatcmpl-", "cmpl-")
_HEX = frozenset("0123456789abcdef")


class Rejected(Exception):
    """Why a line is no row: one phrase out of a few, to be counted."""


class _Scalars(NamedTuple):
    """What a line states, a value for each column of these names; None where it states nothing
    that can be read."""

    response_id: str | None
    trace_id: str | None
    span_id: str | None
    headers_ns: int | None
    done_ns: int | None
    isl: int | None
    osl: int | None
    isl_wanted: int | None
    osl_wanted: int | None
    cached_tokens: int | None
    token_source: str
    outcome: str
    status: int | None
    error: str | None


@dataclass(slots=True)
class _Row:
    """A request. ``names``: candidates for its id, the best one first; ``tokens``: of each
    arrival, None where only the total is known."""

    scalars: _Scalars
    names: tuple[str | None, ...]
    scenario: str | None
    sent_ns: int
    arrivals: array[int]
    kinds: array[int]
    tokens: array[int] | None
    request_id: str = ""


class ClientRows:
    """Rows under way: ``add`` lines, ``take`` columns when ``full`` and at the end.

    ``scenarios``: only these are taken; empty for all. ``known``: hashes of the request ids there
    are already, to be shared by the files of one run. ``taken`` counts rows by scenario,
    ``other`` those of other scenarios, ``rejected`` lines by reason. ``traces`` holds
    the trace ids of the rows, in bytes, and ``untraced`` counts rows without.
    """

    def __init__(self, clock_id: str, scenarios: frozenset[str], known: set[int]) -> None:
        self.clock_id = clock_id
        self.taken: Counter[str] = Counter()
        self.other = 0
        self.rejected: Counter[str] = Counter()
        self.traces: set[bytes] = set()
        self.untraced = 0
        self._scenarios = scenarios
        self._known = known
        self._rows: list[_Row] = []
        self._arrivals = 0

    @property
    def full(self) -> bool:
        return len(self._rows) >= PART_ROWS or self._arrivals >= PART_ARRIVALS

    def add(self, line: bytes) -> None:
        """One line of the file; what cannot be a row is counted."""
        try:
            fields = _parsed(line)
            scenario = _scenario(fields.get("scenario"))
            if self._scenarios and scenario not in self._scenarios:
                self.other += 1
                return
            row = _row(fields, scenario)
            row.request_id = self._name(row)
        except Rejected as why:
            self.rejected[str(why)] += 1
            return
        known = (scenario or "") in self.taken or len(self.taken) < SCENARIOS
        self.taken[(scenario or "") if known else "…"] += 1
        self._rows.append(row)
        self._arrivals += len(row.arrivals)
        trace_id = row.scalars.trace_id
        if trace_id is None:
            self.untraced += 1
        else:
            self.traces.add(bytes.fromhex(trace_id))

    def _name(self, row: _Row) -> str:
        """The first candidate for the id of a row that no other request has.

        The last one is the trace, which is known where the very same line comes twice.
        """
        if len(self._known) >= 2 * REQUESTS:
            raise Rejected(f"more than {REQUESTS:,} requests")
        for name in row.names:
            if name is not None and hash(name) not in self._known:
                self._known |= {hash(name), hash(row.scalars.trace_id)}
                return name
        raise Rejected("no unique request id")

    def take(self) -> dict[str, object]:
        """The rows so far as columns for ``RunWriter.write_part``, by when they were sent."""
        rows = sorted(self._rows, key=lambda row: row.sent_ns)
        self._rows, self._arrivals = [], 0
        if not rows:
            return {}
        offsets = np.cumsum([0] + [len(row.arrivals) for row in rows])
        counted = [row.tokens if row.tokens is not None else array("i") for row in rows]
        stamps = Lists.whole(_joined([row.arrivals for row in rows], np.int64), offsets)
        scalars = zip(*(row.scalars for row in rows), strict=True)
        return {
            **dict(zip(_Scalars._fields, map(list, scalars), strict=True)),
            "request_id": [row.request_id for row in rows],
            "scenario": [row.scenario for row in rows],
            "attempt": [1] * len(rows),
            "clock_id": [self.clock_id] * len(rows),
            "sent_ns": [row.sent_ns for row in rows],
            "stamp_source": [StampSource.USER.value] * len(rows),
            "arrivals_ns": stamps,
            "arrivals_user_ns": stamps,
            "kinds": Lists.whole(_joined([row.kinds for row in rows], np.int8), offsets),
            "censored": Lists.whole(np.zeros(offsets[-1], dtype=np.bool_), offsets),
            "tokens": Lists(
                _joined(counted, np.int32),
                np.cumsum([0] + [len(tokens) for tokens in counted]),
                np.array([row.tokens is not None for row in rows], dtype=np.bool_),
            ),
        }


def scenario_of(line: bytes) -> str:
    """The scenario that a line states; empty where it states none."""
    try:
        return _scenario(_parsed(line).get("scenario")) or ""
    except Rejected:
        return ""


def _joined(arrays: list[array[int]], dtype: Any) -> Any:
    # An empty buffer cannot be viewed; the first entry stands for a part without any.
    views = [np.frombuffer(part, dtype) for part in arrays if part]
    return np.concatenate([np.empty(0, dtype), *views])


def _parsed(line: bytes) -> dict[str, object]:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        raise Rejected("no JSON") from None
    if not isinstance(fields, dict):
        raise Rejected("not a JSON object")
    return fields


def _scenario(value: object) -> str | None:
    if value is None or (isinstance(value, str) and len(value) <= _ID_LIMIT):
        return value
    raise Rejected(f"a scenario that is not text of at most {_ID_LIMIT} characters")


def _row(fields: dict[str, object], scenario: str | None) -> _Row:
    """The row that a line states, but for its id. Raises Rejected."""
    sent, headers, done = (_stated(fields.get(f"{name}_ns")) for name in _INSTANTS)
    if sent is None:
        raise Rejected("no send_ns")
    arrivals, characters = _chunks(fields.get("chunks"))
    _check_order([n for n in (sent, headers, *arrivals[:1]) if n is not None])
    _check_order([n for n in (sent, *arrivals, done) if n is not None])
    usage = _object(fields.get("usage"))
    total = _count(usage.get("completion_tokens"))
    details = _object(usage.get("prompt_tokens_details"))
    bearing = _bearing(characters, total)
    status = _status(fields.get("status"))
    outcome, error = _outcome(status, any(characters), done, bool(fields.get("error")))
    trace_id, reply = _hex(fields.get("trace_id"), 32), _id(fields.get("id"))
    scalars = _Scalars(
        response_id=reply,
        trace_id=trace_id,
        span_id=_hex(fields.get("span_id"), 16),
        headers_ns=headers,
        done_ns=done,
        isl=_count(usage.get("prompt_tokens")),
        osl=total,
        isl_wanted=_count(fields.get("isl")) or None,
        osl_wanted=_count(fields.get("osl")) or None,
        cached_tokens=_count(details.get("cached_tokens")),
        token_source=(TokenSource.CHUNKS if total is None else TokenSource.USAGE).value,
        outcome=outcome.value,
        status=status,
        error=error or None,
    )
    names = (_id(fields.get("rid")), _unprefixed(reply), trace_id)
    kinds = array("b", (Kind.ANSWER if borne else Kind.OTHER for borne in bearing))
    one_each = total is not None and sum(bearing) == total
    tokens = array("i", bearing) if one_each else None
    return _Row(scalars, names, scenario, sent, arrivals, kinds, tokens)


_INSTANTS = ("send", "headers", "done")


def instant(value: object) -> int | None:
    """``value`` if it is an instant in REALTIME nanoseconds of our times, else None."""
    # Not isinstance: a bool is an int too. A float has lost 128 ns of such an instant.
    return value if type(value) is int and _FIRST_NS <= value <= _LAST_NS else None


def _stated(value: object) -> int | None:
    """An instant, None for none. Raises Rejected for what is no instant."""
    at_ns = instant(value)
    if at_ns is None and value is not None:
        raise Rejected("a time that is not in nanoseconds since 1970")
    return at_ns


def _chunks(value: object) -> tuple[array[int], list[int]]:
    """(Instants, characters) of the chunks."""
    chunks = [] if value is None else value
    if not isinstance(chunks, list):
        raise Rejected("chunks that are not a list")
    if len(chunks) > CHUNKS:
        raise Rejected(f"more than {CHUNKS:,} chunks")
    arrivals, characters = array("q"), []
    for chunk in chunks:
        if not isinstance(chunk, list) or len(chunk) < 2:
            raise Rejected("a chunk that is not [instant, characters]")
        at_ns = _stated(chunk[0])
        if at_ns is None or type(chunk[1]) is not int or chunk[1] < 0:
            raise Rejected("a chunk that is not [instant, characters]")
        arrivals.append(at_ns)
        characters.append(min(chunk[1], _MOST_TOKENS))
    return arrivals, characters


def _check_order(instants: list[int]) -> None:
    if any(later < earlier for earlier, later in pairwise(instants)):
        raise Rejected("times that run backwards")
    if instants[-1] - instants[0] > _LONGEST_NS:
        raise Rejected("a request of more than 7 days")


def _bearing(characters: list[int], total: int | None) -> list[int]:
    """1 for each chunk that bore output, else 0.

    That is a chunk with text. One without is a token that has none (half a character, a control
    token) where the chunks are as many as the tokens, but not at the beginning or the end: there
    a chunk without text may be the role's or the finish's.
    """
    inside = len(characters) == total and bool(characters[:1] + characters[-1:])
    if inside and characters[0] and characters[-1]:
        return [1] * len(characters)
    return [int(n > 0) for n in characters]


def _outcome(
    status: int | None, content: bool, done: int | None, noted: bool
) -> tuple[Outcome, str]:
    """How the request ended and the sentence for it. The client's own words are not kept."""
    if status is None:
        return Outcome.CUT, "the capture states no status of the reply"
    if status == 429:
        return Outcome.RATE_LIMITED, f"HTTP {status}"
    if status != 200:
        return Outcome.HTTP_ERROR, f"HTTP {status}"
    if noted:
        return Outcome.CUT, "the capture's client noted an error"
    if done is None:
        return Outcome.CUT, "the capture states no end of the reply"
    if not content:
        return Outcome.PROTOCOL, "the reply held no content"
    return Outcome.OK, ""


def _object(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _status(value: object) -> int | None:
    return value if type(value) is int and 100 <= value <= 999 else None


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= _MOST_TOKENS else None


def _id(value: object) -> str | None:
    if not isinstance(value, str) or not 0 < len(value) <= _ID_LIMIT:
        return None
    return None if holds_secret(value) else value


def _unprefixed(reply: str | None) -> str | None:
    """The x-request-id in a reply's id: servers put one of a few prefixes before it."""
    for prefix in _PREFIXES:
        if reply is not None and reply.startswith(prefix):
            return reply.removeprefix(prefix) or None
    return reply


def _hex(value: object, size: int) -> str | None:
    if not isinstance(value, str) or len(value) != size:
        return None
    text = value.lower()
    return text if _HEX.issuperset(text) and text.strip("0") else None
