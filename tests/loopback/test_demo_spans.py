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
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from latdiag.sim import spans
from latdiag.sim.demo import serving
from latdiag.sim.params import Params
from latdiag.sim.telemetry import Telemetry, telemetry_of

from .command import wait_for
from .demo_client import figure, metrics, stream, truths

#: Quick, and without noise.
QUICK = Params(overhead_ms=0.5, weights_ms=1.5, noise=0.0)


class Collector(http.server.ThreadingHTTPServer):
    """Takes OTLP over HTTP. ``status``: what it answers; ``spans``: what it took, by trace id;
    ``took``: all of it, with its sender and when that was (MONOTONIC ns)."""

    daemon_threads = True

    def __init__(self, status: int = 200) -> None:
        super().__init__(("127.0.0.1", 0), _Taker)
        self.status = status
        self.spans: dict[str, Span] = {}
        self.took: list[tuple[str, int, Span]] = []
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
            for one in ExportTraceServiceRequest.FromString(body).resource_spans:
                sender = attributes(one.resource)["service.instance.id"]
                for span in one.scope_spans[0].spans:
                    self.server.took.append((sender, time.monotonic_ns(), span))
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


def attributes(span: Span | Resource) -> dict[str, Any]:
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
    assert len(taken) == len(collector.took)
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


#: A prefill and a decode server, 20 ms apart.
APART = Params(
    overhead_ms=0.5, weights_ms=1.5, noise=0.0, disaggregated=True, kv_setup_ms=15.0, kv_us=2500.0
)  # fmt: skip
PARENT = "00f067aa0ba902b7"


def asked(url: str, count: int) -> None:
    """So many requests one after the other, of 2 tokens in and 3 out."""
    for n in range(count):
        headers = {"traceparent": f"00-{n + 1:032x}-{PARENT}-01", "x_request_id": f"r{n}"}
        assert len(stream(url, {"prompt": "a b", "max_tokens": 3}, **headers).tokens) == 3


@pytest.mark.parametrize("mode", ["prefill", "decode"])
def test_two_servers_are_two_senders_with_two_clocks(tmp_path: Path, mode: str) -> None:
    path, skew_ns = tmp_path / "truth.jsonl", 500_000_000
    params = replace(APART, first_token=mode)
    with collecting() as collector:
        wrong = Telemetry(skew_ms=500.0)
        with serving(params, truth=path, otlp=collector.url, telemetry=wrong) as demo:
            asked(demo.url, 3)
            # One token is done where it is made, unless it waits for the cache.
            parent = f"00-{9:032x}-{PARENT}-01"
            stream(demo.url, {"prompt": "a", "max_tokens": 1}, traceparent=parent)
            real_ns = time.time_ns() - time.monotonic_ns()
    by_trace: dict[str, list[tuple[str, Span]]] = {}
    for sender, _, span in collector.took:
        assert span.parent_span_id.hex() == PARENT
        by_trace.setdefault(span.trace_id.hex(), []).append((sender, span))
    assert len({sender for sender, *_ in collector.took}) == 2
    assert len(by_trace.pop(f"{9:032x}")) == (1 if mode == "prefill" else 2)
    found = {truth["trace_id"]: truth for truth in truths(path).values()}
    assert len(by_trace) == 3
    for trace_id, two in by_trace.items():
        # half a second ahead the first, half a second behind the second
        (_, second), (_, first) = sorted(two, key=lambda one: one[1].start_time_unix_nano)
        assert two[0][0] != two[1][0]
        here, there = attributes(first), attributes(second)
        leaves, name = found[trace_id]["leaves"], "gen_ai.latency.time_in_queue"
        assert here[name] == leaves["queue.admission"] / 1e9
        assert there[name] == (leaves["interconnect.kv"] + leaves["interconnect.wait"]) / 1e9
        assert there[name] >= 0.02
        e2e = [said["gen_ai.latency.e2e"] for said in (here, there)]
        assert sum(e2e) == pytest.approx(sum(leaves.values()) / 1e9, abs=1e-8)
        gap_ns = second.start_time_unix_nano - first.end_time_unix_nano + 2 * skew_ns
        assert abs(gap_ns) < 10_000_000, "both ends are of one instant, read off the clock twice"
        arrived = first.start_time_unix_nano - skew_ns - real_ns
        assert abs(arrived - found[trace_id]["arrived_ns"]) < 1_000_000_000


