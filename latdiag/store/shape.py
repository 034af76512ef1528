"""Declared shapes of JSON documents, and the check of what others may have written.

A shape is a type: a frozen dataclass (an object), ``list[X]``, ``tuple[X, Y]`` (a list of that
length), ``dict[str, X]``, ``X | None``, ``Literal``, or a plain ``str``, ``int``, ``float``,
``bool``. An ``int`` is one of 64 bits; ``Count`` and ``Instant`` are never negative.
"""

from __future__ import annotations

import functools
import types
import typing
from dataclasses import Field, fields, is_dataclass
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from latdiag.model.text import shown

#: Characters of a text, entries of a list, keys of an object that no shape declares one by one.
MAX_TEXT = 64 * 1024
MAX_ITEMS = 100_000
MAX_KEYS = 10_000
_LARGEST = 2**63 - 1


class Range(NamedTuple):
    """The numbers that a field may hold, both ends included."""

    least: int
    most: int


#: How many; a duration in ns.
Count = Annotated[int, Range(0, _LARGEST)]
#: ns of a monotonic or real clock.
Instant = Annotated[int, Range(0, 2**62)]
#: A number of seconds, a rate, a mean, a share: never negative.
Amount = Annotated[float, Range(0, 10**18)]

_NAMES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


class Unlike(ValueError):
    """A document that is not of its shape; the text names the field and what belongs there."""


def accepted(shape: Any, value: object, at: str = "") -> Any:
    """``value`` without the keys that ``shape`` does not declare (a newer writer may add some).

    ``at``: the name of the field. Raises Unlike.
    """
    origin = get_origin(shape)
    if origin is Annotated:
        bare, allowed = get_args(shape)
        return _within(allowed, accepted(bare, value, at), at)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        (bare,) = (each for each in get_args(shape) if each is not type(None))
        return accepted(bare, value, at)
    if origin is Literal:
        if not isinstance(value, str) or value not in get_args(shape):
            raise Unlike(f"{at} is {_seen(value)}, and not {_either(get_args(shape))}")
        return value
    if is_dataclass(shape):
        return _object(shape, value, at)
    if origin in (list, tuple):
        return _list(get_args(shape), origin is tuple, value, at)
    if origin is dict:
        return _mapping(get_args(shape)[1], value, at)
    return _plain(shape, value, at)


def _plain(shape: type, value: object, at: str) -> object:
    """A text, a number or a flag."""
    if shape is float and type(value) is int:
        return _within(Range(-_LARGEST, _LARGEST), value, at)
    if type(value) is not shape:
        raise Unlike(f"{at} is {_seen(value)}, and not {_NAMES[shape]}")
    if isinstance(value, str) and len(value) > MAX_TEXT:
        raise Unlike(f"{at} is a text of {len(value)} characters, and at most {MAX_TEXT} are read")
    if type(value) is int:
        return _within(Range(-_LARGEST - 1, _LARGEST), value, at)
    return value


def _within(allowed: Range, value: Any, at: str) -> Any:
    if not allowed.least <= value <= allowed.most:
        few = f"{value:.6g}" if isinstance(value, float) else shown(value, 24)
        raise Unlike(f"{at} is {few}, and not from {allowed.least} to {allowed.most}")
    return value


def _object(shape: Any, value: object, at: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise Unlike(f"{at or 'it'} is {_seen(value)}, and not an object")
    found: dict[str, object] = {}
    for of, kind in _declared(shape):
        name = f"{at}.{of.name}" if at else of.name
        if of.name in value:
            found[of.name] = accepted(kind, value[of.name], name)
        elif "optional" not in of.metadata:
            raise Unlike(f"{name} is missing")
    return found


def _mapping(inner: Any, value: object, at: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise Unlike(f"{at} is {_seen(value)}, and not an object")
    if len(value) > MAX_KEYS:
        raise Unlike(f"{at} has {len(value)} keys, and at most {MAX_KEYS} are read")
    for key in value:
        _plain(str, key, f"a key of {at}")
    return {key: accepted(inner, each, f"{at}.{shown(key, 40)}") for key, each in value.items()}


def _list(inner: tuple[Any, ...], fixed: bool, value: object, at: str) -> list[object]:
    if not isinstance(value, list):
        raise Unlike(f"{at} is {_seen(value)}, and not a list")
    if fixed and len(value) != len(inner):
        raise Unlike(f"{at} has {len(value)} entries, and not {len(inner)}")
    if len(value) > MAX_ITEMS:
        raise Unlike(f"{at} has {len(value)} entries, and at most {MAX_ITEMS} are read")
    kinds = inner if fixed else inner * len(value)
    pairs = enumerate(zip(kinds, value, strict=True))
    return [accepted(kind, each, f"{at}[{place}]") for place, (kind, each) in pairs]


@functools.cache
def _declared(shape: Any) -> list[tuple[Field[Any], Any]]:
    hints = typing.get_type_hints(shape, include_extras=True)
    return [(of, hints[of.name]) for of in fields(shape)]


def _seen(value: object) -> str:
    """A value in few words."""
    if value is None:
        return "null"
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the text {shown(value, 40)!r}"
    return f"the number {shown(value, 24)}"


def _either(words: tuple[str, ...]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
