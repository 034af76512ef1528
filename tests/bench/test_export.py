"""Exporting 90,000 spans: CPU seconds of the sender, and what its memory grows by.

``pytest -m bench tests/bench/test_export.py -s`` prints the figures.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from latdiag.store.writer import RunWriter
from tests.bench.test_million_spans import traced
from tests.loopback.trace_receiver import GrpcReply, HttpReply, grpc_receiver, http_receiver
from tests.run_documents import state

pytestmark = pytest.mark.bench

REQUESTS = 13_400
SPANS_PER_S, GROWN_MIB = 4_000, 150
#: The clock of the synthetic run.
CLOCK, BEGAN_NS, REAL_NS = "5f0e3a1c9d7b2468", 86_400_000_000_000, 1_790_000_000 * 10**9
_CHILD = """
import json, sys, time
from latdiag.export.attempts import attempts_of
from latdiag.export.choice import Wanted
from latdiag.export.otlp import export_traces
from latdiag.export.way import Way
from latdiag.ingest.otlp.forward import Destination
from latdiag.load.trust import Trust
from latdiag.store.run import Run

def mib(key):
    return int(dict(l.split(":", 1) for l in open("/proc/self/status"))[key].split()[0]) / 1024

attempts = attempts_of(Run.open(sys.argv[1]), Wanted())
way = Way(Destination.parse(sys.argv[2]), (), Trust(), 60 * 10**9)
before, began = mib("VmRSS"), time.process_time()
open("/proc/self/clear_refs", "w").write("5")  # the peak is counted from here
found = export_traces(attempts, way).delivery
print(json.dumps({
    "spans": found.spans, "delivered": found.delivered, "before_mib": before,
    "cpu_s": time.process_time() - began, "grown_mib": mib("VmHWM") - before,
}))
"""


@pytest.mark.parametrize("way", ["grpc", "http"])
def test_spans_per_cpu_second_and_memory(tmp_path: Path, way: str) -> None:
    path = traced(str(tmp_path / "big.run"), REQUESTS)
    clock = [[BEGAN_NS + s * 10**9, REAL_NS + s * 10**9, 400] for s in (0, 3600)]
    RunWriter(path, "reader-1").write_state(state("closed", clock_id=CLOCK, clock=clock))
    grpc, http = grpc_receiver(lambda _: GrpcReply()), http_receiver(lambda _: HttpReply())
    with grpc as one, http as other:
        url = f"{way}://127.0.0.1:{(one if way == 'grpc' else other).port}"
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, path, url],
            capture_output=True, text=True, check=True, env=os.environ,
        )  # fmt: skip
    found = json.loads(done.stdout)
    speed = found["spans"] / found["cpu_s"]
    print(
        f"\n{way}: {found['spans']:,} spans, {speed:,.0f} per CPU s;"
        f" {found['before_mib']:.0f} MiB after reading, {found['grown_mib']:+.0f} MiB in sending"
    )
    assert found["delivered"] == found["spans"] >= 90_000
    assert speed >= SPANS_PER_S and found["grown_mib"] <= GROWN_MIB
