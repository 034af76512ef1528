"""The life of the collecting child: doors open, rows written every few seconds, scrapes made."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import sys
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from latdiag.ingest.otlp.doors import Doors
from latdiag.ingest.otlp.forward import Forwarding, refuse_own
from latdiag.ingest.otlp.grpc_door import GrpcDoor
from latdiag.ingest.otlp.http_door import HttpDoor
from latdiag.ingest.otlp.intake import Intake
from latdiag.ingest.otlp.limits import Refusal
from latdiag.ingest.plan import (
    Account,
    CollectPlan,
    Counted,
    CountNow,
    Finish,
    Finished,
    Hurry,
    Problem,
    Ready,
    Scraped,
    ScrapeNow,
    SenderCounts,
    Slip,
)
from latdiag.ingest.prometheus.scrape import Scraper
from latdiag.ingest.prometheus.server import PrometheusServer
from latdiag.model.document import document
from latdiag.model.errors import LatdiagError
from latdiag.model.units import NS_PER_S
from latdiag.runtime.channel import Channel, Fault
from latdiag.runtime.memory import give_back, map_large_buffers
from latdiag.store.clock import ClockSeries, clock_id, sample
from latdiag.store.flush import Flushes
from latdiag.store.place import place_of
from latdiag.store.writer import RunWriter, load_arrow

if TYPE_CHECKING:
    from latdiag.store.columns import Column

_T = TypeVar("_T")
_TICK_S = 0.1
_SWITCH_S = 0.001
_PART_ROWS, _PART_BYTES = 20_000, 40 << 20
_STATE_EVERY_S = 2.0
#: For exports that are under way at the end, and for those that wait to be passed on.
_GRACE_S, _FORWARD_S = 1.0, 5.0
#: Senders and problems that are told one by one.
_TOLD = 100
#: For what is being written, or scraped, at the end.
_PATIENCE_S = 20.0


def live(plan: CollectPlan, channel: Channel) -> None:
    """Collect until the parent says that it is over, or is gone."""
    # Libraries log what senders say, with tracebacks; ours reach nobody here.
    logging.disable(logging.CRITICAL)
    map_large_buffers()
    # Threads that parse scrapes and write parts leave the loop its turn sooner than 5 ms.
    sys.setswitchinterval(_SWITCH_S)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its core writes to stderr by itself
    load_arrow()
    asyncio.run(_Life(plan, channel).run())


class _Life:
    def __init__(self, plan: CollectPlan, channel: Channel) -> None:
        self._plan = plan
        self._channel = channel
        self._run = RunWriter(plan.run_path, plan.writer)
        self._place = place_of(plan.run_path)
        self._forwarding = Forwarding(plan.forward) if plan.forward else None
        token = plan.otlp.token if plan.otlp else None
        self._intake = Intake(plan.keep, token, self._forwarding.add if self._forwarding else None)
        self._grpc, self._http = GrpcDoor(self._intake), HttpDoor(self._intake)
        self._scrapers: list[Scraper | PrometheusServer] = []
        if plan.metrics:
            own = Scraper(
                plan.metrics,
                plan.families,
                headers=plan.metrics_headers,
                trust=plan.trust,
                targets=plan.targets,
            )
            self._scrapers.append(own)
        if (asked := plan.prometheus) is not None:
            server = PrometheusServer(
                asked.url, plan.families, asked.match, headers=asked.headers, trust=plan.trust
            )
            self._scrapers.append(server)
        self._scraping = asyncio.Lock()
        self._clock = ClockSeries()
        self._written_rows = self._written_bytes = self._sample_rows = 0
        self._scrapes: dict[str, int] = {}
        self._problems: dict[tuple[str, str], int] = {}
        self._flushes = Flushes(time.monotonic())
        self._state_s = self._sampled_s = 0.0
        self._lost_samples = 0
        self._slips: set[str] = set()
        self._intake.on_bug = self._slipped
        # One thread for all writing: each more would keep memory of its own.
        self._writing = ThreadPoolExecutor(1)
        self._over = asyncio.Event()
        self._hurry = asyncio.Event()
        self._why: str | None = None
        self._disk_full = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._working: list[asyncio.Task[None]] = []
        self._listening: asyncio.Task[None] | None = None
        self._bug: BaseException | None = None

    async def run(self) -> None:
        try:
            ready = await self._open()
        except LatdiagError as fault:
            self._channel.post(Fault.of(fault))
            self._channel.flush()
            return
        # A collection that walks through all that was imported would hold everybody up for 0.1 s.
        gc.collect()
        gc.freeze()
        await self._write_state()
        self._channel.post(ready)
        self._listening = self._begin(self._obey())
        self._working = [self._begin(self._write_always())]
        if self._scrapers:
            self._working.append(self._begin(self._scrape_always()))
        await self._over.wait()
        await self._close()
        if self._bug is not None:
            raise self._bug  # which ends this process with status 1
        self._channel.post(Finished(self._account()))
        self._channel.flush()

    async def _open(self) -> Ready:
        """Open the doors; where they are."""
        otlp = self._plan.otlp
        grpc = await self._grpc.open(otlp.grpc) if otlp and otlp.grpc else None
        http = await self._http.open(otlp.http) if otlp and otlp.http else None
        if self._forwarding is not None:
            own = [address for address in (grpc, http) if address]
            refuse_own(self._forwarding.destination, own)
            self._forwarding.start()
        self._intake.doors = Doors(grpc, http)
        return Ready(grpc, http)

    async def _close(self) -> None:
        """Shut the doors, write what is there, pass on what waits, and say so in the run."""
        self._intake.closed = self._intake.closed or Refusal(
            "closing", "the receiver is shutting down", retry=True
        )
        await asyncio.gather(self._grpc.close(_GRACE_S), self._http.close(_GRACE_S))
        # Not cancelled: what is being written is to be counted.
        await asyncio.wait(self._working, timeout=_PATIENCE_S)
        if self._listening is not None:
            self._listening.cancel()
        await self._flush()
        if self._forwarding is not None:
            await self._forwarding.finish(_FORWARD_S)
        await self._write_state(final=True)

    # ------------------------------------------------------------------ the parent
    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task; if it fails, everything ends, in good order."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._bug = self._bug or task.exception()
            self._why = "bug"
            self._over.set()

    async def _pause(self, seconds: float) -> bool:
        """Wait; whether there is still something to do afterwards."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), seconds)
        return not self._over.is_set()

    async def _obey(self) -> None:
        async for order in self._channel.messages():
            if isinstance(order, CountNow):
                self._channel.post(Counted(self._account()))
            elif isinstance(order, ScrapeNow):
                self._channel.post(Scraped(await self._scrape(order.label)))
            elif isinstance(order, Finish):
                self._begin(self._finish(order.wait_ns, order.limit_ns))
            elif isinstance(order, Hurry):
                self._hurry.set()
        if self._why is None:
            self._why = "parent_lost"
            self._over.set()

    async def _finish(self, wait_ns: int, limit_ns: int) -> None:
        """Wait until no span came for ``wait_ns``, or ``limit_ns`` is over."""
        begun = time.monotonic_ns()
        while not self._hurry.is_set():
            now = time.monotonic_ns()
            quiet = now - max(begun, self._intake.last_ns)
            if quiet >= wait_ns or now - begun >= limit_ns:
                break
            await asyncio.sleep(min(_TICK_S, (wait_ns - quiet) / NS_PER_S))
        self._why = self._why or "complete"
        self._over.set()

    # ------------------------------------------------------------------ writing
    async def _write_always(self) -> None:
        next_s = self._flushes.first_s()
        while await self._pause(_TICK_S):
            now = time.monotonic()
            if now - self._sampled_s >= 1.0:
                self._clock.add(sample())
                self._sampled_s = now
            rows = self._intake.rows
            if now >= next_s or len(rows) >= _PART_ROWS or rows.size() >= _PART_BYTES:
                await self._flush()
                next_s = self._flushes.next_s(now)
            if now - self._state_s >= _STATE_EVERY_S:
                await self._write_state()
                await self._in_writer(lambda _nothing: give_back(), None)
                self._state_s = now

    async def _flush(self) -> None:
        """Write the spans that wait; new ones may come in meanwhile."""
        intake = self._intake
        rows = len(intake.rows)
        if not rows:
            return
        intake.writing_rows, intake.writing_bytes = rows, intake.rows.size()
        columns = intake.rows.take()
        try:
            if await self._write(columns):
                self._written_rows += rows
        finally:
            intake.writing_rows = intake.writing_bytes = 0

    async def _write(self, columns: dict[str, Column]) -> bool:
        """Write rows of evidence; whether that could be done. Faults are told, and end intake."""
        try:
            self._written_bytes += await self._in_writer(self._write_part, columns)
        except LatdiagError as fault:
            self._cannot_write(fault)
            return False
        cap = self._plan.max_disk
        if cap is not None and self._written_bytes >= cap:
            self._intake.closed = Refusal("disk_cap", "the receiver has reached its storage limit")
        return True

    async def _in_writer(self, work: Callable[[Any], _T], given: Any) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._writing, work, given)

    def _write_part(self, columns: dict[str, Column]) -> int:
        """Bytes of the part that was written."""
        import pyarrow as pa

        name = self._run.write_evidence(columns)
        pa.default_memory_pool().release_unused()
        return self._place.source(name)[1] if name is not None else 0

    async def _write_state(self, final: bool = False) -> None:
        self._clock.add(sample())
        ended = self._why if final else None
        if ended == "complete" and (self._lost() or self._disk_full):
            ended = "disk"  # the loop came to its end, and not all that it took is in the run
        state = {
            "writer": self._plan.writer,
            "kind": "otlp",
            "pid": os.getpid(),
            "state": "closed" if ended == "complete" else "open",
            "ended": ended,
            "clock_id": clock_id(),
            "clock": [list(s) for s in self._clock.samples],
            "clock_steps": [list(s) for s in self._clock.steps],
            "counts": document(self._account()),
        }
        try:
            await self._in_writer(self._run.write_state, state)
        except LatdiagError as fault:
            self._cannot_write(fault)

    def _slipped(self, where: str) -> None:
        if where not in self._slips and len(self._slips) < _TOLD:
            self._slips.add(where)
            self._channel.post(Slip(where))

    def _cannot_write(self, fault: LatdiagError) -> None:
        if not self._disk_full:
            self._channel.post(Fault.of(fault))
        self._disk_full = True
        self._intake.closed = Refusal("disk", "the receiver can no longer write")

    # ------------------------------------------------------------------ scraping
    async def _scrape_always(self) -> None:
        while await self._pause(self._plan.scrape_every_ns / NS_PER_S):
            await self._scrape("periodic")

    async def _scrape(self, label: str) -> list[Problem]:
        """Scrape all servers and write what they say; what was missing."""
        closed = self._intake.closed
        if not self._scrapers or (closed is not None and closed.reason.startswith("disk")):
            return []
        problems: list[Problem] = []
        async with self._scraping:
            # In threads, on loops of their own: instants of scrapes do not wait for spans.
            work = [asyncio.to_thread(each.scrape, label) for each in self._scrapers]
            for columns, missing in await asyncio.gather(*work):
                problems += missing
                rows = len(columns.get("kind", ()))
                if rows and await self._write(columns):
                    self._sample_rows += rows
                else:
                    self._lost_samples += rows
        self._scrapes[label] = self._scrapes.get(label, 0) + 1
        for problem in problems:
            key = (problem.replica, problem.text)
            if key in self._problems or len(self._problems) < _TOLD:
                self._problems[key] = self._problems.get(key, 0) + max(1, problem.count)
        return problems

    # ------------------------------------------------------------------ the account
    def _account(self) -> Account:
        """What came so far: for the state, for ``snapshot`` and for ``finish``."""
        intake, forwarding = self._intake, self._forwarding
        closed = intake.closed
        senders = list(intake.rows.senders.seen.values())
        unknown = [one for one in senders if not one.known]
        return Account(
            exports=intake.tally.exports,
            accepted=intake.tally.accepted,
            refused=intake.refused(),
            refused_exports=dict(intake.tally.refused_exports),
            other_signals=dict(intake.tally.other_signals),
            dropped_attributes=intake.rows.dropped_attributes,
            rows=self._written_rows,
            samples=self._sample_rows,
            bytes=self._written_bytes,
            lost=self._lost(),
            disk_cap_reached=closed is not None and closed.reason == "disk_cap",
            forwarded=forwarding.forwarded if forwarding else None,
            forward_failed=forwarding.failed if forwarding else None,
            forward_failure=forwarding.last_failure if forwarding else None,
            scrapes=dict(self._scrapes),
            scrape_problems=[
                Problem(replica, text, count) for (replica, text), count in self._problems.items()
            ],
            senders=self._largest_senders(),
            senders_total=len(senders),
            unknown_senders=len(unknown),
            unknown_spans=sum(one.spans for one in unknown),
            cpu_ns=time.process_time_ns(),
            wrong_doors=dict(intake.tally.wrong_doors),
            takes_spans=self._plan.otlp is not None,
        )

    def _lost(self) -> int:
        """Rows that were accepted or scraped, and are neither written nor about to be."""
        intake = self._intake
        waiting = intake.writing_rows + len(intake.rows)
        return self._lost_samples + intake.tally.accepted - self._written_rows - waiting

    def _largest_senders(self) -> list[SenderCounts]:
        """The senders with most spans."""
        senders = sorted(self._intake.rows.senders.seen.items(), key=lambda s: -s[1].spans)
        return [
            SenderCounts(
                name,
                one.service,
                one.known,
                one.spans,
                one.first_ns,
                one.last_ns,
                sorted(one.names, key=lambda n: -one.names[n]),
            )
            for name, one in senders[:_TOLD]
        ]
