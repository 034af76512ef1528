"""A serving stack that latdiag has never heard of: one file that states it, what it was recorded
to say, and nothing else. Another package brings it by an entry point."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from .invoke import ROOT, Ended, loaded, well_measured
from .test_gather import free_port

NEW = ROOT / "tests" / "fixtures" / "new_stack"
INSTALLED = f"{ROOT}{os.pathsep}{NEW}"
EVENTS = [f"{event}\n\n" for event in (NEW / "stream_chat.sse").read_text().split("\n\n")[:-1]]
PAGE = (NEW / "metrics.txt").read_text()
#: What the recording states of its request, and its server takes at the least. More on a busy
#: machine: where much of that is nobody's, grades are one rung lower.
STATED_MS = {"queue": 60.0, "prefill": 20.0, "decode": 35.0}
N = 40
LOAD = ("--requests", str(N), "--concurrency", "4", "--isl", "64", "--osl", "8", "--quiet")


class Nimbus(http.server.ThreadingHTTPServer):
    """Replays the recording at the pace that it states. ``silent``: its replies state nothing;
    ``spans``: where its spans go."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, silent: bool, spans: str | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.silent, self.spans, self.answered = silent, spans, 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def page(self) -> str:
        """The recorded scrape, which is of one request, of as many as were answered."""
        lines = []
        for line in PAGE.splitlines():
            name, _, value = line.rpartition(" ")
            lines.append(line if line[0] == "#" else f"{name} {float(value) * self.answered:g}")
        return "\n".join(lines) + "\n"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Nimbus
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        models = json.dumps({"data": [{"id": "tiny", "owned_by": "nimbus"}]})
        pages = {"/v1/models": models, "/metrics": self.server.page()}
        body = pages.get(self.path, "").encode()
        self.send_response(200 if body else 404)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        begun_ns = time.time_ns()
        time.sleep((STATED_MS["queue"] + STATED_MS["prefill"]) / 1e3)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        if not self.server.silent:
            self.send_header("X-Nimbus-Router-Ms", "0.25")
            self.send_header("X-Nimbus-Total-Ms", "80")
            self.send_header("X-Nimbus-Secret", "1")
        self.end_headers()
        ended_ns = self._stream()
        with self.server.lock:
            self.server.answered += 1
        if self.server.spans is not None:  # before the reply ends, and with it the load
            self._tell(begun_ns, ended_ns)
        self.wfile.write(b"0\r\n\r\n")

    def _stream(self) -> int:
        """Send the events. Returns the instant (REALTIME ns) at which the last token was ready,
        which is never after it was sent, however busy the machine is."""
        ended_ns = begun_ns = 0
        for place, event in enumerate(EVENTS):
            due_ns = begun_ns + place * round((STATED_MS["decode"] + 1) * 1e6) // (len(EVENTS) - 2)
            time.sleep(max(0, due_ns - time.time_ns()) / 1e9)
            ended_ns = time.time_ns() if 'finish_reason":"length' in event else ended_ns
            stated = event.replace('"nimbus":', '"nobody":') if self.server.silent else event
            self.wfile.write(f"{len(stated):x}\r\n{stated}\r\n".encode())
            begun_ns = begun_ns or time.time_ns()
        return ended_ns

    def _tell(self, begun_ns: int, ended_ns: int) -> None:
        export = ExportTraceServiceRequest()
        span = (
            export.resource_spans.add()
            .scope_spans.add()
            .spans.add(
                trace_id=os.urandom(16),  # it traces by itself: only its key names the request
                span_id=os.urandom(8),
                name="nimbus_call",
                start_time_unix_nano=begun_ns,
                end_time_unix_nano=ended_ns,
            )
        )
        name = self.headers["x-request-id"]
        span.attributes.add(key="nimbus.request_id").value.string_value = name
        for what, ms in STATED_MS.items():
            span.attributes.add(key=f"nimbus.{what}_ms").value.double_value = ms
        asked = urllib.request.Request(
            f"{self.server.spans}/v1/traces",
            export.SerializeToString(),
            {"Content-Type": "application/x-protobuf"},
        )
        with suppress(OSError):  # before the load there is nobody who listens
            urllib.request.urlopen(asked, timeout=10).close()

    def log_message(self, *_args: object) -> None:
        pass


