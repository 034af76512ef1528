"""Spans joined to the requests that they are of.

Nothing here compares the instants of two senders: a span is joined by the ids that it bears.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.spans.columns import SCOPE, Spans, signals_of
from latdiag.attribution.spans.roles import roles, with_signals

#: A chain of parents longer than this is a circle.
_DEEP = 32


@dataclass(frozen=True, slots=True)
class Requests:
    """What a request may be joined by; one entry a request, None where it lacks one.
    ``span_id``: of the client's own span, which is above the servers'."""

    trace_id: Sequence[str | None]
    span_id: Sequence[str | None]
    request_id: Sequence[str | None]
    response_id: Sequence[str | None]


def join(spans: Spans, requests: Requests) -> Spans:
    """The spans of these requests alone: each once, with stack, parent, role and signal.

    A whole trace goes to the request that one of its spans names: by trace id, else by an id
    that a stack's key attribute holds. An id that two requests bear joins nothing.
    """
    spans = _of_stacks(spans)
    shared = _shared(spans)
    row = np.where(shared, -1, _looked_up(spans.trace, requests.trace_id))
    counts = {"trace_id": len(np.unique(row[row >= 0]))}
    for held in ("request_id", "response_id"):
        named = np.where(row >= 0, -1, _by_key(spans, held, getattr(requests, held)))
        taken = set(row[row >= 0].tolist())
        named[[at in taken for at in named.tolist()]] = -1
        row = np.where(row >= 0, row, _spread(spans, named, shared))
        counts[held] = len(set(row[row >= 0].tolist()) - taken)
    spans = replace(spans, row=row)
    spans = spans.select(np.flatnonzero(row >= 0))
    # Content decides the order, so that the order of arrival does not.
    order = np.lexsort(
        (spans.name.astype(str), spans.span.astype(str), spans.end, spans.start, spans.row)
    )
    spans = spans.select(order)
    once = _once(spans)
    duplicates = spans.n - len(once)
    spans = _with_parents(spans.select(once), requests)
    spans = with_signals(replace(spans, role=roles(spans)))
    return replace(spans, joined_by=counts, duplicates=duplicates)


def _shared(spans: Spans) -> NDArray[np.bool_]:
    """Spans of traces in which one server speaks of several requests: calls of one session, or
    of one agent. There a trace id names no request."""
    named = requests_named(spans)
    seen: dict[tuple[Any, int], Any] = {}
    several = set()
    for trace, sender, name in zip(spans.trace, spans.sender.tolist(), named, strict=True):
        if name and seen.setdefault((trace, sender), name) != name:
            several.add(trace)
    return np.array([not trace or trace in several for trace in spans.trace], dtype=bool)


def requests_named(spans: Spans) -> NDArray[np.object_]:
    """What each span itself calls its request, without what its stack adds; None if nothing."""
    found = np.full(spans.n, None, dtype=object)
    for at, stack in enumerate(spans.stacks):
        for key in stack.keys:
            texts = spans.texts[key.attribute]
            ending = re.compile(f"(?:{key.ending or '(?!)'})\\Z")
            for i in np.flatnonzero((spans.stack == at) & (found == None)):  # noqa: E711
                found[i] = ending.sub("", texts[i]) if texts[i] else None
    return found


def _spread(
    spans: Spans, named: NDArray[np.int64], shared: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """A request's spans from those that name it: the whole trace, or of a shared trace what
    hangs below."""
    whole: dict[Any, int] = {}
    for trace, at, part in zip(spans.trace, named.tolist(), shared.tolist(), strict=True):
        if at >= 0 and trace and not part:
            whole[trace] = at if whole.get(trace, at) == at else -1
    found = np.array([whole.get(trace, -1) for trace in spans.trace], dtype=np.int64)
    found = np.where(shared, named, found)
    place = {key: i for i, key in enumerate(zip(spans.trace, spans.span, strict=True))}
    above = [place.get(key, -1) for key in zip(spans.trace, spans.above, strict=True)]
    parent = np.array(above, dtype=np.int64)
    for _ in range(_DEEP):
        open_ = shared & (found < 0) & (parent >= 0)
        new = np.where(open_, found[parent], -1)
        if not (new >= 0).any():
            break
        found = np.where(new >= 0, new, found)
    return found


def _of_stacks(spans: Spans) -> Spans:
    """With the stack of each sender: the one that knows most of its spans' names, or its scope."""
    votes = np.zeros((len(spans.senders), len(spans.stacks)), dtype=np.int64)
    names, codes = np.unique(spans.name.astype(str), return_inverse=True)
    scopes, scope_codes = np.unique(spans.texts[SCOPE].astype(str), return_inverse=True)
    for at, stack in enumerate(spans.stacks):
        knows = np.array([signals_of(stack, name) != [] for name in names], dtype=bool)
        marks = [re.compile(m.pattern) for m in stack.marks if m.where == "scope"]
        says = np.array([any(m.fullmatch(s) for m in marks) for s in scopes], dtype=bool)
        weight = knows[codes] * (1 + 2 * says[scope_codes])
        votes[:, at] = np.bincount(spans.sender, weights=weight, minlength=len(spans.senders))
    if not votes.size:
        return spans
    best = np.where(votes.max(axis=1) > 0, votes.argmax(axis=1), -1)
    return replace(spans, stack=best[spans.sender])


def _looked_up(values: NDArray[np.object_], known: Sequence[str | None]) -> NDArray[np.int64]:
    """For each value the only place in ``known`` that holds it, -1 if none or several."""
    places: dict[str, int] = {}
    for at, value in enumerate(known):
        if value:
            places[value] = at if value not in places else -1
    return np.array([places.get(value, -1) for value in values], dtype=np.int64)


def _by_key(spans: Spans, held: str, known: Sequence[str | None]) -> NDArray[np.int64]:
    found = np.full(spans.n, -1, dtype=np.int64)
    for at, stack in enumerate(spans.stacks):
        for key in stack.keys:
            if key.holds != held:
                continue
            mine = np.flatnonzero((spans.stack == at) & (found < 0))
            texts = spans.texts[key.attribute][mine]
            plain = _looked_up(texts, known)
            if key.ending:
                end = re.compile(f"(?:{key.ending})\\Z")
                cut = np.array([t and end.sub("", t) for t in texts], dtype=object)
                plain = np.where(plain >= 0, plain, _looked_up(cut, known))
            found[mine] = plain
    return found


def _once(spans: Spans) -> NDArray[np.int64]:
    """Every span once: of those with one id in one trace, the first in the sorted order. Spans
    without an id are all kept."""
    seen: set[tuple[int, str]] = set()
    keep = []
    for at, key in enumerate(zip(spans.row.tolist(), spans.span.tolist(), strict=True)):
        if not key[1]:
            keep.append(at)
        elif key not in seen:
            seen.add(key)
            keep.append(at)
    return np.array(keep, dtype=np.int64)


def _with_parents(spans: Spans, requests: Requests) -> Spans:
    place = {key: i for i, key in enumerate(zip(spans.row.tolist(), spans.span, strict=True))}
    parent = [
        place.get(key, -1) if key[1] else -1
        for key in zip(spans.row.tolist(), spans.above, strict=True)
    ]
    found = np.array(parent, dtype=np.int64)
    found = np.where(found == np.arange(spans.n), -1, found)
    lost = [
        at < 0 and bool(above) and above != requests.span_id[row]
        for at, above, row in zip(found.tolist(), spans.above, spans.row.tolist(), strict=True)
    ]
    return replace(spans, parent=found, lost=np.array(lost, dtype=bool))
