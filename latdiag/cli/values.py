"""What turns the words of options into values."""

from __future__ import annotations

import os
import re
from typing import Any

import click

from latdiag.model.errors import UsageFault
from latdiag.model.units import parse_duration


class Duration(click.ParamType[int]):
    """``30s``, ``2m``, ``250ms``: nanoseconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return parse_duration(value)
        except UsageFault as fault:
            self.fail(f"{fault.text}; {fault.remedy}", param, ctx)


_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kMGT]?)i?B?")
_SCALE = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


class Size(click.ParamType[int]):
    """``500MB``, ``2GB``: bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = _SIZE.fullmatch(value.strip())
        if not found or not float(found[1]):
            self.fail(f"{value!r} is not a size; write for example 500MB or 2GB", param, ctx)
        return round(float(found[1]) * _SCALE[found[2]])


DURATION = Duration()
SIZE = Size()


def headers_of(
    api_key_env: str | None, plain: tuple[str, ...], header_env: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    """Header pairs; every value is concealed from now on. UsageFault for what is no header."""
    found: list[tuple[str, str]] = []
    if api_key_env is not None:
        found.append(("Authorization", f"Bearer {_variable(api_key_env)}"))
    for text in plain:
        name, colon, value = text.partition(":")
        if not colon or not value.strip():
            raise UsageFault("a --header has no value", "write it as 'NAME: VALUE'")
        found.append((_name(name), value.strip()))
    for text in header_env:
        name, _, variable = text.partition(":")
        found.append((_name(name), _variable(variable.strip())))
    for name, value in found:
        if not value.isprintable() or not value.isascii():
            raise UsageFault(f"the value of header {name} is not printable ASCII", "mend it")
    return tuple(found)


def _name(text: str) -> str:
    name = text.strip()
    if not name or not all(c.isalnum() or c in "-_" for c in name) or not name.isascii():
        raise UsageFault("a header was not written as NAME: VALUE", "quote it for the shell")
    if name.lower() in ("content-length", "transfer-encoding", "host", "traceparent"):
        raise UsageFault(f"the header {name} is latdiag's own", "leave it out")
    return name


def _variable(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise UsageFault(f"the environment variable {name} is not set", "export it first")
    return value.strip()
