"""Collecting what servers say while a run goes on: a process of its own, and its parent's handle.

The child receives spans and scrapes metrics, and writes them into the run; it has the run's
writer ``collector`` to itself. It outlives its parent: when that is killed, all that had come is
written. The two speak in lines of JSON over a socket pair; the child speaks only when asked, but
for faults, so that a parent that is busy with a load need not listen.

Forked, not spawned: the parent must have no threads, and nothing heavy imported.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from latdiag.ingest.otlp.endpoints import Endpoints
from latdiag.ingest.otlp.forward import Destination
from latdiag.ingest.otlp.keep import Keep
from latdiag.model.errors import LatdiagError, LocalFault, UsageFault
from latdiag.model.units import NS_PER_S
from latdiag.stacks.signal import Stack

WRITER = "collector"
_READY_S = 20.0
_EDGE_S = 30.0
#: To write, to pass on and to close, after the wait for late spans.
_CLOSING_S = 30.0
#: How often metrics are scraped between the edges.
SCRAPE_EVERY_NS = 10 * NS_PER_S
#: The wait for late spans ends at this multiple of it, even if spans keep coming.
_WAITS = 3


@dataclass(frozen=True, slots=True)
class CollectPlan:
    """What the child does. ``families``: names of metrics that are kept; ``max_disk``: bytes of
    evidence after which nothing more is taken, None for no cap."""

    run_path: str
    keep: Keep
    families: frozenset[str]
    otlp: Endpoints | None = None
    metrics: tuple[str, ...] = ()
    forward: Destination | None = None
    max_disk: int | None = None
    scrape_every_ns: int = SCRAPE_EVERY_NS
    writer: str = WRITER


@contextlib.contextmanager
def collecting(
    run_path: str,
    stacks: Sequence[Stack],
    families: frozenset[str],
    *,
    otlp: Endpoints | None,
    metrics: Sequence[str] = (),
    forward: str | None = None,
    max_disk: int | None = None,
    scrape_every_ns: int = SCRAPE_EVERY_NS,
) -> Iterator[Collector]:
    """Collect into the run at ``run_path`` (created before) until the block ends.

    Call ``finish`` at the end of the block; without it what came is written at once, unasked.
    Raises LocalFault where a port cannot be had, UsageFault for a forward to itself.
    """
    plan = CollectPlan(
        run_path,
        Keep.of(stacks),
        families,
        otlp,
        tuple(metrics),
        Destination.parse(forward) if forward is not None else None,
        max_disk,
        scrape_every_ns,
    )
    collector = Collector(plan)
    try:
        collector.await_ready()
        yield collector
    finally:
        collector.close()


class Collector:
    """The parent's handle of the collecting child. ``grpc`` and ``http``: HOST:PORT that it
    listens at, None where it does not."""

    def __init__(self, plan: CollectPlan) -> None:
        self.grpc: str | None = None
        self.http: str | None = None
        self._plan = plan
        self._end: dict[str, Any] | None = None
        self._fault: LatdiagError | None = None
        self._said = b""
        self._channel, theirs = socket.socketpair()
        self._pid = _fork(plan, theirs, self._channel)
        theirs.close()

    def await_ready(self) -> None:
        """Wait until the child listens. Raises what it cannot do."""
        said = self._expect("ready", _READY_S)
        if said is None:
            raise self._fault or self._lost()
        self.grpc, self.http = said["grpc"], said["http"]

    def edge(self, label: str) -> list[dict[str, Any]]:
        """Scrape the metrics now; what was missing, as ``replica``, ``text`` and ``count``.

        ``label`` is stored with the samples: ``begin``, ``end``. Nothing without metrics URLs.
        """
        if not self._plan.metrics:
            return []
        said = self._ask({"do": "edge", "label": label}, "edge", _EDGE_S)
        return list(said["problems"]) if said else []

    def snapshot(self) -> dict[str, Any] | None:
        """What came so far, as ``finish`` returns it; None where the child does not answer."""
        if self._end is not None:
            return self._end
        said = self._ask({"do": "counts"}, "counts", _EDGE_S)
        return said["counts"] if said else None

    def finish(self, wait_ns: int, on_wait: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """Wait for late spans, until none came for ``wait_ns`` (or three times that is over),
        then write and close; what came in all.

        ``on_wait`` is called about once a second. Raises LocalFault if the run could not be
        written, or the child was lost; what reached the disk is kept.
        """
        limit_ns = _WAITS * wait_ns
        self._send({"do": "finish", "wait_ns": wait_ns, "limit_ns": limit_ns})
        until = time.monotonic() + limit_ns / NS_PER_S + _CLOSING_S
        while self._end is None and time.monotonic() < until and self._pid:
            self._expect("end", 1.0)
            if self._end is None:
                on_wait()
        if self._end is None:
            raise self._fault or self._lost()
        if self._fault is not None:
            raise self._fault
        return self._end

    def hurry(self) -> None:
        """End the wait for late spans; may be called by a signal handler."""
        self._send({"do": "hurry"})

    def close(self) -> None:
        """Let the child end, and see to it that it does."""
        if self._pid and self._end is None:
            self._send({"do": "finish", "wait_ns": 0, "limit_ns": 0})
        patience = time.monotonic() + _CLOSING_S
        while self._pid and self._end is None and time.monotonic() < patience:
            self._expect("end", 1.0)
        self._channel.close()
        while self._pid and time.monotonic() < patience:
            if not self._reaped():
                time.sleep(0.005)
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = 0

    # ------------------------------------------------------------------ words
    def _ask(self, message: dict[str, Any], answer: str, seconds: float) -> dict[str, Any] | None:
        self._send(message)
        return self._expect(answer, seconds)

    def _send(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # it is gone, which ``_expect`` finds out
            self._channel.sendall(json.dumps(message).encode() + b"\n")

    def _expect(self, answer: str, seconds: float) -> dict[str, Any] | None:
        """The next thing of this kind that the child says; None if it does not in time."""
        until = time.monotonic() + seconds
        while True:
            while b"\n" in self._said:
                line, _, self._said = self._said.partition(b"\n")
                said = json.loads(line)
                self._note(said)
                if said["said"] == answer:
                    return dict(said)
            left = until - time.monotonic()
            if left <= 0 or not self._pid:
                return None
            if not select.select([self._channel], [], [], left)[0]:
                continue
            data = b""
            with contextlib.suppress(OSError):
                data = self._channel.recv(1 << 16)
            if not data:
                self._await_end()
            self._said += data

    def _note(self, said: dict[str, Any]) -> None:
        if said["said"] == "end":
            self._end = said["counts"]
        elif said["said"] == "fault" and self._fault is None:
            kind = UsageFault if said["code"] == UsageFault.code else LocalFault
            self._fault = kind(said["text"], said["remedy"], self._plan.run_path)

    def _await_end(self) -> None:
        """It has closed its end of the socket: it is about to be reaped."""
        until = time.monotonic() + 5.0
        while self._pid and not self._reaped() and time.monotonic() < until:
            time.sleep(0.005)
        self._pid = 0

    def _reaped(self) -> bool:
        try:
            found, _ = os.waitpid(self._pid, os.WNOHANG)
        except ChildProcessError:
            found = self._pid
        if found:
            self._pid = 0
        return bool(found)

    def _lost(self) -> LocalFault:
        return LocalFault(
            "the collecting process ended before its time",
            "what reached the disk is kept; see whether the machine ran out of memory",
            self._plan.run_path,
        )


def _fork(plan: CollectPlan, theirs: socket.socket, ours: socket.socket) -> int:
    """The pid of a child that collects and never returns into its parent's code."""
    try:
        pid = os.fork()
    except OSError as fault:
        raise LocalFault(
            f"the collecting process cannot be started: {fault.strerror}",
            "raise the limit of processes (ulimit -u)",
        ) from fault
    if pid:
        return pid
    status = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # the parent decides
        ours.close()
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        from latdiag.ingest.collecting import live

        live(plan, theirs)
        status = 0
    except BaseException:
        if os.environ.get("LATDIAG_TRACEBACK"):
            import traceback

            traceback.print_exc()
    finally:
        os._exit(status)
