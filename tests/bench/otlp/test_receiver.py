"""The receiver under a real exporter: spans/s into parquet, on how much CPU, in which memory."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from latdiag.ingest.collector import collecting
from latdiag.ingest.otlp.endpoints import Endpoints
from latdiag.model.document import document
from latdiag.stacks.catalogue import families, stacks
from latdiag.store.run import Run
from latdiag.store.writer import create_run
from tests.run_documents import header

SECONDS = float(os.environ.get("OTLP_BENCH_S", "60"))
SPANS_PER_S, CORES = 20_000, 1.0
#: Of the resident memory: its peak in the last third against that in the first after ten seconds
#: (it rises and falls with every part that is written).
GROWTH = 0.10


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used (/proc/PID/stat, fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    """Resident memory of a process in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


class Watch(threading.Thread):
    """Resident memory of a process, every half second."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._over = threading.Event()
        self.seen: list[tuple[float, float]] = []

    def run(self) -> None:
        begun = time.monotonic()
        while not self._over.wait(0.5):
            with contextlib.suppress(OSError):  # it has ended, which the test finds out
                self.seen.append((time.monotonic() - begun, rss_mb(self._pid)))

    def end(self) -> None:
        self._over.set()
        self.join()


def measured(path: Path) -> dict[str, Any]:
    """One run of the exporter against the receiver."""
    run = create_run(str(path / "bench.run"), header())
    here = Path(__file__).parent / "exporter.py"
    with collecting(run, stacks(), families(), otlp=Endpoints("127.0.0.1:0", None)) as collector:
        state = json.loads(Path(run, "writers", "collector.json").read_text())
        watch, before = Watch(state["pid"]), cpu_s(state["pid"])
        watch.start()
        ended = subprocess.run(
            [sys.executable, str(here), f"http://{collector.grpc}", str(SECONDS)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        cpu = cpu_s(state["pid"]) - before
        watch.end()
        counts = document(collector.finish(0))
    sent = json.loads(ended.stdout)
    rows = int((Run.open(run).evidence(["kind"])["kind"] == "span").sum())
    return {"sent": sent, "counts": counts, "cpu_s": cpu, "rss": watch.seen, "rows": rows}


@pytest.mark.bench
def test_receiver(tmp_path: Path) -> None:
    found = measured(tmp_path)
    sent, counts = found["sent"], found["counts"]
    rate = counts["accepted"] / sent["seconds"]
    cores = found["cpu_s"] / sent["seconds"]
    later = [mb for at, mb in found["rss"] if at >= min(10.0, SECONDS / 3)]
    refused = sum(counts["refused"].values())
    print(
        f"\n{rate:,.0f} spans/s into parquet over {sent['seconds']:.1f} s,"
        f" {cores:.2f} cores ({rate / cores:,.0f} spans/s a core),"
        f" RSS {later[0]:.0f} MB after 10 s, {later[-1]:.0f} MB at the end, at most"
        f" {max(later):.0f} MB;"
        f" sent {sent['sent']:,}, accepted {counts['accepted']:,}, refused {refused:,}"
        f" {counts['refused']}, rows {found['rows']:,}, {counts['bytes'] / 1e6:,.0f} MB on disk,"
        f" {sent['bytes'] / 512:.0f} bytes a span on the wire"
    )
    print("RSS in MB by second:", " ".join(f"{mb:.0f}" for _, mb in found["rss"][::2]))
    assert counts["accepted"] + refused == sent["sent"]
    assert refused == sent["rejected"] + sent["failed"]
    assert found["rows"] == counts["accepted"]
    assert counts["lost"] == 0
    assert rate >= SPANS_PER_S
    assert cores <= CORES * 1.02
    third = max(1, len(later) // 3)
    assert max(later[-third:]) <= max(later[:third]) * (1 + GROWTH)
