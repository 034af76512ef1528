"""The two ways of OTLP: HTTP and gRPC. Whatever a foreign server does becomes a ``Reply``.

No proxy of the environment is used, no redirect is followed, and no header's value is repeated in
a reply.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import grpc
import httpx
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from latdiag.export.delivery import Answer, Reply, Sender
from latdiag.export.way import Way
from latdiag.load.trust import Trust
from latdiag.model.errors import UsageFault
from latdiag.model.secrets import concealed
from latdiag.model.text import shown
from latdiag.model.units import seconds

_METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_MAX_REPLY = 1 << 20
#: Statuses after which the same batch may be sent again (OTLP 1.x, OTLP/HTTP Response).
_RETRYABLE = frozenset({429, 502, 503, 504})
#: Statuses that another batch would get as well.
_SHUT = frozenset({401, 403, 404, 405, 407, 410, 415, 421, 426, 501, 505})
_GRPC_LATER = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
_GRPC_SHUT = frozenset(
    {
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)


def sender_of(way: Way) -> HttpSender | GrpcSender:
    """Of batches, one after the other."""
    return (GrpcSender if way.destination.grpc else HttpSender)(way)


class HttpSender(Sender):
    """OTLP/HTTP with protobuf."""

    def __init__(self, way: Way) -> None:
        self._url = way.destination.url("traces")
        self._limit_s = seconds(way.timeout_ns)
        self._client = httpx.Client(
            timeout=self._limit_s,
            trust_env=False,
            follow_redirects=False,
            verify=way.trust.context() if way.destination.secure else False,
            headers=[*way.headers, ("Content-Type", "application/x-protobuf")],
        )

    def close(self) -> None:
        self._client.close()

    def send(self, batch: bytes) -> Reply:
        deadline = time.monotonic() + self._limit_s
        try:
            with self._client.stream("POST", self._url, content=batch) as response:
                body = bytearray()
                for piece in response.iter_bytes():
                    body += piece
                    if len(body) > _MAX_REPLY:
                        return _broken(f"a reply of more than {_MAX_REPLY >> 20} MiB")
                    if time.monotonic() > deadline:
                        return _broken(f"no whole reply within {self._limit_s:g} s")
                return _of_http(response, bytes(body))
        except httpx.TimeoutException:
            return _broken(f"no reply within {self._limit_s:g} s")
        except (httpx.RemoteProtocolError, httpx.DecodingError) as fault:
            return _broken(f"a reply that is not HTTP: {_told(fault)}")
        except httpx.HTTPError as fault:
            return _broken(f"the connection failed: {_told(fault)}")


def _of_http(response: httpx.Response, body: bytes) -> Reply:
    status = response.status_code
    if status // 100 == 2:
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        return _taken(body, kind)
    text = f"HTTP {status}"
    if said := _status_text(body, response.headers.get("content-type", "")):
        text = f"{text}: {said}"
    if status in _RETRYABLE:
        return Reply(Answer.LATER, text, wait_s=_retry_after(response.headers.get("retry-after")))
    shut = status in _SHUT or status // 100 == 3
    return Reply(Answer.SHUT if shut else Answer.REFUSED, text)


def _taken(body: bytes, kind: str) -> Reply:
    """What a receiver says of a batch that it took; a reply that is none confirms nothing."""
    try:
        if kind == "application/json":
            partial = json.loads(body or b"{}").get("partialSuccess") or {}
            rejected = int(partial.get("rejectedSpans") or 0)
            text = str(partial.get("errorMessage") or "")
        elif kind in ("application/x-protobuf", ""):
            found = ExportTraceServiceResponse.FromString(body).partial_success
            rejected, text = found.rejected_spans, found.error_message
        elif not body:
            rejected, text = 0, ""
        else:
            return _no_reply(f"a reply of type {shown(kind, 40)}")
    except (ValueError, TypeError, AttributeError, DecodeError, RecursionError):
        return _no_reply("a reply that is no ExportTraceServiceResponse")
    return Reply(Answer.TAKEN, _told(text), rejected)


def _no_reply(what: str) -> Reply:
    return Reply(Answer.SHUT, f"it answered with {what}", answered=False)


def _broken(text: str) -> Reply:
    return Reply(Answer.LATER, text, answered=False)


def _status_text(body: bytes, kind: str) -> str:
    """The words of a ``google.rpc.Status``, as OTLP has it, or of a short plain text."""
    if "protobuf" in kind:
        try:
            return _told(Status.FromString(body).message)
        except DecodeError:
            return ""
    if "json" in kind:
        try:
            return _told(json.loads(body).get("message", ""))
        except (ValueError, AttributeError, RecursionError):
            return ""
    return _told(body[:400].decode("utf-8", "replace")) if "plain" in kind else ""


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After, which may also be a date; None where there is none."""
    if value is None:
        return None
    try:
        return max(float(value), 0.0) if value.strip().isdigit() else _until(value)
    except (ValueError, TypeError, OverflowError):
        return None