def test_two_servers_have_a_page_each_and_what_is_in_front_has_none_of_theirs() -> None:
    with serving(APART) as demo:
        asked(demo.url, 4)
        root = demo.url.removesuffix("/v1")
        front = metrics(demo.url)
        here, there = metrics(f"{root}/prefill"), metrics(f"{root}/decode")
        assert figure(f"{root}/prefill", "vllm:request_success_total") == 4
    assert not any(name.startswith("vllm:") for name in front)
    assert front["latdiag_demo_emission_lateness_seconds_count"] == 12
    labels = '{engine="0",model_name="demo"}'

    def both(name: str) -> tuple[float, float]:
        return here[f"vllm:{name}{labels}"], there[f"vllm:{name}{labels}"]

    assert both("generation_tokens_total") == (4, 12)
    assert both("prompt_tokens_total") == (8, 8)
    assert both("time_to_first_token_seconds_count") == (4, 4)
    assert both("inter_token_latency_seconds_count") == (0, 8)
    assert both("request_decode_time_seconds_sum")[0] == 0
    assert both("request_queue_time_seconds_sum")[1] >= 4 * 0.02
    gaps, decode = (f"{n}_seconds_sum" for n in ("inter_token_latency", "request_decode_time"))
    assert both(gaps)[1] == pytest.approx(both(decode)[1])


def test_counters_begin_anew_where_they_are_told_to_and_nothing_else_does(tmp_path: Path) -> None:
    path = tmp_path / "truth.jsonl"
    with serving(QUICK, truth=path, telemetry=Telemetry(reset_after_s=3.0)) as demo:
        asked(demo.url, 3)
        before = metrics(demo.url)
        wait_for(lambda: figure(demo.url, "process_start_time_seconds") > begun(before), 60, "it")
        between = metrics(demo.url)
        asked(demo.url, 2)
        after = metrics(demo.url)
    name = 'vllm:request_success_total{engine="0",finished_reason="length",model_name="demo"}'
    assert (before[name], between[name], after[name]) == (3, 0, 2)
    assert 2.9 < begun(after) - begun(before) < 60
    assert all(value == 0 for key, value in between.items() if key.endswith("_count"
               '{engine="0",model_name="demo"}'))  # fmt: skip
    assert len(path.read_text().splitlines()) == 5


def begun(page: dict[str, float]) -> float:
    return page["process_start_time_seconds"]


def test_what_is_late_repeated_and_lost_is_so_at_the_collector() -> None:
    faults = Telemetry(late_s=0.6, lost=0.3, repeated=0.5)
    with collecting() as collector:
        with serving(QUICK, seed=3, otlp=collector.url, telemetry=faults) as demo:
            done_ns = time.monotonic_ns()
            asked(demo.url, 20)
            wait_for(lambda: len(collector.took) >= 10, 20, "spans")
        first_ns = min(at_ns for _, at_ns, _ in collector.took)
        told = demo.report["spans"]
    assert first_ns - done_ns >= 600_000_000
    ids = [span.span_id for _, _, span in collector.took]
    assert told["dropped"] == 0 and told["sent"] + told["lost"] == 20
    assert len(set(ids)) == told["sent"] < 20
    assert len(ids) == told["sent"] + told["repeated"] > told["sent"]


def test_what_is_held_back_leaves_when_the_server_ends() -> None:
    with collecting() as collector:
        with serving(QUICK, otlp=collector.url, telemetry=Telemetry(late_s=3600)) as demo:
            asked(demo.url, 3)
            assert collector.took == []
        assert demo.report["spans"] == {"sent": 3, "dropped": 0}
        assert len(collector.took) == 3


def test_what_is_wrong_with_what_is_said_is_not_in_the_truth(tmp_path: Path) -> None:
    """The same requests, alone and without noise: the same nanoseconds under the same leaves."""
    found = []
    for name, faults in (("right", Telemetry()), ("wrong", telemetry_of("skew,step=300,drift"))):
        path = tmp_path / name
        with serving(APART, truth=path, telemetry=faults) as demo:
            asked(demo.url, 3)
        found.append({key: truth["leaves"] for key, truth in truths(path).items()})
    assert found[0] == found[1]


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
