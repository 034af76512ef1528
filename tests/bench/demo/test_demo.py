"""Probes against drawn demo servers, for real: sockets, processes, time. Half an hour.

``pytest -m bench tests/bench/demo -s`` prints a line a server and the table. A probe gets the
URL and nothing else. ``LATDIAG_BENCH_SEEDS=100:140`` draws other servers; ``LATDIAG_BENCH_OUT``
names a file for every score as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from latdiag.model.records import OUTPUT_KINDS
from latdiag.sim.demo import serving
from latdiag.store.run import Run

from . import judge
from .cases import case

pytestmark = pytest.mark.bench

#: A probe that the client itself calls INVALID is void, and is run again at most so often.
TRIES = 3
SEEDS = os.environ.get("LATDIAG_BENCH_SEEDS", "0:40")


def probe(url: str, out: Path, seed: int) -> tuple[dict[str, Any], int, float]:
    """(the result, the exit code, seconds)."""
    command = [sys.executable, "-m", "latdiag", "probe", url, "--json", "--quiet"]
    begun = time.monotonic()
    done = subprocess.run(
        [*command, "--out", str(out), "--seed", str(seed)], capture_output=True, timeout=600
    )
    return json.loads(done.stdout), done.returncode, time.monotonic() - begun


def truth(run: Path, books: Path, result: dict[str, Any]) -> judge.Truth:
    """The very requests of the workload, from the run's instants and the server's books."""
    entries = [json.loads(line) for line in books.read_text().splitlines()]
    by_id = {entry["request_id"]: entry for entry in entries}
    frame = Run.open(str(run)).frame()
    frame = frame[(frame["stage"] == "S10") & (frame["outcome"] == "ok")]
    frame = frame[[_exact(row) for row in frame[["kinds", "censored"]].itertuples()]]
    mine = [by_id[request] for request in frame["request_id"]]
    begin = frame["due_ns"].fillna(frame["sent_ns"])
    total = int((frame["done_ns"] - begin).sum())
    said = result["breakdown"]["mean"]
    assert said["total_ns"] == total, "the probe explains all of its workload"
    # What lies before and behind a server's books is stamped by the client, and is tiny.
    client, rest = said["client"]["sum_ns"], said["unattributed"]["sum_ns"]
    return judge.truth_of(total, client, rest, mine)


def _exact(row: Any) -> bool:
    """Whether the stamp of the first token is its own: else nobody knows where TTFT ended."""
    first = next(i for i, kind in enumerate(row.kinds) if kind in OUTPUT_KINDS)
    return not row.censored[first]


def test_what_probes_say_is_true(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, last = (int(part) for part in SEEDS.split(":"))
    scores: list[judge.Score] = []
    seconds: list[float] = []
    late: list[Any] = []
    void: list[tuple[int, list[str]]] = []
    for seed in range(first, last):
        faults, params = case(seed)
        for attempt in range(TRIES):
            books, run = tmp_path / f"{seed}.{attempt}.jsonl", tmp_path / f"{seed}.{attempt}.run"
            with serving(params, seed=seed, truth=books) as demo:
                result, code, took = probe(demo.url, run, seed)
            assert code in (0, 12), result
            if code == 0:
                break
            # The client's own audit says that this machine was too busy to measure on.
            void.append((seed, [broken["rule"] for broken in result["invalid_because"]]))
        scores.append(judge.score(faults, result, truth(run, books, result)))
        seconds.append(took)
        late.append((demo.report["lateness"] or {}).get("p99_us"))
        with capsys.disabled():
            s = scores[-1]
            print(
                f"{seed:>4} {'+'.join(faults):<24}{s.verdict:<10}{s.said:<13}"
                f"{100 * s.worst:6.1f} points  {took:5.1f} s  exit {code}"
                f"  server late p99 {late[-1]} us  {s.why if s.verdict != 'right' else ''}",
                flush=True,
            )
    with capsys.disabled():
        print(judge.table(scores, range(first, last)))
        print(f"void and run again: {void or 'none'}")
        print(f"a probe took {min(seconds):.0f} to {max(seconds):.0f} s")
    if out := os.environ.get("LATDIAG_BENCH_OUT"):
        Path(out).write_text(json.dumps([asdict(s) for s in scores], indent=1))
    assert not judge.unmet(scores)
