"""Probes of look-alikes of hosted APIs: their rows are those that the peer knows to be true."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from latdiag.model.records import OUTPUT_KINDS
from latdiag.store.run import Run
from tests.loopback.lookalikes import LOOKALIKES, STEP_S, looking_like

ROOT = Path(__file__).resolve().parents[2]
#: Requests of a stage about the path, of which no stream is expected.
_PATHS = ("S1", "S7")


@pytest.mark.bench
@pytest.mark.parametrize("name", LOOKALIKES)
def test_a_probe_keeps_inside_what_the_server_allows(tmp_path: Path, name: str) -> None:
    habits = LOOKALIKES[name]
    place = tmp_path / "it.run"
    with looking_like(habits) as (peer, url, truth):
        done = subprocess.run(
            [sys.executable, "-m", "latdiag", "probe", url, "--out", str(place), "--json",
             "--osl", "32", "--isl", "64", "--concurrency", "4"],
            capture_output=True, text=True, check=False, timeout=600,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    assert done.returncode in (0, 12), done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    late, steps, wrong = [], [], []
    for row in Run.open(str(place)).frame().to_dict("records"):
        number = int(row["request_id"].rpartition("-")[2], 16)
        if row["stage"] in _PATHS or row["outcome"] == "rate_limited":
            continue
        sent = truth.sent.get(number)
        came = [
            at / 1e9
            for at, kind in zip(row["arrivals_ns"], row["kinds"], strict=True)
            if kind in OUTPUT_KINDS
        ]
        if sent is None or len(sent) != len(came) or row["outcome"] != "ok":
            wrong.append((row["stage"], row["outcome"], row["error"]))
            continue
        late += [at - true for at, true in zip(came, sent, strict=True)]
        steps += [(came[-1] - came[0]) / (len(came) - 1)] if len(came) > 1 else []
    assert wrong == [] and steps
    assert statistics.median(late) < 0.005
    assert statistics.median(steps) == pytest.approx(STEP_S, rel=0.1)
    limits = [asked.document for asked in peer.of_load() if asked.method == "POST"]
    asked_for = [ask.get("max_tokens") or ask.get("max_completion_tokens") for ask in limits]
    assert min(asked_for) >= habits.least
    verdict = result["verdict"]
    print(f"{name}: {verdict['kind']}: {verdict['sentence']}")
    if habits.at_once < 100:
        assert truth.refused == 0 or "429" in done.stdout
