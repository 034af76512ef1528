"""``latdiag import``: what others recorded becomes a run."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from latdiag import __version__
from latdiag.cli.outcome import concealed
from latdiag.model.text import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from latdiag.diagnosis import result
    from latdiag.ingest.importers.capture import Capture, Imported
    from latdiag.store.writer import RunWriter

#: Reasons and senders that people are told; ``--json`` has all.
_LINES = 12


@click.command(name="import", context_settings={"max_content_width": 79})
@click.argument("folders", metavar="FOLDER..", nargs=-1, required=True)
@click.option("--scenario", "scenarios", multiple=True, metavar="NAME", help="Take only this one.")
@click.option("--out", help="Where the run goes; default ./latdiag-runs/UTC-import-HOST.run.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@click.option("--json", "as_json", is_flag=True, help="What was read as JSON on stdout.")
def import_(
    folders: tuple[str, ...],
    scenarios: tuple[str, ...],
    out: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Make a run of the capture in FOLDER, to be diagnosed like one of your own.

    FOLDER holds any of: client.jsonl (a line per request), spans.otlp.jsonl (OTLP/JSON, a line
    per export) and metrics/SCENARIO.ROLE.before.prom with its .after.prom; each may be gzipped.

    \b
    latdiag import ./capture
    latdiag import ./capture --scenario c64 --out c64.run
    """
    from latdiag.ingest.importers import capture
    from latdiag.ingest.otlp.keep import Keep
    from latdiag.stacks import catalogue
    from latdiag.store.writer import default_run_path

    found = capture.find(folders)
    path = out or default_run_path("import", datetime.now(UTC))
    if not quiet:
        names = ", ".join(shown(each.name, 60) for each in found[:_LINES])
        click.echo(f"reading {names}", err=True)
    said = capture.read(
        found,
        lambda: _writer(path, found, scenarios),
        Keep.of(catalogue.stacks()),
        catalogue.families(),
        frozenset(scenarios),
    )
    if as_json:
        from latdiag.diagnosis.result import Result
        from latdiag.report.json import dump

        click.echo(dump(Result(verb="import", run=path, imported=_imported(said))))
    else:
        click.echo("\n".join(_text(said, path)))


def _writer(path: str, found: list[Capture], scenarios: tuple[str, ...]) -> RunWriter:
    """Make the run. Of what it was made of, run.json tells names and sizes, no more."""
    from latdiag.cli.execute import redacted_command
    from latdiag.store.writer import RunWriter, create_run

    header = {
        "tool": {"name": "latdiag", "version": __version__, "verb": "import"},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "target": {"url": None, "model": None},
        "stacks": [],
        "plan": {},
        "client": {
            "kernel_stamps": False,
            "stamp_reason": "the client of the capture read its clock in user space",
        },
        "imported": {
            "captures": [{"name": shown(each.name), "clock_id": each.clock_id} for each in found],
            "scenarios": [shown(name) for name in scenarios],
        },
        "command": concealed(redacted_command(sys.argv)),
    }
    return RunWriter(create_run(path, header), "import")


def _imported(said: Imported) -> result.Imported:
    from latdiag.diagnosis import result

    return result.Imported(
        requests=said.requests.total(),
        scenarios=_names(said.requests),
        spans=said.spans,
        senders=_names(said.senders),
        scrapes=said.scrapes,
        samples=said.samples,
        skipped=_names(said.skipped),
        left_out=_names(said.left_out),
        ignored=tuple(said.ignored),
    )


def _names(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts by what a terminal or a program may be shown of their names."""
    found: dict[str, int] = {}
    for name, n in counts.items():
        found[shown(name)] = found.get(shown(name), 0) + n
    return found


def _text(said: Imported, path: str) -> list[str]:
    found = _imported(said)
    scenarios = {name or "(no scenario)": n for name, n in found.scenarios.items()}
    out = [f"requests  {found.requests:,}{_listed(scenarios)}"]
    out.append(f"spans     {said.spans:,}{_listed(found.senders)}")
    out.append(f"scrapes   {said.scrapes:,}, with {said.samples:,} samples of known families")
    for title, counts in (("skipped", found.skipped), ("left out", found.left_out)):
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
