"""``diagnose`` of n requests with n spans as vLLM sends them: CPU seconds, and linear in n.

``pytest -m bench tests/bench/test_million_spans.py -s`` prints the table.
LATDIAG_BENCH_REQUESTS: the sizes, with commas between.
"""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from latdiag.store.run import Run
from latdiag.store.writer import RunWriter
from tests.run_documents import received

pytestmark = pytest.mark.bench

SIZES = [
    int(n) for n in os.environ.get("LATDIAG_BENCH_REQUESTS", "10000,100000,1000000").split(",")
]
#: A request more may cost so many times what it cost up to the smaller size.
LINEAR = 1.5
PEAK_MIB = 5120
#: The server's clock, from the client's.
SKEW_NS = 1_700_000_000 * 10**9
_CHILD = """
import json, resource, sys
from latdiag.diagnosis.diagnose import result_of
from latdiag.store.run import Run
result = result_of(Run.open(sys.argv[1]), "diagnose").to_json()
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "told": result["evidence"]["told"],
    "unattributed": result["breakdown"]["mean"]["unattributed"]["share"],
    "peak_mib": int(status["VmHWM"].split()[0]) / 1024,
}))
"""


def _synthetic() -> ModuleType:
    """A module beside this one: test folders are no packages."""
    path = Path(__file__).with_name("synthetic_run.py")
    spec = importlib.util.spec_from_file_location("synthetic_run", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def traced(path: str, requests: int) -> str:
    """A run of so many requests; every one that was answered has a span."""
    run = str(_synthetic().write(path, requests, parts=max(1, requests // 10_000)))
    writer = RunWriter(run, "collector")
    columns = ["trace_id", "span_id", "outcome", "sent_ns", "done_ns", "headers_ns"]
    for batch in Run.open(run).batches(columns):
        done = batch.texts["outcome"] == "ok"
        ints = {name: column.values[done] for name, column in batch.ints.items()}
        begin, end = ints["sent_ns"] + 1_500_000, ints["done_ns"] - 500_000
        first = np.clip(ints["headers_ns"] - begin - 500_000, 0, end - begin)
        queue = first // 3
        labels = [
            {
                "gen_ai.latency.time_to_first_token": f"{ttft / 1e9}",
                "gen_ai.latency.e2e": f"{whole / 1e9}",
                "gen_ai.latency.time_in_queue": f"{waited / 1e9}",
                "gen_ai.latency.time_in_model_prefill": f"{(ttft - waited) / 1e9}",
                "gen_ai.latency.time_in_model_decode": f"{(whole - ttft) / 1e9}",
                "gen_ai.latency.time_in_model_inference": f"{(whole - waited) / 1e9}",
                "gen_ai.usage.prompt_tokens": "512",
                "gen_ai.usage.completion_tokens": "200",
                "otel.scope": "vllm.tracing.otel",
                "service.name": "vllm",
            }
            for ttft, waited, whole in zip(
                first.tolist(), queue.tolist(), (end - begin).tolist(), strict=True
            )
        ]
        n = len(labels)
        writer.write_evidence(
            {
                "kind": ["span"] * n,
                "foreign_name": ["llm_request"] * n,
                "trace_id": batch.texts["trace_id"][done],
                "span_id": [f"{at:016x}" for at in range(n)],
                "parent_span_id": batch.texts["span_id"][done],
                "start_ns": begin + SKEW_NS,
                "end_ns": end + SKEW_NS,
                "clock_id": ["sender:vllm"] * n,
                "replica": ["vllm"] * n,
                "labels": labels,
            }
        )
    writer.write_state(received())
    return run


def _diagnosed(run: str) -> tuple[float, dict[str, Any]]:
    """CPU seconds of a cold process, and what it found."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", _CHILD, run], stdout=subprocess.PIPE, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    found: dict[str, Any] = json.loads(done.stdout)
    return cpu, found


def test_diagnose_grows_with_the_requests(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes, costs, peaks = [0], [0.0], []
    for n in SIZES:
        run = traced(str(tmp_path / f"{n}.run"), n)
        cpu, found = _diagnosed(run)
        shutil.rmtree(run)
        assert 0.98 * n <= found["told"] <= n and abs(found["unattributed"]) < 0.05
        sizes.append(n)
        costs.append(cpu)
        peaks.append(found["peak_mib"])
        with capsys.disabled():
            each = (cpu - costs[-2]) / (n - sizes[-2]) * 1e6
            print(f"\n{n:9,} requests: {cpu:7.2f} CPU s, {each:6.1f} us more a request,", end="")
            print(f" peak {found['peak_mib']:.0f} MiB", end="")
    each = np.diff(costs) / np.diff(sizes)
    # What a process costs that reads nothing is in the first.
    assert all(more <= LINEAR * less for less, more in pairwise(each.tolist()))
    assert max(peaks) <= PEAK_MIB
