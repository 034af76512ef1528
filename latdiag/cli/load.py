"""``latdiag load``: a workload of yours, measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from latdiag.cli.values import DURATION
from latdiag.cli.verb import Verb

if TYPE_CHECKING:
    from latdiag.load.work.prepare import Wish


@click.command(cls=Verb, epilog=LENGTHS, name="load", context_settings={"max_content_width": 79})
@click.argument("url")
@click.option(
    "-n", "--requests", type=click.IntRange(1), metavar="N", help="Stop after this many requests."
)
@click.option("--duration", type=DURATION, help="Stop sending after this time. [default: 30s]")
@click.option(
    "-c",
    "--concurrency",
    type=click.IntRange(1, 100_000),
    metavar="N",
    help="Closed loop: keep this many requests in flight.",
)
@click.option(
    "--rate",
    metavar="RATE",
    help="Open loop: requests per second, as 10, poisson:10 or constant:10.",
)
@click.option("--ramp", type=DURATION, default="0s", help="Increase to full load over this time.")
@click.option(
    "--warmup",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="Number of warm-up requests, which are not counted.",
)
@click.option(
    "--isl", default="128", show_default=True, metavar="LENGTH", help="Input tokens per request."
)
@click.option(
    "--osl", default="64", show_default=True, metavar="LENGTH", help="Output tokens per request."
)
@click.option(
    "--seed",
    type=int,
    metavar="N",
    help="Seed of lengths, prompts and arrivals. [default: a new one]",
)
@click.option(
    "--prompts", type=click.Path(path_type=Path), help="Take the prompts from this JSONL file."
)
@click.option(
    "--shared-prefix",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="Start all prompts with the same N tokens.",
)
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path),
    help="Tokenizer file (tokenizer.json) for an exact ISL.",
)
@click.option(
    "--slo",
    "slos",
    multiple=True,
    metavar="OBJECTIVE",
    help="An SLO, e.g. ttft.p95<500ms; repeatable.",
)
@click.option(
    "--connections",
    type=click.Choice(["fresh", "reuse"]),
    default="reuse",
    show_default=True,
    help="Reuse connections, or open a new one for each request.",
)
@click.option(
    "--workers",
    type=int,
    metavar="N",
    help="Number of reader processes. [default: by load and cores]",
)
@target_options
@gather_options
@export_options
@output_options
def load(
    url: str,
    slos: tuple[str, ...],
    target: TargetOptions,
    gather: GatherOptions,
    export: ExportOptions,
    output: OutputOptions,
    **workload: Any,
) -> int:
    """Send requests to URL (an OpenAI-compatible endpoint, or demo:echo) and measure.

    \b
    latdiag load http://localhost:8000 --concurrency 16 --duration 60s
    latdiag load http://localhost:8000/v1 --rate 4 --slo 'ttft.p95<500ms'
    latdiag load https://host/v1 --api-key-env KEY --model NAME --requests 200
    """
    from latdiag.cli.execute import execute, show
    from latdiag.cli.targets import target_of
    from latdiag.measurement.slo import parse_slos

    objectives = parse_slos(slos)
    with saying_what_is_kept(), target_of(url, spans_to(gather, url)) as place:
        wish = _wish(place, target, output.priority, **workload)
        headed = [(place, target.headers(place))]
        around = gatherer(gather, output.quiet, headed, target.trust(), export)
        result, code = execute("load", wish, output.out, output.quiet, objectives, around)
    show(result, output.as_json, output.view)
    return code


def _wish(
    url: str,
    target: TargetOptions,
    priority: str,
    *,
    requests: int | None,
    duration: int | None,
    concurrency: int | None,
    rate: str | None,
    ramp: int,
    warmup: int,
    isl: str,
    osl: str,
    seed: int | None,
    prompts: Path | None,
    shared_prefix: int,
    tokenizer: Path | None,
    connections: str,
    workers: int | None,
) -> Wish:
    import secrets

    from latdiag.load.work.lengths import Lengths
    from latdiag.load.work.prepare import Wish
    from latdiag.load.work.workload import parse_overlay

    if duration is None and requests is None:
        duration = 30_000_000_000
    return Wish(
        url=url,
        path=target.path,
        model=target.model,
        isl=Lengths.parse(isl),
        osl=Lengths.parse(osl),
        seed=secrets.randbits(32) if seed is None else seed,
        requests=requests,
        duration_ns=duration,
        warmup=warmup,
        rate=rate,
        concurrency=concurrency,
        ramp_ns=ramp,
        overlay=parse_overlay(target.body_json) if target.body_json else None,
        prompts=prompts,
        shared_prefix=shared_prefix,
        tokenizer=tokenizer,
        headers=target.headers(url),
        api_key_env=target.key_of(url),
        trust=target.trust(),
        timeout_ns=target.timeout,
        reuse=connections == "reuse",
        workers=workers,
        priority=priority,
    )
