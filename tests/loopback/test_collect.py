"""The collecting child: its run survives kills and full disks; and the verb ``collect``."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from latdiag.cli import run as latdiag
from latdiag.ingest.otlp.endpoints import Endpoints
from latdiag.model.errors import LocalFault
from latdiag.sim.demo import running_demo
from latdiag.store.run import Run
from tests.run_documents import header
from tests.schema import validate

from .otlp_sender import export
from .receiver import ANY, post, receiving, rows_of, sent, state_of

ROOT = Path(__file__).resolve().parents[2]
BODY = export(50).SerializeToString()


def until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for something that another process does."""
    patience = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < patience, "it did not happen"
        time.sleep(0.01)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


# ---------------------------------------------------------------------- the child
def test_late_spans_are_waited_for(tmp_path: Path) -> None:
    with receiving(tmp_path) as (collector, _):
        late = threading.Timer(0.4, post, (collector.http, BODY))
        late.start()
        begun = time.monotonic()
        found = collector.finish(1_000_000_000)
        lasted = time.monotonic() - begun
        late.join()
    assert found.accepted == 50
    assert lasted >= 1.4


def test_the_wait_can_be_cut_short(tmp_path: Path) -> None:
    with receiving(tmp_path) as (collector, _):
        post(collector.http, BODY)
        ticks: list[int] = []

        def tick() -> None:
            ticks.append(1)
            collector.hurry()

        found = collector.finish(3600 * 10**9, tick)
    assert (found.accepted, ticks) == (50, [1])


def test_what_was_written_survives_a_kill(tmp_path: Path) -> None:
    with pytest.raises(LocalFault) as caught, receiving(tmp_path) as (collector, run):
        pid = state_of(run)["pid"]
        post(collector.http, BODY)
        until(lambda: bool(rows_of(run)))
        os.kill(pid, signal.SIGKILL)
        assert collector.edge("end") == []
        assert collector.snapshot() is None
        collector.finish(0)
    assert caught.value.run == run
    assert len(rows_of(run)) == 50
    assert Run.open(run).unheard
    assert not [p for p in Path(run, "evidence").iterdir() if p.suffix != ".parquet"]


PARENT = """
import os, sys
sys.path.insert(0, sys.argv[1])
from latdiag.ingest.collector import collecting
from latdiag.ingest.otlp.endpoints import Endpoints
from latdiag.stacks.catalogue import families, stacks
with collecting(sys.argv[2], stacks(), families(), otlp=Endpoints(None, "127.0.0.1:0")) as c:
    print(c.http, flush=True)
    sys.stdin.read()
    os.kill(os.getpid(), 9)
"""


def test_a_child_whose_parent_is_killed_writes_what_came(tmp_path: Path) -> None:
    from latdiag.store.writer import create_run

    run = create_run(str(tmp_path / "it.run"), header())
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(ROOT), run],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        address = parent.stdout.readline().strip()
        pid = state_of(run)["pid"]
        assert post(address, BODY)[0] == 200
        parent.stdin.close()
        parent.wait(20)
        until(lambda: gone(pid))
    assert len(rows_of(run)) == 50
    assert state_of(run)["ended"] == "parent_lost"
    assert Run.open(run).unheard


def test_a_disk_that_is_full_ends_it_with_the_run_kept(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(LocalFault) as caught:
        try:
            # Files of the child may be so long; the limit is inherited by the fork.
            resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, before[1]))
            context = receiving(tmp_path)
            collector, run = context.__enter__()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        with _closing(context):
            post(collector.http, BODY)
            until(lambda: bool(rows_of(run)))
            # Random ids fit in no 30 kB, however they are compressed.
            post(collector.http, _noise(3000))
            until(lambda: post(collector.http, BODY)[0] == 507)
            collector.finish(0)
    assert caught.value.exit_code == 16
    assert "ulimit -f" in caught.value.remedy
    counts = state_of(run)["counts"]
    rows = len(rows_of(run))
    assert 50 <= rows == counts["rows"]
    # The part that did not fit is lost, and told; small ones after it may have fitted.
    assert counts["lost"] == counts["accepted"] - rows >= 3000


