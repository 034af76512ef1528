"""run.json by the types of a result. Others may have written it: what is of another type is not
there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from latdiag.diagnosis.result import StackFound, Target

_Value = TypeVar("_Value")


def section(header: Mapping[str, object], key: str) -> Mapping[str, object]:
    """An object inside of a document that others may have written; empty where there is none."""
    found = header.get(key)
    return found if isinstance(found, Mapping) else {}


def known(found: Mapping[str, object], key: str, kind: type[_Value]) -> _Value | None:
    """A value of such a document, if it is of its type."""
    value = found.get(key)
    return value if isinstance(value, kind) else None


def number(found: Mapping[str, object], key: str) -> float | None:
    value = found.get(key)
    return value if isinstance(value, int | float) else None


def arrivals_of(plan: Mapping[str, object]) -> str | None:
    """How requests were to arrive: closed, constant or poisson. Where older runs have a bare rate,
    it meant a Poisson process."""
    kind = known(plan, "arrivals", str)
    return "poisson" if kind and kind[0].isdigit() else kind


def target_of(header: Mapping[str, object]) -> Target:
    target = section(header, "target")
    url, model, dialect, peer = (
        known(target, key, str) for key in ("url", "model", "dialect", "peer")
    )
    captures = section(header, "imported").get("captures")
    names = (
        [str(each.get("name")) for each in captures if isinstance(each, Mapping)]
        if isinstance(captures, list)
        else []
    )
    key, behind = known(target, "api_key_env", str), known(section(header, "behind"), "url", str)
    return Target(url, model, dialect, peer, tuple(names), key, behind)


def stacks_of(header: Mapping[str, object]) -> tuple[StackFound, ...]:
    """Those that showed themselves before the load."""
    stacks = header.get("stacks")
    return tuple(
        StackFound(
            str(each["name"]), known(each, "grounds", str), known(each, "version", str), asked=True
        )
        for each in (stacks if isinstance(stacks, list) else ())
        if isinstance(each, Mapping) and "name" in each
    )
