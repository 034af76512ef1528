"""What ``import`` says of what it read."""

from __future__ import annotations

from collections.abc import Mapping

from latdiag.diagnosis import result
from latdiag.diagnosis.result import Result
from latdiag.ingest.importers.capture import Imported
from latdiag.model.text import shown

#: Reasons and senders that people see; ``--json`` has all.
_LINES = 12


def result_of(read: Imported, path: str) -> Result:
    """The result of an import into the run at ``path``."""
    return Result(verb="import", run=path, imported=_imported(read))


def _imported(read: Imported) -> result.Imported:
    return result.Imported(
        requests=read.requests.total(),
        scenarios=_names(read.requests),
        spans=read.spans,
        senders=_names(read.senders),
        scrapes=read.scrapes,
        samples=read.samples,
        skipped=_names(read.skipped),
        left_out=_names(read.left_out),
        ignored=tuple(read.ignored),
    )


def _names(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts by what a terminal or a program may be shown of their names."""
    found: dict[str, int] = {}
    for name, n in counts.items():
        found[shown(name)] = found.get(shown(name), 0) + n
    return found


def lines(read: Imported, path: str) -> list[str]:
    imported = _imported(read)
    scenarios = {name or "(no scenario)": n for name, n in imported.scenarios.items()}
    out = [f"requests  {imported.requests:,}{_listed(scenarios)}"]
    out.append(f"spans     {read.spans:,}{_listed(imported.senders)}")
    out.append(f"scrapes   {read.scrapes:,}, with {read.samples:,} samples of known families")
    for title, counts in (("skipped", imported.skipped), ("left out", imported.left_out)):
        for name, n in list(counts.items())[:_LINES]:
            out.append(f"{title:<9} {n:,} x {name}" if title == "skipped" else _other(n, name))
        if len(counts) > _LINES:
            out.append(f"{title:<9} ... and {len(counts) - _LINES} more reasons")
    if read.ignored:
        more = ", ..." if len(read.ignored) > _LINES else ""
        out.append(f"ignored   {', '.join(read.ignored[:_LINES])}{more}")
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
