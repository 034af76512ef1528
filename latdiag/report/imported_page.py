"""What ``import`` says of what it read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from latdiag.ingest.importers.capture import Imported
from latdiag.model.text import shown

#: Reasons and senders that people see; ``--json`` has all.
_LINES = 12


def document(said: Imported) -> dict[str, Any]:
    return {
        "requests": said.requests.total(),
        "scenarios": _names(said.requests),
        "spans": said.spans,
        "senders": _names(said.senders),
        "scrapes": said.scrapes,
        "samples": said.samples,
        "skipped": _names(said.skipped),
        "left_out": _names(said.left_out),
        "ignored": said.ignored,
    }


def _names(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts by what a terminal or a program may be shown of their names."""
    found: dict[str, int] = {}
    for name, n in counts.items():
        found[shown(name)] = found.get(shown(name), 0) + n
    return found


def lines(said: Imported, path: str) -> list[str]:
    told = document(said)
    scenarios = {name or "(no scenario)": n for name, n in told["scenarios"].items()}
    out = [f"requests  {told['requests']:,}{_listed(scenarios)}"]
    out.append(f"spans     {said.spans:,}{_listed(told['senders'])}")
    out.append(f"scrapes   {said.scrapes:,}, with {said.samples:,} samples of known families")
    for title, counts in (("skipped", told["skipped"]), ("left out", told["left_out"])):
        for name, n in list(counts.items())[:_LINES]:
            out.append(f"{title:<9} {n:,} x {name}" if title == "skipped" else _other(n, name))
        if len(counts) > _LINES:
            out.append(f"{title:<9} ... and {len(counts) - _LINES} more reasons")
    if said.ignored:
        more = ", ..." if len(said.ignored) > _LINES else ""
        out.append(f"ignored   {', '.join(said.ignored[:_LINES])}{more}")
    return [
        *out,
        "",
        f"run       {shown(path, 500)}",
        f"next      latdiag diagnose {shown(path, 500)}",
    ]


def _other(n: int, name: str) -> str:
    return f"left out  {n:,} {name} of other scenarios"


def _listed(counts: Mapping[str, int]) -> str:
    """`` : a 12, b 3`` of the first dozen."""
    if not counts:
        return ""
    first = [f"{name} {n:,}" for name, n in list(counts.items())[:_LINES]]
    more = [f"{len(counts) - _LINES} others"] if len(counts) > _LINES else []
    return ": " + ", ".join(first + more)
