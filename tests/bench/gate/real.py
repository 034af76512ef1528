"""Real runs of ``latdiag gate run`` on pairs of demo servers, in a ledger that survives its end.

    python -m tests.bench.gate.real LEDGER --same 20 --slower 15 --hardly 5

The runs are drawn from (seed, number), so the same command goes on where it was interrupted. Each
line of the ledger is a run: what was slowed and by how much in truth, the verdict and the cause.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from scipy import stats

from latdiag.sim.demo import running_demo
from latdiag.sim.params import Params

#: A prompt of 128 tokens takes about 35 ms, 14 of them in the engine, a step about 5 ms: some 40
#: requests/s can be served while none waits for another.
BASE = Params(compute_us=100.0, frontend_ms=20.0)
_FAR = replace(BASE, network_ms=10.0)
_APART = replace(BASE, disaggregated=True, kv_setup_ms=20.0, first_token="decode")
_SEATS = replace(BASE, max_seqs=12)
_BEHIND_GATEWAY = replace(BASE, gateway_ms=20.0)


@dataclass(frozen=True, slots=True)
class Case:
    """``base`` and what the candidate is, slowed so that its TTFT (or TPOT) rises by a share."""

    name: str
    base: Params
    slowed: Callable[[float], Params]


def _ttft_ms(params: Params) -> float:
    """About what a prompt of 128 tokens takes alone until its first token, ms."""
    step = params.overhead_ms + max(params.weights_ms, 0.128 * params.compute_us)
    way = 2 * params.network_ms + params.gateway_ms + params.kv_setup_ms
    return params.frontend_ms + step + way


def _more(base: Params, name: str, per_ms: float = 1.0) -> Callable[[float], Params]:
    def slowed(share: float) -> Params:
        more = share * _ttft_ms(base) * per_ms
        return replace(base, **{name: getattr(base, name) + more})

    return slowed


def _slower_steps(share: float) -> Params:
    step = BASE.overhead_ms + BASE.weights_ms
    return replace(BASE, weights_ms=BASE.weights_ms + share * step)


def _fewer_seats(share: float) -> Params:
    """Queueing has no formula here: the truth says how much it came to."""
    return replace(_SEATS, max_seqs=6 if share > 0.05 else 11)


CASES = (
    Case("prefill", BASE, _more(BASE, "compute_us", 1 / 0.128)),
    Case("decode", BASE, _slower_steps),
    Case("network", _FAR, _more(_FAR, "network_ms", 0.5)),
    Case("gateway", _BEHIND_GATEWAY, _more(_BEHIND_GATEWAY, "gateway_ms")),
    Case("interconnect", _APART, _more(_APART, "kv_setup_ms")),
    Case("queue", _SEATS, _fewer_seats),
)
KINDS = ("same", "slower", "hardly")
EVIDENCE = ("client", "replies", "spans")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("ledger", type=Path)
    parser.add_argument("--same", type=int, default=0)
    parser.add_argument("--slower", type=int, default=0)
    parser.add_argument("--hardly", type=int, default=0)
    parser.add_argument("--seed", default="one")
    parser.add_argument("--budget", default="60s")
    asked = parser.parse_args()
    done = [json.loads(line) for line in _lines(asked.ledger)]
    wanted = {kind: getattr(asked, kind) for kind in KINDS}
    for number in range(max(wanted.values())):
        for kind in (each for each, runs in wanted.items() if number < runs):
            key = f"{asked.seed}/{kind}/{number}"
            if any(each["key"] == key for each in done):
                continue
            found = _run(key, kind, asked.budget)
            done.append(found)
            with asked.ledger.open("a") as ledger:
                ledger.write(json.dumps(found) + "\n")
            print(json.dumps(found), flush=True)
    print(summary(done))


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _run(key: str, kind: str, budget: str) -> dict[str, Any]:
    rng = random.Random(key)
    case, evidence = rng.choice(CASES), rng.choice(EVIDENCE)
    share = {"same": 0.0, "slower": 0.1, "hardly": rng.uniform(0.002, 0.008)}[kind]
    candidate = case.slowed(share) if share else case.base
    folder = Path(tempfile.mkdtemp())
    port = rng.randrange(20_000, 30_000)
    otlp = f"http://127.0.0.1:{port}" if evidence == "spans" else None
    truths = [folder / name for name in ("base.jsonl", "candidate.jsonl")]
    try:
        with ExitStack() as stack:
            urls = [
                stack.enter_context(
                    running_demo(
                        params=params,
                        seed=rng.randrange(1 << 30),
                        truth=truth,
                        otlp=otlp,
                        timings=evidence == "replies",
                    )
                )
                for params, truth in zip((case.base, candidate), truths, strict=True)
            ]
            said = _gate(folder, urls, budget, f"127.0.0.1:{port}" if otlp else None)
        found = {"key": key, "kind": kind, "slowed": case.name if share else "", **said}
        true = _true(truths, case.base, candidate)
        return found | {"evidence": evidence, "true": true, "rose": _rose(truths, case, candidate)}
    finally:
        shutil.rmtree(folder)


def _gate(folder: Path, urls: list[str], budget: str, otlp: str | None) -> dict[str, Any]:
    words = ["--base", urls[0], "--cand", urls[1], "--budget", budget, "--quiet", "--json"]
    words += ["--osl", "16"]
    if otlp:
        words += ["--otlp-http", otlp, "--wait", "3s"]
    done = subprocess.run(
        [sys.executable, "-m", "latdiag", "gate", "run", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 10, 11, 12):
        return {"code": done.returncode, "verdict": "error", "says": done.stderr[-300:]}
    result = json.loads(done.stdout)["result"]
    effects = {each["name"]: each["effect"] for each in result["outcomes"]}
    return {
        "code": done.returncode,
        "verdict": result["verdict"],
        "cause": result["cause"],
        "reasons": [each["text"] for each in result["reasons"]],
        "rests_on": result["evidence"],
        "red": [o["name"] for o in result["outcomes"] if o["verdict"] == "REGRESSED"],
        "pairs": result["stop"]["measured"],
        "stop": result["stop"]["why"],
        "ttft": effects["ttft.shift"],
        "tpot": effects["tpot.shift"],
    }


def _true(truths: list[Path], base: Params, candidate: Params) -> dict[str, float]:
    """By how much the candidate's means rose, by what the servers themselves say."""
    found = []
    for path, params in zip(truths, (base, candidate), strict=True):
        lines = [json.loads(line) for line in _lines(path)]
        way = 2e6 * params.network_ms + 1e6 * params.gateway_ms
        ttft = fmean(each["first_ns"] - each["arrived_ns"] for each in lines) + way
        many = [each for each in lines if each["osl"] > 1]
        tpot = fmean((e["finished_ns"] - e["first_ns"]) / (e["osl"] - 1) for e in many)
        found.append((ttft, tpot))
    (one, slow), (two, slower) = found
    return {"ttft": round(two / one - 1, 4), "tpot": round(slower / slow - 1, 4)}


