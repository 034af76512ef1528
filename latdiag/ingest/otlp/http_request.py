"""A request at the HTTP door as it comes, and why it is read no further."""

from __future__ import annotations

from dataclasses import dataclass, field

from latdiag.ingest.otlp import http_reply
from latdiag.ingest.otlp.intake import SIGNALS, Intake
from latdiag.ingest.otlp.limits import MAX_BODY, Refusal, too_large
from latdiag.ingest.otlp.room import Claim

MAX_HEAD = 32 << 10
PATHS = {f"/v1/{signal}": signal for signal in SIGNALS}
_WRAPPINGS = {"": "", "identity": "", "gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}
#: Headers that are looked at; the others are not kept.
READ = frozenset(
    {
        "authorization",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "origin",
    }
)


@dataclass(slots=True)
class Request:
    """A request as it comes. ``size``: bytes of its head; ``received``: of all of it so far."""

    path: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    method: str = ""
    size: int = 0
    received: int = 0
    head_whole: bool = False
    keep_alive: bool = True
    body: bytearray = field(default_factory=bytearray)
    claim: Claim | None = None

    @property
    def plain_path(self) -> str:
        return self.path.partition(b"?")[0].decode("latin-1")

    @property
    def form(self) -> str | None:
        kind = self.headers.get("content-type", "").partition(";")[0]
        return http_reply.FORMS.get(kind.strip().lower())

    @property
    def wrapping(self) -> str | None:
        return _WRAPPINGS.get(self.headers.get("content-encoding", "").lower())


def why_not(request: Request, intake: Intake) -> Refusal | None:
    """Why a request is not read further, from its head; it is counted. None: it is."""
    headers = request.headers
    if request.size > MAX_HEAD:
        return intake.turned_away(long_head())
    no = intake.may_come_in(headers.get("authorization"), headers.get("origin"))
    if no is not None:
        return no
    if request.plain_path not in PATHS:
        return intake.turned_away(Refusal("path", "spans are accepted at /v1/traces"))
    if request.method != "POST":
        return intake.turned_away(Refusal("method", "exports are sent by POST"))
    if request.form is None:
        kinds = " or ".join(http_reply.FORMS)
        return intake.turned_away(Refusal("type", f"the content type must be {kinds}"))
    if request.wrapping is None:
        return intake.turned_away(
            Refusal("encoding", "gzip is the only content encoding accepted")
        )
    length = headers.get("content-length", "")
    if length.isdigit() and int(length[:20]) > MAX_BODY:
        return intake.turned_away(too_large(int(length[:20]), MAX_BODY))
    return None


def long_head() -> Refusal:
    return Refusal("head", f"the head of the request has over {MAX_HEAD} bytes")
