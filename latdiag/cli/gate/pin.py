"""``latdiag gate pin``: hold what is recorded now as an anchor, such as that of a release."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from latdiag.cli.gate.stored import STORE
from latdiag.cli.verb import Verb


@click.command(cls=Verb, name="pin", context_settings={"max_content_width": 79})
@click.argument("anchor", metavar="NAME")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@STORE
def pin(anchor: str, as_json: bool, store: str | None) -> int:
    """Hold the runs that are recorded now as the anchor NAME. `latdiag gate history` compares with
    the newest anchor beside the latest runs, so that many small steps show too.

    \b
    latdiag gate pin v1.4 --store git:latdiag-baselines
    """
    from pathlib import Path

    from latdiag.cli.gate.faces import print_line
    from latdiag.gate.baseline import shelf
    from latdiag.gate.baseline.stores import open_store
    from latdiag.gate.settings import read_saved

    place = open_store(store or read_saved(Path()).store)
    runs = shelf.pin(place, anchor, datetime.now(UTC).isoformat(timespec="microseconds"))
    result = {"kind": "gate pinned", "schema": 1, "anchor": anchor, "runs": runs}
    print_line(result, f"Pinned {runs} runs as {anchor} in {place.name}.", as_json)
    return 0
