"""Spans as vLLM exports them: one ``llm_request`` a request and server, by OTLP over HTTP.

The server only writes a line into a pipe, and drops the span where the pipe is full; a process of
its own makes protobuf of it and waits for the collector. So no export can delay a token.
"""

from __future__ import annotations

import heapq
import json
import os
import re
import secrets
import select
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from latdiag.runtime.channel import message, wide_pipe
from latdiag.runtime.children import fresh
from latdiag.sim.process import command, say_report
from latdiag.sim.telemetry import Clock, Deliveries, Telemetry, stated
from latdiag.sim.truth import PREFILL, Visit

NAME, SCOPE = "llm_request", "vllm.tracing.otel"
#: Flags of a span: "the parent is known to be remote, or not" and "it is".
_HAS_REMOTE, _IS_REMOTE = 0x100, 0x200
_SERVER_KIND = 2

_BATCH, _BATCH_NS = 256, 200_000_000
#: Ends the second copy of a line, which JSON does not mind.
_AGAIN = b" "
_TIMEOUT_S, _ATTEMPTS, _PAUSE_S = 2.0, 2, 0.2
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class Context:
    """Whose child a span is. ``parent``: empty for a root. ``sampled``: whether it is exported."""

    __slots__ = ("parent", "sampled", "trace_id")

    def __init__(self, traceparent: str | None) -> None:
        found = _TRACEPARENT.fullmatch(traceparent or "")
        version, trace, parent, flags = found.groups()[:4] if found else ("ff", "", "", "")
        valid = version != "ff" and trace.strip("0") and parent.strip("0")
        self.trace_id = trace if valid else secrets.token_hex(16)
        self.parent = parent if valid else ""
        # The SDK that vLLM uses follows the parent in this.
        self.sampled = not valid or bool(int(flags, 16) & 1)


