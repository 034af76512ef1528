"""OTLP/JSON as text: an export walked by hand down to its spans, each parsed by itself.

The parser of the standard library makes a document whole, which takes 60 times its length and
holds up everybody else. Here it sees at most ``_WINDOW`` characters at once; what lies around
the spans is walked, twice: to count the spans, and to read them.
"""

from __future__ import annotations

import re
import sys
from array import array
from collections.abc import Iterator
from json import JSONDecodeError, JSONDecoder
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import TYPE_CHECKING, Any

from latdiag.ingest.otlp.document import Cleaning
from latdiag.ingest.otlp.limits import Budget, Refusal, Steps, done
from latdiag.ingest.otlp.outline import (
    MOST_PLACES,
    PLACE_BYTES,
    SCOPE_BYTES,
    Group,
    Malformed,
    Place,
    Scoped,
)

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

#: Characters that the parser sees at once: most values fit into the first.
_NEAR, _WINDOW = 8 << 10, 64 << 10
#: Text of an attribute of a long span that is parsed.
_LONGEST_ATTRIBUTE = 4 << 10
_SPACE = re.compile(r"[ \t\n\r]*")
_TOKEN = re.compile(r'["{}\[\]]')
_MANY = ("arrayValue", "array_value", "kvlistValue", "kvlist_value")
_SCAN = JSONDecoder().scan_once  # type: ignore[attr-defined]
#: What stands for a value that is longer than the window.
_LONG = object()


class JsonText:
    """An export in OTLP/JSON. ``outline`` first; then its spans, one by one."""

    def __init__(self, body: bytes | bytearray, budget: Budget) -> None:
        from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
        from opentelemetry.proto.resource.v1.resource_pb2 import Resource
        from opentelemetry.proto.trace.v1.trace_pb2 import Span

        self.groups: list[Group] = []
        self.spans = 0
        self._budget = budget
        self._cleaning = Cleaning(budget)
        self._span, self._resource, self._scope = Span, Resource, InstrumentationScope
        try:
            self._text = body.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise _refused("it is not UTF-8") from None
        budget.hold(sys.getsizeof(self._text))

    def outline(self) -> Steps[None]:
        """Find the spans. Refusal for what cannot be walked, and beyond the budget."""
        at = _Cursor(self._text, 0)
        try:
            if at.next() != "{":
                raise ValueError("an export is an object")
            found = False
            for key in at.members():
                if key in ("resourceSpans", "resource_spans") and at.next() != "n":
                    if found:
                        raise ValueError("resourceSpans comes twice")
                    found = True
                    for _ in at.elements(key):
                        yield from self._group(at)
                        yield  # there may be nothing in it, and millions of them
                else:
                    yield from at.skip(self._budget)
            if not found:
                raise ValueError("there are no resourceSpans in it")
            at.end()
        except RecursionError:
            raise _refused("it is nested too deep") from None
        except ValueError as fault:
            raise _refused(str(fault)[:200] or "it is not JSON") from None

    def _group(self, at: _Cursor) -> Steps[None]:
        group = Group([], [])
        for key in self._members(at, "an entry of resourceSpans"):
            if key == "resource" and at.next() != "n":
                yield from self._once(at, group.resource, key)
            elif key in ("scopeSpans", "scope_spans") and at.next() != "n":
                for _ in at.elements(key):
                    scoped = yield from self._scoped(at)
                    yield
                    if scoped:
                        self._budget.hold(SCOPE_BYTES)
                        group.scopes.append(scoped)
            else:
                yield from at.skip(self._budget)
        if group.scopes:
            self.groups.append(group)

    def _scoped(self, at: _Cursor) -> Steps[Scoped]:
        scoped = Scoped([], array("Q"))
        for key in self._members(at, "an entry of scopeSpans"):
            if key == "scope" and at.next() != "n":
                yield from self._once(at, scoped.scope, key)
            elif key == "spans" and at.next() != "n":
                for _ in at.elements(key):
                    self.spans += 1
                    place = yield from at.skip(self._budget)
                    if self.spans > MOST_PLACES:
                        text = f"more than {MOST_PLACES:,} spans in one export"
                        raise Refusal("too_many", text)
                    self._budget.hold(PLACE_BYTES)
                    scoped.bounds.extend(place)
            else:
                yield from at.skip(self._budget)
        return scoped

    def _members(self, at: _Cursor, name: str) -> Iterator[str]:
        """The keys of an object, none of null."""
        self._budget.spend()
        if at.next() == "n":
            at.small()
        elif at.next() != "{":
            raise ValueError(f"{name} is not an object")
        else:
            yield from at.members()

    def _once(self, at: _Cursor, places: list[Place], key: str) -> Steps[None]:
        if places:
            raise ValueError(f"{key} comes twice")
        places.append((yield from at.skip(self._budget)))

    # ------------------------------------------------------------------ messages
    def resource(self, group: Group) -> Steps[Any]:
        """The attributes of a resource. Malformed for what is none."""
        made, dropped = yield from self._made(self._resource, "resource", group.resource)
        return made.attributes, dropped

    def scope(self, scoped: Scoped) -> Steps[InstrumentationScope]:
        """A scope. Malformed for what is none."""
        made, _ = yield from self._made(self._scope, "scope", scoped.scope)
        scope: InstrumentationScope = made
        return scope

    def short(self, place: Place) -> Span | None:
        """A span; None if it is too long to be parsed at once. Malformed for what is none."""
        if place[1] - place[0] > _WINDOW:
            return None
        made: Span = done(self._made(self._span, "span", (place,)))[0]
        return made

    def long(self, place: Place) -> Steps[tuple[Span, int]]:
        """A span, and how many attributes of it were left out. Malformed for what is none."""
        span, dropped = yield from self._made(self._span, "span", (place,))
        return span, dropped

    def _made(self, kind: Any, shape: str, places: Any) -> Steps[Any]:
        dropped = 0
        value: Any = {}
        try:
            for start, end in places:
                if end - start <= _WINDOW:
                    value, _ = _scanned(self._text[start:end])
                else:
                    value, dropped = yield from self._shortened(start)
            if value is None:
                value = {}
            fields = self._cleaning.message(value, shape, f"a {shape}", 0)
            return kind(**fields), dropped
        except (ValueError, RecursionError):
            raise Malformed from None

    def _shortened(self, start: int) -> Steps[tuple[dict[str, object], int]]:
        """What is read of a long object: (it, attributes that were left out)."""
        at = _Cursor(self._text, start)
        made: dict[str, object] = {}
        dropped = 0
        for key in at.members():
            if key == "attributes" and at.next() == "[":
                kept: list[object] = []
                made[key] = kept
                for _ in at.elements(key):
                    begun, end = yield from at.skip(self._budget)
                    one = None
                    if end - begun <= _LONGEST_ATTRIBUTE:
                        one, _ = _scanned(self._text[begun:end])
                    value = one.get("value") if isinstance(one, dict) else None
                    if one is None or (isinstance(value, dict) and any(m in value for m in _MANY)):
                        dropped += 1
                    else:
                        kept.append(one)
            else:
                begun, end = yield from at.skip(self._budget)
                if end - begun <= _LONGEST_ATTRIBUTE:
                    made[key], _ = _scanned(self._text[begun:end])
                elif key == "name":
                    made[key] = at.text(begun)[:_LONGEST_ATTRIBUTE]
        return made, dropped


