"""White-box attribution of real servers' processes over sockets: every fault of a server, with
its spans told right and with every fault of telling at once. Prints the errors in points.

LATDIAG_BENCH_FAULTS: some of the faults, by comma.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from latdiag.sim.demo import running_demo
from latdiag.sim.params import OF_SERVER, draw
from latdiag.sim.telemetry import telemetry_of
from latdiag.store.run import Run

from . import score
from .attributed import attributed, told

pytestmark = pytest.mark.bench

ALL = "skew=500,step=200,drift,lost,repeated,unordered"
CHOSEN = os.environ.get("LATDIAG_BENCH_FAULTS", ",".join(OF_SERVER)).split(",")
COLUMNS = ["request_id", "sent_ns", "wire_ns", "done_ns", "outcome"]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def loaded(fault: str, telling: str, path: Path, seed: int) -> Path:
    """A run of 400 requests at a drawn server that sends its spans to the load's receiver."""
    port, truth = free_port(), path.with_suffix(".jsonl")
    telemetry = telemetry_of(telling) if telling else None
    more = {} if telemetry is None else {"telemetry": telemetry}
    collector = f"http://127.0.0.1:{port}"
    params = draw(fault, seed)
    words = ["--requests", "400", "--concurrency", "12", "--isl", "uniform:64-600", "--osl", "24"]
    words += ["--otlp-http", f"127.0.0.1:{port}", "--wait", "4s", "--quiet", "--out", str(path)]
    with running_demo(fault, params=params, otlp=collector, truth=truth, seed=seed, **more) as url:
        command = [sys.executable, "-m", "latdiag", "load", url, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode in (0, 12), done.stderr
    return truth


def books(path: Path, truth: Path) -> list[score.Books]:
    lines = [json.loads(line) for line in truth.read_text().splitlines()]
    leaves = {line["request_id"]: line["leaves"] for line in lines}
    rows: dict[int, Any] = {}
    frame = Run.open(str(path)).frame([*COLUMNS, "arrivals_ns"])
    for row in frame[frame["outcome"] == "ok"].itertuples():
        total = int(row.done_ns) - int(row.sent_ns)
        assert total not in rows
        rows[total] = (row, leaves[row.request_id])
    found = []
    for total in told(path):
        row, mine = rows[total]
        rest = int(row.done_ns) - int(row.arrivals_ns[-1])
        found.append(score.books_of(total, int(row.wire_ns) - int(row.sent_ns), rest, mine))
    return found


@pytest.fixture(scope="module")
def errors() -> Iterator[dict[str, list[score.Error]]]:
    found: dict[str, list[score.Error]] = {}
    yield found
    for telling, mine in found.items():
        print(f"\n{telling or 'told right'}\n{score.table(mine)}")


@pytest.mark.parametrize("telling", ["", ALL], ids=["right", "all faults"])
@pytest.mark.parametrize("fault", CHOSEN)
def test_a_real_server_within_a_point(
    fault: str, telling: str, tmp_path: Path, errors: dict[str, list[score.Error]]
) -> None:
    path = tmp_path / "a.run"
    truth = loaded(fault, telling, path, 11)
    mine = score.errors(attributed(path), books(path, truth))
    errors.setdefault(telling, []).extend(mine)
    assert max(one.points for one in mine if one.population == "mean") <= 1, score.table(mine)