Attributes = dict[str, str | int | float]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client asked for, as far as its spans say it. ``response_id``: of the reply."""

    response_id: str
    chat: bool
    max_tokens: int
    temperature: float = 1.0


def attributes(visit: Visit, clock: Clock, asked: Asked) -> Attributes:
    """The attributes of a request's span, in vLLM's order; times in seconds.

    A prefill server is asked for one token, with the id of the whole.
    """
    times = {name: ns / 1e9 for name, ns in stated(visit, clock).items()}
    found: Attributes = {
        "gen_ai.latency.time_to_first_token": times["ttft"],
        "gen_ai.latency.e2e": times["e2e"],
        "gen_ai.latency.time_in_queue": times["queue"],
        "gen_ai.usage.prompt_tokens": visit.isl,
        "gen_ai.usage.completion_tokens": visit.osl,
        "gen_ai.latency.time_in_model_prefill": times["prefill"],
        "gen_ai.latency.time_in_model_decode": times["decode"],
        "gen_ai.latency.time_in_model_inference": times["inference"],
        "gen_ai.request.id": asked.response_id if asked.chat else f"{asked.response_id}-0",
        "gen_ai.request.top_p": 1.0,
        "gen_ai.request.max_tokens": 1 if visit.part == PREFILL else asked.max_tokens,
    }
    if asked.temperature:  # vLLM leaves out what is 0
        found["gen_ai.request.temperature"] = asked.temperature
    found["gen_ai.request.n"] = 1
    return found


class Record(NamedTuple):
    """A span as it goes to the exporter; ids in hex, instants by the wall clock of its server.
    ``parent``: empty for a root."""

    trace_id: str
    span_id: str
    parent: str
    start_ns: int
    end_ns: int
    attributes: Attributes


def record(context: Context, visit: Visit, clock: Clock, real_ns: int, asked: Asked) -> Record:
    """The span of a visit. ``real_ns``: REALTIME minus MONOTONIC here."""
    return Record(
        trace_id=context.trace_id,
        span_id=secrets.token_hex(8),
        parent=context.parent,
        start_ns=clock.wall(visit.arrived_ns) + real_ns,
        end_ns=clock.wall(visit.finished_ns) + real_ns,
        attributes=attributes(visit, clock, asked),
    )


def line(one: Record) -> bytes:
    """A record as a line of the pipe; ``record_of`` reads it back."""
    return json.dumps(one._asdict()).encode() + b"\n"


def record_of(line: bytes) -> Record:
    """Raises ValueError or TypeError for what ``line`` did not write."""
    return Record(**json.loads(line))


@message
class Delivered(NamedTuple):
    """Spans: different ones that the collector took, lost on purpose, repeated on purpose."""

    sent: int
    lost: int
    repeated: int


class Exporter:
    """The server's end of the pipe. ``dropped``: spans that found it full. ``faults``: of what
    arrives, for the ``part`` that the server has, and ``seed``: of their chances."""

    def __init__(
        self, url: str, faults: Telemetry | None = None, part: str = "", seed: int = 0
    ) -> None:
        self.offered = self.dropped = 0
        given = (url, (faults or Telemetry()).to_json(), part, str(seed))
        reading, self._fd = wide_pipe()
        os.set_blocking(self._fd, False)
        try:
            self._child, self._channel = fresh(command("spans", *given), stdin=reading)
        finally:
            os.close(reading)

    @property
    def pid(self) -> int:
        return self._child.pid

    def offer(self, line: bytes) -> None:
        """Hand over a span, or drop it: never waits. ``line`` has at most PIPE_BUF bytes, which
        a pipe takes whole or not at all."""
        self.offered += 1
        try:
            if len(line) <= select.PIPE_BUF:
                os.write(self._fd, line)
                return
        except OSError:
            pass
        self.dropped += 1

    def end(self) -> None:
        """No more spans: what is held back leaves at once."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def close(self) -> dict[str, int]:
        """Let it deliver what it has, what is held back too; counts of spans.

        ``sent``: different ones, ``dropped``: wherever; with telemetry faults also ``lost`` on
        purpose, and how many were ``repeated``.
        """
        self.end()
        report = self._channel.receive(_ATTEMPTS * _TIMEOUT_S + 1)
        counts = report if isinstance(report, Delivered) else Delivered(0, 0, 0)
        self._child.end(_PAUSE_S)
        self._channel.close()
        dropped = self.offered - counts.sent - counts.lost
        faults = {"lost": counts.lost, "repeated": counts.repeated}
        more = {name: count for name, count in faults.items() if count}
        return {"sent": counts.sent, "dropped": dropped, **more}


# ---------------------------------------------------------------------- the exporter's process
def export_request(records: Sequence[Record], instance: str) -> bytes:
    """An ExportTraceServiceRequest with these spans, serialised."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTraceServiceRequest,
    )
    from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource
    from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans

    resource: dict[str, str | int | float] = {
        "service.instance.id": instance,
        "service.name": "latdiag-demo",
        "vllm.instrumenting_module_name": "vllm.llm_engine",
        "vllm.process_id": str(os.getpid()),
    }
    spans = [_span(one) for one in records]
    scoped = ScopeSpans(scope=InstrumentationScope(name=SCOPE), spans=spans)
    of_all = ResourceSpans(
        resource=Resource(attributes=_key_values(resource)), scope_spans=[scoped]
    )
    return bytes(ExportTraceServiceRequest(resource_spans=[of_all]).SerializeToString())


def _span(one: Record) -> Any:
    from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

    remote = _IS_REMOTE if one.parent else 0
    return Span(
        trace_id=bytes.fromhex(one.trace_id),
        span_id=bytes.fromhex(one.span_id),
        parent_span_id=bytes.fromhex(one.parent),
        name=NAME,
        kind=_SERVER_KIND,  # type: ignore[arg-type]
        start_time_unix_nano=one.start_ns,
        end_time_unix_nano=one.end_ns,
        attributes=_key_values(one.attributes),
        status=Status(),
        flags=_HAS_REMOTE | remote,
    )


def _key_values(values: Mapping[str, str | int | float]) -> list[Any]:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

    fields = {str: "string_value", int: "int_value", float: "double_value"}
    return [
        KeyValue(key=key, value=AnyValue(**{fields[type(value)]: value}))  # type: ignore[arg-type]
        for key, value in values.items()
    ]


def traces_url(url: str) -> str:
    """Where spans go: ``/v1/traces`` of a collector, unless the URL has a path of its own.

    ValueError for what is no such URL, or holds what would stand in a server's command line.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("what the spans are to go to is not an http URL")
    if "@" in parts.netloc or parts.query:
        raise ValueError("the URL for spans holds a user, password or query: none is sent")
    return url if parts.path.strip("/") else f"{parts.scheme}://{parts.netloc}/v1/traces"


