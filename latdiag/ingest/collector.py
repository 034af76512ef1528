"""Collecting what servers say while a run goes on: the parent's handle of the collecting child.

The child receives spans and scrapes metrics, and writes them into the run; it has the run's
writer ``collector`` to itself. It outlives its parent: when that is killed, all that had come is
written. It speaks only when asked, but for faults, so that a parent that is busy with a load need
not listen.

Forked, not spawned: the parent must have no threads, and nothing heavy imported.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from latdiag.ingest.otlp.endpoints import Endpoints
from latdiag.ingest.otlp.forward import Destination
from latdiag.ingest.otlp.keep import Keep
from latdiag.ingest.plan import (
    SCRAPE_EVERY_NS,
    Account,
    CollectPlan,
    Counted,
    CountNow,
    Finish,
    Finished,
    Hurry,
    Problem,
    Prometheus,
    Ready,
    Scraped,
    ScrapeNow,
    Slip,
)
from latdiag.load.look import Headers, Origin
from latdiag.load.trust import Trust
from latdiag.model.errors import LatdiagError, LocalFault
from latdiag.model.units import NS_PER_S
from latdiag.runtime.channel import Channel, Fault
from latdiag.runtime.children import LATER, fork_talking
from latdiag.runtime.heartbeat import Heartbeat
from latdiag.stacks.signal import Stack

_Answer = TypeVar("_Answer")
_LOG = logging.getLogger(__name__)
#: A child that gave no sign of life for so long is dead; a busy one beats all the same.
_SILENT_S = 30.0
_READY_S = 120.0
_EDGE_S = 30.0
#: The same where Prometheus makes its next scrape when it does.
_AWAITED_S = 120.0
_COUNT_S = 2.0
#: To write, to pass on and to close, after the wait for late spans. The child bounds each of
#: these itself; a slow disk may take long.
_CLOSING_S = 300.0
_LOOK_S = 1.0
#: From the end of what it says to its own.
_LEAVING_S = 5.0
#: The wait for late spans ends at this multiple of it, even if spans keep coming.
_WAITS = 3


@contextlib.contextmanager
def collecting(
    run_path: str,
    stacks: Sequence[Stack],
    families: frozenset[str],
    *,
    otlp: Endpoints | None,
    metrics: Sequence[str] = (),
    metrics_headers: Mapping[Origin, Headers] | None = None,
    trust: Trust | None = None,
    targets: Sequence[Origin] = (),
    prometheus: Prometheus | None = None,
    forward: str | None = None,
    max_disk: int | None = None,
    scrape_every_ns: int = SCRAPE_EVERY_NS,
    nice: int = LATER,
) -> Iterator[Collector]:
    """Collect into the run at ``run_path`` (created before) until the block ends.

    ``nice``: how far the child gives way to a load that is measured beside it.

    Call ``finish`` at the end of the block; without it what came is written at once, unasked.
    Raises LocalFault where a port cannot be had, UsageFault for a forward to itself.
    """
    plan = CollectPlan(
        run_path,
        Keep.of(stacks),
        families,
        otlp,
        tuple(metrics),
        metrics_headers or {},
        trust,
        tuple(targets),
        prometheus,
        Destination.parse(forward) if forward is not None else None,
        max_disk,
        scrape_every_ns,
    )
    collector = Collector(plan, nice)
    try:
        collector.await_ready()
        yield collector
    finally:
        collector.close()


class Collector:
    """The parent's handle of the collecting child. ``grpc`` and ``http``: HOST:PORT that it
    listens at, None where it does not."""

    def __init__(self, plan: CollectPlan, nice: int = LATER) -> None:
        self.grpc: str | None = None
        self.http: str | None = None
        self._plan = plan
        self._end: Account | None = None
        self._fault: LatdiagError | None = None
        self._fault_said = False

        self._heart = heart = Heartbeat()

        def live(channel: Channel) -> None:
            heart.start()
            from latdiag.ingest.collecting import live

            live(plan, channel)

        try:
            self._child, self._channel = fork_talking(live, "latdiag-collect", nice)
        except OSError as fault:
            raise LocalFault(
                f"the collecting process cannot be started: {fault.strerror}",
                "raise the limits of processes and open files (ulimit -u, ulimit -n)",
            ) from fault

    def await_ready(self) -> None:
        """Wait until the child listens. Raises what it cannot do."""
        ready = self._answer(Ready, _READY_S)
        if ready is None:
            raise self._fault or self._lost()
        self.grpc, self.http = ready.grpc, ready.http

    def edge(self, label: str) -> list[Problem]:
        """Scrape the metrics now; what was missing.

        ``label`` is stored with the samples: ``begin``, ``end``. Nothing without metrics URLs.
        """
        if not self._plan.metrics and self._plan.prometheus is None:
            return []
        self._channel.send(ScrapeNow(label))
        scraped = self._answer(Scraped, _EDGE_S if self._plan.prometheus is None else _AWAITED_S)
        return scraped.problems if scraped else []

    def snapshot(self) -> Account | None:
        """What came so far, as ``finish`` returns it; None where the child is too busy to say."""
        if self._end is not None:
            return self._end
        self._channel.send(CountNow())
        counted = self._answer(Counted, _COUNT_S)
        return counted.account if counted else None

    def finish(self, wait_ns: int, on_wait: Callable[[], None] = lambda: None) -> Account:
        """Wait for late spans, until none came for ``wait_ns`` (or three times that is over),
        then write and close; what came in all.

        ``on_wait`` is called about once a second. Raises LocalFault if the run could not be
        written, or the child was lost; what reached the disk is kept.
        """
        limit_ns = _WAITS * wait_ns
        self._channel.send(Finish(wait_ns, limit_ns))
        until = time.monotonic() + limit_ns / NS_PER_S + _CLOSING_S
        while self._end is None and time.monotonic() < until and not self.gone:
            self._answer(Finished, _LOOK_S)
            if self._end is None:
                on_wait()
        if self._end is None:
            raise self._fault or self._lost()
        if self._fault is not None:
            raise self._fault
        return self._end

    def new_fault(self) -> LatdiagError | None:
        """Why the child collects no more, once, where that has begun; never waits."""
        for message in self._channel.arrived():
            self._take(message)
        fault = self._fault or (self._lost() if self.gone and self._end is None else None)
        if fault is None or self._fault_said:
            return None
        self._fault_said = True
        return fault

    def hurry(self) -> None:
        """End the wait for late spans; may be called by a signal handler."""
        self._channel.send(Hurry())

    def close(self) -> None:
        """Let the child end, and see to it that it does."""
        if self._end is None:
            self._channel.send(Finish(0, 0))
        patience = time.monotonic() + _CLOSING_S
        while self._end is None and not self.gone and time.monotonic() < patience:
            self._answer(Finished, _LOOK_S)
        gone = self.gone
        self._channel.close()
        self._child.end(0.0 if gone else _LEAVING_S)

    @property
    def gone(self) -> bool:
        """Whether the child has ended, or gives no sign of life."""
        return self._channel.ended or self._heart.silent_s() > _SILENT_S

    def _answer(self, kind: type[_Answer], seconds: float) -> _Answer | None:
        """The next message of this kind; None if it does not come in time. Takes in others."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self.gone:
            message = self._channel.receive(min(left, _LOOK_S))
            self._take(message)
            if isinstance(message, kind):
                return message
        if self._channel.ended:
            self._child.ends_within(_LEAVING_S)
        return None

    def _take(self, message: object) -> None:
        if isinstance(message, Finished):
            self._end = message.account
        elif isinstance(message, Fault) and self._fault is None:
            self._fault = message.error(self._plan.run_path)
        elif isinstance(message, Slip):
            _LOG.debug("an export was refused for a bug in latdiag: %s", message.where)

    def _lost(self) -> LocalFault:
        return LocalFault(
            "the collecting process ended unexpectedly",
            "what reached the disk is kept; check whether this machine ran out of memory",
            self._plan.run_path,
        )
