"""A trace for each attempt, as spans of opentelemetry-sdk.

The root is the client's span ``chat MODEL``; below it stands a span for each part of its time,
one after the other (``phases``). Nothing here depends on when it is exported, so that a second
export of a run adds nothing to a store that knows equal spans. The root bears no link: Jaeger up
to v1.76.0 draws no critical path of a trace whose root has one (its UI's
``getChildOfSpans.tsx``).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from latdiag import __version__
from latdiag.export.links import OF_SERVERS
from latdiag.export.phases import phases, whole_us
from latdiag.model import span_names as names
from latdiag.model.text import shown
from latdiag.model.units import NS_PER_S, NS_PER_US

if TYPE_CHECKING:
    from latdiag.export.attempts import Attempt, Attempts, Origin, Part

#: Characters of any text in a span.
_TEXT = 1000
_SCOPE = InstrumentationScope(names.SCOPE, __version__, names.SCHEMA_URL)
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_OK, _ERROR = Status(StatusCode.UNSET), StatusCode.ERROR
_Value = str | int | float | bool | tuple[str, ...]


def traces(attempts: Attempts, live: bool = False) -> Iterator[list[ReadableSpan]]:
    """The spans of each attempt, its root first. ``live``: of a run that goes on, of which less is
    known than at its end: these traces are not those of a later export."""
    seen: Counter[str] = Counter()
    for attempt in attempts:
        origin = attempts.origins[attempt.run]
        key = "\0".join(
            (origin.uid, attempt.scenario or "", attempt.request_id or "", str(attempt.attempt))
        )
        if live:
            key = f"{key}\0live"
        seen[key] += 1
        if seen[key] > 1:  # others' files may name two requests alike
            key = f"{key}\0{seen[key]}"
        yield _trace(attempt, origin, attempts.parts, key, _links(attempt, attempts.server_spans))


def _links(attempt: Attempt, spans: Mapping[str, str]) -> tuple[Link, ...]:
    """To the server's span that speaks of the request."""
    trace = attempt.trace_id
    if trace is None or trace not in spans:
        return ()
    return (Link(SpanContext(int(trace, 16), int(spans[trace], 16), True, _SAMPLED)),)


def _trace(
    attempt: Attempt, origin: Origin, parts: list[Part], key: str, links: tuple[Link, ...]
) -> list[ReadableSpan]:
    trace_id = hashlib.blake2b(key.encode("utf-8", "replace"), digest_size=16).digest()
    context = _context(trace_id, "root")
    start_us = attempt.begin_ns // NS_PER_US
    attributes = _root_attributes(attempt, origin)
    resource = _resource(attempt.clock_id or "")
    children: list[ReadableSpan] = []
    if attempt.parts is not None:
        place = attempt.parts
        ns = [int(part.ns[place]) for part in parts]
        for part, own in zip(parts, ns, strict=True):
            attributes[names.PART + part.label] = own
            if part.bounded[place] and part.grade == "A":
                attributes[names.BOUNDED] = (part.label,)
            if part.grade == "A" and part.label in names.LATENCIES:
                attributes[names.LATENCIES[part.label]] = own / NS_PER_S
        for phase in phases(attempt.total_ns, ns):
            part = parts[phase.place]
            span = ReadableSpan(
                name=part.label.replace("+", " + "),
                context=_context(trace_id, part.label),
                parent=context,
                resource=resource,
                attributes=_phase_attributes(part, place),
                links=links if OF_SERVERS.intersection(part.members) else (),
                kind=SpanKind.INTERNAL,
                status=_OK,
                start_time=(start_us + phase.start_us) * NS_PER_US,
                end_time=(start_us + phase.end_us) * NS_PER_US,
                instrumentation_scope=_SCOPE,
            )
            children.append(span)
    operation, model = attributes.get(names.OPERATION), attributes.get(names.MODEL)
    root = ReadableSpan(
        name=" ".join(str(word) for word in (operation or "request", model) if word),
        context=context,
        resource=resource,
        attributes=attributes,
        kind=SpanKind.CLIENT,
        status=_OK if attempt.outcome == "ok" else Status(_ERROR, shown(attempt.outcome, _TEXT)),
        start_time=start_us * NS_PER_US,
        end_time=(start_us + whole_us(max(attempt.total_ns, 0))) * NS_PER_US,
        instrumentation_scope=_SCOPE,
    )
    return [root, *children]


def _context(trace_id: bytes, what: str) -> SpanContext:
    span_id = hashlib.blake2b(what.encode(), key=trace_id, digest_size=8).digest()
    return SpanContext(
        int.from_bytes(trace_id, "big"), int.from_bytes(span_id, "big"), False, _SAMPLED
    )


@lru_cache(maxsize=1024)
def _resource(clock_id: str) -> Resource:
    """One for all spans of a trace. Jaeger may move a span whose host is not its parent's."""
    return Resource({names.SERVICE_NAME: names.SERVICE, names.HOST_ID: shown(clock_id, _TEXT)})


def _root_attributes(attempt: Attempt, origin: Origin) -> dict[str, _Value]:
    target = origin.target
    address, port = _address(target.url)
    ttft = attempt.ttft_ns
    known: dict[str, _Value | None] = {
        names.OPERATION: names.OPERATIONS.get(target.dialect or ""),
        names.PROVIDER: names.OPENAI if target.dialect in names.OPERATIONS else None,
        names.MODEL: target.model,
        names.STREAM: True if origin.streams else None,
        names.SERVER_ADDRESS: address,
        names.SERVER_PORT: port,
        names.RESPONSE_ID: attempt.response_id,
        names.FIRST_CHUNK: ttft / NS_PER_S if ttft is not None else None,
        names.INPUT_TOKENS: attempt.isl,
        names.OUTPUT_TOKENS: attempt.osl,
        names.CACHED_TOKENS: attempt.cached,
        names.ERROR_TYPE: attempt.outcome if attempt.outcome != "ok" else None,
        names.STATUS_CODE: attempt.status or None,
        names.NS: attempt.total_ns,
        names.INTERVAL: "client_e2e",
        names.TTFT_NS: ttft,
        names.LAG_NS: attempt.lag_ns,
        names.CLOCK_NS: origin.clock_half_ns.get(attempt.clock_id or ""),
        names.REQUEST_ID: attempt.request_id,
        names.ATTEMPT: attempt.attempt,
        names.SCENARIO: attempt.scenario,
        names.OUTCOME: attempt.outcome,
        names.SENT_TRACE: attempt.trace_id,
        names.SENT_SPAN: attempt.span_id,
        names.ATTRIBUTED: attempt.parts is not None,
    }
    return {
        name: shown(value, _TEXT) if isinstance(value, str) else value
        for name, value in known.items()
        if value is not None
    }


def _phase_attributes(part: Part, place: int) -> dict[str, _Value]:
    attributes: dict[str, _Value] = {
        names.COMPONENT: part.members[0],
        names.NS: int(part.ns[place]),
        names.GRADE: part.grade_of(place),
        names.EVIDENCE: shown(part.evidence, _TEXT),
    }
    if part.lo is not None and part.hi is not None:
        attributes |= {names.LO_NS: int(part.lo[place]), names.HI_NS: int(part.hi[place])}
    if len(part.members) > 1:
        attributes[names.MEMBERS] = part.members
    return attributes


@lru_cache(maxsize=1024)
def _address(url: str | None) -> tuple[str | None, int | None]:
    """Host and port of a target; what is no URL has neither."""
    try:
        parts = urlsplit(url or "")
        return parts.hostname, parts.port
    except ValueError:
        return None, None
