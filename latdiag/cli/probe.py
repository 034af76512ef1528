"""``latdiag probe``: designed requests, stage by stage, then where the time went."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from latdiag.cli.kept import saying_what_is_kept
from latdiag.cli.listening import gatherer, spans_to
from latdiag.cli.options import (
    LENGTHS,
    GatherOptions,
    OutputOptions,
    TargetOptions,
    gather_options,
    output_options,
    target_options,
)
from latdiag.cli.verb import Verb
from latdiag.model.errors import UsageFault

if TYPE_CHECKING:
    from latdiag.load.work.prepare import Wish
    from latdiag.measurement.stages import Limits

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
    "--budget",
    type=click.Choice(["quick", "standard", "deep"]),
    default="quick",
    show_default=True,
    help="How much to spend: about a minute, some minutes, half an hour.",
)
@click.option(
    "--max-tokens-total",
    type=click.IntRange(1),
    metavar="N",
    help="Limit on the total of tokens. [default by budget: 200,000, 1,000,000 or 5,000,000]",
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
@output_options
def probe(
    url: str | None,
    behind: str | None,
    slos: tuple[str, ...],
    budget: str,
    max_tokens_total: int | None,
    rate: str | None,
    concurrency: int | None,
    isl: str | None,
    osl: str | None,
    seed: int | None,
    target: TargetOptions,
    gather: GatherOptions,
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
    """
    from latdiag.cli.execute import conclude, show, with_fault
    from latdiag.cli.targets import target_of
    from latdiag.measurement.slo import parse_slos
    from latdiag.probe.limits import limits_of
    from latdiag.probe.planner import Planner
    from latdiag.probe.run import WorkloadText, run_probe
    from latdiag.report.progress import Progress

    objectives = parse_slos(slos)
    url = url or _found(output.quiet)
    limits = limits_of(
        budget, max_tokens_total, rate, concurrency, isl, osl, seed, behind is not None
    )
    asked = [url] if behind is None else [url, behind]
    shown = [(each, target.headers(each)) for each in asked]
    around = gatherer(gather, output.quiet, shown, target.trust())
    with saying_what_is_kept(), target_of(url, spans_to(gather, url)) as place:
        wish = _wish(place, target, output.priority, limits.seed)
        second = None
        if behind is not None:
            second = _wish(behind, target, output.priority, limits.seed)
        _say_cost(limits)
        progress = Progress(None, None, quiet=output.quiet)
        workload = WorkloadText(isl, osl)
        with Planner() as planner:
            done = run_probe(planner, wish, limits, output.out, around, progress, workload, second)
        end = conclude("probe", done.path, done.end, done.cut, objectives)
        result, code = with_fault(end, done.heard)
    show(result, output.as_json, output.view)
    return code


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
