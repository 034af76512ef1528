"""OTLP over gRPC: the door at port 4317.

The server is grpcio's, told to leave compressed messages as they are: its own inflating knows no
bound (a message of 200 kB became 200 MB). Each call is read as a stream of one message, because
only then a sender that never finishes its message can be cut off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from latdiag.ingest.otlp.intake import SIGNALS, Export, Intake
from latdiag.ingest.otlp.limits import (
    MAX_BODY,
    MAX_CONNECTIONS,
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
#: Calls at once, over all connections: each may hold a body in memory.
_CALLS = 128
_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_BODY),
    ("grpc.per_message_decompression", 0),
    ("grpc.max_allowed_incoming_connections", MAX_CONNECTIONS),
    ("grpc.max_concurrent_streams", 32),
    ("grpc.max_metadata_size", 16 << 10),
    ("grpc.server_handshake_timeout_ms", int(REQUEST_S * 1000)),
    # Half-open connections are found by pings that nobody answers.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Without this two receivers could share the port, and each would see half.
    ("grpc.so_reuseport", 0),
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
}


class _Services:
    """What grpcio asks for the handler of a method."""

    def __init__(self, call: Callable[[str, Any], Awaitable[bytes]]) -> None:
        self._call = call

    def service(self, details: Any) -> Any:
        import grpc

        signal = _METHODS.get(details.method)
        if signal is None:
            return None  # which grpcio answers with UNIMPLEMENTED

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

    async def open(self, address: str) -> str:
        """Listen at HOST:PORT (port 0: any); the address that is listened at.

        LocalFault where that cannot be.
        """
        from grpc import aio

        self._server = aio.server(
            handlers=(_Services(self._call),),
            options=_OPTIONS,
            maximum_concurrent_rpcs=_CALLS,
        )
        host = address.rpartition(":")[0]
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError as fault:
            port, reason = 0, shown(fault, 200)
        else:
            reason = "the port is not free"
        if not port:
            raise LocalFault(
                f"cannot listen at {shown(address, 80)} for OTLP over gRPC: {reason}",
                "stop what listens there, or choose another port",
            )
        await self._server.start()
        return f"{host}:{port}"

    async def close(self, grace_s: float) -> None:
        """Take nothing new; what is under way has ``grace_s`` to end."""
        if self._server is not None:
            await self._server.stop(grace_s)

    async def _call(self, signal: str, context: Any) -> bytes:
        import grpc

        said = {key: value for key, value in context.invocation_metadata() if key in _HEADERS}
        try:
            refusal = self._intake.may_come_in(said.get("authorization"), said.get("origin"))
            if refusal is not None:
                raise refusal
            body = await self._message(context)
            export = Export(body, wrapping_of(body), "protobuf", "otlp/grpc", signal)
            if signal != "traces":
                return self._other(export)
            reply = self._intake.take(export)
            assert isinstance(reply, bytes)
            return reply
        except Refusal as no:
            if no.retry:
                context.set_trailing_metadata((("grpc-status-details-bin", _retry_later(no)),))
            code = grpc.StatusCode[_STATUS.get(no.reason, "INVALID_ARGUMENT")]
            await context.abort(code, no.text)
            raise AssertionError("abort raises") from None

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
            raise Refusal("signal", f"{export.signal} are not taken here, only traces")
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
