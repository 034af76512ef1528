"""Into a real Jaeger (tests/live/jaeger/go.mod pins it) and back: ``pytest -m live``.

Builds it with Go where LATDIAG_JAEGER names no binary. LATDIAG_JAEGER_REQUESTS: how many.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from latdiag.attribution.client_only import partition
from latdiag.cli import run as verb
from latdiag.export.attempts import Attempts, attempts_of
from latdiag.export.choice import Wanted
from latdiag.export.spans import traces
from latdiag.model import span_names as names
from latdiag.sim.demo import running_demo
from latdiag.store.run import News, Run
from latdiag.store.writer import RunWriter
from tests.bench.test_million_spans import traced
from tests.jaeger_walk import Drawn, charged
from tests.run_documents import state

pytestmark = pytest.mark.live

ROOT = Path(__file__).parents[2]
REQUESTS = int(os.environ.get("LATDIAG_JAEGER_REQUESTS", "10000"))
#: The clock of the synthetic run, and when it was.
CLOCK, BEGAN_NS, REAL_NS = "5f0e3a1c9d7b2468", 86_400_000_000_000, 1_790_000_000_123_456_789


@pytest.fixture(scope="module")
def binary() -> str:
    given = os.environ.get("LATDIAG_JAEGER")
    if given is None and shutil.which("go") is None:
        pytest.skip("no Go to build Jaeger with, and LATDIAG_JAEGER names no binary")
    environment = {**os.environ, **({"JAEGER_BIN": given} if given else {})}
    built = subprocess.run(
        ["sh", ROOT / "examples" / "jaeger" / "up.sh", "--build"],
        env=environment, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return built.stdout.strip()


@contextlib.contextmanager
def jaeger(binary: str) -> Iterator[dict[str, int]]:
    """An empty one; its ports by name."""
    names_of = ("JAEGER_UI_PORT", "JAEGER_QUERY_PORT", "OTLP_GRPC_PORT", "OTLP_HTTP_PORT")
    held = [socket.create_server(("127.0.0.1", 0)) for _ in names_of]
    ports = {n: s.getsockname()[1] for n, s in zip(names_of, held, strict=True)}
    for each in held:
        each.close()
    environment = {**os.environ, **{n: str(p) for n, p in ports.items()}, "JAEGER_BIN": binary}
    process = subprocess.Popen(
        ["sh", ROOT / "examples" / "jaeger" / "up.sh"], env=environment, stderr=subprocess.DEVNULL
    )
    try:
        for port in ports.values():
            _wait_for(port, process)
        yield ports
    finally:
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:  # it may wait long for connections that are kept
            process.kill()
            process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise AssertionError(f"nothing at port {port}")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = traced(str(tmp_path_factory.mktemp("jaeger") / "big.run"), REQUESTS)
    clock = [[BEGAN_NS + s * 10**9, REAL_NS + s * (10**9 + 41), 400] for s in (0, 3600)]
    RunWriter(path, "reader-1").write_state(state("closed", clock_id=CLOCK, clock=clock))
    return path


@pytest.fixture(scope="module")
def attempts(run: str) -> Attempts:
    return attempts_of(Run.open(run), Wanted())


def read_back(ports: dict[str, int], trace_id: str, raw: bool) -> list[dict[str, Any]]:
    """Spans of a trace by API v3: as they were stored (``raw``), or as the UI gets them."""
    host = f"http://127.0.0.1:{ports['JAEGER_UI_PORT']}"
    url = f"{host}/api/v3/traces/{trace_id}?raw_traces={str(raw).lower()}"
    with urllib.request.urlopen(url, timeout=30) as reply:
        text = reply.read().decode()
    spans, decoder = [], json.JSONDecoder()
    while text.strip():
        document, end = decoder.raw_decode(text.strip())
        text = text.strip()[end:]
        spans += plain(document["result"])
    return spans


def plain(document: Any) -> list[dict[str, Any]]:
    """Spans of OTLP/JSON with ids, times and attributes in one form, whoever wrote it."""
    found = []
    for resource in document["resourceSpans"]:
        about = values(resource["resource"])
        for scope in resource["scopeSpans"]:
            for span in scope.get("spans", []):  # a scope whose copies are gone is empty
                status = span.get("status") or {}
                found.append(
                    {
                        "trace": span["traceId"].lower(),
                        "span": span["spanId"].lower(),
                        "parent": (span.get("parentSpanId") or "").lower(),
                        "name": span["name"],
                        "kind": span.get("kind"),
                        "start": int(span["startTimeUnixNano"]),
                        "end": int(span["endTimeUnixNano"]),
                        "attributes": values(span),
                        "links": [
                            (each["traceId"].lower(), each["spanId"].lower())
                            for each in span.get("links", [])
                        ],
                        "resource": about,
                        "scope": scope["scope"].get("version"),
                        "failed": status.get("code") in (2, "STATUS_CODE_ERROR"),
                    }
                )
    return sorted(found, key=lambda each: each["span"])


def values(of: Any) -> dict[str, Any]:
    """Attributes as Python's values: integers are text in JSON."""
    found = {}
    for each in of.get("attributes", []):
        ((kind, value),) = each["value"].items()
        if kind == "arrayValue":
            value = [next(iter(inner.values())) for inner in value["values"]]
        found[each["key"]] = int(value) if kind == "intValue" else value
    return found


