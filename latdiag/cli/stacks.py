"""``latdiag stacks [URL]``: what each serving stack can tell, and what is on and off here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from latdiag.cli.listening import check_metrics
from latdiag.cli.options import KeyOptions, metrics_header_option, tls_options
from latdiag.cli.values import metrics_headers, trust_of
from latdiag.cli.verb import Verb
from latdiag.model.errors import UsageFault
from latdiag.model.text import shown

if TYPE_CHECKING:
    from latdiag.load.look import Glimpse


@click.command(cls=Verb, context_settings={"max_content_width": 79})
@click.argument("url", required=False)
@click.option("--metrics", multiple=True, metavar="URL", help="Also read the metrics at this URL.")
@metrics_header_option
@click.option(
    "--api-key-env",
    metavar="NAME",
    help="Environment variable with the API key. [default: OPENAI_API_KEY, only over https or"
    " to this machine]",
)
@click.option("--no-api-key", is_flag=True, help="Send no API key, even if OPENAI_API_KEY is set.")
@click.option(
    "--header",
    "plain",
    multiple=True,
    metavar="'NAME: VALUE'",
    help="Send this header; repeatable.",
)
@click.option(
    "--header-env",
    multiple=True,
    metavar="'NAME: VARIABLE'",
    help="Send a header whose value is in an environment variable.",
)
@click.option("--insecure", is_flag=True, help="Do not verify the server's TLS certificate.")
@tls_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--markdown", "as_markdown", is_flag=True, help="Print the table of stacks in Markdown."
)
def stacks(
    url: str | None,
    metrics: tuple[str, ...],
    metrics_header_env: tuple[str, ...],
    api_key_env: str | None,
    no_api_key: bool,
    plain: tuple[str, ...],
    header_env: tuple[str, ...],
    insecure: bool,
    ca_file: str | None,
    client_cert: str | None,
    client_key: str | None,
    as_json: bool,
    as_markdown: bool,
) -> None:
    """Show what each serving stack can report about the components of latency. With URL: which
    stack is there, what is on or off, and the flag that turns it on. Only GETs are sent.

    \b
    latdiag stacks
    latdiag stacks http://localhost:8000/v1
    latdiag stacks http://localhost:8000 --metrics http://localhost:9090/metrics
    """
    from latdiag.report import stacks_page as page
    from latdiag.report.json import dump
    from latdiag.stacks import catalogue

    known = catalogue.stacks()
    for one in catalogue.broken():
        text = f"the stack of entry point {shown(one.entry, 60)} was left out: {shown(one.why)}"
        click.echo(f"warning: {text}", err=True)
    if as_markdown:
        if url or as_json:
            raise UsageFault("--markdown prints only the table", "leave out URL and --json")
        click.echo(page.markdown(known))
    elif url is not None:
        asked = KeyOptions(
            api_key_env=api_key_env, no_api_key=no_api_key, plain=plain, header_env=header_env
        )
        headers = asked.headers(url)
        from latdiag.load.signs import glimpses_of

        trust = trust_of(insecure, ca_file, client_cert, client_key)
        check_metrics(metrics)
        more = metrics_headers(metrics, metrics_header_env)
        _show_found(glimpses_of(url, headers, metrics, trust, more), as_json)
    elif metrics or metrics_header_env:
        raise UsageFault(
            "--metrics needs the URL of the server too", "give the server's URL as well"
        )
    elif as_json:
        click.echo(dump(page.table_document(known)))
    else:
        click.echo("\n".join(page.table_lines(known)))


def _show_found(seen: tuple[Sequence[Glimpse], str], as_json: bool) -> None:
    from latdiag.load.signs import signs_of
    from latdiag.report import stacks_page as page
    from latdiag.report.json import dump
    from latdiag.stacks.detect import detect

    glimpses, base = seen
    signs = signs_of(glimpses)
    found = detect(signs)
    if as_json:
        click.echo(dump(page.found_document(base, found, signs)))
    else:
        click.echo("\n".join(page.found_lines(base, glimpses, found, signs)))
