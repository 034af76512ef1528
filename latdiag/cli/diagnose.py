"""``latdiag diagnose``: where the latency of a saved run went, as often as you like."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from latdiag.cli.options import table_options, view_options
from latdiag.cli.verb import Verb, runs_like
from latdiag.model.components import COMPONENTS
from latdiag.model.errors import UsageFault

if TYPE_CHECKING:
    from latdiag.diagnosis.result import Result


@click.command(cls=Verb, name="diagnose", context_settings={"max_content_width": 79})
@click.argument("runs", metavar="RUN..", nargs=-1, required=True, shell_complete=runs_like)
@click.option(
    "--why",
    metavar="COMPONENT",
    help="Show every claim on this component, including those that lost.",
)
@click.option("--slo", "slos", multiple=True, help="An SLO, e.g. ttft.p95<500ms; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@view_options
@table_options
def diagnose(
    runs: tuple[str, ...], why: str | None, slos: tuple[str, ...], as_json: bool, view: str | None
) -> int:
    """Diagnose RUN again, offline: nothing is sent, nothing is written.

    RUN: a saved run, as a path, a URI or a glob. The requests of several runs are diagnosed
    together.

    \b
    latdiag diagnose latdiag-runs/20260101T120000Z-probe-host.run
    latdiag diagnose 'latdiag-runs/*-load-*.run' --slo 'ttft.p95<500ms'
    latdiag diagnose latdiag-runs/NAME.run --why queue
    """
    from latdiag.cli.execute import show
    from latdiag.diagnosis.several import diagnosed
    from latdiag.measurement.slo import parse_slos
    from latdiag.store.run import Run

    component = None if why is None else _component(why)
    objectives = parse_slos(slos)
    result = diagnosed(Run.open(*runs), objectives)
    if component is None:
        show(result, as_json, view)
    else:
        _show_claims(result, component, as_json)
    return _exit_code(result)


def _component(word: str) -> str:
    """The component that ``word`` names; UsageFault, with all of them, if it is none."""
    name = word.strip().lower()
    if name in COMPONENTS:
        return name
    component = name.partition(".")[0]
    others = f"the components are {', '.join(COMPONENTS)}"
    if component in COMPONENTS:
        raise UsageFault(f"{word!r} is a part of a component; {others}", f"--why {component}")
    raise UsageFault(f"there is no component {word!r}; {others}", "latdiag explain component")


def _show_claims(result: Result, component: str, as_json: bool) -> None:
    from latdiag.diagnosis.why import Why

    why = Why(result, component)
    if as_json:
        from latdiag.report.json import dump

        click.echo(dump(why))
        return
    from latdiag.report.console import render_claims, stdout_console

    render_claims(why, stdout_console())


def _exit_code(result: Result) -> int:
    """As of the run when it was made, but that a useless target is a finding here."""
    from latdiag.cli.execute import INCONCLUSIVE, INVALID, SLO_MISSED

    if not result.valid:
        return INVALID
    met = [judged.met for judged in result.slo]
    if False in met:
        return SLO_MISSED
    return INCONCLUSIVE if None in met else 0
