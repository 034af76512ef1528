"""``latdiag probe``: designed requests, stage by stage, then where the time went."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import click

from latdiag.cli.kept import saying_what_is_kept
from latdiag.cli.listening import gatherer, spans_to
from latdiag.cli.options import (
    LENGTHS,
    ExportOptions,
    GatherOptions,
    OutputOptions,
    TargetOptions,
    export_options,
    gather_options,
    output_options,
    target_options,
)
from latdiag.cli.verb import Verb
from latdiag.model.errors import UsageFault

if TYPE_CHECKING:
    from latdiag.load.work.prepare import Wish
    from latdiag.measurement.stages import Limits
    from latdiag.probe.planner import Planner
    from latdiag.probe.run import WorkloadText

#: Fields of a body that the design lays down for each request.
_DESIGNED = frozenset({"max_tokens", "max_completion_tokens", "min_tokens"})


@click.command(cls=Verb, epilog=LENGTHS, name="probe", context_settings={"max_content_width": 79})
@click.argument("url", required=False)
@click.option(
    "--behind",
    metavar="URL2",
    help="The server behind URL, where URL is a gateway: the same workload goes to both in turn,"
    " and the difference is the gateway's.",
)
@click.option(
    "--like",
    metavar="RUN",
    help="Send the workload of an earlier probe again: the same lengths at the same moments, with"
    " new prompts, so that `latdiag compare` tells before from after.",
)
@click.option(
    "--budget",
    type=click.Choice(["quick", "standard", "deep"]),
    help="How much to spend: about a minute, some minutes, half an hour."
    " [default: quick, or as the run of --like]",
)
@click.option(
    "--max-tokens-total",
    type=click.IntRange(1),
    metavar="N",
    help="Limit on the total of tokens. [default by budget: 200,000, 1,000,000 or 5,000,000;"
    " with --like that of its run, if it is more]",
)
@click.option("--rate", metavar="RATE", help="Your workload as an open loop: requests per second.")
@click.option(
    "-c",
    "--concurrency",
    type=click.IntRange(1, 100_000),
    metavar="N",
    help="Your workload as a closed loop: requests in flight.",
)
@click.option("--isl", metavar="LENGTH", help="Input tokens of your workload.")
@click.option("--osl", metavar="LENGTH", help="Output tokens of your workload.")
@click.option(
    "--slo",
    "slos",
    multiple=True,
    metavar="OBJECTIVE",
    help="An SLO, e.g. ttft.p95<500ms; repeatable.",
)
@click.option(
    "--seed",
    type=int,
    metavar="N",
    help="Seed of prompts, lengths and arrivals. [default: a new one]",
)
@target_options
@gather_options
@export_options
@output_options
def probe(
    url: str | None,
    behind: str | None,
    like: str | None,
    slos: tuple[str, ...],
    budget: str | None,
    max_tokens_total: int | None,
    rate: str | None,
    concurrency: int | None,
    isl: str | None,
    osl: str | None,
    seed: int | None,
    target: TargetOptions,
    gather: GatherOptions,
    export: ExportOptions,
    output: OutputOptions,
) -> int:
    """Find out where the latency of URL goes, from outside. Without URL: of the server that
    answers on this machine.

    Requests of known lengths, alone and together, show what each part of the server costs. That
    explains the latency of your workload, or of a modest one if you give none.

    \b
    latdiag probe http://localhost:8000
    latdiag probe https://host/v1 --api-key-env KEY --model NAME
    latdiag probe http://localhost:8000 --rate 4 --isl lognormal:900,0.7
    latdiag probe http://gateway:4000 --behind http://server:8000
    latdiag probe http://localhost:8000 --like before.run
    """
    from latdiag.cli.execute import concluded, show
    from latdiag.cli.targets import target_of
    from latdiag.measurement.slo import parse_slos
    from latdiag.probe.planner import Planner, the_design
    from latdiag.probe.run import run_probe
    from latdiag.report.progress import Progress

    objectives = parse_slos(slos)
    url = url or _found(output.quiet)
    own = _Own(rate, concurrency, isl, osl)
    asked = [url] if behind is None else [url, behind]
    shown = [(each, target.headers(each)) for each in asked]
    around = gatherer(gather, output.quiet, shown, target.trust(), export)
    with contextlib.ExitStack() as held:
        held.enter_context(saying_what_is_kept())
        planner = Planner(partial(the_design, _judging))
        if like is not None:  # it reads that run; else it is forked when all is known to be sound
            held.enter_context(planner)
        limits, workload = _offered(planner, like, own, budget, max_tokens_total, seed, len(asked))
        place = held.enter_context(target_of(url, spans_to(gather, url)))
        wish = _wish(place, target, output.priority, limits.seed)
        second = None if behind is None else _wish(behind, target, output.priority, limits.seed)
        _say_cost(limits)
        if like is None:
            held.enter_context(planner)
        progress = Progress(None, None, quiet=output.quiet)
        done = run_probe(planner, wish, limits, output.out, around, progress, workload, second)
        result, code = concluded("probe", *done, objectives)
    show(result, output.as_json, output.view)
    return code


def _judging() -> Callable[[str], bool]:
    """For the planning process: what it needs is heavy."""
    from latdiag.diagnosis.undecided import undecided

    return undecided


class _Own(NamedTuple):
    """A workload by options."""

    rate: str | None
    concurrency: int | None
    isl: str | None
    osl: str | None


def _offered(
    planner: Planner,
    like: str | None,
    own: _Own,
    budget: str | None,
    most: int | None,
    seed: int | None,
    targets: int,
) -> tuple[Limits, WorkloadText]:
    """What may be spent on which workload, and that as its user wrote it: ``own``, or that of a
    run, which the planner reads. UsageFault for both. ``targets``: 2 with one behind the first."""
    from latdiag.probe.limits import limits_like, limits_of
    from latdiag.probe.run import WorkloadText

    if like is None:
        limits = limits_of(budget, most, *own, seed, targets > 1)
        return limits, WorkloadText(own.isl, own.osl)
    given = [name for name, value in zip(own._fields, own, strict=True) if value is not None]
    if given:
        raise UsageFault(
            f"--like and --{given[0]} exclude each other: the earlier run lays down the workload",
            "leave one of them out",
        )
    earlier = planner.recall(like)
    return limits_like(earlier, budget, most, seed, targets > 1), WorkloadText(
        earlier.isl, earlier.osl
    )


def _found(quiet: bool) -> str:
    """The URL of the one server on this machine; UsageFault for none or several."""
    from latdiag.cli.find import the_server

    server = the_server()
    if not quiet:
        click.echo(f"Found {server.line()}", err=True)
    return server.url


def _wish(url: str, target: TargetOptions, priority: str, seed: int) -> Wish:
    from latdiag.load.work.prepare import Wish
    from latdiag.load.work.workload import parse_overlay
    from latdiag.probe.run import GIVE_UP

    overlay = parse_overlay(target.body_json) if target.body_json else None
    fixed = sorted(_DESIGNED & (overlay or {}).keys())
    if fixed:
        raise UsageFault(
            f"--body-json sets {fixed[0]}, but a probe sets its own lengths",
            "leave it out; --osl sets the length for your own workload",
        )
    return Wish(
        url=url,
        path=target.path,
        model=target.model,
        seed=seed,
        give_up=GIVE_UP,
        designed=True,
        overlay=overlay,
        headers=target.headers(url),
        api_key_env=target.key_of(url),
        trust=target.trust(),
        timeout_ns=target.timeout,
        priority=priority,
    )


def _say_cost(limits: Limits) -> None:
    """What the probe may spend, before it has spent anything."""
    from latdiag.probe.cost import cost

    most = cost(limits)
    click.echo(
        f"At most {most.requests:,} requests and {most.tokens:,} tokens in about"
        f" {most.seconds:.0f} s, plus a few to find out what the target supports.",
        err=True,
    )