@contextmanager
def nimbus(silent: bool = False, spans: str | None = None) -> Iterator[Nimbus]:
    with Nimbus(silent, spans) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def called(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "latdiag", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": INSTALLED},
        timeout=60,
        check=True,
    )
    return done.stdout


def measured(folder: Path, url: str, *options: str) -> Ended:
    ended = loaded(folder, url, *LOAD, *options, PYTHONPATH=INSTALLED)
    assert well_measured(ended), ended.err
    assert "nimbus" in {stack["name"] for stack in ended.result["stacks"]}
    return ended


def shares(ended: Ended) -> dict[str, dict[str, Any]]:
    mean = ended.result["breakdown"]["mean"]
    found = {name: entry for name, entry in mean.items() if isinstance(entry, dict)}
    assert sum(entry["sum_ns"] for entry in found.values()) == mean["total_ns"]
    return found


def test_it_has_its_row_and_is_found_by_what_it_shows() -> None:
    rows = called("stacks", "--markdown").splitlines()
    (row,) = [line for line in rows if line.startswith("| Nimbus |")]
    assert "| engine |" in row and row.count("spans, replies, metrics") == 3
    assert "recordings, 1.0" in row
    with nimbus() as server:
        (found,) = json.loads(called("stacks", server.url, "--json"))["stacks"]
    assert found["name"] == "nimbus" and found["certain"]
    assert [(each["what"], each["state"]) for each in found["switches"]] == [("/metrics", "on")]


def test_its_replies_are_recorded_and_say_where_the_time_went(tmp_path: Path) -> None:
    with nimbus() as server:
        ended = measured(tmp_path, server.url)
    rows = [json.loads(row["reply_timings"]) for row in ended.rows().values()]
    times = {f"{name}_ms": ms for name, ms in STATED_MS.items()}
    headers = {"x-nimbus-router-ms": "0.25", "x-nimbus-total-ms": "80"}
    assert rows == [{"body": {"nimbus.times": times}, **headers}] * N
    assert ended.result["replies"]["told"] == N
    found = shares(ended)
    for name, ms in STATED_MS.items():
        assert found[name]["sum_ns"] == pytest.approx(N * ms * 1e6, rel=1e-6), name
        assert found[name]["grade"] in ("A", "B") and "members" not in found[name]
    assert found["queue"]["share"] > 0.2


def test_its_metrics_say_it_too(tmp_path: Path) -> None:
    with nimbus(silent=True) as server:
        page = f"{server.url.removesuffix('/v1')}/metrics"
        ended = measured(tmp_path, server.url, "--metrics", page)
    assert "replies" not in ended.result
    found = shares(ended)
    assert found["queue"]["grade"] in ("B", "C") and found["queue"]["share"] > 0.2
    assert found["queue"]["sum_ns"] == pytest.approx(N * STATED_MS["queue"] * 1e6, rel=0.01)


def test_its_spans_say_it_too(tmp_path: Path) -> None:
    port = free_port()
    with nimbus(silent=True, spans=f"http://127.0.0.1:{port}") as server:
        ended = measured(tmp_path, server.url, "--otlp-http", f"127.0.0.1:{port}", "--wait", "1s")
    evidence = ended.result["evidence"]
    assert evidence["told"] == N and evidence["joined_by"]["request_id"] == N, json.dumps(evidence)
    found = shares(ended)
    for name, ms in STATED_MS.items():
        assert found[name]["sum_ns"] == pytest.approx(N * ms * 1e6, rel=1e-6), name
        assert found[name]["grade"] in ("A", "B")


def test_its_flag_stands_where_one_is_advised() -> None:
    code = (
        "from latdiag.diagnosis.flags import with_flags; print(with_flags('More{admitted}'));"
        " print(with_flags('More{admitted}', [('nimbus', '1.0')]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": INSTALLED},
        check=True,
    )
    unknown, there = done.stdout.splitlines()
    assert "; Nimbus: --nimbus-seats)" in unknown and there == "More (Nimbus: --nimbus-seats)"
