"""Options that verbs share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import click

from latdiag.cli.values import DURATION, headers_of

#: What --otlp means without an address.
ON = "on"


@dataclass(frozen=True, slots=True)
class TargetOptions:
    """Which server is asked, and how. ``timeout``: ns. Values are as the user wrote them."""

    model: str | None
    path: str | None
    api_key_env: str | None
    plain: tuple[str, ...]
    header_env: tuple[str, ...]
    insecure: bool
    timeout: int
    body_json: str | None

    def headers(self) -> tuple[tuple[str, str], ...]:
        """The headers to send; UsageFault for what is none."""
        return headers_of(self.api_key_env, self.plain, self.header_env)


@dataclass(frozen=True, slots=True)
class GatherOptions:
    """Where servers say what they do. ``otlp``, ``otlp_http``: HOST:PORT, ``on``, ``off`` or None;
    ``wait``: ns."""

    otlp: str | None
    otlp_http: str | None
    metrics: tuple[str, ...]
    metrics_header_env: tuple[str, ...]
    forward: str | None
    wait: int
    token_env: str | None
    allow_unauthenticated: bool


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """Where the run goes, and what is shown of it."""

    priority: str
    out: str | None
    quiet: bool
    as_json: bool


metrics_header_option = click.option(
    "--metrics-header-env",
    multiple=True,
    metavar="'NAME: VARIABLE'",
    help="A header for --metrics, its value in a variable; 'ORIGIN NAME: VARIABLE' of several.",
)
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
    metrics_header_option,
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


def as_one(name: str, kind: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The options that are fields of the dataclass ``kind`` reach a command as its ``name``."""
    own = [field.name for field in fields(kind)]

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def call(**options: Any) -> Any:
            values = {field: options.pop(field) for field in own}
            return command(**options, **{name: kind(**values)})

        return call

    return decorate


def _shared(
    name: str, kind: type, options: tuple[Any, ...]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Options that several verbs share, as one decorator and one argument."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        command = as_one(name, kind)(command)
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


target_options = _shared("target", TargetOptions, _TARGET)
output_options = _shared("output", OutputOptions, _OUTPUT)
gather_options = _shared("gather", GatherOptions, _GATHER)
