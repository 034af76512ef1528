"""Spans of the demo server: they reach a collector, say what the truth says, and never wait."""

from __future__ import annotations

import http.server
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from latdiag.sim import spans
from latdiag.sim.demo import serving
from latdiag.sim.params import Params

from .demo_client import stream, truths

#: Quick, and without noise.
QUICK = Params(overhead_ms=0.5, weights_ms=1.5, noise=0.0)


class Collector(http.server.ThreadingHTTPServer):
    """Takes OTLP over HTTP. ``status``: what it answers; ``spans``: what it took, by trace id."""

    daemon_threads = True

    def __init__(self, status: int = 200) -> None:
        super().__init__(("127.0.0.1", 0), _Taker)
        self.status = status
        self.spans: dict[str, Span] = {}
        self.asked = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Taker(http.server.BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert (self.path, self.headers["Content-Type"]) == (
            "/v1/traces",
            "application/x-protobuf",
        )
        self.server.asked += 1
        if self.server.status == 200:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for span in resource.scope_spans[0].spans:
                    assert span.trace_id.hex() not in self.server.spans
                    self.server.spans[span.trace_id.hex()] = span
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        pass


@contextmanager
def collecting(status: int = 200) -> Iterator[Collector]:
    with Collector(status) as collector:
        thread = threading.Thread(target=collector.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield collector
        finally:
            collector.shutdown()
            thread.join()


def attributes(span: Span) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


def test_a_span_a_request_reaches_the_collector_and_says_what_the_truth_says(
    tmp_path: Path,
) -> None:
    path = tmp_path / "truth.jsonl"
    parent = "00f067aa0ba902b7"
    params = Params(overhead_ms=0.5, weights_ms=3.0, max_seqs=1)
    with collecting() as collector:
        with (
            serving(params, truth=path, otlp=collector.url) as demo,
            ThreadPoolExecutor(4) as pool,
        ):
            before_ns = time.time_ns()
            for n in range(8):
                headers = {"traceparent": f"00-{n + 1:032x}-{parent}-01", "x_request_id": f"r{n}"}
                pool.submit(stream, demo.url, {"prompt": "a b", "max_tokens": 2 + n}, **headers)
            pool.shutdown()
            off = {"traceparent": f"00-{99:032x}-{parent}-00", "x_request_id": "unsampled"}
            stream(demo.url, {"prompt": "a b", "max_tokens": 2}, **off)
            stream(demo.url, {"prompt": "a b", "max_tokens": 2}, x_request_id="root")
            after_ns = time.time_ns()
        taken = dict(collector.spans)
    found = truths(path)
    assert len(found) == 10 and demo.report["spans"] == {"sent": 9, "dropped": 0}
    by_trace = {truth["trace_id"]: truth for truth in found.values()}
    assert by_trace.keys() == taken.keys() | {f"{99:032x}"}
    for trace_id, span in taken.items():
        truth, said = by_trace[trace_id], attributes(span)
        first, parse = truth["first_token_leaves"], truth["leaves"]["frontend.parse"]
        ttft, e2e = (truth[name] - truth["arrived_ns"] for name in ("first_ns", "finished_ns"))
        wanted = {
            "time_to_first_token": ttft,
            "e2e": e2e,
            "time_in_queue": first["queue.admission"],
            "time_in_model_prefill": ttft - parse - first["queue.admission"],
            "time_in_model_decode": e2e - ttft,
            "time_in_model_inference": e2e - parse - first["queue.admission"],
        }
        for name, ns in wanted.items():
            assert said[f"gen_ai.latency.{name}"] == pytest.approx(ns / 1e9, abs=1e-9), name
        assert said["gen_ai.usage.completion_tokens"] == truth["osl"]
        assert said["gen_ai.request.id"] == f"cmpl-{truth['request_id']}-0"
        assert span.end_time_unix_nano - span.start_time_unix_nano == e2e
        assert before_ns <= span.start_time_unix_nano <= span.end_time_unix_nano <= after_ns
        is_root = truth["request_id"] == "root"
        assert span.parent_span_id.hex() == ("" if is_root else parent)


@pytest.mark.parametrize("listens", [True, False])
def test_spans_that_nobody_takes_are_counted_and_hold_up_nothing(listens: bool) -> None:
    with collecting(503) as collector:
        url = collector.url if listens else "http://127.0.0.1:9"
        with serving(QUICK, otlp=url) as demo:
            for _ in range(5):
                assert len(stream(demo.url, {"prompt": "a", "max_tokens": 2}).tokens) == 2
            begun = time.monotonic()
        took_s = time.monotonic() - begun
    assert demo.report["spans"] == {"sent": 0, "dropped": 5}
    assert (collector.asked > 0) == listens and took_s < 8


def test_a_full_pipe_drops_spans_at_once() -> None:
    """Nobody reads at the far end: a stopped exporter."""
    exporter = spans.Exporter("http://127.0.0.1:9")
    os.kill(exporter.pid, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        for _ in range(5000):
            exporter.offer(b'"' + b"x" * 1000 + b'"\n')
        took_s = time.monotonic() - begun
        assert 0 < exporter.dropped < 5000 and took_s < 5
        exporter.offer(b"x" * 10_000)  # would not go in one piece
        assert exporter.dropped > 3000
    finally:
        os.kill(exporter.pid, signal.SIGKILL)
        assert exporter.close() == {"sent": 0, "dropped": 5001}
