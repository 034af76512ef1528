"""The reader process: it sends requests, reads and stamps replies, and does nothing else.

No JSON is parsed here, nothing is formatted, logged or stored: what was read goes to the writer
process as (stamp, bytes). Everything of this process that takes time takes it from the stamps.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
from collections import deque
from collections.abc import Mapping
from time import monotonic_ns
from typing import Any, NamedTuple

import httpx

from latdiag.load.dialects.sse import END_MARK, END_WITHIN
from latdiag.load.plan import LoadPlan, Work
from latdiag.load.processes.counters import Counters
from latdiag.load.processes.outbox import Bye, Outbox, Write
from latdiag.load.processes.pulse import BEAT_S, Pulse
from latdiag.load.processes.settle import settled
from latdiag.load.wire.exchange import Ended, Exchange
from latdiag.load.wire.heads import Requests, content_type, kept_headers, retry_after
from latdiag.load.wire.transport import StampedTransport
from latdiag.load.work.path import PathReplies
from latdiag.model.errors import LocalFault
from latdiag.runtime.channel import Channel, Fault, Frames, message
from latdiag.runtime.wake import Alarm, WakeSelector

#: Bytes for the writer that may pile up before a closed loop's next request waits for it.
_BACKLOG = 32 << 20


@message
class Go(NamedTuple):
    """An order of the parent: the schedule starts at this instant, MONOTONIC."""

    start_ns: int


@message
class Cut(NamedTuple):
    """An order of the parent: end now, and hand over what was read."""


def run_reader(
    plan: LoadPlan,
    name: str,
    slots: tuple[int, ...],
    work_fd: int,
    out_fd: int,
    orders: Channel,
    counters: Counters,
) -> None:
    """The life of a reader process; returns when the load is done or cut.

    Raises what a request's code raised, if that ended it: after all that was read is handed over.
    """
    loop, selector = settled(plan)
    reader = Reader(loop, selector, plan, slots, (work_fd, out_fd), orders, counters)
    try:
        loop.run_until_complete(reader.live())
    except Exception as fault:
        reader.fault = fault
    reader.say_goodbye()
    if reader.fault is not None:
        raise reader.fault


class Reader:
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        selector: WakeSelector,
        plan: LoadPlan,
        slots: tuple[int, ...],
        fds: tuple[int, int],
        orders: Channel,
        counters: Counters,
    ) -> None:
        self._loop = loop
        self._selector = selector
        self._plan = plan
        self._slots = slots
        self._work_fd, out_fd = fds
        self._orders = orders
        self._counters = counters
        self._transport = StampedTransport(
            # Loading the trust store takes 20 ms: before the start, not in the first request.
            verify=plan.target.trust.context() if plan.over_tls else True,
            reuse=plan.reuse,
            stamped=plan.kernel_stamps,
            floor=lambda: selector.floor_ns,
        )
        self._client = httpx.AsyncClient(transport=self._transport, trust_env=False)
        self._requests = Requests(plan)
        self._kept = kept_headers(plan)
        self._outbox = Outbox(loop, out_fd, self._end, self._hold_back, _BACKLOG)
        self._out = self._outbox.records
        self._queue: deque[tuple[Any, ...]] = deque()
        self._room = max(16, 2 * len(slots)) if slots else 256
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._more_work = True
        self._reading_work = False
        self._frames = Frames()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = loop.create_future()
        self._halt = asyncio.Event()
        self._start_ns = 0
        self._stopping = False
        self._cut = False
        self._why = "complete"
        #: what a request's code raised: a bug, and the end of this reader
        self.fault: BaseException | None = None
        self._short = False
        self._begun = 0
        self._alarm: Alarm | None = None
        self._pulse = Pulse(loop, selector, self._outbox, self._offset)
        loop.set_exception_handler(self._callback_failed)

    # ------------------------------------------------------------------ life
    async def live(self) -> None:
        os.set_blocking(self._work_fd, False)
        self._loop.add_reader(self._orders, self._obey)
        self._take_work(True)
        self._pulse.start()
        self._counters.set_ready()
        await self._ended
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._alarm is not None:
            self._alarm.close()
        await self._transport.aclose()

    def _obey(self) -> None:
        for order in self._orders.arrived():
            if isinstance(order, Go):
                self._start_ns = order.start_ns
                self._go()
            elif isinstance(order, Cut):
                self._cut_off("stopped")
            elif isinstance(order, Write):
                self._pulse.read()  # rows are written up to the newest one
                self._outbox.say(order)
        if self._orders.ended:  # the parent is gone, and nobody wants this load any more
            self._loop.remove_reader(self._orders)
            self._cut_off("parent_lost")

    def _go(self) -> None:
        if self._plan.stop_ns is not None:
            self._at(self._start_ns + self._plan.stop_ns, self._stop)
        if self._slots:
            for offset in self._slots:
                make = self._slot if not self._plan.path_url else self._path
                self._spawn(make(self._start_ns + offset))
        else:
            self._alarm = Alarm(self._loop, self._dispatch)
            self._dispatch()
        self._settle()  # one of several readers may have got no work at all

    def _stop(self) -> None:
        """The time is over: nothing new begins, and what is under way may end."""
        if self._stopping:
            return
        self._stopping = True
        self._halt.set()
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)
        self._at(monotonic_ns() + self._plan.drain_ns, self._give_up)
        self._settle()

    def _give_up(self) -> None:
        self._cut = True
        self._end()

    def _cut_off(self, why: str) -> None:
        if not self._ended.done():
            self._why = why
            self._give_up()

    def _end(self) -> None:
        self._stopping = True  # what begins from here on would have no end in the record
        if not self._ended.done():
            self._ended.set_result(None)

    def _settle(self) -> None:
        """Over when nothing is under way and nothing more may begin."""
        dry = not self._more_work and not self._queue
        if not self._tasks and (self._stopping or dry) and self._start_ns:
            self._end()

    def _at(self, mono_ns: int, act: Any) -> None:
        self._loop.call_later(max(0, mono_ns - monotonic_ns()) / 1e9, act)

    def _offset(self, real_minus_mono_ns: int) -> None:
        self._transport.real_minus_mono_ns = real_minus_mono_ns

    def _callback_failed(self, _loop: object, context: Mapping[str, object]) -> None:
        """What a callback raised ends this reader: what it was to do will not be done."""
        fault = context.get("exception")
        if "handle" in context and isinstance(fault, BaseException):
            self.fault = self.fault or fault
            self._end()

    def _spawn(self, coroutine: Any) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        fault = None if task.cancelled() else task.exception()
        if fault is not None:
            self.fault = self.fault or fault
            self._end()
            return
        self._settle()

    # ------------------------------------------------------------------ work in
    def _take_work(self, wanted: bool) -> None:
        if wanted and self._more_work and not self._reading_work:
            self._loop.add_reader(self._work_fd, self._on_work)
            self._reading_work = True
        elif not wanted and self._reading_work:
            self._loop.remove_reader(self._work_fd)
            self._reading_work = False

    def _on_work(self) -> None:
        try:
            data = os.read(self._work_fd, 1 << 18)
        except BlockingIOError:
            return
        if not data:
            self._take_work(False)
            self._more_work = False
        for records in self._frames.feed(data):
            self._queue.extend(records)
        if len(self._queue) >= self._room:
            self._take_work(False)
        if self._slots:
            self._wake_slots()
        elif self._start_ns:
            self._dispatch()
        self._settle()

    def _wake_slots(self) -> None:
        ready = len(self._queue) if self._more_work else len(self._waiting)
        while ready > 0 and self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(None)
            ready -= 1

    async def _slot(self, start_ns: int) -> None:
        """Closed loop: one request after the other, until there is no more to do."""
        await self._pause((start_ns - monotonic_ns()) / 1e9)
        failures = 0
        while (work := await self._awaited()) is not None:
            asked = self._pause_asked(await self._attempt(work))
            failures = failures + 1 if asked is not None else 0
            if not (self._queue or self._more_work):
                continue
            if asked is not None:
                # Without a pause a closed loop would hammer a server that fails at once.
                await self._pause(max(asked, min(5.0, 0.05 * 2 ** min(failures, 8))))
            await self._pause((self._plan.pause_ns + random.random() * self._plan.dither_ns) / 1e9)

    async def _path(self, start_ns: int) -> None:
        """A stage about the path: one request after the other, of which any reply will do."""
        await self._pause((start_ns - monotonic_ns()) / 1e9)
        replies = PathReplies()
        while (record := await self._awaited()) is not None:
            work = Work(*record[:-3])
            if not (work.body and replies.accepted):
                await self._pause(work.wait_ns / 1e9)
                if replies.end_with(work, (await self._attempt(record)).status):
                    self._stop()

    async def _awaited(self) -> tuple[Any, ...] | None:
        """The next request of a closed loop as soon as there is one; None: there is no more."""
        while not self._stopping:
            if self._queue and self._outbox.backlog <= _BACKLOG:
                return self._next()
            if self._queue:
                await self._pause(BEAT_S)
            elif self._more_work:
                waiting = self._loop.create_future()
                self._waiting.append(waiting)
                await waiting
            else:
                break
        return None

    def _hold_back(self, wanted: bool) -> None:
        """The writer lags: leave the bytes in the kernel, which goes on stamping."""
        (self._transport.pause if wanted else self._transport.resume)()

    async def _pause(self, seconds: float) -> None:
        """Sleep, but not beyond the time in which requests may begin."""
        if seconds > 0:
            try:
                async with asyncio.timeout(seconds):
                    await self._halt.wait()
            except TimeoutError:
                pass

    def _next(self) -> tuple[Any, ...]:
        work = self._queue.popleft()
        if len(self._queue) < self._room // 2:
            self._take_work(True)
        return work

    def _dispatch(self) -> None:
        """Open loop: send all that is due, whatever is still under way."""
        now = monotonic_ns() - self._start_ns
        while self._queue and not self._stopping:
            due = self._queue[0][1]
            if due > now:
                assert self._alarm is not None
                self._alarm.at(self._start_ns + due)
                return
            self._spawn(self._attempt(self._next()))

    # ------------------------------------------------------------------ one request
    async def _attempt(self, work: tuple[Any, ...]) -> Exchange:
        """Make one request: a ``Work`` and its three ids. The exchange says how it ended."""
        _, due, isl, osl, stage, body, fresh, _, other, *ids = work
        n = self._begun
        self._begun = n + 1
        self._counters.add_begun()
        out = self._out
        exchange = Exchange()
        exchange.sent_ns = monotonic_ns()
        due_ns = self._start_ns + due if due >= 0 else 0
        out.append((1, n, *ids, due_ns, isl, osl, stage, exchange.sent_ns, body))
        unseen = True

        def sink(real_ns: int, user_ns: int, floor_ns: int, data: bytes) -> bool:
            nonlocal unseen
            if unseen:
                unseen = False
                out.append((4, n, exchange.status, exchange.encoding, content_type(exchange)))
            out.append((0, n, real_ns, user_ns, floor_ns, data))
            return END_MARK in data[-END_WITHIN:]

        # Of a GET the end alone counts; a refusal's words are kept, and so is a stream.
        taken = sink if body else _ignored
        to = (ids[0], ids[1], ids[2])
        request = self._requests.request(body, to, fresh, exchange, taken, other)
        try:
            response = await self._client.send(request, stream=True, auth=None)
            # httpx makes a cycle of stream and response: each would stay, or the collector come.
            del response.stream
        except httpx.TransportError:
            pass  # the exchange says what it was
        except asyncio.CancelledError:
            if self.fault is None:  # else this reader's fault took its end: that is a loss
                exchange.fault = "cut_by_client" if self._cut else "cancelled"
                exchange.fault_text = "cut off when the load was stopped"
                out.append((2, n, *Ended.of(exchange, self._kept)))
            raise
        except OSError as fault:
            exchange.fault, exchange.fault_text = "refused", f"this machine: {fault.strerror}"
            self._say_short(fault)
        out.append((2, n, *Ended.of(exchange, self._kept)))
        return exchange

    def _pause_asked(self, exchange: Exchange) -> float | None:
        """None after a usable reply, else the pause (s) that it asks for."""
        if exchange.status == 200 and not exchange.fault:
            counts = self._counters.read()
            # Most requests may fail although the server says 200: errors in streams, pages.
            if counts.done < 4 or 2 * counts.failed <= counts.done:
                return None
        return retry_after(exchange)

    def _say_short(self, fault: OSError) -> None:
        """A resource of this machine is used up: nothing that the target could be blamed for."""
        if fault.errno in (errno.EMFILE, errno.ENFILE) and not self._short:
            self._short = True
            text = f"no more connections can be opened: {os.strerror(fault.errno)}"
            remedy = "raise the limit of open files (ulimit -n), or lower the load"
            self._outbox.say(Fault.of(LocalFault(text, remedy)))

    def say_goodbye(self) -> None:
        """Hand over all that is left, waiting for the writer as long as it takes."""
        self._pulse.read()
        if self.fault is None and not self._outbox.broken:
            self._outbox.say(Bye(self._why))
        self._outbox.close()


def _ignored(*_read: object) -> None:
    """The sink of a reply of which nothing is kept."""
