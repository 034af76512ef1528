"""Dataclasses as JSON: a field is a key, and the fields stand in the order of the keys.

A class whose shape in JSON is another has a method ``to_json``, which gives its keys; nothing else
in latdiag writes keys of the schema.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import Field, fields, is_dataclass
from pathlib import PurePath
from typing import Any, Protocol

#: ``field(default=..., metadata=OPTIONAL)``: the key is left out where the value is the default.
OPTIONAL = {"optional": True}


class Document(Protocol):
    """What writes its own keys."""

    def to_json(self) -> Mapping[str, object]: ...


def document(value: object) -> Any:
    """``value`` in the types of JSON; numpy scalars and arrays by their own words for it.

    Numbers are finite: NaN and infinities become None, and an estimate that loses its value so
    says that it is refused. TypeError for what JSON has no word for.
    """
    if hasattr(value, "to_json"):
        return document(value.to_json())
    if is_dataclass(value) and not isinstance(value, type):
        return _keys({f.name: getattr(value, f.name) for f in fields(value) if _there(value, f)})
    if isinstance(value, Mapping):
        return _keys(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, list | tuple):
        return [document(inner) for inner in value]
    if hasattr(value, "tolist"):
        return document(value.tolist())
    raise TypeError(f"a result holds a {type(value).__name__}, which JSON has no word for")


def _there(value: object, of: Field[Any]) -> bool:
    return "optional" not in of.metadata or getattr(value, of.name) != of.default


def _keys(mapping: Mapping[Any, object]) -> dict[str, object]:
    plain = {str(key): document(inner) for key, inner in mapping.items()}
    lost = mapping.get("value") is not None and plain["value"] is None
    if lost and not plain.get("refused"):
        plain["refused"] = "not a finite number"
    return plain
