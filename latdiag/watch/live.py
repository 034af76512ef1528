"""The life of a watch: doors open, a look twice a second, metrics served, exports passed on."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import logging
import os
import signal
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from latdiag.ingest.otlp.decode import Export
from latdiag.ingest.otlp.doors import Doors
from latdiag.ingest.otlp.endpoints import Endpoints
from latdiag.ingest.otlp.forward import Destination, Forwarding, refuse_own
from latdiag.ingest.otlp.grpc_door import GrpcDoor
from latdiag.ingest.otlp.http_door import HttpDoor
from latdiag.ingest.otlp.intake import Intake
from latdiag.ingest.otlp.keep import Keep
from latdiag.ingest.otlp.limits import Refusal
from latdiag.model.errors import LocalFault
from latdiag.runtime.memory import give_back, map_large_buffers
from latdiag.stacks.catalogue import stacks
from latdiag.watch.bins import BIN_NS
from latdiag.watch.exposition import Exposition, Values
from latdiag.watch.state import Report, Watch

_TICK_S = 0.5
_GRACE_S, _FORWARD_S = 1.0, 5.0
_SWITCH_S = 0.001
#: Exports that were passed on and are remembered, to know one that comes back.
_REMEMBERED = 4_096


@dataclass(frozen=True, slots=True)
class Plan:
    """``labels``: attributes that name route and tenant, by label. ``listen``: HOST:PORT of the
    metrics, None for none. ``duration_ns``: None until it is stopped. ``sampled``: the share of
    requests whose traces come, where the user knows it."""

    otlp: Endpoints | None
    forward: Destination | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    listen: str | None = None
    duration_ns: int | None = None
    sampled: float | None = None


class Face(Protocol):
    """Who is told. ``begin``: where the doors are; ``show``: about twice a second; ``report``:
    every half minute; ``end``: all that came."""

    def begin(self, live: Live) -> None: ...
    def show(self, live: Live) -> None: ...
    def report(self, live: Live, report: Report) -> None: ...
    def end(self, live: Live) -> None: ...


def watch(plan: Plan, face: Face) -> int:
    """Watch until a signal comes; the number of the signal that ended it, 0 for none."""
    # Libraries log what senders say; it reaches nobody here.
    logging.disable(logging.CRITICAL)
    map_large_buffers()
    sys.setswitchinterval(_SWITCH_S)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    return asyncio.run(Live(plan, face).run())


class Live:
    """``grpc``, ``http``, ``metrics``: HOST:PORT, None for what is off. ``looped``: exports that
    came back after they had been passed on, which are not passed on again."""

    def __init__(self, plan: Plan, face: Face) -> None:
        self.plan = plan
        # Wall-clock time once; from there on a clock that nobody sets.
        self._wall_ns = time.time_ns() - time.monotonic_ns()
        self.begun_ns = self.now_ns()
        self.watch = Watch(stacks(), plan.labels, self.begun_ns)
        self.forwarding = Forwarding(plan.forward) if plan.forward else None
        self.grpc: str | None = None
        self.http: str | None = None
        self.metrics: str | None = None
        self.looped = 0
        self.stopped = 0
        keep = Keep.of(stacks())
        keep = replace(keep, names=keep.names | set(self.watch.apart.words))
        token = plan.otlp.token if plan.otlp else None
        self.intake = Intake(keep, token, self._pass_on if self.forwarding else None)
        self._doors = GrpcDoor(self.intake), HttpDoor(self.intake)
        self._face = face
        self._lock = threading.Lock()
        self._looking = ThreadPoolExecutor(1)
        self._over = asyncio.Event()
        self._passed: OrderedDict[bytes, None] = OrderedDict()
        self._refused: dict[str, int] = {}
        self._server: Any = None

    def now_ns(self) -> int:
        return self._wall_ns + time.monotonic_ns()

    async def run(self) -> int:
        await self._open()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop, number)
        gc.collect()
        gc.freeze()
        self._face.begin(self)
        try:
            while await self._pause():
                await self._look()
                self._face.show(self)
        finally:
            await self._close()
        self._face.end(self)
        return self.stopped

    def _stop(self, number: int) -> None:
        self.stopped = number
        self._over.set()

    async def _pause(self) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), _TICK_S)
        limit = self.plan.duration_ns
        if limit is not None and self.now_ns() - self.begun_ns >= limit:
            return False
        return not self._over.is_set()

    async def _open(self) -> None:
        otlp = self.plan.otlp
        self.grpc = await self._doors[0].open(otlp.grpc) if otlp and otlp.grpc else None
        self.http = await self._doors[1].open(otlp.http) if otlp and otlp.http else None
        self.intake.doors = Doors(self.grpc, self.http)
        if self.forwarding is not None:
            own = [address for address in (self.grpc, self.http) if address]
            refuse_own(self.forwarding.destination, own)
            self.forwarding.start()
        if self.plan.listen is not None:
            self._serve(self.plan.listen)

    def _serve(self, address: str) -> None:
        from prometheus_client import start_http_server

        host, _, port = address.rpartition(":")
        exposition = Exposition(self.watch.histograms, self._values)
        try:
            # A registry asks for all metrics once when it is made.
            server, _ = start_http_server(
                int(port), host.strip("[]"), registry=_Locked(exposition, self._lock)
            )
        except OSError as fault:
            raise LocalFault(
                f"cannot listen at {address} for scrapes: {fault.strerror}",
                "give another --listen, or --listen off",
            ) from fault
        self._server = server
        self.metrics = f"{host}:{server.server_port}"

    def _values(self) -> Values:
        values = dict(self.watch.values())
        if self.forwarding is not None:
            values["latdiag_forwarded_exports"] = {
                ("forwarded",): self.forwarding.forwarded,
                ("failed",): self.forwarding.failed,
                ("looped",): self.looped,
            }
        if self.plan.sampled is not None:
            values["latdiag_sampled_ratio"] = {(): self.plan.sampled}
        return values

    # ------------------------------------------------------------------ spans
    def _pass_on(self, export: Export) -> None:
        """Forward an export, unless it is one that was forwarded before: two that forward to each
        other would send it round for ever."""
        assert self.forwarding is not None
        mark = hashlib.blake2b(export.body, digest_size=12).digest()
        if mark in self._passed:
            self.looped += 1
            return
        self._passed[mark] = None
        if len(self._passed) > _REMEMBERED:
            self._passed.popitem(last=False)
        self.forwarding.add(export)

    async def _look(self, everything: bool = False) -> None:
        """Move what came into the ring, and take apart what has settled."""
        intake = self.intake
        rows = len(intake.rows)
        intake.writing_rows, intake.writing_bytes = rows, intake.rows.size()
        columns = intake.rows.take() if rows else None
        try:
            report = await asyncio.get_running_loop().run_in_executor(
                self._looking, self._work, columns, everything
            )
        finally:
            intake.writing_rows = intake.writing_bytes = 0
        if report is not None:
            give_back()
            self._face.report(self, report)

    def _work(self, columns: Any, everything: bool) -> Report | None:
        now = self.now_ns()
        with self._lock:
            self._count_refused()
            if columns is not None:
                self.watch.add(columns, now)
            return self.watch.tick(now, everything)

    def _count_refused(self) -> None:
        """Spans that the doors did not take have come too."""
        tally = self.watch.tally
        for reason, spans in self.intake.refused().items():
            new = spans - self._refused.get(reason, 0)
            if new:
                tally.received += new
                tally.drop(f"refused_{reason}", new)
                self._refused[reason] = spans

    async def _close(self) -> None:
        closed = Refusal("closing", "the receiver is shutting down", retry=True)
        self.intake.closed = self.intake.closed or closed
        await asyncio.gather(*(door.close(_GRACE_S) for door in self._doors))
        await self._look(everything=True)
        with self._lock:
            # The half minute that is still open counts too, at the end.
            self.watch.look(self.now_ns() // BIN_NS + 1)
        if self.forwarding is not None:
            await self.forwarding.finish(_FORWARD_S)
        if self._server is not None:
            await asyncio.to_thread(self._server.shutdown)
            self._server.server_close()
        self._looking.shutdown()


class _Locked:
    """A registry whose metrics are read while nothing is counted."""

    def __init__(self, exposition: Exposition, lock: threading.Lock) -> None:
        self._registry = exposition.registry()
        self._lock = lock

    def collect(self) -> Any:
        with self._lock:
            return list(self._registry.collect())

    def restricted_registry(self, names: Any) -> Any:
        return self._registry.restricted_registry(names)
