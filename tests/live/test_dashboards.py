"""Dashboards and rules in a real Prometheus: ``pytest -m live tests/live/test_dashboards.py``.

Debian's, and that of tests/live/prometheus/go.mod, which is built where LATDIAG_PROMETHEUS names
no folder with ``prometheus`` and ``promtool``. They scrape recordings of stacks whose counters
grow, and watch's metrics made of recorded spans.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle, islice
from pathlib import Path
from typing import Any, ClassVar

import jsonschema
import pytest

from latdiag.dashboards.rules import Targets, alerts, recordings
from tests.dashboards_replay import RECORDED, Watch, expositions, replayed, requests
from tests.unit.dashboards.test_dashboards import ALL, EXAMPLES, check_rules, expressions
from tests.unit.dashboards.test_rules import CASES, RULES, case, outcome

pytestmark = pytest.mark.live

MODULE = Path(__file__).parent / "prometheus"
VERSION = "3.16.0"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "latdiag"
#: No value while all is well.
SILENT = {"LatdiagWatchGone"}


def built(name: str) -> Path:
    """A program of Prometheus 3."""
    if given := os.environ.get("LATDIAG_PROMETHEUS"):
        return Path(given) / name
    path = CACHE / f"{name}-{VERSION}"
    if not path.exists():
        if shutil.which("go") is None:
            pytest.skip("no Go to build Prometheus with, and LATDIAG_PROMETHEUS names no folder")
        package = f"github.com/prometheus/prometheus/cmd/{name}"
        build = ["nice", "go", "build", "-p", "1", "-tags", "remove_all_sd", "-o", path, package]
        subprocess.run(build, cwd=MODULE, check=True, capture_output=True)
    return path


def debian(name: str) -> Path:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return Path(path)


def test_prometheus_3_parses_every_expression_and_fires_as_debian_s_does(tmp_path: Path) -> None:
    promtool = built("promtool")
    check_rules(promtool, tmp_path)
    code, text = outcome(promtool, tmp_path, [case(*one) for one in CASES])
    assert code == 0, text


def later(watch: Watch, scrape: int) -> str:
    """watch's metrics, a few requests later; all of the table has a value."""
    for request in islice(cycle(requests("overload")), scrape * 5, scrape * 5 + 5):
        watch.count(request)
        watch.add("latdiag_unattributed_seconds", 0.001, model="tiny")
    for component in ("gateway", "interconnect"):  # of a gateway and of a second server
        watch.observe(
            "latdiag_component_seconds", 0.01,
            component=component, interval="request", model="tiny", replica="r2",
        )  # fmt: skip
    common = {"window": "5m", "model": "tiny", "component": "queue"}
    watch.set("latdiag_component_share", 0.6, interval="request", **common)
    watch.set("latdiag_component_share", 0.5, interval="request", **common | {"window": "60m"})
    watch.set("latdiag_component_tail_share", 0.8, **common)
    watch.set(
        "latdiag_dominant", 1.0,
        component="queue", kind="overloaded", confidence="measured", window="5m",
    )  # fmt: skip
    watch.set("latdiag_evidence_coverage_ratio", 0.99, window="5m")
    watch.set(
        "latdiag_change_seconds", 0.18,
        metric="ttft", component="queue", model="tiny", replica="r1", cause="load",
    )  # fmt: skip
    watch.set("latdiag_sampled_ratio", 1.0)
    for name in ("latdiag_spans_open", "latdiag_traces_open"):
        watch.set(name, 7.0)
    watch.add("latdiag_spans_dropped", reason="full")
    watch.add("latdiag_labels_folded", label="tenant")
    watch.add("latdiag_series_refused", metric="latdiag_ttft_seconds")
    watch.add("latdiag_forwarded_exports", outcome="forwarded")
    return watch.text()


class Exposed(BaseHTTPRequestHandler):
    """/STACK/N: a recorded server of a stack; /watch: watch."""

    scrapes: ClassVar[Counter[str]] = Counter()
    watch: ClassVar[Watch] = Watch()

    def do_GET(self) -> None:
        self.scrapes[self.path] += 1
        stack, _, which = self.path.strip("/").partition("/")
        if stack == "watch":
            text = later(self.watch, self.scrapes[self.path])
        else:
            text = replayed(expositions(stack)[int(which)], self.scrapes[self.path])
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def exposed() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Exposed)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def targets() -> list[str]:
    return ["watch", *(f"{s}/{n}" for s in RECORDED for n in range(len(expositions(s))))]


