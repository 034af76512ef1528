"""``latdiag collect``: what servers say, while somebody else sends them requests."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from latdiag.cli.kept import saying_what_is_kept
from latdiag.cli.listening import listening, prometheus_of, sayer
from latdiag.cli.options import (
    TLS,
    GatherOptions,
    as_one,
    door_options,
    forward_option,
    metrics_header_option,
    prometheus_options,
    sender_options,
    table_options,
    view_options,
)
from latdiag.cli.values import DURATION, SIZE, metrics_headers, trust_of
from latdiag.cli.verb import Verb
from latdiag.model.errors import UsageFault, of_run
from latdiag.model.text import without_credentials

if TYPE_CHECKING:
    from latdiag.ingest.otlp.endpoints import Endpoints


@click.command(cls=Verb, name="collect", context_settings={"max_content_width": 79})
@click.option(
    "--duration", type=DURATION, default="60s", show_default=True, help="Collect for this long."
)
@door_options
@click.option(
    "--metrics", multiple=True, metavar="URL", help="Scrape the metrics at this URL; repeatable."
)
@metrics_header_option
@prometheus_options
@TLS[0]
@forward_option
@click.option(
    "--wait",
    type=DURATION,
    default="10s",
    show_default=True,
    help="At the end, wait until no span has arrived for this long.",
)
@click.option(
    "--max-disk", type=SIZE, default="2GB", show_default=True, help="Store no more than this."
)
@sender_options
@click.option(
    "-o", "--out", help="Path of the saved run. [default: ./latdiag-runs/UTC-collect-HOST.run]"
)
@click.option("--quiet", is_flag=True, help="Show no progress on stderr.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
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
    ca_file: str | None,
    gather: GatherOptions,
) -> int:
    """Collect spans (OTLP) and metrics from servers; latdiag sends them no requests.

    Point the servers' exporters at this machine while your own traffic runs; the result says
    where its time went.

    \b
    latdiag collect --metrics http://localhost:8000
    latdiag collect --duration 10m --forward http://otel-collector:4317
    latdiag collect --otlp 0.0.0.0:4317 --token-env TOKEN
    """
    otlp = listening(gather.otlp, gather.otlp_http, gather)
    headers = metrics_headers(gather.metrics, gather.metrics_header_env)
    prometheus, trust = prometheus_of(gather), trust_of(False, ca_file, None, None)
    if otlp is None and not gather.metrics and prometheus is None:
        raise UsageFault(
            "there is nothing to collect: --otlp is off and no --metrics is given",
            "leave --otlp on, or give --metrics URL",
        )
    from latdiag.cli.execute import diagnosed, show
    from latdiag.ingest import collection
    from latdiag.report.collected_page import progress_lines, result_of

    path = _create(otlp, gather, duration, max_disk, out)
    with saying_what_is_kept(), of_run(path):
        collected = collection.collect(
            path,
            otlp=otlp,
            metrics=gather.metrics,
            metrics_headers=headers,
            prometheus=prometheus,
            trust=trust,
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
        metrics=[
            without_credentials(url)
            for url in (*gather.metrics, *([gather.prometheus] if gather.prometheus else []))
        ],
        forward=without_credentials(forward) if forward else None,
    )
    header = Header(verb="collect", target=Endpoint(), plan=plan, client=Machine())
    path = out or default_run_path("collect", datetime.now(UTC))
    return create_run(path, header.to_json())
