"""examples/ttft_split.py on a run of one request whose split is known by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from latdiag.store.batch import Lists
from latdiag.store.writer import RunWriter, create_run
from tests.run_documents import header, state

ROOT = Path(__file__).parents[2]


def test_the_split_of_one_request(tmp_path: Path) -> None:
    ms = 1_000_000
    run = create_run(str(tmp_path / "one.run"), header())
    ends = np.array([0, 2], dtype=np.int64)
    writer = RunWriter(run, "w0")
    writer.write_part(
        {
            "request_id": ["a"],
            "attempt": [1],
            "response_id": ["r-1"],
            "outcome": ["ok"],
            "stage": ["load"],
            "sent_ns": [1000 * ms],
            "written_ns": [1001 * ms],
            "wire_ns": [1002 * ms],
            "wire_last_ns": [1004 * ms],
            "acked_ns": [1014 * ms],
            "min_rtt_ns": [9_800_000],
            "retransmits": [0],
            "clock_step": [False],
            "done_ns": [1130 * ms],
            "arrivals_ns": Lists.whole(np.array([1100 * ms, 1130 * ms]), ends),
            "kinds": Lists.whole(np.array([3, 3], dtype=np.int8), ends),
            "censored": Lists.whole(np.array([False, False]), ends),
        }
    )
    writer.write_state(state(writer="w0"))
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "ttft_split.py"), run],
        capture_output=True,
        check=True,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
    )
    (line,) = done.stdout.splitlines()
    # client 2 ms until the first byte left; network 2 ms of upload and a trip in [9.8, 10] ms.
    assert json.loads(line) == {
        "response_id": "r-1",
        "client_ns": 2 * ms,
        "network_ns": 2 * ms + 9_900_000,
        "network_lo_ns": 2 * ms + 9_800_000,
        "network_hi_ns": 12 * ms,
        "server_ns": 86 * ms + 100_000,
        "connect_ns": 0,
    }
