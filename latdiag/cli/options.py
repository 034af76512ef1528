"""Options that verbs share, and what turns their words into values."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from latdiag.model.errors import UsageFault
from latdiag.model.units import parse_duration

_Command = TypeVar("_Command", bound=Callable[..., Any])


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
#: As many lengths as the largest probe has requests, and more.
_DRAWS = 4096

_TARGET = (
    click.option("--model", help="Model to ask for; else the first of /v1/models."),
    click.option("--path", help="Path of the requests, e.g. /v1/completions."),
    click.option(
        "--api-key-env", metavar="NAME", help="Environment variable that holds the API key."
    ),
    click.option(
        "--header", "plain", multiple=True, metavar="'NAME: VALUE'", help="A header to send."
    ),
    click.option(
        "--header-env",
        multiple=True,
        metavar="'NAME: VARIABLE'",
        help="A header whose value is in an environment variable.",
    ),
    click.option("--insecure", is_flag=True, help="Do not verify the TLS certificate."),
    click.option(
        "--timeout",
        type=DURATION,
        default="120s",
        show_default=True,
        help="Limit for one whole request.",
    ),
    click.option(
        "--body-json", metavar="OBJECT", help="Fields to merge into every request's body."
    ),
)
_OUTPUT = (
    click.option(
        "--priority",
        type=click.Choice(["auto", "ordinary", "realtime"]),
        default="auto",
        show_default=True,
        help="Of the readers; auto: realtime if this machine is the target and you may.",
    ),
    click.option("--out", help="Where the run goes; default ./latdiag-runs/UTC-VERB-HOST.run."),
    click.option("--quiet", is_flag=True, help="No progress on stderr."),
    click.option("--json", "as_json", is_flag=True, help="The result as JSON on stdout."),
)


def applied(options: tuple[Any, ...]) -> Callable[[_Command], _Command]:
    """Options that several verbs share, as one decorator."""

    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


target_options = applied(_TARGET)
output_options = applied(_OUTPUT)


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


def lengths_in_turn(text: str | None, seed: int, stream: str) -> tuple[int, ...] | None:
    """Draws of a law of lengths (as ``load`` takes them), to be used in turn; None for none."""
    from latdiag.load.work.lengths import Lengths

    if text is None:
        return None
    law = Lengths.parse(text).seeded(seed, stream)
    return tuple(law.draw(index) for index in range(1 if law.kind == "fixed" else _DRAWS))


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
