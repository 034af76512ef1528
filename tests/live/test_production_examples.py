"""The examples for production, read and run by the programs that they are for: ``pytest -m live``.

Go, from its module proxy: Kubernetes's and the Prometheus operator's types and compose's loader
(tests/live/examples), and an OpenTelemetry Collector, built by its builder of what
tests/live/examples/collector.yaml lists. LATDIAG_COLLECTOR: a binary to use instead.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from tests.live.conftest import LIVE
from tests.live.test_dashboards import CACHE, RULES, built, debian

pytestmark = pytest.mark.live

MODULE = Path(__file__).parent / "examples"
EXAMPLES = Path(__file__).parents[2] / "examples"
SPANS = 20
#: The demo's, and that of the examples.
DEMO, MODEL = "demo", "Qwen/Qwen3-0.6B"


def go() -> None:
    if shutil.which("go") is None:
        pytest.skip("Go is not installed")


def test_kubernetes_the_operator_and_compose_know_every_field() -> None:
    go()
    done = subprocess.run(
        ["nice", "go", "test", "-p", "1", "-count=1", "./..."],
        cwd=MODULE, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def collector() -> Path:
    if given := os.environ.get("LATDIAG_COLLECTOR"):
        return Path(given)
    config = (MODULE / "collector.yaml").read_text()
    path = CACHE / "collector-0.165.0" / "latdiag-test-collector"
    if not path.exists():
        go()
        path.parent.mkdir(parents=True, exist_ok=True)
        filled = path.parent / "builder.yaml"
        filled.write_text(config.replace("dist:", f"dist:\n  output_path: {path.parent}", 1))
        subprocess.run(
            ["nice", "go", "tool", "builder", "--config", filled],
            cwd=MODULE, check=True, capture_output=True,
            env={**os.environ, "GOFLAGS": "-p=1 -buildvcs=false"},
        )  # fmt: skip
    return path


def ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return found


@contextlib.contextmanager
def running(
    command: list[str | Path], port: int, log: Path, within_s: float = 60, **variables: str
) -> Iterator[None]:
    """Until the block ends; it begins when somebody listens at the port."""
    with log.open("w") as written:
        process = subprocess.Popen(
            command, env={**os.environ, **variables}, stdout=written, stderr=written
        )
    try:
        until = time.monotonic() + within_s
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def watch(otlp: int, listen: int, *options: str) -> list[str | Path]:
    return [
        *(sys.executable, "-m", "latdiag", "watch", "--quiet", "--otlp-http", "off"),
        *("--otlp", f"127.0.0.1:{otlp}", "--listen", f"127.0.0.1:{listen}", *options),
    ]


def received(listen: int) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{listen}/metrics", timeout=10) as reply:
        for line in reply.read().decode().splitlines():
            if line.startswith("latdiag_spans_received_total "):
                return float(line.split()[1])
    return 0.0


def send(port: int) -> None:
    provider = TracerProvider()
    provider.add_span_processor(
        SimpleSpanProcessor(OTLPSpanExporter(f"http://127.0.0.1:{port}", insecure=True))
    )
    tracer = provider.get_tracer("vllm.tracing.otel")
    for _ in range(SPANS):
        tracer.start_span("llm_request").end()
    provider.shutdown()


@pytest.mark.parametrize("which", ["tee", "through"])
def test_a_collector_gives_every_span_to_watch_and_to_the_store(
    which: str, collector: Path, tmp_path: Path
) -> None:
    front, http, back, at_watch, at_store, metrics, stored = ports(7)
    addresses = {
        "COLLECTOR_GRPC": f"127.0.0.1:{front}",
        "COLLECTOR_HTTP": f"127.0.0.1:{http}",
        "COLLECTOR_BACK": f"127.0.0.1:{back}",
        "WATCH": f"127.0.0.1:{at_watch}",
        "STORE": f"127.0.0.1:{at_store}",
        "LATDIAG_TOKEN": "secret",
    }
    config = EXAMPLES / "collector" / f"{which}.yaml"
    # The address that the file itself names.
    told = re.search(r"--forward (\w+://)COLLECTOR:4327", config.read_text())
    assert (told is not None) == (which == "through")
    forward = ("--forward", f"{told[1]}127.0.0.1:{back}") if told else ()
    token = ("--token-env", "LATDIAG_TOKEN")
    with (
        running(watch(at_store, stored), stored, tmp_path / "store"),
        running(
            watch(at_watch, metrics, *forward, *token), metrics, tmp_path / "watch",
            LATDIAG_TOKEN="secret",
        ),
        running(
            [collector, "--config", str(config)], front, tmp_path / "collector", **addresses
        ),
    ):  # fmt: skip
        send(front)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            seen = received(metrics), received(stored)
            if seen == (SPANS, SPANS):
                break
            time.sleep(0.5)
    assert seen == (SPANS, SPANS), (tmp_path / "collector").read_text()
    assert "deprecated" not in (tmp_path / "collector").read_text()


@pytest.mark.parametrize("version", ["debian", "3"])
def test_prometheus_takes_its_configuration(version: str, tmp_path: Path) -> None:
    promtool = debian("promtool") if version == "debian" else built("promtool")
    for path in (EXAMPLES / "compose" / "prometheus.yml", RULES):
        shutil.copy(path, tmp_path)
    done = subprocess.run(
        [promtool, "check", "config", tmp_path / "prometheus.yml"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 rule files found" in done.stdout


def test_envoy_takes_its_configuration(tmp_path: Path) -> None:
    envoy = LIVE / "venvs" / "envoy" / "bin" / "envoy"
    if not envoy.exists():
        pytest.skip("envoy is not installed")
    config = EXAMPLES / "gateways" / "envoy.yaml"
    done = subprocess.run(
        [envoy, "--mode", "validate", "-c", config],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "configuration" in done.stdout + done.stderr


def call(url: str, model: str, key: str) -> bytes:
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}
    request = urllib.request.Request(
        url + "/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {key}"},
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        return bytes(reply.read())


def filled(path: Path, folder: Path, **places: str) -> Path:
    """A copy of an example with other addresses; each must stand in it."""
    text = path.read_text()
    for old, new in places.items():
        assert old in text, old
        text = text.replace(old, new)
    copy = folder / path.name
    copy.write_text(text)
    return copy


def program(name: str) -> Path:
    path = LIVE / "venvs" / name / "bin" / name
    if not path.exists():
        pytest.skip(f"{name} is not installed")
    return path


@pytest.mark.parametrize("gateway", ["envoy", "litellm"])
def test_a_gateway_s_time_reaches_watch(gateway: str, tmp_path: Path) -> None:
    binary = program(gateway)
    engine, at_watch, metrics, front, admin = ports(5)
    token = ("--token-env", "LATDIAG_TOKEN")
    demo = [*(sys.executable, "-m", "latdiag", "demo", "healthy", "--port", str(engine))]
    example = EXAMPLES / "gateways" / f"{gateway}.yaml"
    command: list[str | Path]
    variables: dict[str, str] = {}
    if gateway == "envoy":
        local = "address: 127.0.0.1, port_value: "
        config = filled(
            example,
            tmp_path,
            **{
                "address: latdiag-watch, port_value: 4317": f"{local}{at_watch}",
                "address: vllm, port_value: 8000": f"{local}{engine}",
                "address: 0.0.0.0, port_value: 8080": f"{local}{front}",
                "address: 127.0.0.1, port_value: 9901": f"{local}{admin}",
                "Bearer TOKEN": "Bearer secret",
            },
        )
        command = [binary, "-c", config, "--concurrency", "1", "--disable-hot-restart"]
    else:
        config = filled(
            example,
            tmp_path,
            **{
                "http://vllm:8000": f"http://127.0.0.1:{engine}",
                f"openai/{MODEL}": f"openai/{DEMO}",
            },
        )
        command = [binary, "--config", config, "--host", "127.0.0.1", "--port", str(front)]
        # As the example's comment says.
        variables = {
            "OTEL_EXPORTER": "otlp_grpc",
            "OTEL_ENDPOINT": f"http://127.0.0.1:{at_watch}",
            "OTEL_SERVICE_NAME": "litellm",
            "OTEL_HEADERS": "authorization=Bearer secret",
            "LITELLM_MASTER_KEY": "sk-test",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        }
    with (
        running(demo, engine, tmp_path / "demo"),
        running(
            watch(at_watch, metrics, *token), metrics, tmp_path / "watch", LATDIAG_TOKEN="secret"
        ),
        running(command, front, tmp_path / gateway, 180, **variables),
    ):
        for _ in range(3):
            model = DEMO if gateway == "envoy" else MODEL
            assert b"choices" in call(f"http://127.0.0.1:{front}", model, "sk-test")
        until = time.monotonic() + 90
        while not (seen := of_gateway(metrics)) and time.monotonic() < until:
            time.sleep(0.5)
    assert seen > 0, (tmp_path / "watch").read_text() + (tmp_path / gateway).read_text()[-3000:]


def of_gateway(listen: int) -> float:
    """Seconds of the component gateway that watch counted."""
    with urllib.request.urlopen(f"http://127.0.0.1:{listen}/metrics", timeout=10) as reply:
        lines = reply.read().decode().splitlines()
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in lines
        if line.startswith("latdiag_component_seconds_sum") and 'component="gateway' in line
    )
