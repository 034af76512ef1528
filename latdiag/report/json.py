"""A result as JSON: one document, stable order, no NaN, nothing that a terminal would act on.

The result is the pivot: ``console.render`` shows the same dict. Its keys are those of
``schema.json`` in this package (``latdiag explain json-schema``).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from latdiag.model.components import COMPONENTS
from latdiag.model.metrics import METRICS

SCHEMA_VERSION = 1

#: Order of the keys at the top; what is not named here follows in the order it came.
_ORDER = (
    "schema", "error", "verb", "run", "valid", "invalid_because", "target", "stacks", "load",
    "self_audit", "metrics", "split", "slo", "errors", "breakdown", "leaves", "by", "verdict",
    "learned", "claims", "evidence", "imported", "collected", "compared", "caveats",
)  # fmt: skip
_METRIC_ORDER = tuple(metric.name for metric in METRICS)
#: Keys below which components stand in time order.
_BREAKDOWNS = ("breakdown", "by", "leaves", "claims")


def blank(verb: str) -> dict[str, Any]:
    """A result of ``verb`` with every key that the schema requires and nothing known."""
    return {
        "schema": SCHEMA_VERSION,
        "verb": verb,
        "run": None,
        "valid": True,
        "invalid_because": [],
        "target": {"url": None, "model": None},
        "stacks": [],
        "load": {"requests": 0, "ok": 0, "failed": {}},
        "self_audit": {"stamp_source": None, "readings": []},
        "metrics": {},
        "split": {"ttft": None},
        "slo": [],
        "errors": [],
        "breakdown": {},
        "leaves": {},
        "by": {},
        "verdict": None,
        "learned": None,
        "claims": {},
        "caveats": [],
    }


def failure(code: str, text: str, remedy: str, run: str | None) -> dict[str, Any]:
    """What stdout holds with ``--json`` when there is no result."""
    error = {"code": code, "text": text, "remedy": remedy}
    return {"schema": SCHEMA_VERSION, "error": error, "run": run}


def dump(result: Mapping[str, Any]) -> str:
    """The document, without a closing newline.

    Text is ASCII (everything else is escaped), numbers are finite: NaN and infinities become
    null, and an estimate that loses its value so says that it is refused.
    """
    plain = _plain(result)
    ordered = _first(plain, _ORDER)
    if isinstance(ordered.get("metrics"), dict):
        ordered["metrics"] = _first(ordered["metrics"], _METRIC_ORDER)
    for key in _BREAKDOWNS:
        if key in ordered:
            ordered[key] = _in_time_order(ordered[key])
    return json.dumps(ordered, indent=2, allow_nan=False, ensure_ascii=True)


def schema_text() -> str:
    """The JSON Schema (draft 2020-12) of everything that ``--json`` prints."""
    return (Path(__file__).parent / "schema.json").read_text(encoding="utf-8")


def _first(mapping: Mapping[str, Any], order: Sequence[str]) -> dict[str, Any]:
    """``mapping`` with the keys of ``order`` in front."""
    front = {key: mapping[key] for key in order if key in mapping}
    return front | {key: value for key, value in mapping.items() if key not in front}


def _in_time_order(node: Any) -> Any:
    """Components and leaves (``queue``, ``queue.admission``) in time order, other keys first."""
    if not isinstance(node, dict):
        return node
    place = {name: index for index, name in enumerate(COMPONENTS)}
    keys = sorted(node, key=lambda key: place.get(key.partition(".")[0], -1))
    return {key: _in_time_order(node[key]) for key in keys}


def _plain(value: Any) -> Any:
    """``value`` in the types of JSON; numpy scalars and arrays by their own words for it."""
    if isinstance(value, Mapping):
        return _plain_mapping(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    raise TypeError(f"a result holds a {type(value).__name__}, which JSON has no word for")


def _plain_mapping(mapping: Mapping[Any, Any]) -> dict[str, Any]:
    plain = {str(key): _plain(inner) for key, inner in mapping.items()}
    lost = mapping.get("value") is not None and plain["value"] is None
    if lost and not plain.get("refused"):
        plain["refused"] = "not a finite number"
    return plain
