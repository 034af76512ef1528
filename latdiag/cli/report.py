"""``latdiag report``: a diagnosis, a comparison or a gate's verdict as one HTML file."""

from __future__ import annotations

from pathlib import Path

import click

from latdiag.cli.verb import Verb, runs_like
from latdiag.model.text import shown


@click.command(cls=Verb, name="report", context_settings={"max_content_width": 79})
@click.argument("runs", metavar="RUN..", nargs=-1, required=True, shell_complete=runs_like)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    required=True,
    help="Write the page to this file, which must not exist yet.",
)
@click.option("--slo", "slos", multiple=True, help="An SLO, e.g. ttft.p95<500ms; repeatable.")
@click.option("--force", is_flag=True, help="Set runs side by side even if the workloads differ.")
@click.option("--json", "as_json", is_flag=True, help="Print what the page shows as JSON.")
def report(
    runs: tuple[str, ...], output: Path, slos: tuple[str, ...], force: bool, as_json: bool
) -> int:
    """Write what is known of RUN as one HTML file, offline. It loads nothing, so it can be mailed
    and archived, and it reads without scripts.

    RUN: a saved run, as a path, a URI or a quoted glob. Of several, each is compared with the
    first; a difference is the later minus the first. Or a gate.json, alone.

    \b
    latdiag report latdiag-runs/NAME.run -o report.html
    latdiag report before.run after.run -o report.html
    latdiag report gate.json -o gate.html
    """
    from latdiag.export.files import check_new, whole
    from latdiag.report.html.write import report_of

    check_new(str(output))
    written = report_of(runs, slos, str(output), force)
    with whole(output) as part:
        part.write_text(written.text, encoding="utf-8", newline="\n")
    if as_json:
        from latdiag.report.json import dump

        click.echo(dump(written.shows))
    else:
        click.echo(f"Saved {shown(output)} ({written.size})")
    return written.exit_code
