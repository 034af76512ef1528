"""What servers say while a load runs: the time around it."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from latdiag.ingest.collector import Collector, collecting
from latdiag.ingest.otlp.endpoints import Endpoints
from latdiag.ingest.plan import Prometheus
from latdiag.load.look import Headers, Origin
from latdiag.load.trust import Trust
from latdiag.model.caveat import Caveat
from latdiag.model.errors import LatdiagError
from latdiag.model.units import show_duration
from latdiag.runtime.signals import handled
from latdiag.stacks.catalogue import families, stacks


@dataclass(slots=True)
class Heard:
    """How the gathering ended. ``stopped``: the signal that ended the load, to be set by whoever
    knows it, or the one that came while the end was awaited. ``fault``: why evidence may be
    missing. ``caveats``: what else the result is to say.
    ``attend``: to be called now and then while the load runs, to say so at once."""

    stopped: int = 0
    fault: LatdiagError | None = None
    caveats: tuple[Caveat, ...] = ()
    attend: Callable[[], None] = lambda: None


#: What is done around a load into the run at a path.
Gather = Callable[[str], AbstractContextManager[Heard]]


def nobody(_path: str) -> AbstractContextManager[Heard]:
    """No server is heard."""
    return contextlib.nullcontext(Heard())


@contextlib.contextmanager
def gathering(
    path: str,
    *,
    otlp: Endpoints | None,
    metrics: Sequence[str],
    metrics_headers: Mapping[Origin, Headers],
    trust: Trust | None = None,
    targets: Sequence[Origin] = (),
    prometheus: Prometheus | None = None,
    forward: str | None,
    wait_ns: int,
    say: Callable[[str], None],
) -> Iterator[Heard]:
    """Collect into the run at ``path`` during the block, and late spans after it.

    ``say``: takes the lines for people who wait.
    """
    with collecting(
        path,
        stacks(),
        families(),
        otlp=otlp,
        metrics=metrics,
        metrics_headers=metrics_headers,
        prometheus=prometheus,
        trust=trust,
        targets=targets,
        forward=forward,
    ) as collector:
        _edge(collector, "begin", say)
        heard = Heard(attend=lambda: _say_fault(collector, say))
        yield heard

        def hurry(number: int, _frame: object) -> None:
            """Whoever interrupts the wait for late spans means the wait, not the measurement."""
            heard.stopped = heard.stopped or number
            collector.hurry()

        with handled(hurry):
            if prometheus is not None:
                say("waiting for the next scrape of Prometheus")
            _edge(collector, "end", say)
            # Whoever terminates a load waits for no late span.
            wait_ns = wait_ns if otlp and heard.stopped != signal.SIGTERM else 0
            if wait_ns:
                say(f"waiting {show_duration(wait_ns)} for late spans; Ctrl-C skips the wait")
            try:
                collector.finish(wait_ns)
            except LatdiagError as fault:
                # The requests are measured all the same.
                heard.fault = fault


def _say_fault(collector: Collector, say: Callable[[str], None]) -> None:
    """Say why nothing more is heard, once: whoever measures can still do something about it."""
    fault = collector.new_fault()
    if fault is not None:
        say(f"{fault.text}: what servers say from now on is lost; the load goes on")


def _edge(collector: Collector, label: str, say: Callable[[str], None]) -> None:
    for problem in collector.edge(label):
        say(f"{problem.replica}: {problem.text}")
