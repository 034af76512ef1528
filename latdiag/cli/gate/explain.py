"""``latdiag gate explain``: why a verdict is what it is, check by check."""

from __future__ import annotations

from pathlib import Path

import click

from latdiag.cli.gate.replay import opened
from latdiag.cli.verb import Verb


@click.command(cls=Verb, name="explain", context_settings={"max_content_width": 79})
@click.argument("file", metavar="GATE.JSON", type=click.Path(path_type=Path))
@click.option("--why", metavar="COMPONENT", help="Show this component pair by pair.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def explain(file: Path, why: str | None, as_json: bool) -> int:
    """Say what decided each check of GATE.JSON, at which look and at what level, what could have
    voided it, and where the difference is.

    \b
    latdiag gate explain gate.json
    latdiag gate explain gate.json --why prefill
    """
    from latdiag.report import console
    from latdiag.report.gate.why import explained, explained_json, explained_page

    measured, verdict = opened(file)
    found = explained(measured, verdict, why)
    if as_json:
        click.echo(explained_json(found))
    else:
        out = console.stdout_console()
        console.show(explained_page(found, console.ascii_only(out)), out)
    return 0
