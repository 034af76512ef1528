"""``latdiag demo``: a server with a known fault on a port of this machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from latdiag.cli.outcome import INTERRUPTED, TERMINATED, Terminated
from latdiag.cli.verb import Verb
from latdiag.model.errors import LocalFault, UsageFault

if TYPE_CHECKING:
    from latdiag.sim.demo import Demo

_STOPPED = "the demo server stopped unexpectedly"


@click.command(cls=Verb, name="demo", context_settings={"max_content_width": 79})
@click.argument("fault", default="healthy")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="Port on 127.0.0.1; 0 picks a free one.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of noise, lengths and --draw.")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set a constant of the server, such as max_seqs=4.",
)
@click.option("--draw", is_flag=True, help="Draw all constants at random; the fault stays.")
@click.option(
    "--truth",
    metavar="FILE",
    help="Write where each request's time really went, as JSON lines; a gateway's in FILE.gateway",
)
@click.option(
    "--otlp", metavar="URL", help="Send spans to this URL, as vLLM does (OTLP over HTTP)."
)
@click.option(
    "--timings", is_flag=True, help="State each request's times in its reply, as vLLM does."
)
@click.option(
    "--telemetry",
    metavar="LIST",
    default="",
    help="Faults of the telemetry, not of the server: skew, step, drift, lost, late, repeated,"
    " unordered, reset; for example skew=-500.",
)
@click.option("--quiet", is_flag=True, help="Print only the URL.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON: one line at the start, one at the end."
)
def demo(
    fault: str,
    port: int,
    seed: int,
    changes: tuple[str, ...],
    draw: bool,
    truth: str | None,
    otlp: str | None,
    timings: bool,
    telemetry: str,
    quiet: bool,
    as_json: bool,
) -> int:
    """Serve a simulated LLM with a FAULT until Ctrl-C, to try latdiag.

    FAULT: healthy, queue, prefill, decode, interference, kv-transfer, network,
    or of a gateway in front: gateway, gateway-tokens, gateway-flush,
    gateway-queue.

    \b
    latdiag demo queue
    latdiag demo decode --port 0 --set weights_ms=60 --truth truth.jsonl
    latdiag demo kv-transfer --otlp http://localhost:4318 --telemetry lost=0.1
    """
    from latdiag.report.demo_page import end_lines
    from latdiag.sim.demo import serving
    from latdiag.sim.settings import constants
    from latdiag.sim.telemetry import telemetry_of

    params = constants(fault, seed, draw, changes)
    served: Demo | None = None
    ended: BaseException | None = None
    try:
        with serving(
            params,
            seed=seed,
            port=port,
            truth=Path(truth) if truth else None,
            otlp=otlp,
            timings=timings,
            telemetry=telemetry_of(telemetry),
        ) as served:
            _say_start(served, fault, seed, quiet, as_json)
            try:
                served.wait()
            except (KeyboardInterrupt, Terminated) as signal:
                ended = signal
        if ended is None:
            raise served.fault or LocalFault(_STOPPED, "see its messages above")
    except ValueError as exc:
        raise UsageFault(str(exc), "latdiag demo --help") from exc
    except OSError as exc:
        raise LocalFault(str(exc), "choose another --port, or 0 for a free one") from exc
    if as_json:
        _say_json(url=served.url, **served.report)
        return TERMINATED if isinstance(ended, Terminated) else INTERRUPTED
    if not quiet:
        click.echo("\n".join(end_lines(served.report)), err=True)
    raise ended


def _say_start(served: Demo, fault: str, seed: int, quiet: bool, as_json: bool) -> None:
    """The URL on stdout, and for people what there is to see."""
    from latdiag.sim.demo import MEANINGS

    if as_json:
        constants = json.loads(served.params.to_json())
        _say_json(url=served.url, fault=fault, seed=seed, constants=constants)
    else:
        click.echo(served.url)
        sys.stdout.flush()
    if not quiet:
        behind = f" --behind {served.behind}" if served.behind else ""
        click.echo(
            f"{fault}: {MEANINGS[fault]}\ntry: latdiag probe {served.url}{behind}", err=True
        )


def _say_json(**fields: object) -> None:
    click.echo(json.dumps({"schema": 1, "demo": fields}))
    sys.stdout.flush()
