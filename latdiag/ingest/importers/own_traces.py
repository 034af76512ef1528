"""Traces that ``latdiag export`` made become requests again, exact to the nanosecond.

The root of such a trace bears the time of every part (``latdiag.part.queue``), its phases bear the
grade and the evidence. The stream between the first token and the end is in no trace: what needs
its arrivals or counts of tokens is refused later.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from latdiag.ingest.importers.client_lines import PART_ROWS, REQUESTS
from latdiag.model import span_names as names
from latdiag.model.records import Kind, Outcome
from latdiag.store.batch import Lists

#: 2^62 ns: 146 years, of which twice as much still fits an int64.
_MOST_NS = 2**62
_OUTCOMES = frozenset(outcome.value for outcome in Outcome)
#: Parts of one request: more than there are components.
_PARTS = 16
_TEXT = 1000


_Said = dict[str, object]


@dataclass(slots=True)
class _Root:
    """The client's span of an attempt; times in ns, ``ttft`` None where nothing came. ``said``:
    its attributes as Python's values. ``parts``: ns by label."""

    start: int
    ns: int
    lag: int
    ttft: int | None
    ident: str
    outcome: str
    said: _Said
    parts: dict[str, int]


@dataclass(slots=True)
class OwnTraces:
    """``without`` takes them out of exports, ``parts`` gives their rows at the end. ``known``:
    hashes of the request ids there are already. ``taken``: requests by scenario; ``spans`` of
    them; ``rejected``: roots by why they are no requests."""

    clock_id: str
    known: set[int]
    taken: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    spans: int = 0
    _roots: list[_Root] = field(default_factory=list)
    _sources: dict[str, tuple[str, str]] = field(default_factory=dict)

    def without(self, request: Any) -> Any:
        """``request`` without our own spans, which are kept here."""
        for block in request.resource_spans:
            for scoped in block.scope_spans:
                if scoped.scope.name == names.SCOPE:
                    kept = [span for span in scoped.spans if not self._take(span)]
                    del scoped.spans[:]
                    scoped.spans.extend(kept)
        return request

    def _take(self, span: Any) -> bool:
        said = {each.key: _value(each.value) for each in span.attributes}
        if type(said.get(names.NS)) is not int:
            return False
        self.spans += 1
        if names.COMPONENT in said:
            self._phase(span, said)
        elif (why := self._root(span, said)) is not None:
            self.rejected[why] += 1
        return True

    def _phase(self, span: Any, said: _Said) -> None:
        label = span.name.replace(" + ", "+")
        grade, evidence = said.get(names.GRADE), said.get(names.EVIDENCE)
        if grade in tuple("ABCDE") and isinstance(evidence, str) and len(self._sources) < 1000:
            self._sources.setdefault(label, (grade, evidence[:_TEXT]))

    def _root(self, span: Any, said: _Said) -> str | None:
        """Keep a root; why it is no request."""
        ident, outcome = said.get(names.REQUEST_ID), said.get(names.OUTCOME)
        if not isinstance(ident, str) or not ident:
            return "no request id"
        if not isinstance(outcome, str) or outcome not in _OUTCOMES:
            return "no outcome that is known"
        start, ns, lag = span.start_time_unix_nano, said[names.NS], said.get(names.LAG_NS, 0)
        ttft = said.get(names.TTFT_NS)
        known = (_is_time(each) for each in (start, ns, lag, 0 if ttft is None else ttft))
        if not all(known):
            return "times that are none"
        if len(self._roots) >= REQUESTS:
            return f"more than {REQUESTS:,} requests"
        key = hash((ident, said.get(names.ATTEMPT), said.get(names.SCENARIO), span.trace_id))
        if key in self.known:
            return "a trace that was read before"
        self.known.add(key)
        parts = {
            name.removeprefix(names.PART): value
            for name, value in said.items()
            if name.startswith(names.PART) and type(value) is int
        }
        scenario = said.get(names.SCENARIO)
        self.taken[scenario if isinstance(scenario, str) else ""] += 1
        own = parts if len(parts) <= _PARTS else {}
        times: Any = {"start": start, "ns": ns, "lag": lag, "ttft": ttft}
        root = _Root(**times, ident=ident[:_TEXT], outcome=outcome, said=said, parts=own)
        self._roots.append(root)
        return None

    def parts(self) -> Iterator[tuple[dict[str, object], dict[str, object]]]:
        """(Columns of requests, columns of evidence), part by part."""
        roots = sorted(self._roots, key=lambda root: root.start)
        for start in range(0, len(roots), PART_ROWS):
            some = roots[start : start + PART_ROWS]
            yield self._requests(some), self._evidence(some)

    def _requests(self, roots: list[_Root]) -> dict[str, object]:
        sent = [root.start + root.lag for root in roots]
        ttft = [root.ttft for root in roots]
        first = [a + b for a, b in zip(sent, ttft, strict=True) if b is not None]
        offsets = np.cumsum([0] + [int(each is not None) for each in ttft])
        stamps = Lists.whole(np.array(first, dtype=np.int64), offsets)
        return {
            "request_id": [root.ident for root in roots],
            "attempt": [_number(root, names.ATTEMPT) or 1 for root in roots],
            "scenario": [_text(root, names.SCENARIO) for root in roots],
            "clock_id": [self.clock_id] * len(roots),
            # In a closed loop a request is sent when it is due, to the nanosecond.
            "due_ns": [root.start if root.lag else None for root in roots],
            "sent_ns": sent,
            "done_ns": [root.start + root.ns for root in roots],
            "outcome": [root.outcome for root in roots],
            "status": [_number(root, names.STATUS_CODE) for root in roots],
            "response_id": [_text(root, names.RESPONSE_ID) for root in roots],
            "trace_id": [_text(root, names.SENT_TRACE) for root in roots],
            "span_id": [_text(root, names.SENT_SPAN) for root in roots],
            "isl": [_number(root, names.INPUT_TOKENS) for root in roots],
            "cached_tokens": [_number(root, names.CACHED_TOKENS) for root in roots],
            "stamp_source": [None] * len(roots),  # no trace says
            "arrivals_ns": stamps,
            "arrivals_user_ns": stamps,
            "kinds": Lists.whole(np.full(len(first), Kind.ANSWER, dtype=np.int8), offsets),
            "censored": Lists.whole(np.zeros(len(first), dtype=np.bool_), offsets),
            "tokens": Lists(
                np.zeros(0, dtype=np.int32),
                np.zeros(len(roots) + 1, dtype=np.int64),
                np.zeros(len(roots), dtype=np.bool_),
            ),
        }

    def _evidence(self, roots: list[_Root]) -> dict[str, object]:
        rows = [(root, label, ns) for root in roots for label, ns in root.parts.items()]
        unknown = ("E", "no phase of it in the file")
        sources = [self._sources.get(label, unknown) for _, label, _ in rows]
        # The phase that was kept may be one that is bounded, of a part that is measured elsewhere.
        measured = {label for root, label, _ in rows if _bounded(root, label)}
        grades = [
            "A" if label in measured else grade
            for (_, label, _), (grade, _) in zip(rows, sources, strict=True)
        ]
        return {
            "evidence_id": [_ident(root, label) for root, label, _ in rows],
            "kind": ["attribute"] * len(rows),
            "request_id": [root.ident for root, _, _ in rows],
            "attempt": [_number(root, names.ATTEMPT) or 1 for root, _, _ in rows],
            "clock_id": [self.clock_id] * len(rows),
            "start_ns": [root.start for root, _, _ in rows],
            "end_ns": [root.start + root.ns for root, _, _ in rows],
            "value": [float(ns) for _, _, ns in rows],
            "unit": ["ns"] * len(rows),
            "labels": [
                {"evidence": text, **({"bounded": "1"} if _bounded(root, label) else {})}
                for (root, label, _), (_, text) in zip(rows, sources, strict=True)
            ],
            "source": ["otlp/file"] * len(rows),
            "foreign_name": [f"{names.PART}{label}" for _, label, _ in rows],
            "foreign_value": [str(ns) for _, _, ns in rows],
            "grade": grades,
        }


def _is_time(value: object) -> bool:
    return type(value) is int and 0 <= value < _MOST_NS


def _value(value: Any) -> object:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [each.string_value for each in value.array_value.values]
    return getattr(value, kind) if kind is not None else None


def _bounded(root: _Root, label: str) -> bool:
    """Jaeger's own JSON has an array as text."""
    said = root.said.get(names.BOUNDED, ())
    return label in said if isinstance(said, list) else f'"{label}"' in str(said)


def _text(root: _Root, name: str) -> str | None:
    found = root.said.get(name)
    return found[:_TEXT] if isinstance(found, str) else None


def _number(root: _Root, name: str) -> int | None:
    found = root.said.get(name)
    return found if type(found) is int and 0 <= found < 2**31 else None


def _ident(root: _Root, label: str) -> str:
    text = f"{root.ident}|{root.said.get(names.ATTEMPT)}|{root.start}|{label}"
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=12).hexdigest()
