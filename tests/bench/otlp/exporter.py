"""A process that exports spans with the SDK's own OTLP exporter, as fast as it can.

``python exporter.py ENDPOINT SECONDS``; prints what it sent, as JSON. Every export is a batch of
512 spans of 16 attributes; encoding is done once a batch, since the SDK's encoder alone takes a
core for 20,000 spans a second; what is sent is sent by the SDK.
"""

from __future__ import annotations

import json
import random
import sys
import time
from typing import Any

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

BATCH, BATCHES = 512, 16
#: One span in so many exports bears no trace id, and must be refused.
BROKEN_EVERY = 50


def made() -> list[ReadableSpan]:
    """Spans as an engine makes them: 8 durations, 5 counts, 3 texts."""
    draw = random.Random(1)
    kept = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource.create({"service.name": "engine"}))
    provider.add_span_processor(SimpleSpanProcessor(kept))
    tracer = provider.get_tracer("vllm.llm_engine")
    for number in range(BATCH * BATCHES):
        attributes: dict[str, Any] = {
            f"gen_ai.latency.time_in_part_{part}": draw.random() for part in range(8)
        }
        attributes |= {f"gen_ai.usage.count_{part}": draw.randrange(9999) for part in range(5)}
        attributes |= {
            "gen_ai.request.id": f"cmpl-{number:08x}",
            "gen_ai.response.model": "a-model",
            "gen_ai.request.type": "text that is dropped",
        }
        with tracer.start_as_current_span("llm_request", kind=SpanKind.SERVER) as span:
            span.set_attributes(attributes)
    return list(kept.get_finished_spans())


class Counting:
    """Stands before the exporter's client, and counts the spans of every call."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.sent = self.failed = self.rejected = 0

    def Export(self, request: Any, **options: Any) -> Any:  # noqa: N802 - gRPC's name
        spans = sum(len(s.spans) for r in request.resource_spans for s in r.scope_spans)
        self.sent += spans
        try:
            reply = self._client.Export(request=request, **options)
        except Exception:
            self.failed += spans
            raise
        self.rejected += reply.partial_success.rejected_spans
        return reply


class Prepared(OTLPSpanExporter):
    """The exporter, which encodes every batch but once. A batch is known by its identity."""

    def prepare(self, batches: list[list[ReadableSpan]]) -> None:
        self._encoded = {id(b): super(Prepared, self)._translate_data(b) for b in batches}

    def _translate_data(self, data: Any) -> Any:
        return self._encoded[id(data)]

    def break_a_span(self, batch: list[ReadableSpan]) -> None:
        self._encoded[id(batch)].resource_spans[0].scope_spans[0].spans[7].trace_id = b""

    def mean_bytes(self) -> int:
        """Of an encoded batch."""
        each = [len(request.SerializeToString()) for request in self._encoded.values()]
        return sum(each) // len(each)


def main() -> None:
    endpoint, seconds = sys.argv[1], float(sys.argv[2])
    exporter = Prepared(endpoint=endpoint, insecure=True)
    spans = made()
    batches = [spans[at : at + BATCH] for at in range(0, len(spans), BATCH)]
    broken = spans[:BATCH]
    exporter.prepare([*batches, broken])
    exporter.break_a_span(broken)
    counting = Counting(exporter._client)
    exporter._client = counting  # type: ignore[assignment]
    begun = time.monotonic()
    exports = 0
    while time.monotonic() - begun < seconds:
        exports += 1
        batch = broken if exports % BROKEN_EVERY == 0 else batches[exports % BATCHES]
        if exporter.export(batch) is not SpanExportResult.SUCCESS:
            time.sleep(0.05)
    lasted = time.monotonic() - begun
    exporter.shutdown()
    print(
        json.dumps(
            {
                "sent": counting.sent,
                "failed": counting.failed,
                "rejected": counting.rejected,
                "exports": exports,
                "bytes": exporter.mean_bytes(),
                "seconds": lasted,
            }
        )
    )


if __name__ == "__main__":
    main()
