"""``latdiag compare``: two runs, or two sets of runs, metric by metric and part by part."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from latdiag.cli.verb import Verb, runs_like
from latdiag.model.errors import RunFault, UnlikeRuns, UsageFault

if TYPE_CHECKING:
    from latdiag.diagnosis.run_facts import Measured


@click.command(cls=Verb, name="compare", context_settings={"max_content_width": 79})
@click.argument("a", metavar="A", shell_complete=runs_like)
@click.argument("b", metavar="B", shell_complete=runs_like)
@click.option(
    "--metric", "metrics", multiple=True, help="Compare this one; more than once for several."
)
@click.option("--force", is_flag=True, help="Compare workloads that are not alike all the same.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the draws.")
@click.option("--json", "as_json", is_flag=True, help="The result as JSON on stdout.")
def compare(
    a: str, b: str, metrics: tuple[str, ...], force: bool, seed: int, as_json: bool
) -> int:
    """Say how far the latencies of A and B lie apart, offline; every difference is B - A.

    A, B: a run, or a glob of the runs of one side (4 or more of them also tell what changes
    from run to run). What differs in target, versions and plan comes first.

    \b
    latdiag compare runs/before.run runs/after.run
    latdiag compare 'runs/before-*.run' 'runs/after-*.run' --metric ttft
    """
    from latdiag.cli.execute import INVALID
    from latdiag.diagnosis.compare import METRICS, compared, unlike
    from latdiag.diagnosis.run_facts import differs

    wanted = _wanted(metrics) or METRICS
    one, other = _side("A", a), _side("B", b)
    what = unlike(differs(one, other))
    if what and not force:
        raise UnlikeRuns(
            f"A and B are not the same workload: {what}",
            "make runs that differ in one thing, or compare them all the same with --force",
        )
    comparison = compared(one, other, wanted, seed)
    if as_json:
        from latdiag.report.json import dump

        click.echo(dump(comparison.result()))
    else:
        from latdiag.report.compare_page import render
        from latdiag.report.console import stdout_console

        render(comparison, stdout_console())
    return 0 if comparison.valid else INVALID


def _wanted(metrics: Sequence[str]) -> tuple[str, ...]:
    """Each metric once. UsageFault for one that there is not, or that has no rows."""
    from latdiag.measurement.metric_rows import COMPARABLE
    from latdiag.model.metrics import metric

    for name in metrics:
        if metric(name).name not in COMPARABLE:
            raise UsageFault(f"{name} cannot be compared", f"there are {', '.join(COMPARABLE)}")
    return tuple(dict.fromkeys(metrics))


def _side(name: str, pattern: str) -> list[Measured]:
    """The runs of one side. RunFault where nothing matches, UsageFault for one named twice."""
    from latdiag.diagnosis.run_facts import measured
    from latdiag.store.place import displayed, is_pattern, matching
    from latdiag.store.run import Run

    paths = matching(pattern) if is_pattern(pattern) else [pattern]
    if not paths:
        raise RunFault(f"nothing matches {displayed(pattern)}", "check the pattern")
    places = [path if "://" in path else os.path.realpath(path) for path in paths]
    found = [measured(Run.open(path)) for path in paths]
    for run in found:
        if not run.requests:
            raise UnlikeRuns(
                f"{run.path} holds no requests",
                "what was only collected has nothing to compare; name runs of loads",
            )
    seen: dict[str, str] = {}
    for place, run in zip(places, found, strict=True):
        for key in (place, run.rows.identity):
            if key in seen:
                raise UsageFault(
                    f"{run.path} and {seen[key]} of side {name} are the same run",
                    "name every run once",
                )
            seen[key] = run.path
    return found
