"""``latdiag export``: the requests of a saved run for other programs."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import click

from latdiag.cli.options import as_one, tls_options
from latdiag.cli.values import DURATION, headers_of, trust_of, variable
from latdiag.cli.verb import Verb, runs_like
from latdiag.model.errors import UsageFault
from latdiag.model.text import shown

if TYPE_CHECKING:
    from latdiag.export.choice import Wanted
    from latdiag.export.delivery import Delivery
    from latdiag.export.exported import Exported
    from latdiag.export.way import Way

#: What a form is also called.
_FORMS = {
    "otlp": "otlp",
    "perfetto": "perfetto",
    "csv": "csv",
    "jsonl": "jsonl",
    "parquet": "parquet",
    "openmetrics": "openmetrics",
    "jaeger": "otlp",
    "prometheus": "openmetrics",
}
#: Anything of the traces was rejected, lost or not sent.
UNDELIVERED = 15
STDOUT = "-"


@dataclass(frozen=True, slots=True)
class SendOptions:
    """How a receiver is spoken to; as the user wrote it. ``timeout``: ns."""

    token_env: str | None
    header_env: tuple[str, ...]
    timeout: int
    insecure: bool
    ca_file: str | None
    client_cert: str | None
    client_key: str | None

    def way(self, url: str) -> Way:
        """UsageFault for an address that is none, and for secrets that are not there."""
        from latdiag.export.way import Way
        from latdiag.ingest.otlp.forward import Destination

        headers = headers_of(None, (), self.header_env)
        if self.token_env is not None:
            headers += (("Authorization", f"Bearer {variable('--token-env', self.token_env)}"),)
        trust = trust_of(self.insecure, self.ca_file, self.client_cert, self.client_key)
        destination = Destination.parse(url, "to export to")
        return Way(destination, headers, trust, self.timeout)


@click.command(cls=Verb, name="export", context_settings={"max_content_width": 79})
@click.argument("runs", metavar="RUN..", nargs=-1, required=True, shell_complete=runs_like)
@click.option(
    "--to",
    nargs=2,
    required=True,
    metavar="FORM PLACE",
    help="otlp URL (or jaeger): traces to an OTLP receiver. perfetto FILE: a timeline."
    " csv, jsonl or parquet FILE: the table of `latdiag requests`. openmetrics FILE (or"
    " prometheus): metrics and shares of the whole workload. - for stdout.",
)
@click.option(
    "--slowest", type=click.IntRange(1), metavar="N", help="Export only the N slowest requests."
)
@click.option(
    "--where",
    multiple=True,
    metavar="CONDITION",
    help="Export only requests that meet it, e.g. 'queue_ms > 500' or 'outcome != ok';"
    " repeatable, all must hold.",
)
@click.option(
    "--at-most",
    type=click.IntRange(1),
    default=100_000,
    show_default=True,
    metavar="N",
    help="Of more requests than this, export a sample.",
)
@click.option("--token-env", metavar="NAME", help="Environment variable with a bearer token.")
@click.option(
    "--header-env",
    multiple=True,
    metavar="'NAME: VARIABLE'",
    help="Send a header whose value is in an environment variable.",
)
@click.option(
    "--timeout",
    type=DURATION,
    default="10s",
    show_default=True,
    help="Time limit for a batch of spans.",
)
@click.option("--insecure", is_flag=True, help="Do not verify the receiver's TLS certificate.")
@tls_options
@as_one("send", SendOptions)
@click.option("--quiet", is_flag=True, help="Show no progress on stderr.")
@click.option("--json", "as_json", is_flag=True, help="Print what was exported as JSON.")
def export(
    runs: tuple[str, ...],
    to: tuple[str, str],
    slowest: int | None,
    where: tuple[str, ...],
    at_most: int,
    send: SendOptions,
    quiet: bool,
    as_json: bool,
) -> int:
    """Export the requests of RUN's workload, each with its parts, or its metrics.

    As traces: one for each attempt, `chat MODEL`, and below it a span for each part of its time.
    http://HOST:4318 is OTLP over HTTP, grpc://HOST:4317 over gRPC. Exit code 15 if not all spans
    were accepted. Files are never overwritten.

    \b
    latdiag export latdiag-runs/NAME.run --to otlp http://localhost:4318
    latdiag export NAME.run --to otlp grpc://localhost:4317 --slowest 100
    latdiag export latdiag-runs/NAME.run --to perfetto timeline.json
    """
    from latdiag.export.choice import Wanted

    form = _FORMS.get(to[0])
    if form is None:
        _refuse(to[0])
    wanted = Wanted(where, slowest, at_most)
    if form == "openmetrics" and (where or slowest):
        raise UsageFault(
            "openmetrics is of the whole workload, and has no single requests to choose",
            "leave out --where and --slowest",
        )
    if form == "otlp":
        found = _send(runs, send.way(to[1]), wanted, quiet)
    else:
        found = _write(runs, form, to[1], wanted, as_json)
    _show(found, as_json, err=to[1] == STDOUT)
    return 0 if found.complete else UNDELIVERED


def _write(
    runs: tuple[str, ...], form: str, place: str, wanted: Wanted, as_json: bool
) -> Exported:
    from latdiag.export.attempts import attempts_of
    from latdiag.export.files import check_new, write_file, write_stdout
    from latdiag.store.run import Run

    if place != STDOUT:
        check_new(place)
        return write_file(attempts_of(Run.open(*runs), wanted), form, place)
    if form == "parquet" or as_json:
        what = "a Parquet file" if form == "parquet" else "--json"
        raise UsageFault(f"{what} and {form} to stdout exclude each other", "name a file")
    return write_stdout(attempts_of(Run.open(*runs), wanted), form, sys.stdout)


def _refuse(form: str) -> NoReturn:
    raise UsageFault(
        f"there is no form {shown(form, 40)!r} to export to", f"choose from {', '.join(_FORMS)}"
    )


def _send(runs: tuple[str, ...], way: Way, wanted: Wanted, quiet: bool) -> Exported:
    from latdiag.export.attempts import attempts_of
    from latdiag.export.otlp import export_traces
    from latdiag.store.run import Run

    way.check()  # what takes long is not done for nobody
    attempts = attempts_of(Run.open(*runs), wanted)
    if quiet:
        return export_traces(attempts, way)
    return export_traces(attempts, way, _Progress(len(attempts)))


class _Progress:
    """A line on stderr now and then, where that is a terminal."""

    def __init__(self, requests: int) -> None:
        self._requests = requests
        self._shown = sys.stderr.isatty()

    def __call__(self, found: Delivery) -> None:
        if self._shown:
            text = f"\r{found.traces:,} of {self._requests:,} requests, {found.spans:,} spans"
            click.echo(text, err=True, nl=found.traces == self._requests)


def _show(found: Exported, as_json: bool, err: bool) -> None:
    from latdiag.report.export_page import lines_of
    from latdiag.report.json import dump

    click.echo(dump(found) if as_json else "\n".join(lines_of(found)), err=err)
