"""``latdiag gate run``: a base and a candidate that are served, measured in turn and judged."""

from __future__ import annotations

import contextlib
import secrets
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from latdiag.cli.gate.faces import FaceOptions, face_options, write
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
from latdiag.cli.values import DURATION
from latdiag.cli.verb import Verb
from latdiag.model.errors import UsageFault

if TYPE_CHECKING:
    from latdiag.gate.document import Measured
    from latdiag.gate.live.kept import Kept
    from latdiag.gate.live.rounds import InTurn
    from latdiag.gate.live.served import Served


@click.command(cls=Verb, epilog=LENGTHS, name="run", context_settings={"max_content_width": 79})
@click.option("--base", metavar="URL", help="The server as it was.")
@click.option("--cand", metavar="URL", help="The server as it would be.")
@click.option(
    "--base-cmd",
    metavar="COMMAND",
    help="Start the base with this command; {port} in it, and $PORT, is the port to listen on.",
)
@click.option("--cand-cmd", metavar="COMMAND", help="The same for the candidate.")
@click.option(
    "--start-timeout",
    type=DURATION,
    default="10m",
    show_default=True,
    help="How long a server that is started may take until it answers.",
)
@click.option(
    "--one-at-a-time",
    is_flag=True,
    help="Never serve both at once (one GPU): start, measure and stop them in turn.",
)
@click.option(
    "--rounds",
    type=click.IntRange(2, 100),
    default=4,
    show_default=True,
    help="With --one-at-a-time: how often each is started.",
)
@measure_options("gate.json")
@target_options
@gather_options
@face_options
def run(
    base: str | None,
    cand: str | None,
    base_cmd: str | None,
    cand_cmd: str | None,
    start_timeout: int,
    one_at_a_time: bool,
    rounds: int,
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
    latdiag gate run --base-cmd './old -p {port}' --cand-cmd './new -p {port}'
    """
    from latdiag.cli.targets import target_of
    from latdiag.gate.live.kept import kept
    from latdiag.gate.live.run import run_gate
    from latdiag.gate.live.served import serving
    from latdiag.gate.settings import read_settings
    from latdiag.report.progress import Progress

    settings = measure.settled(read_settings(Path.cwd(), secrets.randbits(32)))
    before = kept(measure.out) if measure.out is not None else None
    _say_what_goes_on(before, measure.quiet)
    base, first = _arm("base", base, base_cmd, start_timeout)
    cand, second = _arm("candidate", cand, cand_cmd, start_timeout)
    servers = [each for each in (first, second) if each is not None]
    turns = _in_turn(servers, rounds) if one_at_a_time else None
    spans = spans_to(gather, next((e for e in (base, cand) if e.startswith("demo:")), base))
    with (
        saying_what_is_kept(),
        contextlib.nullcontext() if turns is not None else serving(*servers),
        target_of(base, spans) as one,
        target_of(cand, spans) as two,
    ):
        wishes = (
            measure.wish(one, target, settings.seed, before),
            measure.wish(two, target, settings.seed, before),
        )
        shown = [(url, target.headers(url)) for url in (one, two)]
        around = gatherer(gather, measure.quiet, shown, target.trust())
        progress = Progress(None, None, quiet=measure.quiet)
        done = run_gate(
            *(wishes, settings, measure.rate, measure.run_path, around, progress, before),
            turns=turns,
            keep=None if measure.out is None else partial(_keep, measure.out),
        )
        return finished(done, wishes, measure, faces)


def _keep(out: Path, measured: Measured) -> None:
    from latdiag.gate.document import dumped

    write(out, dumped(measured))


def _in_turn(servers: list[Served], rounds: int) -> InTurn:
    from latdiag.gate.live.rounds import InTurn

    if len(servers) < 2:
        raise UsageFault(
            "--one-at-a-time starts and stops both servers", "give --base-cmd and --cand-cmd"
        )
    return InTurn((servers[0], servers[1]), rounds)


def _arm(
    arm: str, url: str | None, command: str | None, start_ns: int
) -> tuple[str, Served | None]:
    """(Its URL, what is to be started for it). UsageFault unless one of both is given."""
    from latdiag.gate.live.served import Served

    option = {"base": "--base", "candidate": "--cand"}[arm]
    if (url is None) == (command is None):
        raise UsageFault(
            f"the {arm} is not given" if url is None else f"the {arm} is given twice",
            f"give {option} URL, or {option}-cmd COMMAND",
        )
    if command is None:
        assert url is not None
        return url, None
    served = Served(command, arm, start_ns, lambda line: click.echo(line, err=True))
    return served.url, served


def _say_what_goes_on(before: Kept | None, quiet: bool) -> None:
    if before is not None and not quiet:
        click.echo(
            f"Going on with {before.name}: {before.pairs} of {before.planned} pairs are measured.",
            err=True,
        )
