"""The path to a server and what stands before its model: requests that bring no token.

Cheap GETs on fresh connections and on one that is kept, and POSTs that a server refuses once it
has parsed them. Each leaves at a random moment, so that no timer of the server's keeps step.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from time import monotonic_ns
from typing import Any, NamedTuple

import httpx

from latdiag.load.processes.counters import Counters, Counts
from latdiag.load.processes.ids import request_id as request_id_of
from latdiag.load.processes.outbox import Outbox
from latdiag.load.processes.pulse import Pulse
from latdiag.load.processes.reader import Cut, Go
from latdiag.load.processes.run import LoadEnd, Pair, run_load
from latdiag.load.processes.settle import settled
from latdiag.load.processes.writer import run_writer
from latdiag.load.row import Row
from latdiag.load.wire.dial import tls_context
from latdiag.load.wire.exchange import Exchange
from latdiag.load.wire.heads import content_type, kept_headers, raw_headers, told
from latdiag.load.wire.transport import StampedTransport
from latdiag.load.work.plan import LoadPlan
from latdiag.model.records import Outcome
from latdiag.runtime.channel import Channel, Record

GET, REFUSED = "get", "refused"
#: Longest wait before a request; how long exactly is drawn for each.
_DITHER_S = 0.1
#: So many in a row without any reply: the server is gone, and waiting for more tells nothing.
_SILENT = 3
#: What says that requests are too many.
BUSY = frozenset({429, 503})


class PathAsk(NamedTuple):
    """One request. ``body`` empty: the GET, else a POST that should be refused."""

    number: int
    fresh: bool
    isl: int
    body: bytes
    wait_s: float


def path_asks(
    gets: int,
    fresh: int,
    refused: Sequence[int],
    body: Callable[[int, int], bytes],
    numbers: Iterator[int],
    draw: random.Random,
) -> list[PathAsk]:
    """``gets`` GETs, ``fresh`` of them on connections of their own, and refused POSTs, mixed.

    ``refused``: an ISL for each POST, whose bytes are ``body(number, isl)``. The first request
    opens the connection that the others keep, so it is one of the fresh ones where there are any.
    """
    fresh = min(fresh, gets)
    kinds = [(alone, 0) for alone in [True] * (fresh - 1) + [False] * (gets - max(fresh, 1))]
    kinds += [(False, isl) for isl in refused]
    draw.shuffle(kinds)
    if gets:
        kinds.insert(0, (False, 0))
    asks = []
    for alone, isl in kinds:
        number = next(numbers)
        said = body(number, isl) if isl else b""
        asks.append(PathAsk(number, alone, isl, said, draw.uniform(0.0, _DITHER_S)))
    return asks


def run_path(
    plan: LoadPlan,
    url: str,
    stage: str,
    asks: Sequence[PathAsk],
    run_path: str,
    run_tag: str,
    on_progress: Callable[[Counts], None],
) -> LoadEnd:
    """Make ``asks`` one after the other (``url``: of the GETs); as ``run_load`` in all else.

    Rows have the scenario ``get`` or ``refused``. A refused POST that is accepted is the last of
    its kind; the stage ends where the server says that it is busy, or says nothing.
    """
    read = partial(_read_path, url, stage, run_tag, asks)
    pair = Pair(read, partial(run_writer, row=PathRow))
    return run_load(plan, iter(()), run_path, run_tag, on_progress, pair)


class PathRow(Row):
    """An attempt of this kind as a row: a GET needs no stream to succeed."""

    __slots__ = ()

    @property
    def _kind(self) -> str:
        return REFUSED if self.begun[10] else GET

    @property
    def succeeded(self) -> bool:
        """Any word of the server's is an answer here, and no failure that could end a probe: a
        refusal is wanted, under whatever status. But for its being busy."""
        told = self.told or {"fault": "", "status": 0}
        if self._kind == REFUSED and told["status"] == 200:
            return super().succeeded
        return not told["fault"] and told["status"] > 0 and told["status"] not in BUSY

    def columns(self) -> dict[str, Any]:
        return {**super().columns(), "scenario": self._kind}

    def _verdict(self) -> tuple[Outcome, str]:
        told = self.told
        if self._kind == GET and told and not told["fault"] and told["status"] == 200:
            return Outcome.OK, ""
        return super()._verdict()


def _read_path(
    url: str,
    stage: str,
    run_tag: str,
    asks: Sequence[PathAsk],
    plan: LoadPlan,
    name: str,
    _slots: tuple[int, ...],
    _work_fd: int,
    out_fd: int,
    orders: Channel,
    counters: Counters,
) -> None:
    """The life of the process that asks: ``run_reader`` for these requests."""
    loop, selector = settled(plan)
    transports = [
        StampedTransport(
            verify=tls_context(plan.target.verify),
            reuse=reuse,
            stamped=plan.kernel_stamps,
            floor=lambda: selector.floor_ns,
        )
        for reuse in (True, False)
    ]

    def offset(real_minus_mono_ns: int) -> None:
        for transport in transports:
            transport.real_minus_mono_ns = real_minus_mono_ns

    outbox = Outbox(loop, out_fd, lambda: asker.cut_off("writer_lost"))
    asker = _Asker(plan, url, stage, run_tag, asks, transports, outbox, counters)
    pulse = Pulse(loop, selector, outbox, offset)
    loop.set_exception_handler(asker.callback_failed)
    loop.add_reader(orders, asker.obey, loop, orders)
    pulse.start()
    try:
        loop.run_until_complete(asker.live())
    except Exception as fault:
        asker.fault = asker.fault or fault
    pulse.read()
    if asker.fault is None and not outbox.broken:
        outbox.records.append((Record.BYE, {"why": asker.why}))
    outbox.close()
    if asker.fault is not None:
        raise asker.fault


class _Asker:
    """Makes the requests, one at a time, and puts what came into the outbox."""

    def __init__(
        self,
        plan: LoadPlan,
        url: str,
        stage: str,
        run_tag: str,
        asks: Sequence[PathAsk],
        transports: Sequence[StampedTransport],
        outbox: Outbox,
        counters: Counters,
    ) -> None:
        self._plan, self._stage, self._tag, self._asks = plan, stage, run_tag, asks
        self._transports = transports
        self._clients = [httpx.AsyncClient(transport=t, trust_env=False) for t in transports]
        self._out = outbox.records
        self._counters = counters
        self._get_url, self._post_url = httpx.URL(url), httpx.URL(plan.target.url)
        self._kept = kept_headers(plan)
        self._post_headers = raw_headers(plan, self._post_url)
        self._get_headers = [
            (k, b"application/json" if k == b"Accept" else v)
            for k, v in raw_headers(plan, self._get_url)
            if k != b"Content-Type"
        ]
        seconds = plan.timeout_ns / 1e9
        self._timeout = {"connect": seconds, "read": seconds, "write": seconds, "pool": seconds}
        self._go = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._cut = False
        self.why = "complete"
        #: what a request's code raised: a bug, and the end of this process
        self.fault: BaseException | None = None

    # ------------------------------------------------------------------ life
    async def live(self) -> None:
        self._task = asyncio.ensure_future(self._all())
        self._counters.set_ready()
        try:
            await self._task
        except asyncio.CancelledError:
            if not self._cut:
                raise
        for transport in self._transports:
            await transport.aclose()

    def obey(self, loop: asyncio.AbstractEventLoop, orders: Channel) -> None:
        """The parent's orders, as ``run_reader`` takes them."""
        for order in orders.arrived():
            if isinstance(order, Go):
                self._go.set()
            elif isinstance(order, Cut):
                self.cut_off("stopped")
        if orders.ended:
            loop.remove_reader(orders)
            self.cut_off("parent_lost")

    def cut_off(self, why: str) -> None:
        """End now: what is under way is cut by this client."""
        if not self._cut and self._task is not None and not self._task.done():
            self._cut, self.why = True, why
            self._task.cancel()

    def callback_failed(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What a callback raised ends this process: what it was to do will not be done."""
        if "handle" in context and context.get("exception") is not None:
            self.fault = self.fault or context["exception"]
            self.cut_off("fault")

    async def _all(self) -> None:
        await self._go.wait()
        silent, accepted = 0, False
        for place, ask in enumerate(self._asks):
            if ask.body and accepted:
                continue
            await asyncio.sleep(ask.wait_s)
            exchange = await self._attempt(place, ask)
            silent = 0 if exchange.status else silent + 1
            if silent >= _SILENT or exchange.status in BUSY:
                return
            accepted = accepted or bool(ask.body and exchange.status == 200)

    # ------------------------------------------------------------------ one request
    async def _attempt(self, n: int, ask: PathAsk) -> Exchange:
        self._counters.add_begun()
        exchange = Exchange()
        exchange.sent_ns = monotonic_ns()
        request_id = request_id_of(self._tag, ask.number).encode()
        trace_id, span_id = secrets.token_hex(16).encode(), secrets.token_hex(8).encode()
        ids = (request_id, trace_id, span_id)
        self._out.append(
            (Record.BEGUN, n, *ids, 0, ask.isl, 0, self._stage, exchange.sent_ns, ask.body)
        )
        request = self._request(ask, exchange, self._sink(n, ask, exchange))
        request.headers["x-request-id"] = request_id.decode()
        request.headers["traceparent"] = f"00-{trace_id.decode()}-{span_id.decode()}-01"
        try:
            await self._clients[ask.fresh].send(request, stream=True, auth=None)
        except httpx.TransportError:
            pass  # the exchange says what it was
        except asyncio.CancelledError:
            exchange.fault = "cut_by_client" if self._cut else "cancelled"
            exchange.fault_text = "cut off when the load was stopped"
            self._out.append((Record.ENDED, n, told(exchange, self._kept)))
            raise
        except OSError as fault:
            exchange.fault, exchange.fault_text = "refused", f"this machine: {fault.strerror}"
        self._out.append((Record.ENDED, n, told(exchange, self._kept)))
        return exchange

    def _request(self, ask: PathAsk, exchange: Exchange, sink: Any) -> httpx.Request:
        extensions = {
            "latdiag.sink": sink,
            "latdiag.exchange": exchange,
            "timeout": self._timeout,
        }
        if not ask.body:
            return httpx.Request(
                "GET", self._get_url, headers=self._get_headers, extensions=extensions
            )
        return httpx.Request(
            "POST",
            self._post_url,
            headers=self._post_headers,
            content=ask.body,
            extensions=extensions,
        )

    def _sink(self, n: int, ask: PathAsk, exchange: Exchange) -> Callable[..., None]:
        """Of a GET the end alone counts; a refusal's words are kept, and so is a stream's."""
        out, unseen = self._out, True

        def take(real_ns: int, user_ns: int, floor_ns: int, data: bytes) -> None:
            nonlocal unseen
            if not ask.body:
                return
            if unseen:
                unseen = False
                kind = content_type(exchange)
                out.append((Record.HEAD, n, exchange.status, exchange.encoding, kind))
            out.append((Record.BODY, n, real_ns, user_ns, floor_ns, data))

        return take
