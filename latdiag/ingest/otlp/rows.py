"""Spans become rows of the table ``evidence``: verbatim, bounded, and only what ``Keep`` keeps."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from latdiag.ingest.otlp.keep import MAX_TEXT, Keep
from latdiag.ingest.otlp.senders import Origin, Senders
from latdiag.model.secrets import holds_secret

if TYPE_CHECKING:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTraceServiceRequest,
    )
    from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span

    from latdiag.ingest.otlp.limits import Steps
    from latdiag.store.columns import Column

#: Attributes of one span, or of one resource, beyond which the span is refused; with what is added
#: to them they fit into a map of the store.
MAX_ATTRIBUTES = 9_900
#: Attributes between two steps: each that is new is looked at closely, for tens of us.
_AT_ONCE = 64
_MAX_NS = 2**63 - 1
#: Names of spans whose kept form is remembered.
_MOST_NAMES = 4096
#: Names of attributes whose fate is remembered: more come only from someone who makes them up.
_REMEMBERED = 4096
#: Of a row without its labels (ids, name, instants, and its place in every list); of a label.
_ROW_BYTES, _LABEL_BYTES = 400, 90
_NO_TRACE, _NO_SPAN = bytes(16), bytes(8)
_STATUS_ERROR = 2
#: Names of ``Span.SpanKind`` (opentelemetry/proto/trace/v1/trace.proto).
_KINDS = dict(enumerate(("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")))
#: Values that may be 0, false or empty, as text; others are not kept.
_ZEROS: dict[str | None, Callable[[Any], str]] = {
    "double_value": lambda value: repr(value.double_value),
    "int_value": lambda _zero: "0",
    "bool_value": lambda value: "true" if value.bool_value else "false",
    "string_value": lambda _empty: "",
}
#: Columns that the spans of an export fill; the others are the same for all of them.
_COLUMNS = (
    "_names",
    "_trace_ids",
    "_span_ids",
    "_parents",
    "_starts",
    "_ends",
    "_origins",
    "_label_counts",
    "_keys",
    "_values",
)


class SpanRows:
    """Rows of spans that wait to be written, as columns.

    ``refused``: spans that broke a bound, by reason (``attributes``, ``ids``, ``times``,
    ``malformed``);
    ``dropped_attributes``: attributes of taken spans that were not kept. Neither is reset.
    ``senders`` counts who sent what.
    """

    def __init__(self, keep: Keep) -> None:
        self.refused: dict[str, int] = {}
        self.dropped_attributes = 0
        self.senders = Senders(keep)
        self._keep = keep
        #: name -> (the name, whether text is kept too); None where nothing is
        self._kept_names: dict[str, str] = {}
        self._fates: dict[str, tuple[str, bool] | None] = {}
        self._reset()

    def _reset(self) -> None:
        self._names: list[str] = []
        self._trace_ids: list[str] = []
        self._span_ids: list[str] = []
        self._parents: list[str | None] = []
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._origins: list[Origin] = []
        self._sources: list[str] = []
        self._received: list[int] = []
        self._label_counts: list[int] = []
        self._keys: list[str] = []
        self._values: list[str] = []

    def __len__(self) -> int:
        return len(self._names)

    def size(self) -> int:
        """About how many bytes the rows take in memory; rather more than they do."""
        remembered = len(self._fates) < _REMEMBERED  # a name is then one object for all rows
        label = _LABEL_BYTES if remembered else 2 * _LABEL_BYTES
        return _ROW_BYTES * len(self._names) + label * len(self._values)

    def staged(self) -> SpanRows:
        """Rows for the spans of one export, empty, that ``absorb`` adds here if it is taken."""
        made = SpanRows.__new__(SpanRows)
        made.refused, made.dropped_attributes = {}, 0
        made.senders, made._keep = self.senders, self._keep
        made._kept_names, made._fates = self._kept_names, self._fates
        made._reset()
        return made

    def absorb(self, staged: SpanRows, source: str, received_ns: int) -> int:
        """Take the rows of an export, and what was counted of it; how many rows."""
        taken = len(staged)
        for name in _COLUMNS:
            getattr(self, name).extend(getattr(staged, name))
        self._sources.extend([source] * taken)
        self._received.extend([received_ns] * taken)
        for reason, spans in staged.refused.items():
            self.refuse(reason, spans)
        self.dropped_attributes += staged.dropped_attributes
        self.count(staged)
        return taken

    def count(self, staged: SpanRows) -> None:
        """Count the senders of staged rows: what comes together is mostly of one."""
        begin = 0
        for _, group in itertools.groupby(staged._origins, key=id):
            size = sum(1 for _ in group)
            self.senders.count(staged._origins[begin], staged._names[begin : begin + size])
            begin += size

    def add(self, request: ExportTraceServiceRequest, source: str, received_ns: int | None) -> int:
        """Take the spans of an export; how many were taken, the others are in ``refused``.

        ``source``: otlp/grpc, otlp/http or otlp/file. ``received_ns``: MONOTONIC instant of
        this machine, None for spans that were not received but read.
        """
        before = len(self)
        for group in request.resource_spans:
            self._add_group(group)
        taken = len(self) - before
        self._sources.extend([source] * taken)
        self._received.extend([-1 if received_ns is None else received_ns] * taken)
        return taken

    def _add_group(self, group: ResourceSpans) -> None:
        attributes = group.resource.attributes
        if len(attributes) > MAX_ATTRIBUTES:
            self.refuse("attributes", sum(len(scope.spans) for scope in group.scope_spans))
            return
        resource = self.senders.resource(attributes)
        for scoped in group.scope_spans:
            origin = self.senders.origin(resource, scoped.scope.name)
            before = len(self)
            for span in scoped.spans:
                self.add_span(span, origin)
            self.senders.count(origin, self._names[before:])

    def add_span(self, span: Span, origin: Origin, left_out: int = 0) -> None:
        """Take a span, or count why not. ``left_out``: attributes that it no longer has."""
        if self._add_head(span, origin, left_out):
            before = len(self._keys)
            self._add_attributes(span.attributes)
            self._add_labels(span, origin, before)

    def adding_span(self, span: Span, origin: Origin, left_out: int = 0) -> Steps[None]:
        """``add_span`` in steps, for a span of many attributes."""
        if self._add_head(span, origin, left_out):
            before = len(self._keys)
            for at in range(0, len(span.attributes), _AT_ONCE):
                self._add_attributes(span.attributes[at : at + _AT_ONCE])
                yield
            self._add_labels(span, origin, before)

    def _add_head(self, span: Span, origin: Origin, left_out: int) -> bool:
        """All of a span but its labels; False where it is refused."""
        trace_id, span_id, parent = span.trace_id, span.span_id, span.parent_span_id
        start, end = span.start_time_unix_nano, span.end_time_unix_nano
        # An identifier of zeros is none (opentelemetry/proto/trace/v1/trace.proto).
        if len(trace_id) != 16 or len(span_id) != 8 or len(parent) not in (0, 8):
            return self.refuse("ids")
        if trace_id == _NO_TRACE or span_id == _NO_SPAN:
            return self.refuse("ids")
        if start > _MAX_NS or end > _MAX_NS:
            return self.refuse("times")
        if len(span.attributes) + left_out > MAX_ATTRIBUTES:
            return self.refuse("attributes")
        self.dropped_attributes += left_out
        name = span.name
        kept = self._kept_names.get(name)
        if kept is None:
            kept = self._keep.span_name(name)
            if len(self._kept_names) < _MOST_NAMES:
                self._kept_names[name] = kept
        self._names.append(kept)
        self._trace_ids.append(trace_id.hex())
        self._span_ids.append(span_id.hex())
        self._parents.append(None if not parent or parent == _NO_SPAN else parent.hex())
        self._starts.append(start)
        self._ends.append(end)
        self._origins.append(origin)
        return True

    def _add_labels(self, span: Span, origin: Origin, before: int) -> None:
        """What a span's row has beside its attributes, which begin at ``before``."""
        self._keys += origin.keys
        self._values += origin.values
        self._keys.append("otel.kind")
        self._values.append(_KINDS.get(span.kind) or str(span.kind))
        if span.status.code == _STATUS_ERROR:
            self._keys.append("otel.status")
            self._values.append("ERROR")
        self._label_counts.append(self._without_repetition(before))

    def _add_attributes(self, attributes: Any) -> None:
        """The hot loop: 16 a span at 20,000 spans a second leave it 3 us each.

        Of the kinds of a value those that are not there read as 0: one that is not 0 is the one
        that is there, and asking for that first takes half of the time of asking which it is.
        """
        fates, keys, values = self._fates, self._keys, self._values
        before = len(keys)
        for attribute in attributes:
            name = attribute.key
            try:
                fate = fates[name]
            except KeyError:
                fate = self._fate(name)
            if fate is None:
                continue
            value = attribute.value
            if number := value.double_value:
                text = repr(number)
            elif number := value.int_value:
                text = str(number)
            elif text := value.string_value:
                if not fate[1] or len(text) > MAX_TEXT or holds_secret(text):
                    continue
            else:
                kind = value.WhichOneof("value")
                if kind == "string_value" and not fate[1]:
                    continue
                read = _ZEROS.get(kind)
                if read is None:
                    continue
                text = read(value)
            keys.append(fate[0])
            values.append(text)
        self.dropped_attributes += len(attributes) - (len(keys) - before)

    def _fate(self, name: str) -> tuple[str, bool] | None:
        """What becomes of attributes of this name."""
        fate = None
        if len(name) <= MAX_TEXT and self._keep.number(name) and not holds_secret(name):
            fate = (name, self._keep.text(name))
        if len(self._fates) < _REMEMBERED:
            self._fates[name] = fate
        return fate

    def _without_repetition(self, before: int) -> int:
        """How many labels the row at the end has, its names made unique: the last one counts."""
        keys = self._keys[before:]
        if len(set(keys)) != len(keys):
            unique = dict(zip(keys, self._values[before:], strict=True))
            self._keys[before:] = unique.keys()
            self._values[before:] = unique.values()
            return len(unique)
        return len(keys)

    def refuse(self, reason: str, spans: int = 1) -> bool:
        """Count spans that are not taken; False, for they are not."""
        if spans:
            self.refused[reason] = self.refused.get(reason, 0) + spans
        return False

    def take(self) -> dict[str, Column]:
        """The rows as columns for ``RunWriter.write_evidence``; from now on there are none here.

        An instant that the sender left out (0 on the wire) is null.
        """
        import numpy as np

        from latdiag.store.batch import Ints, MapColumn

        def instants(values: list[int], none: int) -> Ints:
            array = np.array(values, dtype=np.int64)
            return Ints(array, array != none)

        offsets = np.zeros(len(self) + 1, dtype=np.int64)
        np.cumsum(self._label_counts, out=offsets[1:])
        senders = [origin.sender for origin in self._origins]
        columns: dict[str, Column] = {
            "kind": ["span"] * len(self),
            "foreign_name": self._names,
            "trace_id": self._trace_ids,
            "span_id": self._span_ids,
            "parent_span_id": self._parents,
            "start_ns": instants(self._starts, 0),
            "end_ns": instants(self._ends, 0),
            "window_start_ns": instants(self._received, -1),
            "clock_id": [origin.clock_id for origin in self._origins],
            "replica": senders,
            "source": self._sources,
            "labels": MapColumn(offsets, self._keys, self._values),
        }
        self._reset()
        return columns
