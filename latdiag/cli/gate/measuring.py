"""What verbs of the gate share that measure: their options, and how they end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from latdiag.cli.execute import SIGNALLED
from latdiag.cli.gate.faces import FaceOptions, show, write
from latdiag.cli.options import TargetOptions, as_one
from latdiag.cli.values import DURATION
from latdiag.model.errors import LocalFault

if TYPE_CHECKING:
    from latdiag.gate.live.kept import Kept
    from latdiag.gate.live.run import Gated
    from latdiag.gate.settings import Settings
    from latdiag.load.work.prepare import Wish


@dataclass(frozen=True, slots=True)
class MeasureOptions:
    """``budget``: ns, None for that of the settings. ``run_path``: where the requests go."""

    budget: int | None
    rate: float | None
    isl: str
    osl: str
    prompts: Path | None
    shared_prefix: int
    priority: str
    out: Path | None
    run_path: str | None
    quiet: bool

    def settled(self, settings: Settings) -> Settings:
        """With what the command line says otherwise."""
        return settings if self.budget is None else replace(settings, budget_ns=self.budget)

    def wish(self, url: str, target: TargetOptions, seed: int, before: Kept | None) -> Wish:
        """How an arm is asked. A run that goes on asks what was not asked yet."""
        from latdiag.load.work.lengths import Lengths
        from latdiag.load.work.prepare import Wish
        from latdiag.load.work.workload import parse_overlay

        if before is not None:
            seed = before.seed + (before.pairs << 32)
        return Wish(
            url=url,
            path=target.path,
            model=target.model,
            isl=Lengths.parse(self.isl),
            osl=Lengths.parse(self.osl),
            seed=seed,
            rate="1",
            overlay=parse_overlay(target.body_json) if target.body_json else None,
            prompts=self.prompts,
            shared_prefix=self.shared_prefix,
            headers=target.headers(url),
            api_key_env=target.key_of(url),
            trust=target.trust(),
            timeout_ns=target.timeout,
            priority=self.priority,
        )


_MEASURE = (
    click.option(
        "--budget",
        type=DURATION,
        help="How long to measure: pairs and blocks follow from it. [default: 4m]",
    ),
    click.option(
        "--rate",
        type=click.FloatRange(0.001, 100_000),
        metavar="RATE",
        help="Requests per second within a block. [default: chosen so that they hardly slow each"
        " other]",
    ),
    click.option(
        "--isl",
        default="128",
        show_default=True,
        metavar="LENGTH",
        help="Input tokens per request.",
    ),
    click.option(
        "--osl",
        default="32",
        show_default=True,
        metavar="LENGTH",
        help="Output tokens per request.",
    ),
    click.option(
        "--prompts",
        type=click.Path(path_type=Path),
        help="Take the prompts from this JSONL file.",
    ),
    click.option(
        "--shared-prefix",
        type=click.IntRange(0),
        default=0,
        metavar="N",
        help="Start all prompts with the same N tokens.",
    ),
    click.option(
        "--priority",
        type=click.Choice(["auto", "ordinary", "realtime"]),
        default="auto",
        show_default=True,
        help="Priority of the reader process; auto: realtime if the base is this machine and you"
        " have the right.",
    ),
    click.option(
        "--run",
        "run_path",
        metavar="PATH",
        help="Path of the saved requests. [default: ./latdiag-runs/UTC-gate-HOST.run]",
    ),
    click.option("--quiet", is_flag=True, help="Show no progress on stderr."),
)


def _out(default: str | None) -> Callable[..., Any]:
    return click.option(
        "-o",
        "--out",
        type=click.Path(dir_okay=False, path_type=Path),
        default=default,
        show_default=default is not None,
        metavar="FILE",
        help="Where the measurements and the verdict go.",
    )


def measure_options(out: str | None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The options of ``MeasureOptions``, which reach a command as ``measure``. ``out``: where
    gate.json goes by default; None for nowhere."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        command = as_one("measure", MeasureOptions)(command)
        for option in reversed((*_MEASURE, _out(out))):
            command = option(command)
        return command

    return decorate


def finished(
    done: Gated, arms: tuple[Wish, Wish], measure: MeasureOptions, faces: FaceOptions
) -> int:
    """Keep what was measured, show the verdict, and end as the run did."""
    document = kept_of(done, arms, measure.out)
    if done.measured is None:
        return SIGNALLED + done.end.signal
    code = show(done.measured.verdict(), document, faces)
    if not measure.quiet:
        _say_where(done, measure)
    return SIGNALLED + done.end.signal if done.end.signal else code


def kept_of(done: Gated, arms: tuple[Wish, Wish], out: Path | None) -> str:
    """The gate.json of what was measured, which stands in ``out`` too; empty where nothing was.

    LocalFault and TargetFault for what ended the run: after what was measured is kept.
    """
    if done.end.faults:
        fault = done.end.faults[0]
        raise LocalFault(fault.text, fault.remedy, done.begun.path)
    document = ""
    if done.measured is not None:
        from latdiag.gate.document import dumped

        document = dumped(done.measured)
        if out is not None:
            write(out, document)
    if done.course.fault is not None and not done.end.signal:
        raise done.course.fault
    if done.course.down is not None and not done.end.signal:
        from latdiag.gate.live.run import down

        raise down(done, arms)
    if done.measured is None:
        click.echo("Interrupted before the first pair: nothing is kept.", err=True)
    return document


def _say_where(done: Gated, measure: MeasureOptions) -> None:
    wrote = f"Wrote {measure.out}; the" if measure.out is not None else "The"
    click.echo(f"{wrote} requests are in {done.begun.path}", err=True)
    if done.end.signal and measure.out is not None:
        click.echo("Give the same command again to go on.", err=True)
    from latdiag.gate.live.pairs import SLOWED

    if measure.rate is None and done.course.slowed > SLOWED:
        click.echo(
            f"So short a budget leaves no time for a light load: a request takes"
            f" {done.course.slowed:.1f} times as long as alone.",
            err=True,
        )
    for arm, steady in zip(("base", "candidate"), done.course.steady, strict=True):
        if not steady:
            click.echo(
                f"The {arm} was still getting faster or slower when the warm-up ended.", err=True
            )
