"""``latdiag collect``: what servers say, while somebody else sends them requests."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from latdiag.cli.listening import listening, sayer
from latdiag.cli.options import (
    GatherOptions,
    as_one,
    metrics_header_option,
    table_options,
    view_options,
)
from latdiag.cli.values import DURATION, SIZE, metrics_headers
from latdiag.cli.verb import Verb
from latdiag.model.errors import UsageFault, of_run
from latdiag.model.text import without_credentials

if TYPE_CHECKING:
    from latdiag.ingest.otlp.endpoints import Endpoints


@click.command(cls=Verb, name="collect", context_settings={"max_content_width": 79})
@click.option(
    "--duration", type=DURATION, default="60s", show_default=True, help="Collect for so long."
)
@click.option(
    "--otlp",
    metavar="HOST:PORT",
    default="127.0.0.1:4317",
    show_default=True,
    help="Take spans by gRPC here; off for not.",
)
@click.option(
    "--otlp-http",
    metavar="HOST:PORT",
    default="127.0.0.1:4318",
    show_default=True,
    help="Take spans by HTTP here; off for not.",
)
@click.option("--metrics", multiple=True, metavar="URL", help="Scrape these metrics; repeatable.")
@metrics_header_option
@click.option("--forward", metavar="URL", help="Pass all exports on to this collector.")
@click.option(
    "--wait",
    type=DURATION,
    default="10s",
    show_default=True,
    help="At the end, until no late span came for so long.",
)
@click.option(
    "--max-disk", type=SIZE, default="2GB", show_default=True, help="Take no more than this."
)
@click.option(
    "--token-env", metavar="NAME", help="Variable with the bearer token that senders show."
)
@click.option(
    "--allow-unauthenticated", is_flag=True, help="Listen to other machines without a token."
)
@click.option("--out", help="Where the run goes; default ./latdiag-runs/UTC-VERB-HOST.run.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@click.option("--json", "as_json", is_flag=True, help="The result as JSON on stdout.")
@view_options
@table_options
@as_one("gather", GatherOptions)
def collect(
    duration: int,
    max_disk: int,
    out: str | None,
    quiet: bool,
    as_json: bool,
    view: str | None,
    gather: GatherOptions,
) -> int:
    """Collect what servers say: spans (OTLP) and metrics. No request is sent to them.

    Point the servers' exporters here, and let their traffic come; `latdiag diagnose` then says
    where its time went.

    \b
    latdiag collect --metrics http://localhost:8000
    latdiag collect --duration 10m --forward http://otel-collector:4317
    latdiag collect --otlp 0.0.0.0:4317 --token-env TOKEN
    """
    otlp = listening(gather.otlp, gather.otlp_http, gather)
    headers = metrics_headers(gather.metrics, gather.metrics_header_env)
    if otlp is None and not gather.metrics:
        raise UsageFault("nothing is to be collected", "leave --otlp on, or give --metrics URL")
    from latdiag.cli.execute import diagnosed, show
    from latdiag.ingest import collection
    from latdiag.report.collected_page import progress_lines, result_of

    path = _create(otlp, gather, duration, max_disk, out)
    with of_run(path):
        collected = collection.collect(
            path,
            otlp=otlp,
            metrics=gather.metrics,
            metrics_headers=headers,
            forward=gather.forward,
            max_disk=max_disk,
            duration_ns=duration,
            wait_ns=gather.wait,
            say=sayer(quiet),
            progress=progress_lines,
        )
    result = result_of(path, collected)
    if not as_json:
        result = replace(diagnosed(path, "collect"), run=result.run, collected=result.collected)
    show(result, as_json, view)
    return 128 + collected.stopped if collected.stopped else 0


def _create(
    otlp: Endpoints | None, gather: GatherOptions, duration: int, max_disk: int, out: str | None
) -> str:
    """Make the run; its path."""
    from latdiag.store.header import CollectPlan, Doors, Endpoint, Header, Machine
    from latdiag.store.writer import create_run, default_run_path

    forward = gather.forward
    plan = CollectPlan(
        duration_ns=duration,
        wait_ns=gather.wait,
        max_disk=max_disk,
        otlp=Doors(otlp.grpc, otlp.http) if otlp else None,
        metrics=[without_credentials(url) for url in gather.metrics],
        forward=without_credentials(forward) if forward else None,
    )
    header = Header(verb="collect", target=Endpoint(), plan=plan, client=Machine())
    path = out or default_run_path("collect", datetime.now(UTC))
    return create_run(path, header.to_json())
