"""``latdiag compare``: two runs, or two sets of runs, metric by metric and part by part."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from latdiag.cli.options import view_options
from latdiag.cli.verb import Verb, runs_like

if TYPE_CHECKING:
    from latdiag.diagnosis.run_facts import Measured


@click.command(cls=Verb, name="compare", context_settings={"max_content_width": 79})
@click.argument("a", metavar="A", shell_complete=runs_like)
@click.argument("b", metavar="B", shell_complete=runs_like)
@click.option("--metric", "metrics", multiple=True, help="Compare only this metric; repeatable.")
@click.option("--force", is_flag=True, help="Compare even if the workloads differ.")
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Seed of the bootstrap draws.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@view_options
def compare(
    a: str,
    b: str,
    metrics: tuple[str, ...],
    force: bool,
    seed: int,
    as_json: bool,
    view: str | None,
) -> int:
    """Compare the latencies of A and B, offline; every difference is B - A.

    A, B: a run, or a glob of the runs of one side. With 4 or more runs on each side, the
    intervals include what changes from run to run.

    \b
    latdiag compare runs/before.run runs/after.run
    latdiag compare 'runs/before-*.run' 'runs/after-*.run' --metric ttft
    """
    from latdiag.cli.execute import INVALID
    from latdiag.diagnosis.compare import compared, metrics_of, refuse_unlike

    wanted = metrics_of(metrics)
    one, other = _side("A", a), _side("B", b)
    if not force:
        refuse_unlike(one, other)
    comparison = compared(one, other, wanted, seed)
    if as_json:
        from latdiag.report.json import dump

        click.echo(dump(comparison.result()))
    else:
        from latdiag.report.console import render_comparison, stdout_console

        render_comparison(comparison, stdout_console(), view or "screen")
    return 0 if comparison.valid else INVALID


def _side(name: str, pattern: str) -> list[Measured]:
    """The runs of one side. RunFault where nothing matches."""
    from latdiag.diagnosis.run_facts import side_of
    from latdiag.store.run import Run

    return side_of(name, Run.open(pattern))
