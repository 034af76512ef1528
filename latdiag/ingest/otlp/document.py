"""OTLP/JSON: a parsed document as an export request.

Field names and their JSON forms are those of the OTLP specification (opentelemetry-proto, JSON
Protobuf encoding: ids in hex, 64-bit integers as decimal text, enums as numbers). What others
write is read as well: ids in base64 (protobuf's own JSON), enums by name, snake_case keys, nulls.
Events, links, flags and trace state are not read: no row of evidence holds them.

A document is cleaned once into what protobuf's constructor takes, which then makes all messages
in C. ``json_format`` is not used: it is written in Python (five times the CPU time of this), has
no budget, and refuses ids in hex, enums by a short name and half a surrogate pair.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from latdiag.ingest.otlp.limits import Budget, Refusal

if TYPE_CHECKING:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTraceServiceRequest,
    )

#: Attributes of one span, scope or resource, and values of one array.
ATTRIBUTES = 10_000
#: Arrays and maps inside one another in an attribute's value.
DEPTH = 16
#: Spans, attributes and all else that becomes a message, of one document: messages take more
#: memory than their text. A batch of the SDKs has 512 spans.
PARTS = 1_000_000


def request_of(document: Any, bad: list[str] | None = None) -> ExportTraceServiceRequest:
    """The export request that ``document`` (parsed OTLP/JSON) states. Where ``bad`` is given, a
    span that is none is left out, and its fault added there.

    Unknown fields are ignored, missing ones have protobuf's defaults. Raises ValueError, one
    sentence, for what is no export of traces, for a field of a wrong type, and for more than
    ``PARTS`` parts, ``ATTRIBUTES`` attributes in one place or ``DEPTH`` nested values.
    """
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTraceServiceRequest,
    )

    if not isinstance(document, dict):
        raise ValueError(f"an export is an object, not {_what(document)}")
    if "resourceSpans" not in document and "resource_spans" not in document:
        raise ValueError("there are no resourceSpans in it")
    try:
        fields = Cleaning(Budget(PARTS), bad).message(document, "export", "an export", 0)
    except Refusal as refusal:
        raise ValueError(f"it has {refusal.text}") from None
    return ExportTraceServiceRequest(**fields)


class Cleaning:
    """Makes keyword arguments of messages out of values; spends a budget on what it makes."""

    def __init__(self, budget: Budget, bad: list[str] | None = None) -> None:
        self._budget = budget
        self._bad = bad

    def message(self, value: Any, shape: str, name: str, depth: int) -> dict[str, Any]:
        """Protobuf's fields of an object. ``depth``: arrays and maps that it lies in."""
        if not isinstance(value, dict):
            raise ValueError(f"{name} is {_what(value)}, not an object")
        fields, one_of = _FIELDS[shape], shape == "value"
        made: dict[str, object] = {}
        for key, inner in value.items():
            field = fields.get(key)
            if field is None or inner is None:
                continue
            own, form = field
            if own in made and key == own:
                continue  # of two spellings the one of OTLP/JSON counts
            if not isinstance(form, str | list):
                made[own] = form(inner, key)
            elif isinstance(form, list):
                made[own] = self._messages(inner, form[0], key, depth)
            elif one_of and depth == DEPTH:
                raise ValueError(f"an attribute nests more than {DEPTH} values")
            else:
                made[own] = self.message(inner, form, key, depth + one_of)
            if one_of:
                break
        return made

    def _messages(self, value: Any, shape: str, name: str, depth: int) -> list[dict[str, object]]:
        if not isinstance(value, list):
            raise ValueError(f"{name} is {_what(value)}, not a list")
        self._budget.spend(len(value))
        if shape in ("pair", "value") and len(value) > ATTRIBUTES:
            raise ValueError(f"it has more than {ATTRIBUTES:,} {name} in one place")
        entry, message = f"an entry of {name}", self.message
        if shape == "span" and self._bad is not None:
            return self._good(value, entry, self._bad)
        return [{} if one is None else message(one, shape, entry, depth) for one in value]

    def _good(self, spans: list[Any], name: str, bad: list[str]) -> list[dict[str, object]]:
        """The spans that are some; the fault of each that is none goes to ``bad``."""
        made = []
        for span in spans:
            try:
                made.append({} if span is None else self.message(span, "span", name, 0))
            except ValueError as fault:
                bad.append(str(fault))
        return made


