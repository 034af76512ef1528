"""``latdiag watch``: where the time of production traffic goes now, and what changed."""

from __future__ import annotations

import sys

import click

from latdiag.cli.listening import listening
from latdiag.cli.options import GatherOptions, door_options, forward_option, sender_options
from latdiag.cli.values import DURATION
from latdiag.cli.verb import Verb
from latdiag.model.errors import UsageFault
from latdiag.model.text import shown


@click.command(cls=Verb, name="watch", context_settings={"max_content_width": 79})
@door_options
@forward_option
@sender_options
@click.option(
    "--listen",
    metavar="HOST:PORT",
    default="127.0.0.1:9464",
    show_default=True,
    help="Serve /metrics for Prometheus at this address, or off.",
)
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="NAME=ATTRIBUTE",
    help="Tell requests apart by this span attribute: route=http.route; repeatable."
    " NAME is route or tenant.",
)
@click.option(
    "--sampled",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="SHARE",
    help="The share of requests whose traces are sampled, to be said with the figures.",
)
@click.option("--duration", type=DURATION, help="End after this long. [default: until Ctrl-C]")
@click.option("-o", "--out", metavar="FILE", help="Append a JSON line for each half minute.")
@click.option("--quiet", is_flag=True, help="Show nothing but errors, and --json.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON line for each half minute.")
def watch(
    otlp: str,
    otlp_http: str,
    forward: str | None,
    token_env: str | None,
    allow_unauthenticated: bool,
    listen: str,
    labels: tuple[str, ...],
    sampled: float | None,
    duration: int | None,
    out: str | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Watch production traffic: where its time goes now, and what changed.

    Point the servers' exporters at this machine. latdiag sends no requests; the spans of each
    request are taken apart 10 s after the last of them.

    \b
    latdiag watch
    latdiag watch --forward http://otel-collector:4317 --label tenant=user.id
    latdiag watch --json | jq .windows
    """
    gather = GatherOptions(
        *(otlp, otlp_http, (), (), None, "", None, forward, 0),
        *(token_env, allow_unauthenticated),
    )
    endpoints = listening(otlp, otlp_http, gather)
    if endpoints is None:
        raise UsageFault(
            "there is nothing to watch: --otlp and --otlp-http are off", "leave one on"
        )
    named = _labels(labels)
    from latdiag.ingest.otlp.endpoints import address_of
    from latdiag.ingest.otlp.forward import Destination
    from latdiag.report.watch_faces import Kept, Lines, Terminal
    from latdiag.watch import live

    plan = live.Plan(
        endpoints,
        Destination.parse(forward) if forward else None,
        named,
        None if listen == "off" else address_of(listen, 9464),
        duration,
        sampled,
    )

    def say(line: str) -> None:
        if not quiet:
            click.echo(shown(line, 400), err=True)

    drawn = sys.stdout is not None and sys.stdout.isatty() and not (as_json or quiet)
    face: live.Face = Lines(say, out, click.echo if as_json else None)
    if drawn:
        face = Terminal(say, out)
    if out is not None:
        face = Kept(face, out, say)
    live.watch(plan, face)
    return 0


def _labels(pairs: tuple[str, ...]) -> dict[str, str]:
    """The attribute of each label. UsageFault for what is none."""
    found = {}
    for pair in pairs:
        name, equals, attribute = pair.partition("=")
        if name not in ("route", "tenant") or not equals or not attribute or len(attribute) > 200:
            raise UsageFault(
                f"--label {shown(pair, 80)} names no label",
                "write --label route=ATTRIBUTE or --label tenant=ATTRIBUTE",
            )
        found[name] = attribute
    return found
