"""Who sends spans: what a sender is called, what it sent, and whether a known stack is there."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from latdiag.ingest.otlp.keep import MAX_SENDER, MAX_TEXT, Keep
from latdiag.model.secrets import holds_secret

#: Senders and origins that are told apart; what comes beyond is counted together.
_MOST = 4096
_OTHERS = "others"
_IDENTITY = ("service.instance.id", "service.name", "host.name", "process.pid")
#: Names of spans that are remembered with a sender, to tell an unknown one by.
_NAMES = 5


class Resource(NamedTuple):
    """What a resource says of its sender. ``service``: empty where it does not say."""

    sender: str
    service: str


@dataclass(frozen=True, slots=True)
class Origin:
    """A sender and a scope of it, with the labels that every span from there bears."""

    sender: str
    service: str
    scope: str
    clock_id: str
    keys: tuple[str, ...]
    values: tuple[str, ...]


@dataclass(slots=True)
class Seen:
    """What came from a sender. ``*_ns``: MONOTONIC instants of this machine."""

    service: str
    spans: int = 0
    first_ns: int = 0
    last_ns: int = 0
    #: a mark of a known stack was seen in its scope, service or a span's name
    known: bool = False
    names: dict[str, int] = field(default_factory=dict)


class Senders:
    """Counts by sender; ``keep`` knows the marks of the stacks."""

    def __init__(self, keep: Keep) -> None:
        self.seen: dict[str, Seen] = {}
        self._keep = keep
        self._origins: dict[tuple[Resource, str], Origin] = {}

    def resource(self, attributes: Any) -> Resource:
        """Who a resource is: its instance, else its service, host and process, else unknown."""
        values = {one.key: one.value for one in attributes if one.key in _IDENTITY}
        said = {name: _text(value) for name, value in values.items()}
        parts = [said[name] for name in _IDENTITY[1:] if said.get(name)]
        sender = said.get("service.instance.id") or "/".join(parts) or "unknown"
        return Resource(sender[:MAX_SENDER], said.get("service.name", "")[:MAX_TEXT])

    def origin(self, resource: Resource, scope: str) -> Origin:
        """The origin of the spans of a scope of ``resource``."""
        scope = "" if holds_secret(scope[:MAX_TEXT]) else scope[:MAX_TEXT]
        found = self._origins.get((resource, scope))
        if found is None:
            labels = {"otel.scope": scope, "service.name": resource.service}
            told = {name: text for name, text in labels.items() if text}
            found = Origin(
                resource.sender,
                resource.service,
                scope,
                f"sender:{resource.sender}",
                tuple(told),
                tuple(told.values()),
            )
            if len(self._origins) < _MOST:
                self._origins[(resource, scope)] = found
        return found

    def count(self, origin: Origin, names: Sequence[str]) -> None:
        """Spans of these names were taken from ``origin``."""
        if not names:
            return
        now = time.monotonic_ns()
        place = origin.sender
        seen = self.seen.get(place)
        if seen is None:
            place = origin.sender if len(self.seen) < _MOST else _OTHERS
            seen = self.seen.setdefault(place, Seen(origin.service, first_ns=now))
        before, seen.spans = seen.spans, seen.spans + len(names)
        seen.last_ns = now
        # Those that are counted together may be thousands in one export: a look now and then.
        apart = place != _OTHERS or before.bit_length() != seen.spans.bit_length()
        if not seen.known and apart:
            seen.known = self._known(origin, names)
            for name in names[:_NAMES]:
                if name in seen.names or len(seen.names) < _NAMES:
                    seen.names[name] = seen.names.get(name, 0) + 1

    def _known(self, origin: Origin, names: Sequence[str]) -> bool:
        keep = self._keep
        return (
            _any(keep.scopes, origin.scope)
            or _any(keep.services, origin.service)
            or (bool(keep.spans) and any(_any(keep.spans, name) for name in set(names)))
        )


def _any(patterns: tuple[re.Pattern[str], ...], text: str) -> bool:
    return any(pattern.fullmatch(text) for pattern in patterns)


def _text(value: Any) -> str:
    """A string or an integer of a resource as text; empty for anything else."""
    kind = value.WhichOneof("value")
    if kind == "string_value":
        text = str(value.string_value)
        return "" if holds_secret(text) else text
    return str(value.int_value) if kind == "int_value" else ""