def as_json(trace: list[Any]) -> list[dict[str, Any]]:
    """What was sent, in the form of ``plain``."""
    message = TracesData.FromString(encode_spans(trace).SerializeToString())
    document = MessageToDict(message, use_integers_for_enums=True)
    for resource in document["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span, made in zip(scope["spans"], trace, strict=True):
                span["traceId"] = f"{made.context.trace_id:032x}"
                span["spanId"] = f"{made.context.span_id:016x}"
                span["parentSpanId"] = f"{made.parent.span_id:016x}" if made.parent else ""
                for told, link in zip(span.get("links", []), made.links, strict=True):
                    told["traceId"] = f"{link.context.trace_id:032x}"
                    told["spanId"] = f"{link.context.span_id:016x}"
    return plain(document)


@pytest.mark.parametrize("way", ["grpc", "http"])
def test_everything_is_read_back_as_it_was_sent(
    binary: str, run: str, attempts: Attempts, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with jaeger(binary) as ports:
        url = f"{way}://127.0.0.1:{ports[f'OTLP_{way.upper()}_PORT']}"
        totals = []
        for export in range(2):  # the second adds nothing to what the UI gets
            assert verb(["export", run, "--to", "otlp", url, "--json"]) == 0
            document = json.loads(capsys.readouterr().out)
            assert document["spans"]["delivered"] == document["spans"]["spans"] > REQUESTS
            time.sleep(1)
            count, worst = 0, 0.0
            for trace in traces(attempts):
                ident = f"{trace[0].context.trace_id:032x}"
                back = read_back(ports, ident, raw=not export)
                assert back == as_json(trace)
                error, exact = judged(back)
                assert exact
                count, worst = count + len(back), max(worst, error)
            assert worst <= 2
            totals.append(count)
        assert totals == [document["spans"]["spans"]] * 2
        with capsys.disabled():
            print(f"\n{way}: {count:,} spans of {len(attempts):,} traces, worst {worst:.1f} us")


def judged(spans: list[dict[str, Any]]) -> tuple[float, bool]:
    """(The worst error of a phase on the critical path, us; whether the root has what is between
    the phases and no more)."""
    drawn = [Drawn.of(s["span"], s["parent"] or None, s["start"], s["end"]) for s in spans]
    found = charged(drawn)
    phases = [s for s in spans if s["parent"]]
    root = next(s for s in spans if not s["parent"])
    parts = {k: v for k, v in root["attributes"].items() if k.startswith(names.PART)}
    if any(ns < 0 for ns in parts.values()):
        return 0.0, True  # drawn in proportion: test_export_phases
    whole = {"".join(s["name"].split(" ")): found[s["span"]] for s in phases}
    errors = [abs(whole.get(k.removeprefix(names.PART), 0) - ns / 1000) for k, ns in parts.items()]
    left = found.get(root["span"], 0)
    return max(errors, default=0.0), not phases or left == len(phases) - 1


def test_traces_of_a_load_that_runs_are_there_before_it_ends(binary: str, tmp_path: Path) -> None:
    """And each request is there once at its end, as a walk of the UI charges it."""
    with jaeger(binary) as ports, running_demo() as url:
        to = f"grpc://127.0.0.1:{ports['OTLP_GRPC_PORT']}"
        words = [sys.executable, "-m", "latdiag", "load", url, "--concurrency", "4", "--osl", "8"]
        process = subprocess.Popen(
            [*words, "--duration", "15s", "--export", to, "--json", "--out", "live.run"],
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        early = 0
        while not early and process.poll() is None:
            time.sleep(0.5)
            early = len(services(ports))
        out, err = process.communicate(timeout=120)
        document = json.loads(out)
        assert early and process.returncode in (0, 12), err
        assert not [each for each in document["caveats"] if each["code"] == "LD434"]
        sent = document["load"]["requests"]
        assert f"spans to {to}" in err
        frame = Run.open(str(tmp_path / "live.run")).frame(["request_id"])
        assert len(frame) == sent
        time.sleep(1)
        follower = News.open(str(tmp_path / "live.run"))
        assert isinstance(follower, News)
        made = list(traces(Attempts(follower, Wanted(), partition), live=True))
        one = f"{made[0][0].context.trace_id:032x}"
        host = f"http://127.0.0.1:{ports['JAEGER_UI_PORT']}"
        for number, what in enumerate((("--trace", one), ("--service", "latdiag"))):
            path = str(tmp_path / f"{number}.run")
            words = ["import", "--jaeger", host, *what, "--limit", "40", "--quiet", "--out", path]
            assert verb(words) == 0
            back = Run.open(path).frame(["request_id"])
            assert len(back) == (1 if not number else min(40, sent))
        assert len(made) == sent
        for trace in made[:: max(1, sent // 200)]:
            spans = read_back(ports, f"{trace[0].context.trace_id:032x}", raw=False)
            assert len(spans) == len(trace) and judged(spans)[0] <= 2


def services(ports: dict[str, int]) -> list[str]:
    """Those that Jaeger knows."""
    url = f"http://127.0.0.1:{ports['JAEGER_UI_PORT']}/api/v3/services"
    with urllib.request.urlopen(url, timeout=30) as reply:
        found: list[str] = json.load(reply).get("services") or []
    return found
