"""Options that verbs share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import click

from latdiag.cli.values import DURATION, headers_of, trust_of, usual_key
from latdiag.model.errors import UsageFault

if TYPE_CHECKING:
    from latdiag.load.trust import Trust

#: How a length in tokens is written.
LENGTHS = """\b
LENGTH: 512, or one drawn for each request:
  uniform:100-200           each from 100 to 200 equally often
  normal:512,64             mean and standard deviation
  lognormal:512,0.8         median and sigma of the logarithm
  choice:128,512            each value equally often
"""

#: What --otlp means without an address.
ON = "on"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyOptions:
    """What a server is shown of the user: a key, and headers. As the user wrote them."""

    api_key_env: str | None
    no_api_key: bool
    plain: tuple[str, ...]
    header_env: tuple[str, ...]

    def headers(self, url: str) -> tuple[tuple[str, str], ...]:
        """The headers to send to ``url``; UsageFault for what is none."""
        return headers_of(self.key_of(url), self.plain, self.header_env)

    def key_of(self, url: str) -> str | None:
        """The variable whose key goes to ``url``. UsageFault for two orders that contradict."""
        if self.no_api_key and self.api_key_env is not None:
            raise UsageFault("--no-api-key and --api-key-env contradict", "leave one out")
        if self.no_api_key or self.api_key_env is not None:
            return self.api_key_env
        return usual_key(url, (*self.plain, *self.header_env))


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetOptions(KeyOptions):
    """Which server is asked, and how. ``timeout``: ns. Values are as the user wrote them."""

    model: str | None
    path: str | None
    insecure: bool
    ca_file: str | None
    client_cert: str | None
    client_key: str | None
    timeout: int
    body_json: str | None

    def trust(self) -> Trust:
        """Whom to trust over TLS; UsageFault for files that are not what they should be."""
        return trust_of(self.insecure, self.ca_file, self.client_cert, self.client_key)


@dataclass(frozen=True, slots=True)
class GatherOptions:
    """Where servers say what they do. ``otlp``, ``otlp_http``: HOST:PORT, ``on``, ``off`` or None;
    ``wait``: ns."""

    otlp: str | None
    otlp_http: str | None
    metrics: tuple[str, ...]
    metrics_header_env: tuple[str, ...]
    prometheus: str | None
    prometheus_match: str
    prometheus_token_env: str | None
    forward: str | None
    wait: int
    token_env: str | None
    allow_unauthenticated: bool


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """Where traces go while a load runs."""

    export: str | None
    export_header_env: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """Where the run goes, and what is shown of it."""

    priority: str
    out: str | None
    quiet: bool
    as_json: bool
    view: str | None


metrics_header_option = click.option(
    "--metrics-header-env",
    multiple=True,
    metavar="'NAME: VARIABLE'",
    help="A header for --metrics whose value is in an environment variable; with several"
    " servers, 'ORIGIN NAME: VARIABLE'.",
)
#: Metrics by way of a Prometheus server.
PROMETHEUS = (
    click.option(
        "--prometheus",
        metavar="URL",
        help="Take the metrics from this Prometheus server, which scrapes the servers.",
    ),
    click.option(
        "--prometheus-match",
        default="",
        metavar="LABELS",
        help="Which servers it takes them of, e.g. 'job=\"vllm\"'. [default: all]",
    ),
    click.option(
        "--prometheus-token-env",
        metavar="NAME",
        help="Environment variable with a bearer token for Prometheus.",
    ),
)
#: What is shown of a result, beside one screen.
_VIEW = (
    click.option(
        "--full", "view", flag_value="full", help="Print every figure, over several screens."
    ),
    click.option("--notes", "view", flag_value="notes", help="Print every note (caveat) in full."),
)
#: And as a table for others.
_TABLES = (
    click.option("--csv", "view", flag_value="csv", help="Print the numbers as CSV."),
    click.option(
        "--markdown",
        "view",
        flag_value="markdown",
        help="Print tables in Markdown, for a pull request.",
    ),
)
#: Files for TLS.
TLS = (
    click.option(
        "--ca-file",
        metavar="FILE",
        help="Trust the certificate authorities in this PEM file too.",
    ),
    click.option(
        "--client-cert",
        metavar="FILE",
        help="Show the target this client certificate (PEM, with its key or --client-key).",
    ),
    click.option("--client-key", metavar="FILE", help="Key of --client-cert."),
)
_TARGET = (
    click.option(
        "--model", metavar="NAME", help="Model to request. [default: the first of /v1/models]"
    ),
    click.option("--path", metavar="PATH", help="Path of the requests, e.g. /v1/completions."),
    click.option(
        "--api-key-env",
        metavar="NAME",
        help="Environment variable with the API key. [default: OPENAI_API_KEY, only over https"
        " or to this machine]",
    ),
    click.option(
        "--no-api-key", is_flag=True, help="Send no API key, even if OPENAI_API_KEY is set."
    ),
    click.option(
        "--header",
        "plain",
        multiple=True,
        metavar="'NAME: VALUE'",
        help="Send this header; repeatable.",
    ),
    click.option(
        "--header-env",
        multiple=True,
        metavar="'NAME: VARIABLE'",
        help="Send a header whose value is in an environment variable.",
    ),
    click.option("--insecure", is_flag=True, help="Do not verify the target's TLS certificate."),
    *TLS,
    click.option(
        "--timeout",
        type=DURATION,
        default="120s",
        show_default=True,
        help="Time limit for a whole request.",
    ),
    click.option(
        "--body-json", metavar="OBJECT", help="Add these fields to the body of every request."
    ),
)
_OUTPUT = (
    click.option(
        "--priority",
        type=click.Choice(["auto", "ordinary", "realtime"]),
        default="auto",
        show_default=True,
        help="Priority of the reader processes; auto: realtime if the target is this machine"
        " and you have the right.",
    ),
    click.option(
        "-o",
        "--out",
        metavar="PATH",
        help="Path of the saved run. [default: ./latdiag-runs/UTC-VERB-HOST.run]",
    ),
    click.option("--quiet", is_flag=True, help="Show no progress on stderr."),
    click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
    *_VIEW,
    *_TABLES,
)
#: The doors of a verb that does nothing but listen: open unless they are turned off.
_DOORS = (
    click.option(
        "--otlp",
        metavar="HOST:PORT",
        default="127.0.0.1:4317",
        show_default=True,
        help="Receive spans over gRPC at this address, or off.",
    ),
    click.option(
        "--otlp-http",
        metavar="HOST:PORT",
        default="127.0.0.1:4318",
        show_default=True,
        help="Receive spans over HTTP at this address, or off.",
    ),
)
_FORWARD = click.option("--forward", metavar="URL", help="Forward all exports to this collector.")
_SENDERS = (
    click.option(
        "--token-env",
        metavar="NAME",
        help="Environment variable with the bearer token that senders must present.",
    ),
    click.option(
        "--allow-unauthenticated",
        is_flag=True,
        help="Accept data from other machines without a token.",
    ),
)
_GATHER = (
    click.option(
        "--otlp",
        is_flag=False,
        flag_value=ON,
        metavar="[HOST:PORT]",
        help="Receive the servers' spans during the run, over gRPC [127.0.0.1:4317] and HTTP"
        " [port 4318].",
    ),
    click.option(
        "--otlp-http", metavar="HOST:PORT", help="Receive spans over HTTP at this address instead."
    ),
    click.option(
        "--metrics",
        multiple=True,
        metavar="URL",
        help="Scrape the metrics at this URL; repeatable.",
    ),
    metrics_header_option,
    *PROMETHEUS,
    click.option("--forward", metavar="URL", help="Forward all spans to this collector."),
    click.option(
        "--wait",
        type=DURATION,
        default="10s",
        show_default=True,
        help="With --otlp: at the end, wait until no span has arrived for this long.",
    ),
    click.option(
        "--token-env",
        metavar="NAME",
        help="Environment variable with the token that senders must present.",
    ),
    click.option(
        "--allow-unauthenticated",
        is_flag=True,
        help="Accept spans from other machines without a token.",
    ),
)
_EXPORT = (
    click.option(
        "--export",
        metavar="URL",
        help="Send a trace of each request to this OTLP receiver while the load runs, as `latdiag"
        " export` does after it.",
    ),
    click.option(
        "--export-header-env",
        multiple=True,
        metavar="'NAME: VARIABLE'",
        help="A header for --export whose value is in an environment variable.",
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
    return lambda command: _together(*options)(as_one(name, kind)(command))


def _together(
    *options: Callable[[Callable[..., Any]], Callable[..., Any]],
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """These options as one decorator, in this order."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


#: ``--full`` and ``--notes``, which reach a command as ``view``.
view_options = _together(*_VIEW)
#: ``--csv`` and ``--markdown``, which do too.
table_options = _together(*_TABLES)
#: ``--ca-file``, ``--client-cert`` and ``--client-key``.
tls_options = _together(*TLS)
#: ``--prometheus`` and what belongs to it.
prometheus_options = _together(*PROMETHEUS)
#: ``--otlp`` and ``--otlp-http`` of a verb that does nothing but listen.
door_options = _together(*_DOORS)
#: ``--forward`` of such a verb, and what senders must present.
forward_option = _FORWARD
sender_options = _together(*_SENDERS)


target_options = _shared("target", TargetOptions, _TARGET)
output_options = _shared("output", OutputOptions, _OUTPUT)
gather_options = _shared("gather", GatherOptions, _GATHER)
export_options = _shared("export", ExportOptions, _EXPORT)