def _rose(truths: list[Path], case: Case, candidate: Params) -> str:
    """The component that took most of what the candidate lost, by what the servers themselves
    say: slower prompts under load slow the streams beside them more than themselves."""
    sums: list[dict[str, float]] = []
    for path, params in zip(truths, (case.base, candidate), strict=True):
        lines = [json.loads(line) for line in _lines(path)]
        found = {"network": 2e6 * params.network_ms, "gateway": 1e6 * params.gateway_ms}
        for leaf in lines[0]["leaves"]:
            name = leaf.partition(".")[0]
            mean = fmean(each["leaves"][leaf] for each in lines)
            found[name] = found.get(name, 0.0) + mean
        sums.append(found)
    return max(sums[0], key=lambda name: sums[1][name] - sums[0][name])


def summary(done: list[Mapping[str, Any]]) -> str:
    """A line for each kind of run."""
    lines = []
    for kind in KINDS:
        runs = [each for each in done if each["kind"] == kind]
        red = [each for each in runs if each["verdict"] == "REGRESSED"]
        void = sum(each["verdict"] == "INVALID" for each in runs)
        if not runs:
            continue
        low, high = stats.binomtest(len(red), len(runs)).proportion_ci(0.95, "exact")
        named = sum(each["rose"] in str(each["cause"]).split(" + ") for each in red)
        lines.append(
            f"{kind}: {len(runs)} runs, {len(red)} red [{low:.1%}, {high:.1%}], {void} INVALID"
            + (f", {named} of {len(red)} red name it" if kind == "slower" else "")
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
