"""Which stacks speak here, from what was seen of them. Pure: signs in, findings out.

A stack is found by one certain sign, or by two different vague ones; never by one vague sign
(half of all servers say ``server: uvicorn``). Several stacks may be there at once: a gateway and
the engine behind it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from latdiag.stacks.catalogue import METRIC_KINDS, families, selector, stacks
from latdiag.stacks.families import SUFFIXES, known_name
from latdiag.stacks.signal import Signal, Stack, Switch

#: From the client to the GPU.
LAYERS = ("gateway", "engine")

_TEXT = 200  # longest sign; also bounds what a pattern is matched against
_MODELS = 1000
_NAMES = 20_000
_PATHS = 500
_DEPTH = 6
_NAMED = re.compile(
    r"^(?:# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]{0,198}) (\w+)|([a-zA-Z_:][a-zA-Z0-9_:]{0,198})(?=[{ ]))",
    re.MULTILINE,
)
#: Fields of a reply whose text is a sign; every other text may be somebody's answer.
_TOLD = frozenset({"system_fingerprint", "model", "object"})


@dataclass(frozen=True, slots=True)
class Signs:
    """What was seen, each a set of short texts.

    ``models``: owned_by of the listed models. ``headers``: ``name: value``, names in lower case.
    ``metrics``: families. ``scopes``, ``services``, ``spans``: of spans. ``replies``: JSON paths
    (``nvext.timing.ttft_ms``) and, of a few fields, ``path: text``. ``versions``: what
    ``/version`` says. ``looked``: which of these anybody looked for (``metrics``, ``spans``,
    ``replies``, ``headers``): what was not looked for is not known to be off.
    """

    models: frozenset[str] = frozenset()
    headers: frozenset[str] = frozenset()
    metrics: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()
    services: frozenset[str] = frozenset()
    spans: frozenset[str] = frozenset()
    replies: frozenset[str] = frozenset()
    versions: frozenset[str] = frozenset()
    looked: frozenset[str] = frozenset()

    def of(self, where: str) -> frozenset[str]:
        """The texts that a mark of this ``where`` is matched against."""
        return {
            "models": self.models,
            "header": self.headers,
            "metric": self.metrics,
            "scope": self.scopes,
            "service": self.services,
            "span": self.spans,
            "reply": self.replies,
            "version": self.versions,
        }[where]


@dataclass(frozen=True, slots=True)
class Found:
    """A stack that is there. ``because``: the signs, for people (texts from outside inside).
    ``certain`` is false where only vague signs speak for it."""

    stack: Stack
    version: str | None
    certain: bool
    because: tuple[str, ...]


def detect(signs: Signs, among: Iterable[Stack] | None = None) -> list[Found]:
    """The stacks that ``signs`` speak for: gateways before engines, then by name."""
    found = [
        one
        for each in (stacks() if among is None else among)
        if (one := _judge(each, signs)) is not None
    ]
    order = {layer: place for place, layer in enumerate(LAYERS)}
    return sorted(found, key=lambda one: (order.get(one.stack.layer, 99), one.stack.name))


def _judge(stack: Stack, signs: Signs) -> Found | None:
    certain, vague = 0, 0
    because: list[str] = []
    version: str | None = None
    for mark in stack.marks:
        pattern = re.compile(mark.pattern)
        match = next(
            (m for text in sorted(signs.of(mark.where)) if (m := pattern.fullmatch(text))), None
        )
        if match is None:
            continue
        version = version or match.groupdict().get("version")
        if mark.where == "version":
            continue  # which version it is, if it is there: no sign that it is
        certain, vague = certain + mark.certain, vague + (not mark.certain)
        because.append(f"{_CALLED[mark.where]} {match[0]}")
    if not certain and vague < 2:
        return None
    return Found(stack, version, bool(certain), tuple(because))


_CALLED = {
    "models": "model owned by",
    "header": "header",
    "metric": "metric",
    "scope": "span scope",
    "service": "service",
    "span": "span",
    "reply": "reply field",
}


# ------------------------------------------------------------------ what is on


def state(switch: Switch, stack: Stack, signs: Signs) -> str:
    """``on`` if one of the switch's signals was seen; ``off`` if it was looked for in vain;
    ``unknown`` where nobody looked."""
    named = [signal for signal in stack.signals if signal.name in switch.signals]
    if any(_seen(signal, signs) for signal in named):
        return "on"
    return "off" if all(_channel(signal) in signs.looked for signal in named) else "unknown"


def tells(stack: Stack, leaves: frozenset[str]) -> list[Switch]:
    """The switches whose signals would measure any of ``leaves`` and nothing much wider: those
    with a signal inside one component first."""
    ranked = []
    for switch in stack.switches:
        widths = [
            len({leaf.partition(".")[0] for leaf in signal.covers})
            for signal in stack.signals
            if signal.name in switch.signals and signal.covers & leaves
        ]
        if widths:
            ranked.append((min(widths), stack.switches.index(switch), switch))
    return [switch for _, _, switch in sorted(ranked, key=lambda each: each[:2])]


def _channel(signal: Signal) -> str:
    if signal.kind in METRIC_KINDS:
        return "metrics"
    return {"reply": "replies", "header": "headers"}.get(signal.kind, "spans")


def _seen(signal: Signal, signs: Signs) -> bool:
    if signal.kind in METRIC_KINDS:
        return selector(signal.foreign)[0] in signs.metrics
    if signal.kind == "reply":
        return signal.foreign in signs.replies
    if signal.kind == "header":
        return any(text.startswith(f"{signal.foreign}: ") for text in signs.headers)
    if signal.kind == "span":
        same = str.startswith if signal.prefix else str.__eq__
        return any(same(name, signal.foreign) for name in signs.spans)
    return False  # an attribute is on where its span is


# ------------------------------------------------------------------ documents into signs


def of_models(document: object) -> frozenset[str]:
    """``owned_by`` of the models that ``/v1/models`` lists."""
    listed = document.get("data") if isinstance(document, Mapping) else None
    owners = (
        entry.get("owned_by")
        for entry in (listed[:_MODELS] if isinstance(listed, list) else [])
        if isinstance(entry, Mapping)
    )
    return frozenset(owner for owner in owners if isinstance(owner, str) and len(owner) <= _TEXT)


def of_headers(pairs: Iterable[tuple[str, str]]) -> frozenset[str]:
    """``name: value`` of reply headers."""
    return frozenset(f"{name.lower()}: {value}"[:_TEXT] for name, value in pairs)


def of_reply(document: object) -> frozenset[str]:
    """The JSON paths in a body, lists by their elements' paths; at most 500, six levels deep."""
    found: set[str] = set()
    for path, value in _paths(document, "", _DEPTH):
        if len(found) >= _PATHS:
            break
        found.add(path)
        if path in _TOLD and isinstance(value, str):
            found.add(f"{path}: {value}"[:_TEXT])
    return frozenset(found)


