"""``latdiag gate record``: keep the figures of a run, for later ones to be compared with."""

from __future__ import annotations

import click

from latdiag.cli.gate.stored import StoreOptions, store_options
from latdiag.cli.verb import Verb, runs_like


@click.command(cls=Verb, name="record", context_settings={"max_content_width": 79})
@click.argument("run", metavar="RUN", shell_complete=runs_like)
@click.option("--label", default="", metavar="TEXT", help="A name for it, such as the commit.")
@click.option(
    "--accept", is_flag=True, help="Record it though it is slower than what is recorded."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@store_options
def record(run: str, label: str, accept: bool, as_json: bool, stored: StoreOptions) -> int:
    """Record the figures of RUN in the store. A run that is slower than those recorded so far, or
    than an anchor, is refused (exit 10) without --accept, so that a baseline cannot creep.

    \b
    latdiag gate record NAME.run --store git:baselines --label $GITHUB_SHA
    latdiag gate record NAME.run --store baselines --fact gpu=H200
    """
    from latdiag.cli.gate.faces import print_line
    from latdiag.gate.baseline import shelf as shelves
    from latdiag.gate.baseline.history import slower_than
    from latdiag.gate.baseline.stores import RUNS
    from latdiag.gate.result import EXIT_CODES

    settings, store, saved, new = stored.opened(run, label)
    slower = None
    if not accept:
        slower = slower_than(new, shelves.shelf_of(store), settings, saved.keep)
    result = {"kind": "gate recorded", "schema": 1, "run": run, "slower_than": slower}
    if slower is not None:
        text = f"Not recorded: it is slower than {slower}. Add --accept to record it."
        print_line(result | {"file": None, "dropped": []}, text, as_json)
        return EXIT_CODES["REGRESSED"]
    dropped = shelves.add(store, new, saved.keep, settings.may_differ)
    older = f", {len(dropped)} older dropped" if dropped else ""
    text = f"Recorded as {store.name}/{RUNS}/{new.file}{older}."
    print_line(result | {"file": new.file, "dropped": dropped}, text, as_json)
    return 0
