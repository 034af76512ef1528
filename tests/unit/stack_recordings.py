"""Recordings of real stacks, read with the standard library alone: what was really said."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

CAPTURES = Path(__file__).parents[1] / "captures"

#: A larger file is somebody's whole run; the cuts beside it hold every kind of line.
_LARGEST = 64_000

_SAMPLE = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? ([^ ]+)$")
_LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Span:
    trace: str
    span: str
    parent: str
    name: str
    scope: str
    service: str
    duration_ns: int
    attributes: dict[str, Any]


@dataclass(slots=True)
class Exposition:
    """A scrape. ``role`` is the server's, from the name of the file."""

    path: Path
    role: str
    kinds: dict[str, str] = field(default_factory=dict)
    samples: list[tuple[str, dict[str, str], float]] = field(default_factory=list)

    def sums(self, family: str, labels: dict[str, str]) -> tuple[float, float]:
        """(sum, count) of a histogram over all series with these labels."""
        return self.total(f"{family}_sum", labels), self.total(f"{family}_count", labels)

    def total(self, name: str, labels: dict[str, str]) -> float:
        return sum(
            v for n, have, v in self.samples if n == name and labels.items() <= have.items()
        )

    def has(self, name: str, labels: dict[str, str]) -> bool:
        return any(n == name and labels.items() <= have.items() for n, have, _ in self.samples)


@dataclass(slots=True)
class Recording:
    """All that one folder holds."""

    spans: list[Span] = field(default_factory=list)
    expositions: list[Exposition] = field(default_factory=list)
    replies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[tuple[str, str]] = field(default_factory=list)
    models: list[Any] = field(default_factory=list)
    versions: list[Any] = field(default_factory=list)


@cache
def recording(folder: str) -> Recording:
    found = Recording()
    for path in sorted((CAPTURES / folder).rglob("*.gz")):
        if path.stat().st_size > _LARGEST:
            continue
        text = gzip.decompress(path.read_bytes()).decode("utf-8", "replace")
        name = path.name
        if "otlp" in name:
            found.spans += _spans(text)
        elif "metrics" in name or "worker" in name or ".prom" in name:
            found.expositions.append(_exposition(path, text))
        elif ".headers" in name:
            found.headers += _headers(text)
        elif "models" in name:
            found.models.append(json.loads(text))
        elif "version" in name:
            found.versions.append(json.loads(text))
        elif ".sse" in name:
            found.replies += _events(text)
        elif "nonstream" in name or "generate" in name:
            found.replies += [json.loads(line) for line in text.splitlines() if line.strip()]
    return found


def _spans(text: str) -> Iterator[Span]:
    try:
        documents = [json.loads(text)]
    except ValueError:
        documents = [json.loads(line) for line in text.splitlines()]
    for document in documents:
        for resource in document.get("body", document).get("resourceSpans", []):
            service = str(_attributes(resource.get("resource", {})).get("service.name", ""))
            for scope in resource["scopeSpans"]:
                scope_name = scope.get("scope", {}).get("name", "")
                yield from (_span(raw, scope_name, service) for raw in scope["spans"])


def _span(raw: dict[str, Any], scope: str, service: str) -> Span:
    return Span(
        raw["traceId"],
        raw["spanId"],
        raw.get("parentSpanId", ""),
        raw["name"],
        scope,
        service,
        int(raw["endTimeUnixNano"]) - int(raw["startTimeUnixNano"]),
        _attributes(raw),
    )


def _attributes(bearer: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for entry in bearer.get("attributes", []):
        kind, value = next(iter(entry["value"].items()))
        found[entry["key"]] = int(value) if kind == "intValue" else value
    return found


def _exposition(path: Path, text: str) -> Exposition:
    role = next((r for r in ("prefill", "decode") if f".{r}." in path.name), "unified")
    found = Exposition(path, role)
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")[:4]
            found.kinds[name] = kind
        elif match := _SAMPLE.fullmatch(line):
            labels = dict(_LABEL.findall(match[2] or ""))
            found.samples.append((match[1], labels, float(match[3])))
    return found


def _headers(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines()[1:]:
        name, colon, value = line.partition(":")
        if colon:
            yield name.lower(), value.strip()


def _events(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        if line.startswith("data:") and "{" in line:
            yield json.loads(line[5:])


def at_path(document: Any, path: str) -> Any:
    """The value at ``a.b.c``; None where there is none."""
    for key in path.split("."):
        document = document.get(key) if isinstance(document, dict) else None
    return document
