"""The verb ``watch`` as a process: spans in over HTTP, JSON, metrics and a summary out."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from latdiag.watch.metrics import BY_NAME

_TIMES = {
    "gen_ai.latency.time_in_queue": 0.2,
    "gen_ai.latency.time_to_first_token": 0.4,
    "gen_ai.latency.e2e": 1.0,
    "gen_ai.latency.time_in_model_prefill": 0.2,
    "gen_ai.latency.time_in_model_decode": 0.6,
    "gen_ai.latency.time_in_model_inference": 0.8,
}


def export(spans: int, seed: int) -> bytes:
    """Requests of vLLM, each with a model of its own name."""
    drawn = random.Random(seed)
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    scope.scope.name = "vllm.llm_engine"
    for at in range(spans):
        span = scope.spans.add(
            trace_id=drawn.randbytes(16), span_id=drawn.randbytes(8), name="llm_request"
        )
        span.end_time_unix_nano = time.time_ns()
        span.start_time_unix_nano = span.end_time_unix_nano - 1_000_000_000
        for name, value in _TIMES.items():
            span.attributes.add(key=name).value.double_value = value
        span.attributes.add(key="gen_ai.response.model").value.string_value = f"m{seed}-{at}"
    return bytes(request.SerializeToString())


class Watching:
    """A process that watches; what it has said on stderr."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said = ""

    def address(self, pattern: str) -> str:
        while (found := re.search(pattern, self.said)) is None:
            assert self.process.stderr is not None
            line = self.process.stderr.readline()
            assert line, self.said
            self.said += line
        return found[1]

    @property
    def http(self) -> str:
        return self.address(r"HTTP (127\.0\.0\.1:\d+)")

    def send(self, body: bytes) -> None:
        headers = {"Content-Type": "application/x-protobuf"}
        reply = httpx.post(f"http://{self.http}/v1/traces", content=body, headers=headers)
        assert reply.status_code == 200, reply.text

    def end(self) -> tuple[dict[str, Any], str]:
        """(The last line of JSON, all of stderr.)"""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=60)
        assert self.process.stdout is not None and self.process.stderr is not None
        # Not communicate(): it forgets the lines that a readline has read ahead.
        out, err = self.process.stdout.read(), self.process.stderr.read()
        assert self.process.returncode == 0, err
        return json.loads(out.splitlines()[-1]), self.said + err


@contextmanager
def watching(*options: str, http: str = "127.0.0.1:0") -> Iterator[Watching]:
    command = [sys.executable, "-m", "latdiag", "watch", "--json", "--otlp", "off"]
    process = subprocess.Popen(
        [*command, "--otlp-http", http, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "79"},
    )
    try:
        yield Watching(process)
    finally:
        process.kill()
        process.communicate()


def test_what_comes_is_told_at_the_end_and_in_metrics() -> None:
    with watching("--listen", "127.0.0.1:0", "--sampled", "0.5") as watch:
        metrics = watch.address(r"http://(\S+)/metrics")
        watch.send(export(60, 1))
        watch.send(b"\x0a\x02\x08\x01" * 3)  # no span in it
        text = httpx.get(
            f"http://{metrics}/metrics",
            headers={"Accept": "application/openmetrics-text; version=1.0.0"},
        ).text
        families = {family.name for family in text_string_to_metric_families(text)}
        assert families <= BY_NAME.keys() and "latdiag_spans_received" in families
        last, said = watch.end()
    assert "Nothing is written" in said and "sampled requests, a share of 0.5" in said
    assert last["spans"] == {"received": 60, "attributed": 60, "open": 0, "dropped": {}}
    shares = last["windows"]["60m"]["shares"]
    assert abs(shares["decode"] - 0.6) < 0.01 and abs(shares["queue"] - 0.2) < 0.01
    assert last["windows"]["60m"]["verdict"]["dominant"] == "decode"
    assert 0 < last["labels_other"]["model"] < 60


def test_two_that_forward_to_each_other_stop(tmp_path: Path) -> None:
    """And each of them has every request once."""
    with watching("--listen", "off") as probe:
        free = probe.http
        probe.end()
    with (
        watching("--listen", "off", "--forward", f"http://{free}") as one,
        watching("--listen", "off", "--forward", f"http://{one.http}", http=free) as other,
    ):
        assert other.http == free
        for seed in range(5):
            one.send(export(10, seed))
        time.sleep(1.0)
        first, _ = one.end()
        second, _ = other.end()
    assert first["spans"]["received"] == 100 and first["came_back"] == 5
    assert first["spans"]["dropped"] == {"duplicate": 50}
    assert second["spans"]["attributed"] == 50 and second["came_back"] == 0


def test_a_full_disk_is_said_once() -> None:
    with watching("--listen", "off", "--out", "/dev/full") as watch:
        watch.send(export(40, 1))
        last, said = watch.end()
    assert last["spans"]["attributed"] == 40
    assert said.count("No space left on device") == 1


def test_what_was_kept_is_a_line_each(tmp_path: Path) -> None:
    out = tmp_path / "kept.jsonl"
    with watching("--listen", "off", "--out", str(out)) as watch:
        watch.send(export(40, 1))
        watch.end()
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert lines[-1]["kind"] == "end" and lines[-1]["windows"]["60m"]["requests"] == 40
