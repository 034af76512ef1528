"""``latdiag requests``: the requests of a saved run, one by one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from latdiag.cli.verb import Verb, runs_like
from latdiag.model.errors import LocalFault, UsageFault

if TYPE_CHECKING:
    import pandas as pd


@click.command(cls=Verb, name="requests", context_settings={"max_content_width": 79})
@click.argument("runs", metavar="RUN..", nargs=-1, required=True, shell_complete=runs_like)
@click.option(
    "--slowest",
    type=click.IntRange(1),
    metavar="N",
    help="List only the N slowest, slowest first.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, one line per request.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write CSV or JSON to this file.",
)
def requests(
    runs: tuple[str, ...],
    slowest: int | None,
    as_csv: bool,
    as_json: bool,
    output: Path | None,
) -> None:
    """List the requests of RUN's workload: when each was sent and where its time went, offline.

    Prints the 10 slowest as a table; --csv and --json print all requests in the order in which
    they were sent. There a component may be negative: the request took less than a probe or
    metrics estimate for its length (docs/api.md).

    \b
    latdiag requests latdiag-runs/NAME.run
    latdiag requests latdiag-runs/NAME.run --csv -o requests.csv
    latdiag requests latdiag-runs/NAME.run --slowest 5 --json
    """
    from latdiag.diagnosis.several import diagnosed
    from latdiag.report import requests_page
    from latdiag.store.run import Run

    if as_csv and as_json:
        raise UsageFault("--csv and --json exclude each other", "give only one of them")
    run = Run.open(*runs)
    table = diagnosed(run).requests()
    if not (as_csv or as_json):
        slowest = requests_page.LINES if slowest is None else slowest
    chosen = requests_page.slowest(table, slowest)
    if output is None:
        _write(sys.stdout, table, chosen, run.paths, as_csv, as_json)
        return
    try:
        with output.open("x", encoding="utf-8") as file:
            _write(file, table, chosen, run.paths, as_csv, as_json)
    except FileExistsError as error:
        raise UsageFault(f"{output} exists already", "choose another -o FILE") from error
    except OSError as error:
        text = f"{output} cannot be written: {(error.strerror or str(error)).lower()}"
        raise LocalFault(text, "choose another -o FILE") from error


def _write(
    file: TextIO,
    table: pd.DataFrame,
    chosen: pd.DataFrame,
    paths: list[str],
    as_csv: bool,
    as_json: bool,
) -> None:
    from latdiag.export.tables import write_csv
    from latdiag.report import requests_page

    if as_csv:
        write_csv(chosen, file)
    elif as_json:
        file.writelines(requests_page.json_pieces(chosen, paths))
        file.write("\n")
    else:
        terminal = file.isatty()
        utf8 = (file.encoding or "").lower().replace("-", "") == "utf8"
        page = requests_page.page(table, chosen, not (terminal and utf8), terminal)
        file.writelines("".join(span.text for span in line) + "\n" for line in page.lines)