def _noise(spans: int) -> bytes:
    made = export(spans)
    for span in made.resource_spans[0].scope_spans[0].spans:
        span.trace_id, span.span_id = os.urandom(16), os.urandom(8)
    return bytes(made.SerializeToString())


class _closing:  # noqa: N801 - a context manager, used as one word
    def __init__(self, context: Any) -> None:
        self._context = context

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: Any) -> None:
        self._context.__exit__(*exc)


def test_no_more_is_taken_than_may_be_stored(tmp_path: Path) -> None:
    with receiving(tmp_path, max_disk=1) as (collector, run):
        assert post(collector.http, BODY)[0] == 200
        until(lambda: post(collector.http, BODY)[0] == 507)
        found = collector.finish(0)
    assert found.disk_cap_reached
    assert found.refused == {"disk_cap": 50 * found.refused_exports["disk_cap"]}
    assert len(rows_of(run)) == found.accepted >= 50
    assert not Run.open(run).cut_short


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for name, otlp in (("g", Endpoints(address, None)), ("h", Endpoints(None, address))):
            with pytest.raises(LocalFault, match=address), receiving(tmp_path, name, otlp=otlp):
                pass


def test_two_receivers_do_not_share_a_port(tmp_path: Path) -> None:
    with receiving(tmp_path, "one", otlp=Endpoints(ANY, None)) as (collector, _):
        again = Endpoints(collector.grpc, None)
        with pytest.raises(LocalFault), receiving(tmp_path, "two", otlp=again):
            pass


def test_its_clock_is_the_one_that_loads_name(tmp_path: Path) -> None:
    from latdiag.store.clock import clock_id

    with receiving(tmp_path) as (collector, run):
        begun = time.monotonic_ns()
        post(collector.http, BODY)
        collector.finish(0)
        ended = time.monotonic_ns()
    state = state_of(run)
    assert state["clock_id"] == clock_id()
    assert all(begun <= row["window_start_ns"] <= ended for row in rows_of(run))
    mono, real, width = state["clock"][-1]
    assert abs((real - mono) - (time.time_ns() - time.monotonic_ns())) < 10**9
    assert 0 <= width < 10**9