def of_exposition(text: str) -> frozenset[str]:
    """The metric families of an exposition, as it and as the signals name them.

    OpenMetrics leaves ``_total`` out of a counter's declaration, Prometheus' own format does not:
    both names are given then. Who passes metrics on may declare none of them.
    """
    found: set[str] = set()
    of_samples: set[str] = set()
    for declared, kind, name in _NAMED.findall(text):
        if name:
            of_samples.add(name)
            continue
        own = known_name(declared, families()) or declared
        found.add(own)
        if kind == "counter" and not own.endswith("_total"):
            found.add(f"{own}_total")
    for name in sorted(of_samples | found)[:_NAMES]:
        known = known_name(name, families())
        if known is not None:
            part = next((s for s in SUFFIXES if known.endswith(s)), "")
            found.add(known if known in families() else known.removesuffix(part))
    return frozenset(found)


def of_version(document: object) -> frozenset[str]:
    """What ``/version`` says, if it says one short text under ``version``."""
    said: Any = document.get("version") if isinstance(document, Mapping) else None
    return frozenset({said} if isinstance(said, str) and 0 < len(said) <= 60 else ())


def _paths(value: object, path: str, depth: int) -> Iterator[tuple[str, object]]:
    if not depth:
        return
    if isinstance(value, list):
        for inner in value[:8]:
            yield from _paths(inner, path, depth - 1)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            deeper = f"{path}.{key}" if path else str(key)
            if len(deeper) <= _TEXT:
                yield deeper, inner
                yield from _paths(inner, deeper, depth - 1)