@contextlib.contextmanager
def prometheus(binary: Path, folder: Path, jobs: list[dict[str, Any]]) -> Iterator[str]:
    """Its address, once it answers; rules and scrapes every second."""
    (folder / "rules.yaml").write_text(RULES.read_text().replace("interval: 30s", "interval: 1s"))
    (folder / "prometheus.json").write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                "rule_files": ["rules.yaml"],
                "scrape_configs": jobs,
            }
        )
    )
    with socket.create_server(("127.0.0.1", 0)) as held:
        address = f"127.0.0.1:{held.getsockname()[1]}"
    command = [
        binary,
        f"--config.file={folder / 'prometheus.json'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--enable-feature=exemplar-storage",
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stderr=log)
    try:
        until = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{address}/-/ready"):
                break
            assert process.poll() is None and time.monotonic() < until, (
                folder / "log"
            ).read_text()
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)


def value(address: str, expr: str) -> list[float]:
    """Values of the expression now."""
    query = urllib.parse.urlencode({"query": expr})
    with urllib.request.urlopen(f"http://{address}/api/v1/query?{query}", timeout=30) as reply:
        return [float(one["value"][1]) for one in json.load(reply)["data"]["result"]]


def without_data(address: str, wanted: list[str], within_s: float) -> list[str]:
    """Expressions that have no number after that long."""
    until = time.monotonic() + within_s
    while wanted and time.monotonic() < until:
        wanted = [one for one in wanted if not any(map(math.isfinite, value(address, one)))]
        time.sleep(1)
    return wanted


def panel(expr: str) -> str:
    for name, text in (EXAMPLES | {"$__rate_interval": "20s"}).items():
        expr = expr.replace(name, text)
    return expr


@pytest.mark.parametrize("version", ["debian", "3"])
def test_every_expression_of_dashboards_and_rules_returns_data(
    version: str, exposed: str, tmp_path: Path
) -> None:
    binary = debian("prometheus") if version == "debian" else built("prometheus")
    jobs = [
        {
            "job_name": path.replace("/", "-"),
            "metrics_path": f"/{path}",
            "static_configs": [{"targets": [exposed], "labels": {"instance": "w1"}}],
        }
        for path in targets()
    ]
    wanted = [panel(expr) for _, document in ALL for expr in expressions(document)]
    wanted += [rule.record for rule in recordings(Targets())]
    wanted += [alert.value for alert in alerts(Targets()) if alert.name not in SILENT]
    with prometheus(binary, tmp_path, jobs) as address:
        missing = without_data(address, wanted, 90)
        down = value(address, "sum(up == bool 0)")
        gone = [value(address, one.value) for one in alerts(Targets()) if one.name in SILENT]
    assert down == [0.0], (tmp_path / "log").read_text()
    assert gone == [[]]
    assert missing == []


@pytest.mark.parametrize(("dashboard", "document"), ALL, ids=[one.uid for one, _ in ALL])
def test_grafana_s_schema_knows_every_field(dashboard: Any, document: Any) -> None:
    """LATDIAG_GRAFANA_SCHEMA: jsonschema/dashboard.jsonschema.json of a checkout of
    grafana/grafana-foundation-sdk."""
    path = os.environ.get("LATDIAG_GRAFANA_SCHEMA")
    if path is None:
        pytest.skip("LATDIAG_GRAFANA_SCHEMA names no schema")
    schema = json.loads(Path(path).read_text())
    # Of any type in Grafana itself; the schema says "object", but a matcher by name has a text.
    for name, field in (("MatcherConfig", "options"), ("DynamicConfigValue", "value")):
        schema["definitions"][name]["properties"][field] = {}
    # Keys of a file that is shared, which the import takes off.
    document = {key: value for key, value in document.items() if not key.startswith("__")}
    faults = jsonschema.Draft7Validator(schema).iter_errors(document)
    assert [(list(one.path), one.message[:200]) for one in faults] == []
