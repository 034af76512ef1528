"""What turns the words of options into values."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from latdiag.cli.slips import is_variable
from latdiag.model.errors import UsageFault
from latdiag.model.secrets import conceal
from latdiag.model.units import parse_duration

if TYPE_CHECKING:
    from latdiag.load.look import Headers, Origin
    from latdiag.load.trust import Trust


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


#: How options that take a variable's name are written.
_FORMS = {
    "--api-key-env": "API_KEY",
    "--token-env": "TOKEN",
    "--prometheus-token-env": "TOKEN",
    "--header-env": "'NAME: VARIABLE'",
    "--metrics-header-env": "'NAME: VARIABLE'",
    "--export-header-env": "'NAME: VARIABLE'",
}

#: Where other clients look for a key, and the headers that bear one.
USUAL_KEY = "OPENAI_API_KEY"
_KEYS = ("authorization", "api-key", "x-api-key")

DURATION = Duration()
SIZE = Size()


def headers_of(
    api_key_env: str | None, plain: tuple[str, ...], header_env: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    """Header pairs; every value is concealed from now on. UsageFault for what is no header."""
    found: list[tuple[str, str]] = []
    if api_key_env is not None:
        found.append(("Authorization", f"Bearer {variable('--api-key-env', api_key_env)}"))
    for text in plain:
        name, colon, value = text.partition(":")
        if not colon or not value.strip():
            raise UsageFault("a --header has no value", "write it as 'NAME: VALUE'")
        found.append((_name(name), value.strip()))
    found += [header_from("--header-env", text) for text in header_env]
    for _, value in found:
        _check_value(value)
    return tuple(found)


def trust_of(
    insecure: bool, ca_file: str | None, cert_file: str | None, key_file: str | None
) -> Trust:
    """Whom to trust over TLS; UsageFault for files that are not what they should be."""
    from latdiag.load.trust import Trust

    if key_file is not None and cert_file is None:
        raise UsageFault("--client-key needs --client-cert", "give both")
    trust = Trust(not insecure, ca_file, cert_file, key_file)
    for option, alone in (
        ("--ca-file", Trust(ca_file=ca_file)),
        ("--client-cert", Trust(cert_file=cert_file, key_file=key_file)),
    ):
        if alone == Trust():
            continue
        try:
            alone.context()
        except OSError as fault:  # of which ssl's errors are one kind
            why = (
                fault.strerror if isinstance(fault, FileNotFoundError | PermissionError) else None
            )
            raise UsageFault(
                f"the file of {option} cannot be used: {why or 'it is not what it should be'}",
                "give a PEM file"
                + (
                    ", with its key, or that in --client-key, without a password"
                    if option == "--client-cert"
                    else " of certificates"
                ),
            ) from None
    return trust


def usual_key(url: str, headers: Sequence[str]) -> str | None:
    """The variable that other clients take the API key from, where it is set and the key may go
    to ``url``: over https, or to this machine; and where ``headers`` bear no other."""
    from urllib.parse import urlsplit

    from latdiag.model.text import is_loopback

    if not os.environ.get(USUAL_KEY, "").strip():
        return None
    if any(text.partition(":")[0].strip().lower() in _KEYS for text in headers):
        return None
    parts = urlsplit(url)
    safe = parts.scheme == "https" or is_loopback(parts.hostname or "")
    return USUAL_KEY if safe else None


def header_from(option: str, text: str) -> tuple[str, str]:
    """The header that ``NAME: VARIABLE`` of ``option`` means. UsageFault for what is none."""
    name, _, named = text.partition(":")
    value = variable(option, named.strip())
    _check_value(value)
    return _name(name), value


def metrics_headers(urls: Sequence[str], texts: Sequence[str]) -> dict[Origin, Headers]:
    """What goes out with scrapes of each origin, by ``--metrics-header-env``. UsageFault where it
    is not clear to whom a header goes: it may be a key, and not every server's."""
    if not texts:
        return {}
    from latdiag.ingest.prometheus.scrape import metrics_url
    from latdiag.load.look import origin_of

    option = "--metrics-header-env"
    origins = {origin_of(metrics_url(url)) for url in urls}
    if not origins:
        raise UsageFault(f"{option} needs --metrics, and none is given", "give --metrics URL")
    found: dict[Origin, list[tuple[str, str]]] = {}
    for text in texts:
        place, _, rest = text.strip().partition(" ") if "://" in text else ("", "", text)
        if not place and len(origins) > 1:
            raise UsageFault(
                f"a {option} does not say to which of {len(origins)} servers it goes",
                f"name the server in front, each in its own: {option}"
                " 'http://HOST:PORT NAME: VARIABLE'",
            )
        try:
            origin = origin_of(metrics_url(place)) if place else next(iter(origins))
        except ValueError:
            origin = ("", None, None)
        if origin not in origins:
            raise UsageFault(
                f"a {option} names a server that no --metrics has",
                "write scheme, host and port as in --metrics",
            )
        found.setdefault(origin, []).append(header_from(option, rest))
    return {origin: tuple(headers) for origin, headers in found.items()}


def _check_value(value: str) -> None:
    if not value.isprintable() or not value.isascii():
        raise UsageFault(
            "the value of a header is not printable ASCII",
            "check for extra characters pasted with it",
        )


def _name(text: str) -> str:
    name = text.strip()
    if not name or not all(c.isalnum() or c in "-_" for c in name) or not name.isascii():
        raise UsageFault("a header was not written as NAME: VALUE", "quote it for the shell")
    if name.lower() in ("content-length", "transfer-encoding", "host", "traceparent"):
        raise UsageFault(f"the header {name} is latdiag's own", "leave it out")
    return name


def variable(option: str, name: str) -> str:
    """The value of the environment variable that ``option`` names, stripped; concealed from now
    on. UsageFault where there is none: what was given may be the secret itself, and is repeated
    only where it looks like a name."""
    value = os.environ.get(name, "").strip() if name and "\0" not in name else ""
    if value:
        conceal(value)
        return value
    if is_variable(name):
        raise UsageFault(f"the environment variable {name} is not set", "export it first")
    raise UsageFault(
        f"{option} needs the name of an environment variable, and no variable has the name that it"
        " was given",
        f"export the secret first, then give the variable's name: {option} {_FORMS[option]}",
    )
