"""OTLP over gRPC: the door at port 4317.

The server is grpcio's, told to leave compressed messages as they are: its own inflating knows no
bound (a message of 200 kB became 200 MB). Each call is read as a stream of one message, because
only then a sender that never finishes its message can be cut off. ``grpc_front`` stands before it.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable
from typing import Any

from latdiag.ingest.otlp.decode import Export
from latdiag.ingest.otlp.grpc_front import GrpcFront
from latdiag.ingest.otlp.intake import SIGNALS, Intake
from latdiag.ingest.otlp.limits import (
    IDLE_S,
    MAX_BODY,
    REQUEST_S,
    RETRY_S,
    Refusal,
)
from latdiag.model.errors import LocalFault
from latdiag.model.text import shown

_METHODS = {
    f"/opentelemetry.proto.collector.{'trace' if signal == 'traces' else signal}"
    f".v1.{service}/Export": signal
    for signal, service in SIGNALS.items()
}
_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_BODY),
    ("grpc.per_message_decompression", 0),
    ("grpc.max_concurrent_streams", 16),
    ("grpc.max_metadata_size", 16 << 10),
    ("grpc.server_handshake_timeout_ms", int(REQUEST_S * 1000)),
    # It says that it goes, so that nothing is lost that is sent just then.
    ("grpc.max_connection_idle_ms", int(IDLE_S * 1000)),
    # Half-open connections are found by pings that nobody answers.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)
#: The status by reason; what is not named is the sender's fault.
_STATUS = {
    "origin": "PERMISSION_DENIED",
    "token": "UNAUTHENTICATED",
    "busy": "RESOURCE_EXHAUSTED",
    "too_large": "RESOURCE_EXHAUSTED",
    "disk": "RESOURCE_EXHAUSTED",
    "disk_cap": "RESOURCE_EXHAUSTED",
    "closing": "UNAVAILABLE",
    "slow": "DEADLINE_EXCEEDED",
    "signal": "UNIMPLEMENTED",
    "path": "UNIMPLEMENTED",
    "bug": "INTERNAL",
}


class _Services:
    """What grpcio asks for the handler of a method."""

    def __init__(self, call: Callable[[str | None, Any], Awaitable[bytes]]) -> None:
        self._call = call

    def service(self, details: Any) -> Any:
        import grpc

        signal = _METHODS.get(details.method)

        async def export(_requests: Any, context: Any) -> bytes:
            return await self._call(signal, context)

        return grpc.stream_unary_rpc_method_handler(export)


class GrpcDoor:
    """A gRPC server of the export services in the running event loop.

    ``request_s``: seconds that a message may take to come.
    """

    def __init__(self, intake: Intake, request_s: float = REQUEST_S) -> None:
        self._intake = intake
        self._request_s = request_s
        self._server: Any = None
        self._front: GrpcFront | None = None
        self._inner: int | None = None

    async def open(self, address: str) -> str:
        """Listen at HOST:PORT (port 0: any); the address that is listened at.

        LocalFault where that cannot be.
        """
        from grpc import aio

        self._server = aio.server(handlers=(_Services(self._call),), options=_OPTIONS)
        self._inner = await self._listen_inside()
        host, _, port = address.rpartition(":")
        try:
            self._front = GrpcFront(self._intake, f"/proc/self/fd/{self._inner}", self._request_s)
            return f"{host}:{await self._front.open(host, int(port))}"
        except OSError as fault:
            reason = shown(fault.strerror or fault, 200)
            raise LocalFault(
                f"cannot listen at {shown(address, 80)} for OTLP over gRPC: {reason}",
                "stop what listens there, or choose another port",
            ) from fault

    async def _listen_inside(self) -> int:
        """Start the server at a socket that no other user reaches; a descriptor of it.

        Its name goes at once, so that nothing is left behind however this process ends: who has
        the descriptor connects by that.
        """
        try:
            with tempfile.TemporaryDirectory(prefix="latdiag-") as folder:  # of mode 0700
                within = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    # By its descriptor: names of sockets have 108 bytes, those of folders more.
                    path = f"/proc/self/fd/{within}/grpc"
                    self._server.add_insecure_port(f"unix:{path}")
                    await self._server.start()
                    return os.open(path, os.O_PATH | os.O_CLOEXEC)
                finally:
                    os.close(within)
        except (OSError, RuntimeError) as fault:
            reason = shown(getattr(fault, "strerror", None) or fault, 200)
            raise LocalFault(
                f"cannot make a socket for gRPC in a temporary folder: {reason}",
                "set TMPDIR to a folder that may be written to",
            ) from fault

    async def close(self, grace_s: float) -> None:
        """Take nothing new; what is under way has ``grace_s`` to end."""
        if self._front is not None:
            self._front.close()
        if self._server is not None:
            await self._server.stop(grace_s)
        if self._front is not None:
            self._front.abort()
        if self._inner is not None:
            os.close(self._inner)
            self._inner = None

    async def _call(self, signal: str | None, context: Any) -> bytes:
        import grpc

        if self._front is not None:
            self._front.accepted(context.peer())
        try:
            return await self._answer(signal, context)
        except Refusal as no:
            refusal = no.with_traceback(None)  # or it would hold this frame, and that the body
        except Exception as fault:
            refusal = self._intake.bug(fault)
        if refusal.retry:
            context.set_trailing_metadata((("grpc-status-details-bin", _retry_later(refusal)),))
        code = grpc.StatusCode[_STATUS.get(refusal.reason, "INVALID_ARGUMENT")]
        await context.abort(code, refusal.text)
        raise AssertionError("abort raises")

    async def _answer(self, signal: str | None, context: Any) -> bytes:
        intake = self._intake
        if signal is None:
            text = "there is no such method here, only opentelemetry's TraceService/Export"
            raise intake.turned_away(Refusal("path", text))
        headers = {key: value for key, value in context.invocation_metadata() if key in _HEADERS}
        refusal = intake.may_come_in(headers.get("authorization"), headers.get("origin"))
        if refusal is not None:
            raise refusal
        body = await self._message(context)
        export = Export(body, wrapping_of(body), "protobuf", "otlp/grpc", signal)
        if signal != "traces":
            return self._other(export)
        return await intake.take(export, intake.room.claim())

    async def _message(self, context: Any) -> bytes:
        """The one message of a call; Refusal where it does not come in time or not at all."""
        from grpc import aio

        try:
            body = await asyncio.wait_for(context.read(), self._request_s)
        except TimeoutError:
            text = f"no whole message within {self._request_s:g} s"
            raise self._intake.turned_away(Refusal("slow", text)) from None
        if body is aio.EOF:
            raise self._intake.turned_away(Refusal("no_message", "a call without a whole message"))
        return bytes(body)

    def _other(self, export: Export) -> bytes:
        if not self._intake.other(export):
            text = f"{export.signal} are not accepted here, only traces"
            raise Refusal("signal", text)
        return b""


_HEADERS = ("authorization", "origin")


def wrapping_of(message: bytes) -> str:
    """How a gRPC message is compressed, by its first bytes; empty for not at all.

    An export begins with field 1 (byte 0x0a): gzip's 0x1f is no field at all, and zlib's 0x78 a
    number in field 15, which no version of the protocol has.
    """
    if message[:2] == b"\x1f\x8b":
        return "gzip"
    if message[:1] == b"\x78" and len(message) > 1 and (0x7800 | message[1]) % 31 == 0:
        return "deflate"
    return ""


def _retry_later(refusal: Refusal) -> bytes:
    """``google.rpc.Status`` with a RetryInfo: without one, senders drop what was refused."""
    from google.protobuf.any_pb2 import Any as Packed
    from google.protobuf.duration_pb2 import Duration
    from google.rpc.error_details_pb2 import RetryInfo
    from google.rpc.status_pb2 import Status

    detail = Packed()
    detail.Pack(RetryInfo(retry_delay=Duration(seconds=RETRY_S)))
    return bytes(Status(code=8, message=refusal.text, details=[detail]).SerializeToString())