# ---------------------------------------------------------------------- metrics
class _Metrics(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds 17\n"
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Not on the terminal."""


@pytest.fixture
def metrics() -> Iterator[str]:
    """The address of a server with one metric; a process of its own, for threads and forks."""
    with HTTPServer(("127.0.0.1", 0), _Metrics) as server:
        pid = os.fork()
        if not pid:
            try:
                server.serve_forever(0.01)
            finally:
                os._exit(0)
        yield f"127.0.0.1:{server.server_port}"
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_metrics_are_scraped_at_edges_and_between(tmp_path: Path, metrics: str) -> None:
    urls = [metrics, "127.0.0.1:9"]
    with receiving(tmp_path, metrics=urls, otlp=None, scrape_every_ns=100_000_000) as (
        collector,
        run,
    ):
        assert collector.grpc is None
        (missing,) = collector.edge("begin")
        assert missing.replica == "http://127.0.0.1:9/metrics"
        until(lambda: collector.snapshot().scrapes.get("periodic", 0) > 1)  # type: ignore[union-attr]
        collector.edge("end")
        found = collector.finish(0)
    rows = rows_of(run)
    edges = [row["foreign_value"] for row in sorted(rows, key=lambda r: r["window_start_ns"])]
    # One round of scrapes may be under way while an edge is asked for.
    assert set(edges) == {"begin", "periodic", "end"}
    assert edges.count("begin") == edges.count("end") == 1
    assert edges.index("begin") < edges.index("end")
    assert {row["value"] for row in rows} == {17.0}
    assert found.samples == len(rows)
    assert found.scrapes["end"] == 1
    assert found.scrape_problems[0].count == sum(found.scrapes.values())


# ---------------------------------------------------------------------- the verb
def _collect(folder: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "latdiag", "collect", "--out", str(folder / "it.run")]
    return subprocess.Popen(
        [*command, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def _doors(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Where a collecting command listens, as it says itself."""
    assert process.stderr is not None
    line = process.stderr.readline()
    _, grpc, http = (part.partition(" at ")[2] or part for part in f"x,{line}".split(","))
    return grpc.strip(), http.strip()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_collecting_well(tmp_path: Path, number: int, code: int) -> None:
    options = ["--otlp", ANY, "--otlp-http", ANY, "--duration", "1h", "--wait", "0s", "--json"]
    with _collect(tmp_path, *options) as process:
        grpc, http = _doors(process)
        assert post(http, BODY)[0] == 200
        assert sent("good", grpc, 7)["status"] == "OK"
        process.send_signal(number)
        out, _ = process.communicate(timeout=30)
    assert process.returncode == code
    result = json.loads(out)
    validate(result)
    assert result["verb"] == "collect"
    assert result["collected"]["accepted"] == 57
    assert result["collected"]["stopped"] == number
    run = str(tmp_path / "it.run")
    assert len(rows_of(run)) == 57
    assert state_of(run)["state"] == "closed"


def test_collecting_ends_by_itself_and_says_what_came(tmp_path: Path) -> None:
    options = ["--otlp", "off", "--otlp-http", ANY, "--duration", "1500ms", "--wait", "300ms"]
    with _collect(tmp_path, *options, "--full") as process:
        assert process.stderr is not None
        http = process.stderr.readline().rpartition(" at ")[2].strip()
        assert post(http, export(3, service="who\x1b[2J").SerializeToString())[0] == 200
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "3 in 1 exports" in out
    assert "who[2J" in out
    assert "\x1b" not in out + err
    assert "waiting 300 ms for late spans" in err


def test_metrics_alone_say_what_each_server_took(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No client of ours, no span: of everybody's traffic, the mean of what the server states."""
    truth, run = tmp_path / "truth.jsonl", str(tmp_path / "it.run")
    with running_demo("queue", truth=truth) as url:
        metrics = url.removesuffix("/v1") + "/metrics"
        doors = ["--otlp", "off", "--otlp-http", "off", "--metrics", metrics]
        with _collect(tmp_path, *doors, "--duration", "1h") as process:
            assert process.stderr is not None
            assert "metrics only" in process.stderr.readline()
            until(lambda: any(Path(run, "evidence").glob("part-*")))  # the scrape at the begin
            bodies = {"model": "demo", "prompt": list(range(200)), "max_tokens": 9}
            threads = [
                threading.Thread(target=httpx.post, args=(f"{url}/completions",), kwargs=given)
                for given in [{"json": bodies, "timeout": 60}] * 6
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)
    assert latdiag(["diagnose", run, "--json"]) in (0, 11, 12, 13)
    result = json.loads(capsys.readouterr().out)
    validate(result)
    found = result["aggregates"]
    assert (found["of"], found["used"], found["finished"]) == ("traffic", False, {"unified": 6})
    (server,) = found["replicas"]
    said = {claim["of"][0]: claim["mean_ms"] for claim in server["claims"]}
    rows = [json.loads(line) for line in truth.read_text().splitlines()]
    for component in ("queue", "prefill", "decode"):
        leaves = [
            ns
            for row in rows
            for leaf, ns in row["leaves"].items()
            if leaf.startswith(f"{component}.")
        ]
        assert said[component] == pytest.approx(sum(leaves) / len(rows) / 1e6, rel=0.02, abs=0.5)
    assert latdiag(["diagnose", run, "--full"]) in (0, 11, 12, 13)
    shown = capsys.readouterr().out
    assert "finished 6 requests" in shown and "queue" in shown
    assert max(map(len, shown.splitlines())) <= 79


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--otlp", "off", "--otlp-http", "off"], 2),
        (["--otlp", "0.0.0.0:0"], 2),
        (["--otlp", "no address"], 2),
        (["--forward", "ftp://h"], 2),
        (["--otlp", "127.0.0.1:45917", "--forward", "http://127.0.0.1:45917"], 2),
        (["--metrics", "file:///etc/passwd"], 2),
        (["--max-disk", "much"], 2),
        (["--token-env", "LATDIAG_TEST_NO_SUCH"], 2),
    ],
)
def test_what_cannot_be_makes_no_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: int
) -> None:
    place = tmp_path / "it.run"
    assert latdiag(["collect", *options, "--out", str(place), "--json"]) == code
    assert not place.exists()
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "usage"
