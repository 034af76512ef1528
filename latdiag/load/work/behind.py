"""A target and the server behind it: that they are two, and are asked the same."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import urlsplit

from latdiag.load.dialects import Dialect
from latdiag.load.work.place import locate
from latdiag.load.work.preflight import Found
from latdiag.load.work.prepare import Prepared
from latdiag.model.errors import UsageFault
from latdiag.model.text import shown, without_credentials

#: One machine by several names.
_HERE = frozenset({"localhost", "127.0.0.1", "::1"})
#: The newer name of a field: where one of two servers insists on it, both get it.
_NEWER = "max_completion_tokens"


def check_apart(url: str, behind: str, path: str | None) -> None:
    """UsageFault for one endpoint named twice, and for two that speak different dialects."""
    _, through, spoken = locate(url, path)
    _, direct, other = locate(behind, path)
    if place_of(through) == place_of(direct):
        raise UsageFault(
            f"--behind names the target itself ({shown(without_credentials(direct), 80)})",
            "give the URL of the server that the gateway passes requests on to",
        )
    check_dialects("the target", spoken, "the server behind it", other)


def check_dialects(first: str, spoken: Dialect, second: str, other: Dialect) -> None:
    """UsageFault where two that are to be compared are asked by unlike paths."""
    if spoken.name != other.name:
        raise UsageFault(
            f"{first} is asked by {spoken.path}, and {second} by {other.path}",
            "write both URLs with the same path, or name one for both with --path",
        )


def place_of(url: str) -> tuple[str, int, str, str]:
    """What makes two URLs one endpoint."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return "localhost" if host in _HERE else host, port, parts.path, parts.query


def both_take(ours: Found, theirs: Found) -> frozenset[str]:
    """The fields that both of two servers take."""
    return (ours.extras & theirs.extras) | ((ours.extras | theirs.extras) & {_NEWER})


def alike(through: Prepared, behind: Prepared) -> tuple[Prepared, Prepared]:
    """Both, with bodies that are made alike for either. UsageFault for two models."""
    ours, theirs = through.found, behind.found
    if ours.model != theirs.model:
        raise UsageFault(
            f"the target serves {shown(ours.model, 60)!r}, and the server behind it"
            f" {shown(theirs.model, 60)!r}",
            "name a model that both serve with --model",
        )
    extras = both_take(ours, theirs)
    context = [n for n in (ours.max_model_len, theirs.max_model_len) if n is not None]
    workload = replace(behind.workload, extras=extras)
    return (
        replace(through, workload=workload),
        replace(
            behind,
            workload=workload,
            found=replace(theirs, max_model_len=min(context, default=None)),
        ),
    )
