"""``latdiag gate slo``: absolute limits on saved runs, held against the end of an interval."""

from __future__ import annotations

from pathlib import Path

import click

from latdiag.cli.verb import Verb, runs_like


@click.command(cls=Verb, name="slo", context_settings={"max_content_width": 79})
@click.argument("runs", metavar="RUN..", nargs=-1, required=True, shell_complete=runs_like)
@click.option(
    "--slo",
    "slos",
    multiple=True,
    help="A limit, e.g. ttft.p95<500ms, or mlperf:llama3.1-8b; repeatable. In place of those of"
    " the settings.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def slo(runs: tuple[str, ...], slos: tuple[str, ...], as_json: bool) -> int:
    """Hold absolute limits against the requests of RUN; several runs are taken together.

    A limit is KEPT or BROKEN (exit 14) if the whole 95 % interval lies on one side of it, else
    INCONCLUSIVE: more requests would decide.

    \b
    latdiag gate slo NAME.run --slo 'ttft.p95<500ms' --slo 'errors<1%'
    latdiag gate slo NAME.run --slo mlperf:llama3.1-8b-interactive
    """
    from latdiag.cli.gate.faces import print_page
    from latdiag.diagnosis.several import diagnosed
    from latdiag.gate.limits import limits_of
    from latdiag.gate.settings import read_saved, read_settings
    from latdiag.measurement.slo import parse_slos
    from latdiag.report.gate.saved import limits_page
    from latdiag.store.run import Run

    folder = Path()
    objectives = parse_slos(slos or read_saved(folder).limits)
    settings = read_settings(folder)
    result = diagnosed(Run.open(*runs), objectives)
    limits = limits_of(
        result.runs or (result.run or runs[0],),
        result.slo,
        (rule.text for rule in result.invalid_because),
        settings.on_inconclusive,
    )
    print_page(limits, lambda plain: limits_page(limits, plain), as_json)
    return limits.exit_code