class _Cursor:
    """A place in a JSON text. ValueError where what is asked for is not there.

    Whoever goes through members or elements takes every value before the next.
    """

    __slots__ = ("_text", "at")

    def __init__(self, text: str, at: int) -> None:
        self._text = text
        self.at = at

    def next(self) -> str:
        """The first character of what comes next; empty at the end."""
        self.at = _SPACE.match(self._text, self.at).end()  # type: ignore[union-attr]
        return self._text[self.at : self.at + 1]

    def _take(self, sign: str) -> None:
        if self.next() != sign:
            raise JSONDecodeError(f"Expecting {sign!r}", "", self.at)
        self.at += 1

    def end(self) -> None:
        if self.next():
            raise ValueError("something follows the document")

    def members(self) -> Iterator[str]:
        self._take("{")
        while self.next() != "}":
            self._take('"')
            key, self.at = scanstring(self._text, self.at, True)
            self._take(":")
            yield key
            if self.next() != "}":
                self._take(",")
                if self.next() != '"':
                    raise JSONDecodeError("Expecting a name", "", self.at)
        self.at += 1

    def elements(self, name: str) -> Iterator[None]:
        if self.next() != "[":
            raise ValueError(f"{name} is not a list")
        self.at += 1
        while self.next() != "]":
            yield
            if self.next() != "]":
                self._take(",")
                if self.next() == "]":
                    raise JSONDecodeError("Expecting a value", "", self.at)
        self.at += 1

    def small(self) -> Any:
        """The next value, or ``_LONG`` (and nothing is taken) if it is beyond the window."""
        self.next()
        left = len(self._text) - self.at
        for window in (_NEAR, _WINDOW):
            piece = self._text[self.at : self.at + window]
            try:
                value, end = _scanned(piece)
            except ValueError:
                if window >= left:
                    raise
            else:
                # A number may go on beyond the piece.
                if end < window or window >= left:
                    self.at += end
                    return value
        return _LONG

    def text(self, at: int) -> str:
        """The string that begins at ``at``."""
        if self._text[at] != '"':
            raise ValueError("it is not text")
        return str(scanstring(self._text, at + 1, True)[0])

    def skip(self, budget: Budget) -> Steps[Place]:
        """Past the next value; where it is. One beyond the window is only looked over: brackets
        and strings."""
        budget.spend()
        self.next()
        start = self.at
        yield
        if self.small() is not _LONG:
            return start, self.at
        if self.next() not in ("{", "[", '"'):
            raise ValueError("a number or a word without end")
        depth = 0
        while True:
            found = _TOKEN.search(self._text, self.at)
            if found is None:
                raise ValueError("it ends early")
            sign, self.at = found[0], found.end()
            budget.spend()
            if sign == '"':
                _, self.at = scanstring(self._text, self.at, True)
            else:
                depth += 1 if sign in "{[" else -1
            if depth <= 0:
                return start, self.at
            yield


def _scanned(text: str) -> tuple[Any, int]:
    """The value that ``text`` begins with, and where it ends. ValueError where none is."""
    try:
        value, end = _SCAN(text, 0)
    except StopIteration:  # which a generator must not raise
        raise JSONDecodeError("Expecting a value", "", 0) from None
    return value, end


def _refused(text: str) -> Refusal:
    return Refusal("malformed", f"the body is not an export in OTLP/JSON: {text}")
