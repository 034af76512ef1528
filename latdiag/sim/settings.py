"""The constants of a demo as a user writes them: ``NAME=VALUE``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from difflib import get_close_matches
from typing import Any

from latdiag.model.errors import UsageFault
from latdiag.sim import params
from latdiag.sim.params import Params

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def constants(fault: str, seed: int, draw: bool, changes: Iterable[str]) -> Params:
    """The fault's constants as the options want them. UsageFault for what cannot be."""
    if fault not in params.FAULTS:
        near = get_close_matches(fault, params.FAULTS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        text = f"there is no fault {fault!r}.{hint}"
        raise UsageFault(text, f"latdiag demo {near[0] if near else 'healthy'}")
    found = params.draw(fault, seed) if draw else params.FAULTS[fault]
    try:
        return replace(found, **dict(_change(text, found) for text in changes))
    except ValueError as exc:
        raise UsageFault(f"--set: {exc}", "latdiag demo --help") from exc


def _change(text: str, known: Params) -> tuple[str, Any]:
    """NAME=VALUE as a field of Params and its value. UsageFault where it is none."""
    name, equals, value = text.partition("=")
    kinds = {field.name: str(field.type) for field in fields(known)}
    if not equals:
        raise UsageFault(f"--set {text!r} is not NAME=VALUE", "for example --set max_seqs=4")
    if name not in kinds:
        near = get_close_matches(name, kinds, n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise UsageFault(
            f"--set: there is no constant {name!r}. {hint}There are {', '.join(kinds)}",
            f"--set {near[0] if near else 'max_seqs'}=VALUE",
        )
    try:
        return name, _READ[kinds[name]](value.strip())
    except ValueError:
        text = f"--set {name}: {value!r} is not {_WANTED[kinds[name]]}"
        raise UsageFault(text, f"it is {getattr(known, name)} now") from None


def _switch(text: str) -> bool:
    if text.lower() not in (*_TRUE, *_FALSE):
        raise ValueError
    return text.lower() in _TRUE


#: By the type of a field: how its value is read, and what it should have been.
_READ: dict[str, Callable[[str], Any]] = {
    "float": float,
    "int": int,
    "bool": _switch,
    "str": str,
    "int | None": lambda text: None if text == "none" else int(text),
    "frozenset[str]": lambda text: frozenset(filter(None, text.split(","))),
}
_WANTED = {
    "float": "a number",
    "int": "a whole number",
    "bool": "true or false",
    "int | None": "a whole number or none",
}
