"""Where the spans of an export are, in whichever form it came."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from latdiag.ingest.otlp.limits import Steps

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

#: Spans of one export whose places are kept; more are counted only, since no export may have them.
MOST_PLACES = 100_000
#: Bytes that a scope with its group, and the place of a span take.
SCOPE_BYTES, PLACE_BYTES = 1000, 16

#: Begin and end in the body.
Place = tuple[int, int]


class Malformed(Exception):
    """A message that is none: a span, or what all spans of a group share."""


@dataclass(slots=True)
class Scoped:
    """A scope and its spans: begin and end of each in turn."""

    scope: list[Place]
    bounds: array[int]

    def __len__(self) -> int:
        """How many spans there are."""
        return len(self.bounds) // 2

    def places(self) -> Iterator[Place]:
        bounds = iter(self.bounds)
        return zip(bounds, bounds, strict=False)


@dataclass(slots=True)
class Group:
    """A resource and its scopes that have spans."""

    resource: list[Place]
    scopes: list[Scoped]

    def spans(self) -> int:
        return sum(map(len, self.scopes))


class Form(Protocol):
    """An export in one of its forms. ``outline`` finds the groups and counts the spans; after it
    the others read them, each in steps. They raise Malformed, and Refusal beyond the budget."""

    groups: list[Group]
    spans: int

    def outline(self) -> Steps[None]:
        """Find the spans. Refusal for what cannot be walked."""

    def resource(self, group: Group) -> Steps[tuple[Sequence[Any], int]]:
        """The attributes of a resource, and how many of them were left out."""

    def scope(self, scoped: Scoped) -> Steps[InstrumentationScope]:
        """The scope itself."""

    def short(self, place: Place) -> Span | None:
        """A span; None if it is too long to be parsed at once."""

    def long(self, place: Place) -> Steps[tuple[Span, int]]:
        """Such a span, and how many attributes of it were left out."""
