"""``latdiag gate history``: one run against those recorded earlier."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import click

from latdiag.cli.gate.stored import StoreOptions, store_options
from latdiag.cli.verb import Verb, runs_like

if TYPE_CHECKING:
    from latdiag.gate.checks import Level


@click.command(cls=Verb, name="history", context_settings={"max_content_width": 79})
@click.argument("run", metavar="RUN", shell_complete=runs_like)
@click.option(
    "--anchor", metavar="NAME", help="Compare with this anchor too.  [default: the newest one]"
)
@click.option(
    "--level",
    type=click.Choice(["warn", "error"]),
    default="warn",
    show_default=True,
    help="Whether a regression fails (exit 10).",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@store_options
def history(run: str, anchor: str | None, level: str, as_json: bool, stored: StoreOptions) -> int:
    """Compare RUN with runs of the same kind in the store: at least 10, with the same model,
    engine, workload and facts. Exit 13 where none is alike, with what differs.

    A stored run was measured on another day: this sees large changes only. Where both servers can
    run, `latdiag gate run` sees more.

    \b
    latdiag gate history NAME.run --store git:latdiag-baselines
    """
    from latdiag.cli.gate.faces import print_page
    from latdiag.gate.baseline.history import against_all, exit_code
    from latdiag.gate.baseline.shelf import shelf_of
    from latdiag.report.gate.saved import history_page

    settings, store, saved, new = stored.opened(run, "")
    parts = against_all(new, shelf_of(store), settings, saved.keep, store.name, anchor)
    shown = {"kind": "gate history", "schema": 1, "run": run, "parts": parts}
    print_page(shown, lambda plain: history_page(parts, plain), as_json)
    return exit_code(parts, cast("Level", level), settings)
