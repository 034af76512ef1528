"""Options that verbs share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from latdiag.cli.values import DURATION

#: What --otlp means without an address.
ON = "on"
_Command = TypeVar("_Command", bound=Callable[..., Any])


_TARGET = (
    click.option("--model", help="Model to ask for; else the first of /v1/models."),
    click.option("--path", help="Path of the requests, e.g. /v1/completions."),
    click.option(
        "--api-key-env", metavar="NAME", help="Environment variable that holds the API key."
    ),
    click.option(
        "--header", "plain", multiple=True, metavar="'NAME: VALUE'", help="A header to send."
    ),
    click.option(
        "--header-env",
        multiple=True,
        metavar="'NAME: VARIABLE'",
        help="A header whose value is in an environment variable.",
    ),
    click.option("--insecure", is_flag=True, help="Do not verify the TLS certificate."),
    click.option(
        "--timeout",
        type=DURATION,
        default="120s",
        show_default=True,
        help="Limit for one whole request.",
    ),
    click.option(
        "--body-json", metavar="OBJECT", help="Fields to merge into every request's body."
    ),
)
_OUTPUT = (
    click.option(
        "--priority",
        type=click.Choice(["auto", "ordinary", "realtime"]),
        default="auto",
        show_default=True,
        help="Of the readers; auto: realtime if this machine is the target and you may.",
    ),
    click.option("--out", help="Where the run goes; default ./latdiag-runs/UTC-VERB-HOST.run."),
    click.option("--quiet", is_flag=True, help="No progress on stderr."),
    click.option("--json", "as_json", is_flag=True, help="The result as JSON on stdout."),
)
_GATHER = (
    click.option(
        "--otlp",
        is_flag=False,
        flag_value=ON,
        metavar="[HOST:PORT]",
        help="Take the servers' spans meanwhile, by gRPC [127.0.0.1:4317] and HTTP [:4318].",
    ),
    click.option("--otlp-http", metavar="HOST:PORT", help="Take spans by HTTP here, not at 4318."),
    click.option(
        "--metrics", multiple=True, metavar="URL", help="Scrape these metrics; repeatable."
    ),
    click.option("--forward", metavar="URL", help="Pass all spans on to this collector."),
    click.option(
        "--wait",
        type=DURATION,
        default="10s",
        show_default=True,
        help="With --otlp, at the end: until no late span came for so long.",
    ),
    click.option("--token-env", metavar="NAME", help="Variable with the token that senders show."),
    click.option(
        "--allow-unauthenticated",
        is_flag=True,
        help="Take spans from other machines without a token.",
    ),
)


def applied(options: tuple[Any, ...]) -> Callable[[_Command], _Command]:
    """Options that several verbs share, as one decorator."""

    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


target_options = applied(_TARGET)
output_options = applied(_OUTPUT)
gather_options = applied(_GATHER)