def _until(date: str) -> float:
    return max(parsedate_to_datetime(date).timestamp() - time.time(), 0.0)


def _told(fault: object) -> str:
    return shown(concealed(str(fault)), 160)


class GrpcSender(Sender):
    """OTLP/gRPC. The stub is called with bytes: the encoder of the exporter has made them."""

    def __init__(self, way: Way) -> None:
        to = way.destination
        target = f"{f'[{to.host}]' if ':' in to.host else to.host}:{to.port}"
        options = (
            ("grpc.enable_http_proxy", 0),
            ("grpc.enable_retries", 0),
            ("grpc.max_receive_message_length", _MAX_REPLY),
        )
        if to.secure:
            self._channel = grpc.secure_channel(target, _credentials(way.trust), options)
        else:
            self._channel = grpc.insecure_channel(target, options)
        self._call = self._channel.unary_unary(_METHOD)
        self._metadata = [(name.lower(), value) for name, value in way.headers]
        self._limit_s = seconds(way.timeout_ns)

    def close(self) -> None:
        self._channel.close()

    def send(self, batch: bytes) -> Reply:
        try:
            body = self._call(batch, timeout=self._limit_s, metadata=self._metadata)
        except grpc.RpcError as fault:
            return _of_grpc(fault)
        return _taken(body, "")


def _of_grpc(fault: Any) -> Reply:
    code = fault.code()
    text = f"gRPC {code.name}: {_told(fault.details() or '')}".removesuffix(": ")
    wait = _retry_info(fault.trailing_metadata() or ())
    if code in _GRPC_LATER or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and wait is not None):
        # UNAVAILABLE is also what this side says of a connection that broke: nobody answered.
        return Reply(Answer.LATER, text, answered=wait is not None, wait_s=wait)
    if code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN):
        return Reply(Answer.REFUSED, text, answered=False)
    return Reply(Answer.SHUT if code in _GRPC_SHUT else Answer.REFUSED, text)


def _retry_info(trailers: Sequence[tuple[str, str | bytes]]) -> float | None:
    """Seconds of a ``RetryInfo``; None where there is none."""
    for name, value in trailers:
        if name == "grpc-status-details-bin" and isinstance(value, bytes):
            try:
                for detail in Status.FromString(value).details:
                    info = RetryInfo()
                    if detail.Unpack(info):
                        return float(max(info.retry_delay.ToNanoseconds(), 0)) / 1e9
            except (DecodeError, ValueError):
                return None
    return None


def _credentials(trust: Trust) -> Any:
    """UsageFault for what gRPC cannot do."""
    if not trust.verify:
        raise UsageFault(
            "gRPC cannot leave certificates unverified", "give --ca-file, or use HTTP"
        )
    usual = ssl.get_default_verify_paths().cafile
    roots = [Path(name).read_bytes() for name in (trust.ca_file, usual) if name]
    key, chain = (
        Path(name).read_bytes() if name else None
        for name in (trust.key_file or trust.cert_file, trust.cert_file)
    )
    # Without a file of the user's, gRPC's own list of authorities stands.
    return grpc.ssl_channel_credentials(b"\n".join(roots) if trust.ca_file else None, key, chain)
