"""What the HTTP door answers: heads, statuses, and refusals in the form of the export."""

from __future__ import annotations

import json

from latdiag.ingest.otlp.limits import RETRY_S, Refusal

FORMS = {"application/x-protobuf": "protobuf", "application/json": "json"}
_TYPES = {form: kind for kind, form in FORMS.items()}
#: HTTP status by reason; what is not named is 400, which no exporter sends again.
_STATUS = {
    "origin": 403,
    "token": 401,
    "path": 404,
    "signal": 404,
    "method": 405,
    "slow": 408,
    "too_large": 413,
    "bomb": 413,
    "too_many": 413,
    "costly": 413,
    "type": 415,
    "wrong_door": 421,
    "encoding": 415,
    "busy": 429,
    "head": 431,
    "bug": 500,
    "disk": 507,
    "disk_cap": 507,
    "closing": 503,
    "crowded": 503,
}
_PHRASES = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    421: "Misdirected Request",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
    507: "Insufficient Storage",
}
#: google.rpc.Code of the body that explains a refusal: INVALID_ARGUMENT, RESOURCE_EXHAUSTED.
_INVALID, _EXHAUSTED = 3, 8


def taken(body: bytes, form: str, close: bool) -> bytes:
    """The answer to an export that is taken."""
    return _reply(200, body, form, [], close)


def refused(refusal: Refusal, form: str, close: bool) -> bytes:
    """The answer to one that is not; its body is a ``google.rpc.Status``."""
    status = _STATUS.get(refusal.reason, 400)
    extra = []
    if refusal.retry:
        extra.append(f"Retry-After: {RETRY_S}")
    if status == 405:
        extra.append("Allow: POST")
    if status == 401:
        extra.append("WWW-Authenticate: Bearer")
    return _reply(status, _explained(refusal, form), form, extra, close)


def _reply(status: int, body: bytes, form: str, extra: list[str], close: bool) -> bytes:
    head = [
        f"HTTP/1.1 {status} {_PHRASES[status]}",
        f"Content-Type: {_TYPES[form]}",
        f"Content-Length: {len(body)}",
        *extra,
    ]
    if close:
        head.append("Connection: close")
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def _explained(refusal: Refusal, form: str) -> bytes:
    code = _EXHAUSTED if refusal.retry else _INVALID
    if form == "json":
        return json.dumps({"code": code, "message": refusal.text}).encode()
    from google.rpc.status_pb2 import Status

    return bytes(Status(code=code, message=refusal.text).SerializeToString())