def post(url: str, body: bytes) -> bool:
    """One export; whether the collector took it. Neither proxies nor redirects are followed."""
    import http.client

    parts = urlsplit(url)
    secure = parts.scheme == "https"
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)
    try:
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        connection.request("POST", path, body, {"Content-Type": "application/x-protobuf"})
        return 200 <= connection.getresponse().status < 300
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class Lines:
    """The lines of a pipe. ``ended``: its other end is closed. ``dues``: from the instant (ns)
    at which a line came, those at which it is to be handed out."""

    def __init__(self, fd: int, dues: Callable[[int], Sequence[int]] = lambda at: (at,)) -> None:
        self._fd, self._dues = fd, dues
        self._numbers = count()
        self._held: list[tuple[int, int, bytes]] = []
        self.ended = False

    def batches(self) -> Iterator[list[bytes]]:
        """All of them in batches, each handed out some moments after its first line was due;
        at the end at once, whether due or not."""
        rest, lines, begun_ns = b"", list[bytes](), 0
        while not self.ended:
            now_ns = time.monotonic_ns()
            due = self._take(now_ns)
            begun_ns = begun_ns if lines else now_ns
            lines += due
            if lines and (len(lines) >= _BATCH or now_ns >= begun_ns + _BATCH_NS):
                yield lines[:_BATCH]
                del lines[:_BATCH]
                continue
            next_ns = [begun_ns + _BATCH_NS] if lines else [one[0] for one in self._held[:1]]
            patience = max(0, next_ns[0] - now_ns) / 1e9 if next_ns else None
            if not select.select([self._fd], [], [], patience)[0]:
                continue
            data = os.read(self._fd, 1 << 16)
            self.ended = not data
            *whole, rest = (rest + data).split(b"\n")
            self._hold(whole)
        lines += self._take(None)
        for place in range(0, len(lines), _BATCH):
            yield lines[place : place + _BATCH]

    def _hold(self, lines: Sequence[bytes]) -> None:
        now_ns = time.monotonic_ns()
        for one in lines:
            for copy, due_ns in enumerate(self._dues(now_ns)):
                again = one + _AGAIN if copy else one
                heapq.heappush(self._held, (due_ns, next(self._numbers), again))

    def _take(self, now_ns: int | None) -> list[bytes]:
        """What is due, in order; all of it without an instant."""
        found, held = list[bytes](), self._held
        while held and (now_ns is None or held[0][0] <= now_ns):
            found.append(heapq.heappop(held)[2])
        return found


def deliver(url: str, lines: Sequence[bytes], instance: str) -> bool:
    """Export spans, with a second attempt; whether the collector took them."""
    body = export_request([record_of(line) for line in lines], instance)
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE_S)
        if post(url, body):
            return True
    return False


def main() -> None:
    """Export the spans that come as lines on stdin; tell the parent how many were sent.

    Arguments: the URL, a Telemetry as JSON, the server's part, a seed. Once the other end is
    closed, the first batch that the collector does not take is the last: nobody waits longer
    than that for a collector that is not there.
    """
    url, faults, part, seed = sys.argv[1:]
    deliveries = Deliveries(Telemetry.from_json(faults), part, int(seed))
    incoming, instance = Lines(sys.stdin.fileno(), deliveries.of), str(uuid.uuid4())
    sent = 0
    for lines in incoming.batches():
        if deliver(traces_url(url), lines, instance):
            sent += sum(not one.endswith(_AGAIN) for one in lines)
        elif incoming.ended:
            break
    say_report(Delivered(sent, deliveries.lost, deliveries.repeated))


if __name__ == "__main__":
    main()
