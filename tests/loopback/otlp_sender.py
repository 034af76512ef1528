"""A process that sends spans: ``python otlp_sender.py KIND ADDRESS [ARGUMENTS]``; prints JSON.

gRPC runs here and not in the tests: what forks must not have threads of it. KINDS are the
functions at the end of this file.
"""

from __future__ import annotations

import gzip
import importlib
import json
import random
import sys
from pathlib import Path
from typing import Any

TRACES = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
METRICS = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"


def export(spans: int, first: int = 0, service: str = "sender") -> Any:
    """An export of good spans, numbered from ``first``."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTraceServiceRequest,
    )

    made = ExportTraceServiceRequest()
    group = made.resource_spans.add()
    group.resource.attributes.add(key="service.name").value.string_value = service
    scoped = group.scope_spans.add()
    scoped.scope.name = "vllm.llm_engine"
    for number in range(first, first + spans):
        span = scoped.spans.add(
            trace_id=(number + 1).to_bytes(16, "big"),
            span_id=(number + 1).to_bytes(8, "big"),
            name="llm_request",
            kind=2,
            start_time_unix_nano=1_700_000_000_000_000_000 + number,
            end_time_unix_nano=1_700_000_000_000_001_000 + number,
        )
        span.attributes.add(key="gen_ai.latency.time_in_queue").value.double_value = number / 7
        span.attributes.add(key="gen_ai.usage.prompt_tokens").value.int_value = number
        span.attributes.add(key="gen_ai.prompt").value.string_value = "a secret"
    return made


def mutated(draw: random.Random, good: list[bytes]) -> bytes:
    """A payload that may be anything: noise, or a good export with some bytes changed."""
    if draw.random() < 0.2:
        return draw.randbytes(draw.randrange(200))
    body = bytearray(draw.choice(good))
    for _ in range(draw.randrange(4)):
        place = draw.randrange(len(body))
        change = draw.randrange(4)
        if change == 0:
            body[place] = draw.randrange(256)
        elif change == 1:
            del body[place : place + draw.randrange(1, 9)]
        elif change == 2:
            body[place:place] = draw.randbytes(draw.randrange(1, 9))
        else:
            del body[place:]
        if not body:
            break
    return bytes(body)


def mutants(seed: int, count: int) -> list[bytes]:
    draw = random.Random(seed)
    good = [export(n, n * 10).SerializeToString() for n in (1, 2, 5)]
    return [mutated(draw, good) for _ in range(count)]


# ---------------------------------------------------------------------- with the SDK
def sdk(kind: str, endpoint: str, spans: int, packed: bool) -> dict[str, Any]:
    """Spans of a tracer through the SDK's exporter, gzipped or not."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    exporter: Any
    if kind == "grpc":
        import grpc
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        how = grpc.Compression.Gzip if packed else grpc.Compression.NoCompression
        exporter = OTLPSpanExporter(endpoint=endpoint, insecure=True, compression=how)
    else:
        from opentelemetry.exporter.otlp.proto.http import Compression
        from opentelemetry.exporter.otlp.proto.http import trace_exporter as by_http

        encoding = Compression.Gzip if packed else Compression.NoCompression
        exporter = by_http.OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces", compression=encoding)
    provider = TracerProvider(resource=Resource.create({"service.name": f"sdk-{kind}"}))
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=1 << 16))
    tracer = provider.get_tracer("vllm.llm_engine")
    for number in range(spans):
        with tracer.start_as_current_span("llm_request") as span:
            span.set_attribute("gen_ai.usage.prompt_tokens", number)
            span.set_attribute("gen_ai.prompt", "a secret")
    provider.shutdown()
    return {"sent": spans}


# ---------------------------------------------------------------------- with bare gRPC
def call(channel: Any, body: bytes, method: str = TRACES, **options: Any) -> dict[str, Any]:
    """One call: its status, and of an answer the rejected spans."""
    import grpc
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTraceServiceResponse,
    )

    try:
        reply = channel.unary_unary(method)(body, timeout=20, **options)
    except grpc.RpcError as fault:
        keys = [key for key, _ in fault.trailing_metadata() or ()]
        return {"status": fault.code().name, "retry": "grpc-status-details-bin" in keys}
    rejected = ExportTraceServiceResponse.FromString(reply).partial_success.rejected_spans
    return {"status": "OK", "rejected": rejected}


