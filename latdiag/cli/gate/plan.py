"""``latdiag gate plan``: what a budget buys here, before anything is gated."""

from __future__ import annotations

import click

from latdiag.cli.execute import SIGNALLED
from latdiag.cli.gate.measuring import MeasureOptions, kept_of, measure_options
from latdiag.cli.options import (
    LENGTHS,
    GatherOptions,
    TargetOptions,
    gather_options,
    target_options,
)
from latdiag.cli.verb import Verb

#: Pairs that say how much pairs differ here.
_PILOT = 20


@click.command(cls=Verb, epilog=LENGTHS, name="plan", context_settings={"max_content_width": 79})
@click.option("--base", required=True, metavar="URL", help="The server.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@measure_options(None)
@target_options
@gather_options
def plan(
    base: str,
    as_json: bool,
    measure: MeasureOptions,
    target: TargetOptions,
    gather: GatherOptions,
) -> int:
    """Measure a server against itself for some pairs, and say how many pairs --budget pays for
    and how small an effect these find.

    \b
    latdiag gate plan --base http://localhost:8000 --budget 10m
    """
    from latdiag.cli.gate.alike import against_itself

    done, arms = against_itself(base, measure, target, gather, _PILOT)
    kept_of(done, arms, measure.out)
    if done.measured is None or done.end.signal:
        return SIGNALLED + done.end.signal
    from latdiag.report.gate.plan import planned, planned_json, planned_lines

    found = planned(done.measured, done.course.rate)
    click.echo(planned_json(found) if as_json else "\n".join(planned_lines(found)))
    return 0
