"""The JSON files of a run: written compactly, read with suspicion."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping

#: A clock series of 4,096 samples is 200 KiB. As Python's objects JSON takes up to 30 times its
#: bytes, and that is bounded too: for one file, and for all writers of a run.
MAX_BYTES = 8 * 1024 * 1024
MAX_ALL_BYTES = 32 * 1024 * 1024
MAX_DEPTH = 64


def to_bytes(document: Mapping[str, object]) -> bytes:
    """``document`` as UTF-8 JSON. ValueError for NaN, infinities and what JSON has no word for."""
    text = json.dumps(dict(document), allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    return text.encode() + b"\n"


def from_bytes(data: bytes) -> dict[str, object]:
    """The object in ``data``. ValueError: not JSON, not an object, too deep, or not finite."""
    try:
        document = json.loads(data, parse_constant=_no_constant, parse_float=_finite)
    except RecursionError:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep") from None
    if not isinstance(document, dict):
        raise ValueError("it is not a JSON object")
    if _deeper_than(document, MAX_DEPTH):
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
    return document


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


def _deeper_than(document: object, depth: int) -> bool:
    """True if containers nest more than ``depth`` deep; level by level, not by recursion."""
    level: list[object] = [document]
    for _ in range(depth):
        level = [
            inner for outer in level for inner in _inside(outer) if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