def channel_to(address: str, **options: int) -> Any:
    import grpc

    settings = {"max_send_message_length": -1, "use_local_subchannel_pool": 1, **options}
    return grpc.insecure_channel(address, [(f"grpc.{k}", v) for k, v in settings.items()])


def refused(address: str) -> dict[str, Any]:
    """Calls that must be refused, and a good one at the end."""
    import grpc

    packed = grpc.Compression.Gzip
    good = export(3).SerializeToString()
    with channel_to(address) as channel:
        return {
            "garbage": call(channel, b"\xff" * 50),
            "oversize": call(channel, bytes(17 << 20)),
            "bomb": call(channel, bytes(100 << 20), compression=packed),
            "cut gzip": call(channel, gzip.compress(good)[:-9]),
            "metrics": call(channel, b"", METRICS),
            "method": call(channel, b"", "/no.Service/Method"),
            "page": call(channel, good, metadata=(("origin", "http://page"),)),
            "deflate": call(channel, good, compression=grpc.Compression.Deflate),
            "good": call(channel, good, compression=packed),
        }


def with_token(address: str, token: str) -> dict[str, Any]:
    good = export(3).SerializeToString()
    with channel_to(address) as channel:
        return {
            "none": call(channel, good),
            "wrong": call(channel, good, metadata=(("authorization", "Bearer wrong"),)),
            "right": call(channel, good, metadata=(("authorization", f"Bearer {token}"),)),
        }


def slow(address: str, many: int) -> dict[str, Any]:
    """Calls whose message never comes, and a good one among them."""
    import grpc

    with channel_to(address) as channel:
        open_calls = [channel.stream_unary(TRACES).future(_never()) for _ in range(many)]
        good = call(channel, export(3).SerializeToString())
        ended = []
        for one in open_calls:
            try:
                one.result(timeout=20)
                ended.append("OK")
            except grpc.RpcError as fault:
                ended.append(fault.code().name)
    return {"good": good, "ended": ended}


def _never() -> Any:
    import threading

    threading.Event().wait(30)
    yield b""


def fuzz(address: str, seed: int, count: int) -> dict[str, Any]:
    """Random payloads; how they were answered, and the spans of those that were taken."""
    # Beside this file: here it is no package.
    expected = importlib.import_module("otlp_oracle").expected
    answers: dict[str, int] = {}
    spans = malformed = rejected = 0
    with channel_to(address) as channel:
        for body in mutants(seed, count):
            found = call(channel, body)
            answers[found["status"]] = answers.get(found["status"], 0) + 1
            if found["status"] == "OK":
                wanted = expected(body)
                spans += wanted.spans or 0
                malformed += wanted.malformed
                rejected += found["rejected"]
    return {"answers": answers, "spans": spans, "malformed": malformed, "rejected": rejected}


def structural(address: str, seed: int, count: int) -> dict[str, Any]:
    """Bodies that are changed in their structure; how they were answered."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    bodies = importlib.import_module("tests.otlp_mutants").protobuf(seed, count)
    answers: dict[str, int] = {}
    with channel_to(address) as channel:
        for body in bodies:
            status = call(channel, body)["status"]
            answers[status] = answers.get(status, 0) + 1
    return {"answers": answers}


def main() -> None:
    kind, address, *rest = sys.argv[1:]
    if kind == "sdk":
        found = sdk(rest[0], address, int(rest[1]), rest[2] == "gzip")
    elif kind == "refused":
        found = refused(address)
    elif kind == "token":
        found = with_token(address, rest[0])
    elif kind == "slow":
        found = slow(address, int(rest[0]))
    elif kind == "fuzz":
        found = fuzz(address, int(rest[0]), int(rest[1]))
    elif kind == "mutants":
        found = structural(address, int(rest[0]), int(rest[1]))
    elif kind == "metrics":
        with channel_to(address) as channel:
            found = call(channel, b"", METRICS)
    else:
        with channel_to(address) as channel:
            found = call(channel, export(int(rest[0])).SerializeToString())
    print(json.dumps(found))


if __name__ == "__main__":
    main()
