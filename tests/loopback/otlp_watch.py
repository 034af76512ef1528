"""One that behaves, beside others: ``python otlp_watch.py GRPC HTTP`` sends a span to either door
in turn until its stdin ends; prints what it sent, what was taken, and how long that took."""

from __future__ import annotations

import http.client
import json
import select
import statistics
import sys
import time
from typing import Any

TRACES = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_EVERY_S = 0.05


def body(number: int) -> bytes:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTraceServiceRequest,
    )

    made = ExportTraceServiceRequest()
    group = made.resource_spans.add()
    group.resource.attributes.add(key="service.name").value.string_value = "behaves"
    span = group.scope_spans.add().spans.add(name="llm_request", start_time_unix_nano=1)
    span.trace_id = (number + 1).to_bytes(16, "big")
    span.span_id = (number + 1).to_bytes(8, "big")
    return made.SerializeToString()


def by_http(address: str, data: bytes) -> str:
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request("POST", "/v1/traces", data, {"Content-Type": "application/x-protobuf"})
        return str(connection.getresponse().status)
    except OSError as fault:
        return type(fault).__name__
    finally:
        connection.close()


def by_grpc(address: str, data: bytes) -> str:
    import grpc

    # A connection each time, as who comes anew needs one.
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(address, options) as channel:
        try:
            channel.unary_unary(TRACES)(data, timeout=30)
        except grpc.RpcError as fault:
            return str(fault.code().name)
    return "OK"


def main() -> None:
    doors = {"grpc": (by_grpc, sys.argv[1]), "http": (by_http, sys.argv[2])}
    answers: dict[str, dict[str, int]] = {name: {} for name in doors}
    took: dict[str, list[float]] = {name: [] for name in doors}
    for send, address in doors.values():  # what the client itself loads is not to be measured
        send(address, b"")
    print("ready", flush=True)
    number = 0
    while not select.select([sys.stdin], [], [], _EVERY_S)[0]:
        for name, (send, address) in doors.items():
            begun = time.monotonic()
            answer = send(address, body(number))
            took[name].append(time.monotonic() - begun)
            answers[name][answer] = answers[name].get(answer, 0) + 1
            number += 1
    found: dict[str, Any] = {
        name: {
            "answers": answers[name],
            "worst_s": max(took[name], default=0.0),
            "middle_s": statistics.median(took[name] or [0.0]),
        }
        for name in doors
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
