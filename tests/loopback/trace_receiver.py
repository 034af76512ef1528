"""Receivers of OTLP traces with every bad habit, as real servers on this machine."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service
from opentelemetry.proto.trace.v1.trace_pb2 import Span

METHOD = "opentelemetry.proto.collector.trace.v1.TraceService"


@dataclass
class Received:
    """What came: requests as messages, and the headers of each."""

    requests: list[service.ExportTraceServiceRequest] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    port: int = 0

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def take(self, body: bytes, headers: dict[str, str]) -> int:
        """Keep a request; how many spans it has."""
        request = service.ExportTraceServiceRequest.FromString(body)
        self.requests.append(request)
        self.headers.append(headers)
        return sum(len(s.spans) for r in request.resource_spans for s in r.scope_spans)


@dataclass(frozen=True)
class HttpReply:
    """What one request gets. ``hang_s``: before that; ``cut``: the connection is closed."""

    status: int = 200
    body: bytes = b""
    kind: str = "application/x-protobuf"
    headers: tuple[tuple[str, str], ...] = ()
    hang_s: float = 0.0
    cut: bool = False


def rejecting(spans: int, text: str = "too old") -> bytes:
    """A reply that rejects some."""
    reply = service.ExportTraceServiceResponse()
    reply.partial_success.rejected_spans = spans
    reply.partial_success.error_message = text
    return reply.SerializeToString()


@contextlib.contextmanager
def http_receiver(answer: Callable[[int], HttpReply]) -> Iterator[Received]:
    """``answer``: to request number n, from 0."""
    received = Received()
    count = iter(range(10**6))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            reply = answer(next(count))
            time.sleep(reply.hang_s)
            if reply.cut:
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return
            if reply.status == 200:
                received.take(body, {k.lower(): v for k, v in self.headers.items()})
            self.send_response(reply.status)
            for name, value in reply.headers:
                self.send_header(name, value)
            self.send_header("Content-Type", reply.kind)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    received.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass(frozen=True)
class GrpcReply:
    """``code``: None for a reply with ``body``. ``retry_s``: says so in its details."""

    code: grpc.StatusCode | None = None
    text: str = ""
    body: bytes = b""
    retry_s: float | None = None
    hang_s: float = 0.0


@contextlib.contextmanager
def grpc_receiver(answer: Callable[[int], GrpcReply]) -> Iterator[Received]:
    """As ``http_receiver``."""
    received = Received()
    count = iter(range(10**6))

    def export(body: bytes, context: Any) -> bytes:
        reply = answer(next(count))
        time.sleep(reply.hang_s)
        if reply.code is not None:
            if reply.retry_s is not None:
                context.set_trailing_metadata((_details(reply),))
            context.abort(reply.code, reply.text)
        received.take(body, dict(context.invocation_metadata()))
        return reply.body

    handler = grpc.unary_unary_rpc_method_handler(export)
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(METHOD, {"Export": handler}),)
    )
    received.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield received
    finally:
        server.stop(0.1).wait()


def _details(reply: GrpcReply) -> tuple[str, bytes]:
    assert reply.code is not None and reply.retry_s is not None
    info = error_details_pb2.RetryInfo()
    info.retry_delay.FromNanoseconds(round(reply.retry_s * 1e9))
    packed = any_pb2.Any()
    packed.Pack(info)
    status = status_pb2.Status(code=reply.code.value[0], message=reply.text, details=[packed])
    return "grpc-status-details-bin", status.SerializeToString()


@contextlib.contextmanager
def garbage_port(words: bytes) -> Iterator[int]:
    """Takes connections, answers anything with ``words`` and closes."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.05)
    ending = threading.Event()

    def serve() -> None:
        while not ending.is_set():
            try:
                peer, _ = listener.accept()
            except TimeoutError:
                continue
            with peer, contextlib.suppress(OSError):
                peer.settimeout(0.5)
                peer.recv(65536)
                peer.sendall(words)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        ending.set()
        thread.join()
        listener.close()
