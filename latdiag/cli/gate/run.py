"""``latdiag gate run``: a base and a candidate that are served, measured in turn and judged."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import click

from latdiag.cli.gate.faces import FaceOptions, face_options
from latdiag.cli.gate.measuring import MeasureOptions, finished, measure_options
from latdiag.cli.kept import saying_what_is_kept
from latdiag.cli.listening import gatherer, spans_to
from latdiag.cli.options import (
    LENGTHS,
    GatherOptions,
    TargetOptions,
    gather_options,
    target_options,
)
from latdiag.cli.verb import Verb

if TYPE_CHECKING:
    from latdiag.gate.live.kept import Kept


@click.command(cls=Verb, epilog=LENGTHS, name="run", context_settings={"max_content_width": 79})
@click.option("--base", required=True, metavar="URL", help="The server as it was.")
@click.option("--cand", required=True, metavar="URL", help="The server as it would be.")
@measure_options
@target_options
@gather_options
@face_options
def run(
    base: str,
    cand: str,
    measure: MeasureOptions,
    target: TargetOptions,
    gather: GatherOptions,
    faces: FaceOptions,
) -> int:
    """Measure two servers in turn, in short blocks of the same requests, and decide whether the
    candidate is slower. What was measured goes to gate.json; a run that was interrupted goes on
    when the same command is given again.

    \b
    latdiag gate run --base http://old:8000 --cand http://new:8000
    latdiag gate run --base http://old:8000 --cand http://new:8000 --budget 10m
    """
    from latdiag.cli.targets import target_of
    from latdiag.gate.live.kept import kept
    from latdiag.gate.live.run import run_gate
    from latdiag.gate.settings import read_settings
    from latdiag.report.progress import Progress

    settings = measure.settled(read_settings(Path.cwd(), secrets.randbits(32)))
    before = kept(measure.out)
    _say_what_goes_on(before, measure.quiet)
    ends = (base, cand)
    spans = spans_to(gather, next((each for each in ends if each.startswith("demo:")), base))
    with saying_what_is_kept(), target_of(base, spans) as one, target_of(cand, spans) as two:
        wishes = (
            measure.wish(one, target, settings.seed, before),
            measure.wish(two, target, settings.seed, before),
        )
        shown = [(url, target.headers(url)) for url in (one, two)]
        around = gatherer(gather, measure.quiet, shown, target.trust())
        progress = Progress(None, None, quiet=measure.quiet)
        done = run_gate(wishes, settings, measure.rate, measure.run_path, around, progress, before)
        return finished(done, wishes, measure, faces)


def _say_what_goes_on(before: Kept | None, quiet: bool) -> None:
    if before is not None and not quiet:
        click.echo(
            f"Going on with {before.name}: {before.pairs} of {before.planned} pairs are measured.",
            err=True,
        )
