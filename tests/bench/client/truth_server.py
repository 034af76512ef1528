"""A streaming OpenAI-compatible server that knows when it sent each chunk.

``python -m client.truth_server --port 0 --dump truth.npz``: one thread, epoll, a heap of due
times. It prints one JSON line when it listens and one, the summary, when SIGTERM has made it
write its record. Every option of a stream is a flag, and may be overridden by a request: body
field ``"truth": {"itl_ms": 5}`` or header ``x-truth-itl-ms: 5``.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import os
import select
import shutil
import signal
import socket
import ssl
import struct
import tempfile
from dataclasses import asdict, fields
from pathlib import Path
from time import monotonic_ns, time_ns
from typing import Any

from . import frames, http11, kernel, plan, record, tls
from .connection import Closed, Connection
from .stream import FAULT_ROW, TAIL_ROW, WHOLE_ROW, Stream, error_event

#: Longest sleep: how soon a signal is noticed.
SLEEP_NS = 100_000_000


class Server:
    """``step_ns`` > 0: lockstep, all streams emit on one grid of that step."""

    def __init__(self, listener: socket.socket, options: plan.Options, args: Any) -> None:
        self.listener = listener
        self.options = options
        self.cycle = plan.parse_cycle(args.cycle)
        self.step_ns = round(args.lockstep_ms * plan.MS)
        self.grid_ns = monotonic_ns()
        self.spin_ns = round(args.spin_us * 1000)
        self.dump_path = Path(args.dump)
        self.settings = {"options": asdict(options), "cycle": args.cycle, "tls": args.tls}
        self.settings |= {"lockstep_ms": args.lockstep_ms, "spin_us": args.spin_us}
        self.records = record.Records(args.capacity, args.tx_stamps)
        self.context: ssl.SSLContext | None = None
        self.connections: dict[int, Connection] = {}
        self.accepted = itertools.count()
        self.shapes: dict[tuple[bool, int, bool, int], frames.Shape] = {}
        self.heap: list[tuple[int, int, Stream]] = []
        self.stopping = False
        self.stolen_ms = kernel.stolen_ms()
        self.epoll = select.epoll()
        self.epoll.register(listener.fileno(), select.EPOLLIN)

    # ------------------------------------------------------------------ the loop

    def run(self) -> None:
        heap = self.heap
        while not self.stopping:
            self.send_due()
            wait = min(heap[0][0] - monotonic_ns(), SLEEP_NS) if heap else SLEEP_NS
            if wait > self.spin_ns:
                # select() wakes to the microsecond; epoll's own time-out counts whole ms.
                select.select([self.epoll], [], [], (wait - self.spin_ns) / 1e9)
            for descriptor, events in self.epoll.poll(0, 32):
                self.handle(descriptor, events)
                if heap and heap[0][0] <= monotonic_ns():
                    self.send_due()

    def send_due(self) -> None:
        """Sends what is due, and yields to readers at least every 64 sends."""
        heap = self.heap
        for _ in range(64):
            if not heap or heap[0][0] > monotonic_ns():
                return
            due, _, stream = heapq.heappop(heap)
            if not stream.gone:
                self.emit(stream, due)

    def handle(self, descriptor: int, events: int) -> None:
        connection = self.connections.get(descriptor)
        if connection is None:
            if descriptor == self.listener.fileno():
                self.accept()
            return
        try:
            if events & select.EPOLLERR and self.records.with_tx:
                self.collect(connection)
            if events & select.EPOLLOUT and connection.flush():
                self.epoll.modify(descriptor, select.EPOLLIN)
            if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                connection.receive()
                self.serve(connection)
        except (Closed, http11.BadRequest):
            self.drop(connection)

    def accept(self) -> None:
        try:
            sock, address = self.listener.accept()
        except OSError:
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.records.with_tx:
            kernel.stamp_departures(sock)
        made = Connection(sock, address[1], next(self.accepted), self.context)
        self.connections[sock.fileno()] = made
        self.epoll.register(sock.fileno(), select.EPOLLIN)

    def collect(self, connection: Connection) -> None:
        """Transmit stamps from the error queue to the rows of their sends."""
        for offset, stamp in kernel.departure_stamps(connection.sock):
            row = connection.pending_tx.pop(offset, -1)
            if row >= 0:
                self.records.tx_real[row] = stamp

    def drop(self, connection: Connection) -> None:
        if connection.stream is not None:
            connection.stream.gone = True
            connection.stream = None
        descriptor = connection.sock.fileno()
        if self.connections.pop(descriptor, None) is not None:
            if self.records.with_tx:
                self.collect(connection)
            self.epoll.unregister(descriptor)
            connection.sock.close()

    # ------------------------------------------------------------------ requests

    def serve(self, connection: Connection) -> None:
        """Takes the request that has come whole, if one has and none is being answered."""
        if connection.stream is not None:
            return
        request = connection.reader.take()
        if connection.reader.expects:
            connection.reader.expects = False
            self.reply(connection, frames.CONTINUE)
        if request is None:
            return
        if request.method == "POST" and "/completions" in request.target:
            self.admit(connection, request)
        elif request.target.startswith("/_dump"):
            self.reply(connection, frames.plain_reply(200, self.dump()))
        elif request.target.startswith("/v1/models"):
            listed = [{"id": frames.MODEL, "object": "model", "max_model_len": 1_000_000}]
            value = {"object": "list", "data": listed}
            self.reply(connection, frames.plain_reply(200, value))
        elif request.target == "/health":
            self.reply(connection, frames.plain_reply(200, {"status": "ok"}))
        else:
            self.reply(connection, frames.plain_reply(404, {"error": {"message": "no such path"}}))

    def admit(self, connection: Connection, request: http11.Request) -> None:
        """Makes a stream of the request and schedules its first token."""
        body = plan.parse_body(request.body)
        number = len(self.records.requests)
        server = self.options
        if self.cycle:
            server = plan.overridden(server, self.cycle[number % len(self.cycle)])
        try:
            options = plan.of_request(server, request.headers, body)
        except (ValueError, TypeError) as error:
            self.reply(connection, frames.plain_reply(400, {"error": {"message": str(error)}}))
            return
        if options.status != 200:
            extra = f"retry-after: {options.retry_after:g}\r\n" if options.retry_after else ""
            failed = {"error": {"message": "as asked for", "code": options.status}}
            self.reply(connection, frames.plain_reply(options.status, failed, extra))
            return
        entry = self.enter(connection, request, number)
        ids = bool(body.get("return_token_ids"))
        key = (request.target.endswith("/chat/completions"), options.tokens_per_chunk, ids)
        shape = self.shapes.setdefault((*key, options.pad), frames.Shape(*key, options.pad))
        stream = Stream(number, connection, options, shape, plan.prompt_tokens(body), entry)
        stream.streamed = bool(body.get("stream"))
        stream.closes = request.headers.get(b"connection", b"").lower() == b"close"
        entry.prompt, entry.ttft_ns = stream.prompt, plan.draw_ttft(options, number)
        entry.think_ns = round(options.ttft_ms * plan.MS)
        entry.withheld = options.headers == "withheld"
        entry.tokens, entry.chunks = options.tokens, stream.chunks
        connection.stream = stream
        self.schedule(stream, connection.read_mono + entry.ttft_ns)

    def schedule(self, stream: Stream, due: int) -> None:
        if stream.streamed:
            code, opening = stream.opening()
            if opening and not self.transmit(stream, opening, code, stream.connection.read_mono):
                return
        else:
            due += round((stream.options.tokens - 1) * stream.options.itl_ms * plan.MS)
        heapq.heappush(self.heap, (self.on_grid(due), stream.number, stream))

    def on_grid(self, due: int) -> int:
        """The next grid point at or after ``due``; ``due`` itself where streams run freely."""
        step = self.step_ns
        return due if not step else self.grid_ns - (self.grid_ns - due) // step * step

    def enter(
        self, connection: Connection, request: http11.Request, number: int
    ) -> record.RequestRecord:
        text = {name: request.headers.get(name, b"").decode("latin-1") for name in _NAMED}
        entry = record.RequestRecord(
            number=number,
            connection=connection.number,
            nth=connection.handled,
            accept_mono=connection.accept_mono,
            first_real=connection.first_real,
            last_real=connection.last_real,
            read_mono=connection.read_mono,
            read_real=connection.read_real,
            port=connection.port,
            rx_first=connection.rx_first,
            rx_last=connection.rx_last(),
            size=request.size,
            request_id=text[b"x-request-id"],
            traceparent=text[b"traceparent"],
        )
        connection.handled += 1
        self.records.requests.append(entry)
        return entry

    # ------------------------------------------------------------------ sending

    def emit(self, stream: Stream, due: int) -> None:
        """One chunk on the wire, and the next one on the heap."""
        if not stream.streamed:
            usage = frames.Usage(stream.prompt, stream.options.tokens)
            whole = stream.shape.whole(stream.digits, stream.options.tokens, usage)
            if self.transmit(stream, whole, WHOLE_ROW, due):
                self.finish(stream)
            return
        index = stream.index
        if index in (stream.options.reset_at, stream.options.error_at):
            self.fail(stream, index == stream.options.reset_at, due)
            return
        if not self.transmit(stream, stream.frame(), index, due):
            return
        if index == 0:
            stream.record.tx_first = stream.connection.tx
        stream.index = index + 1
        if stream.index < stream.chunks:
            due = self.on_grid(due + stream.next_gap())
            heapq.heappush(self.heap, (due, stream.number, stream))
            return
        for rest in stream.closing():
            if not self.transmit(stream, rest, TAIL_ROW, due):
                return
        self.finish(stream)

    def transmit(self, stream: Stream, data: bytes, index: int, due: int) -> bool:
        """Sends and records; False when the peer is gone."""
        connection = stream.connection
        if connection.tls is not None:
            data = connection.tls.seal(data)
        mono, real = monotonic_ns(), time_ns()
        try:
            complete = connection.send(data)
        except OSError:
            self.drop(connection)
            return False
        after = monotonic_ns()
        row = self.records.add(stream.number, index, due, mono, real, after)
        if not complete:
            self.records.blocked += 1
            self.epoll.modify(connection.sock.fileno(), select.EPOLLIN | select.EPOLLOUT)
        if self.records.with_tx and row >= 0:
            connection.pending_tx[(connection.tx - 1) & 0xFFFFFFFF] = row
        return True

    def reply(self, connection: Connection, data: bytes) -> None:
        """A whole reply that is no part of the record."""
        try:
            if not connection.send(connection.tls.seal(data) if connection.tls else data):
                watched = select.EPOLLIN | select.EPOLLOUT
                self.epoll.modify(connection.sock.fileno(), watched)
        except OSError as error:
            raise Closed from error

    def fail(self, stream: Stream, by_reset: bool, due: int) -> None:
        """The fault that the options asked for at this chunk."""
        data = stream.frame() if by_reset else error_event()
        if not self.transmit(stream, data[: len(data) // 2] if by_reset else data, FAULT_ROW, due):
            return
        if by_reset:
            linger = struct.pack("ii", 1, 0)
            stream.connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.drop(stream.connection)
        else:
            stream.connection.stream = None

    def finish(self, stream: Stream) -> None:
        connection = stream.connection
        stream.record.finished = True
        connection.stream = None
        if stream.closes:
            self.drop(connection)
        elif connection.reader.buffer:
            self.serve(connection)

    # ------------------------------------------------------------------ the record

    def dump(self) -> dict[str, Any]:
        stolen = kernel.stolen_ms() - self.stolen_ms
        return self.records.dump(self.dump_path, {**self.settings, "stolen_ms": stolen})

    def stop(self, *_: object) -> None:
        self.stopping = True


_NAMED = (b"x-request-id", b"traceparent")


def listen(host: str, port: int) -> socket.socket:
    listener = socket.create_server((host, port), backlog=4096)
    listener.setblocking(False)
    kernel.stamp_arrivals(listener)
    return listener


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--dump", default="truth.npz")
    parser.add_argument("--capacity", type=int, default=1_000_000, help="sends to record")
    parser.add_argument("--lockstep-ms", type=float, default=0.0, help="grid; 0: free-running")
    parser.add_argument("--spin-us", type=float, default=0.0, help="wait busily this long")
    parser.add_argument("--tx-stamps", action="store_true", help="kernel stamps of the sends")
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--fifo", type=int, default=-1, metavar="CPU", help="real-time priority")
    parser.add_argument("--cycle", default="", help="e.g. think_ms=1,5;headers=early,withheld")
    for each in fields(plan.Options):
        flag = "--" + each.name.replace("_", "-")
        parser.add_argument(flag, default=argparse.SUPPRESS, dest=each.name)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = arguments(argv)
    given = vars(args)
    chosen = {f.name: given[f.name] for f in fields(plan.Options) if f.name in given}
    server = Server(listen(args.host, args.port), plan.overridden(plan.Options(), chosen), args)
    certificate = ""
    if args.tls:
        folder = Path(tempfile.mkdtemp(prefix="truth-tls-"))
        pem, key = tls.make_certificate(folder)
        server.context, certificate = tls.server_context(pem, key), str(pem)
    signal.signal(signal.SIGTERM, server.stop)
    signal.signal(signal.SIGINT, server.stop)
    kernel.fine_timers()
    kernel.room_for_sockets()
    conditions = "ordinary priority"
    if args.fifo >= 0:
        conditions = kernel.real_time_priority(args.fifo)
    server.settings["conditions"] = conditions
    kernel.no_garbage_pauses()
    port = server.listener.getsockname()[1]
    said = {"port": port, "pid": os.getpid(), "conditions": conditions, "ca": certificate}
    print(json.dumps(said), flush=True)
    server.run()
    print(json.dumps(server.dump()), flush=True)
    if certificate:
        shutil.rmtree(Path(certificate).parent)


if __name__ == "__main__":
    main()
