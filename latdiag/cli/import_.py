"""``latdiag import``: what others recorded becomes a run."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from latdiag.cli.kept import saying_what_is_kept
from latdiag.cli.options import table_options, view_options
from latdiag.cli.values import DURATION
from latdiag.cli.verb import Verb
from latdiag.model.errors import UsageFault
from latdiag.model.text import shown

if TYPE_CHECKING:
    from latdiag.ingest.importers.capture import Capture
    from latdiag.store.writer import RunWriter

#: Captures that people see named.
_NAMED = 12


@click.command(cls=Verb, name="import", context_settings={"max_content_width": 79})
@click.argument("folders", metavar="FOLDER|FILE..", nargs=-1)
@click.option(
    "--scenario",
    "scenarios",
    multiple=True,
    metavar="NAME",
    help="Import only this scenario; repeatable.",
)
@click.option("--jaeger", metavar="URL", help="Take traces from this Jaeger, in place of files.")
@click.option("--trace", "traces", multiple=True, metavar="ID", help="Which one; repeatable.")
@click.option("--service", metavar="NAME", help="Or the newest traces of this service.")
@click.option(
    "--lookback", type=DURATION, default="1h", show_default=True, help="How far these go back."
)
@click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=1_500,
    show_default=True,
    metavar="N",
    help="How many of them at most.",
)
@click.option(
    "-o", "--out", help="Path of the saved run. [default: ./latdiag-runs/UTC-import-HOST.run]"
)
@click.option("--quiet", is_flag=True, help="Show no progress on stderr.")
@click.option("--json", "as_json", is_flag=True, help="Print what was read as JSON.")
@view_options
@table_options
def import_(
    folders: tuple[str, ...],
    scenarios: tuple[str, ...],
    jaeger: str | None,
    traces: tuple[str, ...],
    service: str | None,
    lookback: int,
    limit: int,
    out: str | None,
    quiet: bool,
    as_json: bool,
    view: str | None,
) -> None:
    """Turn the capture in FOLDER, or traces, into a run like any other for `latdiag diagnose`.

    FOLDER holds any of: client.jsonl (a line per request), spans.otlp.jsonl (OTLP/JSON, a line
    per export) and metrics/SCENARIO.ROLE.before.prom with its .after.prom; each may be gzipped.
    FILE holds traces: of Jaeger (its API, or saved from its UI), Tempo, or the OpenTelemetry
    Collector, in JSON or protobuf. Traces that `latdiag export` made become requests again.

    \b
    latdiag import ./capture
    latdiag import ./capture --scenario c64 --out c64.run
    latdiag import traces.json
    latdiag import --jaeger http://localhost:16686 --service vllm
    """
    with contextlib.ExitStack() as held:
        if jaeger is not None or traces or service is not None:
            asked = (jaeger, traces, service, lookback, limit)
            folders = (*folders, *held.enter_context(_of_jaeger(*asked)))
        if not folders:
            raise UsageFault("nothing is named to import", "name a folder or a file, or --jaeger")
        _import(folders, scenarios, out, quiet, as_json, view)


@contextlib.contextmanager
def _of_jaeger(
    url: str | None, traces: tuple[str, ...], service: str | None, lookback: int, limit: int
) -> Iterator[list[str]]:
    """Files, for the block's time."""
    from latdiag.ingest.importers.jaeger import Asked, fetch

    if url is None:
        raise UsageFault("--trace and --service are of a Jaeger", "give --jaeger URL")
    asked = Asked(url, traces, service, lookback, limit)
    asked.check()
    with tempfile.TemporaryDirectory() as folder:
        yield [str(each) for each in fetch(asked, Path(folder), time.time_ns())]


def _import(
    folders: tuple[str, ...],
    scenarios: tuple[str, ...],
    out: str | None,
    quiet: bool,
    as_json: bool,
    view: str | None,
) -> None:
    from latdiag.cli.execute import diagnosed, show
    from latdiag.ingest.importers import capture
    from latdiag.ingest.otlp.keep import Keep
    from latdiag.report.imported_page import imported_of, result_of
    from latdiag.stacks import catalogue
    from latdiag.store.writer import default_run_path

    found = capture.find(folders)
    path = out or default_run_path("import", datetime.now(UTC))
    if not quiet:
        names = ", ".join(shown(each.name, 60) for each in found[:_NAMED])
        click.echo(f"reading {names}", err=True)
    with saying_what_is_kept():
        said = capture.read(
            found,
            lambda: _writer(path, found, scenarios),
            Keep.of(catalogue.stacks()),
            catalogue.families(),
            frozenset(scenarios),
        )
    if as_json:
        show(result_of(said, path), as_json)
    else:
        show(replace(diagnosed(path, "import"), imported=imported_of(said)), as_json, view)


def _writer(path: str, found: list[Capture], scenarios: tuple[str, ...]) -> RunWriter:
    """Make the run. Of what it was made of, run.json tells names and sizes, no more."""
    from latdiag.store.header import CaptureName, Header, ImportedFrom, NoPlan, Stamps, Target
    from latdiag.store.writer import RunWriter, create_run

    header = Header(
        verb="import",
        target=Target(),
        plan=NoPlan(),
        client=Stamps(False, "imported: the recording client took user-space stamps"),
        imported=ImportedFrom(
            [CaptureName(shown(each.name), each.clock_id) for each in found],
            [shown(name) for name in scenarios],
        ),
    )
    return RunWriter(create_run(path, header.to_json()), "import")
