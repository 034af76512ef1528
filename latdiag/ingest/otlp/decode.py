"""An export's bytes into rows, in steps, within the budgets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from latdiag.ingest.otlp.json_text import JsonText
from latdiag.ingest.otlp.limits import (
    MAX_BODY,
    MAX_JSON,
    Budget,
    Steps,
    inflating,
    too_large,
)
from latdiag.ingest.otlp.outline import Form, Group, Malformed, Scoped
from latdiag.ingest.otlp.protobuf import Protobuf
from latdiag.ingest.otlp.rows import MAX_ATTRIBUTES, SpanRows
from latdiag.ingest.otlp.senders import Origin

if TYPE_CHECKING:
    from collections.abc import Callable

#: Bytes of spans between two steps: some have much to do in few bytes.
_STEP = 2 << 10
#: Resources, or scopes of one, between two steps.
_GROUPS = 32
#: Attributes of a span that is read in steps of its own.
_MANY = 128


@dataclass(frozen=True, slots=True)
class Export:
    """An export as it was received: ``body`` as on the wire, ``wrapping`` empty, gzip or
    deflate, ``form`` protobuf or json, ``source`` otlp/grpc or otlp/http. Nobody changes it, and
    it is not copied: 16 MiB would take as long as thirty slices of decoding."""

    body: bytes | bytearray
    wrapping: str
    form: str
    source: str
    signal: str = "traces"


def decoding(
    export: Export,
    rows: SpanRows,
    *,
    hold: Callable[[int], None],
    check_spans: Callable[[int], None],
    check_rows: Callable[[], None],
) -> Steps[int]:
    """The spans of ``export`` into ``rows``; how many it held, those refused alone included.

    ``hold`` is called with the bytes that are held beside the body, ``check_spans`` with the
    number of spans before any is read, ``check_rows`` as ``rows`` grow: all may refuse. Raises
    Refusal if the whole export is not taken: nothing is to be used then.
    """
    budget = Budget(hold=hold)
    form = yield from _form(export, budget)
    yield from form.outline()
    check_spans(form.spans)
    for number, group in enumerate(form.groups):
        yield from _group(form, group, rows, check_rows, budget)
        if number % _GROUPS == 0:  # each may have one small span
            check_rows()
            yield
    return form.spans


def _form(export: Export, budget: Budget) -> Steps[Form]:
    body: bytes | bytearray = export.body
    if len(body) > MAX_BODY:
        raise too_large(len(body), MAX_BODY)
    if export.wrapping:
        body = yield from inflating(body, export.wrapping, budget.hold)
    if export.form == "json":
        if len(body) > MAX_JSON:
            raise too_large(len(body), MAX_JSON)
        return JsonText(body, budget)
    return Protobuf(body, budget)


def _group(
    form: Form, group: Group, rows: SpanRows, check_rows: Callable[[], None], budget: Budget
) -> Steps[None]:
    """The spans of one resource; where that is none, they are refused, and no others."""
    try:
        attributes, left_out = yield from form.resource(group)
    except Malformed:
        rows.refuse("malformed", group.spans())
        return
    budget.spend(len(attributes))
    if len(attributes) + left_out > MAX_ATTRIBUTES:
        rows.refuse("attributes", group.spans())
        return
    resource = rows.senders.resource(attributes)
    for number, scoped in enumerate(group.scopes):
        if number % _GROUPS == _GROUPS - 1:
            yield
        try:
            scope = yield from form.scope(scoped)
        except Malformed:
            rows.refuse("malformed", len(scoped))
            continue
        origin = rows.senders.origin(resource, scope.name)
        yield from _spans(form, scoped, rows, origin, check_rows, budget)


def _spans(
    form: Form,
    scoped: Scoped,
    rows: SpanRows,
    origin: Origin,
    check_rows: Callable[[], None],
    budget: Budget,
) -> Steps[None]:
    seen = 0
    for place in scoped.places():
        try:
            span, left_out = form.short(place), 0
            if span is None:
                span, left_out = yield from form.long(place)
        except Malformed:
            rows.refuse("malformed")
        else:
            attributes = len(span.attributes)
            budget.spend(attributes)
            if attributes <= _MANY:
                rows.add_span(span, origin, left_out)
            else:
                yield from rows.adding_span(span, origin, left_out)
        seen += place[1] - place[0] + 2
        if seen > _STEP:
            seen = 0
            check_rows()
            yield
