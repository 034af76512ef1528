"""What servers say while a load or a probe runs: the options, and the time around the load."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from latdiag.cli.options import DURATION, applied
from latdiag.model.errors import LatdiagError, UsageFault
from latdiag.model.text import shown
from latdiag.model.units import show_duration

if TYPE_CHECKING:
    from latdiag.ingest.collector import Collector
    from latdiag.ingest.plan import Problem

#: A flag that may be followed by an address.
_ON = "on"

gather_options = applied(
    (
        click.option(
            "--otlp",
            is_flag=False,
            flag_value=_ON,
            metavar="[HOST:PORT]",
            help="Take the servers' spans meanwhile, by gRPC [127.0.0.1:4317] and HTTP [:4318].",
        ),
        click.option(
            "--otlp-http", metavar="HOST:PORT", help="Take spans by HTTP here, not at 4318."
        ),
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
        click.option(
            "--token-env", metavar="NAME", help="Variable with the token that senders show."
        ),
        click.option(
            "--allow-unauthenticated",
            is_flag=True,
            help="Take spans from other machines without a token.",
        ),
    )
)

#: What a receiver on this machine is reached by.
_HTTP = "127.0.0.1:4318"


@dataclass(slots=True)
class Heard:
    """How the hearing ended. ``stopped``: the signal that ended the load, to be set by whoever
    knows it, or the one that came while the end was awaited. ``fault``: why what was said may be
    missing."""

    stopped: int = 0
    fault: LatdiagError | None = None


Gather = Callable[[str], AbstractContextManager[Heard]]


def gatherer(given: Mapping[str, Any]) -> Gather:
    """What to do around a load, given the run's path. UsageFault for options that cannot be."""
    from latdiag.cli.collect import listening

    otlp = listening(*_doors(given), given)
    if otlp is None and not given["metrics"]:
        return lambda path: contextlib.nullcontext(Heard())

    @contextlib.contextmanager
    def around(path: str) -> Iterator[Heard]:
        from latdiag.ingest.collector import collecting
        from latdiag.stacks.catalogue import families, stacks

        with collecting(
            path,
            stacks(),
            families(),
            otlp=otlp,
            metrics=given["metrics"],
            forward=given["forward"],
        ) as collector:
            _say_problems(collector.edge("begin"), given)
            heard = Heard()
            yield heard
            with _hurried(collector, heard):
                _say_problems(collector.edge("end"), given)
                # Whoever terminates a load waits for no late span.
                wait_ns = given["wait"] if otlp and heard.stopped != signal.SIGTERM else 0
                if wait_ns and not given["quiet"]:
                    click.echo(
                        f"waiting {show_duration(wait_ns)} for late spans; SIGINT ends that",
                        err=True,
                    )
                try:
                    collector.finish(wait_ns)
                except LatdiagError as fault:
                    # The requests are measured all the same.
                    heard.fault = fault

    return around


def spans_to(given: Mapping[str, Any], target: str) -> str | None:
    """Where a server that this command starts sends its spans; None for nowhere."""
    _, http = _doors(given)
    if target.startswith("demo:") and http is not None and given["token_env"]:
        raise UsageFault("the built-in server shows no token", "leave --token-env out")
    return None if http is None else f"http://{http}"


def _doors(given: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """HOST:PORT of the gRPC and of the HTTP receiver, as they were asked for."""
    grpc, http = given["otlp"], given["otlp_http"]
    if grpc is not None and grpc != "off":
        http = http or _HTTP
    return ("127.0.0.1:4317" if grpc == _ON else grpc), (None if http == "off" else http)


@contextlib.contextmanager
def _hurried(collector: Collector, heard: Heard) -> Iterator[None]:
    """Whoever interrupts the wait for late spans means the wait, not what was measured."""

    def hurry(number: int, _frame: object) -> None:
        heard.stopped = heard.stopped or number
        collector.hurry()

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {n: signal.signal(n, hurry) for n in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say_problems(problems: list[Problem], given: Mapping[str, Any]) -> None:
    if not given["quiet"]:
        for problem in problems:
            click.echo(shown(f"{problem.replica}: {problem.text}", 300), err=True)