# ---------------------------------------------------------------------- values
def _what(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
    return "null" if value is None else names.get(type(value), "a number")


def _text(value: Any, name: str) -> str:
    """Text that UTF-8 can hold: half a surrogate pair, as JSON may bear, becomes ``?``."""
    if not isinstance(value, str):
        raise ValueError(f"{name} is {_what(value)}, not text")
    if value.isascii():
        return value
    return value.encode("utf-8", "replace").decode()


def _id(size: int, value: Any, name: str) -> bytes:
    """An id of ``size`` bytes, in hex or in base64 as its length tells; empty for none."""
    if value == "":
        return b""
    if isinstance(value, str):
        try:
            plain = bytes.fromhex(value) if len(value) == 2 * size else _base64(value, name)
        except ValueError:
            plain = b""
        if len(plain) == size:
            return plain
    raise ValueError(f"{name} is not an id of {size} bytes")


def _base64(value: Any, name: str) -> bytes:
    """Either alphabet, with or without padding."""
    try:
        plain = _text(value, name).rstrip("=").replace("-", "+").replace("_", "/")
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except ValueError:
        raise ValueError(f"{name} is not base64") from None


def _instant(value: Any, name: str) -> int:
    return 0 if value == "" else _integer(0, 2**64 - 1, value, name)


def _integer(least: int, most: int, value: Any, name: str) -> int:
    """A 64-bit integer as number or as decimal text."""
    number: int | None = None
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, float) and value.is_integer():
        number = int(value)
    elif isinstance(value, str) and len(value) <= 20 and value.isascii():
        digits = value[1:] if value.startswith("-") else value
        number = int(value) if digits.isdigit() else None
    if number is None or not least <= number <= most:
        raise ValueError(f"{name} is not an integer of 64 bits")
    return number


def _double(value: Any, name: str) -> float:
    """A double as number or as text (protobuf writes NaN and infinities so)."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    if isinstance(value, str) and len(value) <= 400:
        try:
            return float(value)
        except ValueError:
            pass
    raise ValueError(f"{name} is not a number")


def _bool(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError(f"{name} is {_what(value)}, not true or false")


def _enum(prefix: str, names: tuple[str, ...], value: Any, name: str) -> int:
    """An enum by number or by name, with or without its prefix; 0 for a name not known."""
    if isinstance(value, str):
        if value.isascii() and value.isdigit() and len(value) < 10:
            return int(value)
        short = value.removeprefix(prefix)
        return names.index(short) if short in names else 0
    if isinstance(value, int) and not isinstance(value, bool):
        return value if 0 <= value < 2**31 else 0
    raise ValueError(f"{name} is not an enum")


# ---------------------------------------------------------------------- fields
#: How a value is cleaned (from the value and its key), or the shape of a message, or of many.
_Form = Callable[[Any, str], Any] | str | list[str]

#: What is read of each message, by its names in JSON.
_READ: Mapping[str, Mapping[str, _Form]] = {
    "export": {"resourceSpans": ["resource_spans"]},
    "resource_spans": {"resource": "resource", "scopeSpans": ["scope_spans"]},
    "resource": {"attributes": ["pair"]},
    "scope_spans": {"scope": "scope", "spans": ["span"]},
    "scope": {"name": _text, "version": _text, "attributes": ["pair"]},
    "span": {
        "traceId": partial(_id, 16),
        "spanId": partial(_id, 8),
        "parentSpanId": partial(_id, 8),
        "name": _text,
        "kind": partial(
            _enum,
            "SPAN_KIND_",
            ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"),
        ),
        "startTimeUnixNano": _instant,
        "endTimeUnixNano": _instant,
        "attributes": ["pair"],
        "status": "status",
    },
    "status": {"code": partial(_enum, "STATUS_CODE_", ("UNSET", "OK", "ERROR")), "message": _text},
    "pair": {"key": _text, "value": "value"},
    # Of a value one field is set: the first that is not null counts.
    "value": {
        "stringValue": _text,
        "intValue": partial(_integer, -(2**63), 2**63 - 1),
        "doubleValue": _double,
        "boolValue": _bool,
        "bytesValue": _base64,
        "arrayValue": "array",
        "kvlistValue": "map",
    },
    "array": {"values": ["value"]},
    "map": {"values": ["pair"]},
}


def _snake(name: str) -> str:
    return re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", name)


#: By shape and key in JSON (camelCase or snake_case): protobuf's name, and the form.
_FIELDS = {
    shape: {
        key: (_snake(name), form) for name, form in fields.items() for key in (name, _snake(name))
    }
    for shape, fields in _READ.items()
}
