"""A world behind a real socket: the same pieces on real time, served by plain asyncio on loopback.

What a piece takes is booked as it really took: where this process was late, the world was slow.
Its first hop is the loopback device, which the client's own stamps measure.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

from latdiag.model.records import Kind

from .clock import Clock
from .habits import Habit, text_in
from .request import GENERATE, GET, REFUSED, Event, Request
from .truth import Cause, Ledger
from .world import World

#: From the world's last event to the write of its bytes.
_WRITE = Cause("frontend.parse", "write of the reply", ("constant",))
_TEMPLATE = 11
_PATHS = ("/v1/models", "/health")
_MOST_BYTES = 4 * 1024 * 1024


class RealClock(Clock):
    """Instants are of the system's monotonic clock, ``shift`` ns later; ``step`` is told of by
    ``pump``, in the loop that serves."""

    def __init__(self, now: int = 0) -> None:
        super().__init__(now)
        self.shift = now - time.monotonic_ns()
        self.after: Callable[[], None] = lambda: None
        self._alarm: asyncio.TimerHandle | None = None

    def pump(self) -> None:
        """Everything that is due, as of now, and an alarm for what is next."""
        if self._alarm is not None:
            self._alarm.cancel()
        while (due := self.next_ns) is not None:
            self.now = max(self.now, time.monotonic_ns() + self.shift)
            if due > self.now:
                break
            self.step()
        self.after()
        if due is not None:
            wait = (due - self.now) / 1e9
            self._alarm = asyncio.get_running_loop().call_later(wait, self.pump)

    def rest(self) -> None:
        """Nothing more happens."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._due.clear()

    def step(self) -> None:
        now = self.now
        super().step()
        self.now = max(now, self.now)

    def tell(self) -> None:
        """The time is looked at: something came from outside."""
        self.now = max(self.now, time.monotonic_ns() + self.shift)


class Served:
    """What the world did for one request: ``came`` and ``left`` (its last byte) on the monotonic
    clock, and its ledger from one to the other."""

    __slots__ = ("came", "ledger", "left", "request")

    def __init__(self, request: Request, came: int) -> None:
        self.request, self.ledger = request, request.ledger
        self.came, self.left = came, 0


class Serving:
    """One world on a port of its own. ``served``: by the ids that the client gave."""

    def __init__(self, world: World) -> None:
        assert isinstance(world.clock, RealClock)
        self.world, self.clock = world, world.clock
        self.served: dict[str, Served] = {}
        self._written: dict[asyncio.StreamWriter, list[bytes]] = {}
        self.clock.after = self._flush

    async def start(self) -> int:
        """The port."""
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.clock.pump()
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        self._server.close()
        self.clock.rest()

    def _flush(self) -> None:
        """What became due together leaves in one write, as a proxy's buffer does."""
        written, self._written = self._written, {}
        for writer, parts in written.items():
            if not writer.is_closing():
                writer.write(b"".join(parts))

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (head := await self._head(reader)) is not None:
                await self._answer(head, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, ValueError):
            pass
        finally:
            writer.close()

    async def _head(self, reader: asyncio.StreamReader) -> tuple[str, str, dict[str, str]] | None:
        line = await reader.readline()
        if not line:
            return None
        method, target, _ = line.decode("latin-1").split(" ", 2)
        fields: dict[str, str] = {}
        while (line := await reader.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            fields[name.strip().lower()] = value.strip()
        return method, target.partition("?")[0], fields

    async def _answer(
        self,
        head: tuple[str, str, dict[str, str]],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        method, path, fields = head
        size = int(fields.get("content-length", 0))
        if size > _MOST_BYTES:
            raise ValueError("a body of more than 4 MiB")
        asked: dict[str, Any] = json.loads(await reader.readexactly(size)) if size else {}
        came = time.monotonic_ns()
        if method == "GET" and path not in _PATHS:
            writer.write(_plain(404, {"error": "no such page"}))
            return
        kind = GET if method == "GET" else REFUSED if asked.get("temperature") == -1 else GENERATE
        words = sum(len(str(m.get("content", "")).split()) for m in asked.get("messages", ()))
        osl = int(asked.get("max_tokens") or asked.get("max_completion_tokens") or 16)
        self.clock.tell()
        request = Request(kind, words, osl, Ledger(came + self.clock.shift))
        served = Served(request, came)
        self.served[fields.get("x-request-id", "")] = served
        done = asyncio.Event()
        telling = _Telling(self, writer, request, asked)

        def receive(event: Event) -> None:
            telling.tell(event)
            if event.last:
                served.left = time.monotonic_ns()
                request.ledger.book(max(served.left + self.clock.shift, request.ledger.at), _WRITE)
                done.set()

        request.receive = receive
        self.world.begin(request)
        self.clock.pump()
        await done.wait()

    def put(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        self._written.setdefault(writer, []).append(data)


class _Telling:
    """A reply in bytes."""

    def __init__(
        self, to: Serving, writer: asyncio.StreamWriter, request: Request, asked: dict[str, Any]
    ) -> None:
        self._to, self._writer, self._request = to, writer, request
        self._id = f"w-{id(request):x}"
        options = asked.get("stream_options") or {}
        self._usage = bool(options.get("include_usage"))

    def tell(self, event: Event) -> None:
        put = self._to.put
        if self._request.kind == GET:
            put(self._writer, _plain(200, {"data": [{"id": "world", "max_model_len": 32768}]}))
        elif event.status != 200:
            put(
                self._writer, _plain(event.status, {"error": {"message": "refused"}}, event.wait_s)
            )
        elif event.head:
            put(self._writer, _HEAD)
        else:
            put(self._writer, _chunk(self._event(event)))
        if event.last and self._request.kind == GENERATE and event.status == 200:
            put(self._writer, _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    def _event(self, event: Event) -> bytes:
        habit: Habit = self._request.notes.get("habit", Habit())
        said: dict[str, Any] = {"id": self._id, "model": "world", "choices": []}
        if event.kind is not Kind.USAGE:
            delta: dict[str, Any] = {event.text: text_in(event.text, "word " * event.tokens)}
            if event.kind is Kind.ROLE:
                delta = {"role": "assistant", "content": ""}
            choice: dict[str, Any] = {"index": 0, "delta": delta, "finish_reason": None}
            if habit.counts == "ids" and event.tokens:
                choice["token_ids"] = list(range(1000, 1000 + event.tokens))
            said["choices"] = [choice]
        if self._usage and (event.kind is Kind.USAGE or habit.counts == "so far"):
            said["usage"] = {
                "prompt_tokens": self._request.isl + _TEMPLATE,
                "completion_tokens": event.so_far,
            }
        return b"data: " + json.dumps(said, separators=(",", ":")).encode() + b"\n\n"


_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _plain(status: int, said: object, wait_s: float | None = None) -> bytes:
    body = json.dumps(said).encode()
    later = f"Retry-After: {wait_s:.0f}\r\n" if wait_s else ""
    return (
        f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{later}"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body
