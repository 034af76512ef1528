"""Servers that state a request's times in its own reply: no span, no metric, and each is told.

The truth is the demo server's own, which shares no code with what is judged.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from latdiag.sim.demo import running_demo
from latdiag.sim.params import FAULTS, Params
from tests.schema import validate

SHAPE = ("--requests", "60", "--concurrency", "4", "--isl", "300", "--osl", "16", "--seed", "3")


def told(
    tmp_path: Path, params: Params, *more: str, timings: bool = True
) -> tuple[dict[str, Any], dict[str, float]]:
    """(The result of a load, and the true shares of the server's components.)"""
    truth, out = tmp_path / "truth.jsonl", str(tmp_path / "a.run")
    with running_demo(params=params, truth=truth, timings=timings) as url:
        words = [sys.executable, "-m", "latdiag", "load", url, *SHAPE, "--out", out, *more]
        done = subprocess.run(
            [*words, "--quiet", "--json"], capture_output=True, text=True, timeout=90
        )
    assert done.returncode in (0, 12), done.stderr
    result = json.loads(done.stdout)
    validate(result)
    ids = {f"chatcmpl-{row['request_id']}" for row in lines(truth)}
    assert len(ids) >= 60
    sums: dict[str, float] = {}
    for row in lines(truth):
        if row["osl"] == 16:  # not what the load asks first
            for leaf, ns in row["leaves"].items():
                sums[leaf.partition(".")[0]] = sums.get(leaf.partition(".")[0], 0) + ns
    whole = sum(sums.values())
    return result, {name: ns / whole for name, ns in sums.items() if ns}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def shares(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    mean = result["breakdown"]["mean"]
    found = {name: entry for name, entry in mean.items() if isinstance(entry, dict)}
    assert sum(entry["sum_ns"] for entry in found.values()) == mean["total_ns"]
    return found


@pytest.mark.parametrize("fault", ["queue", "decode", "interference"])
def test_each_request_is_told_by_its_own_reply(tmp_path: Path, fault: str) -> None:
    result, true = told(tmp_path, FAULTS[fault])
    assert result["replies"]["told"] == result["replies"]["requests"] == 60
    found = shares(result)
    if any(caveat["code"] == "LD428" for caveat in result["caveats"]):
        # What nobody states took so long here, on a busy machine, that another server may have
        # had the prompts. Then the parts before the first token are one, and decode alone.
        assert fault == "decode"
        before = sum(true.get(name, 0.0) for name in ("frontend", "queue", "prefill"))
        assert found["gateway"]["share"] == pytest.approx(before, abs=0.01)
        assert found["decode"]["share"] == pytest.approx(true["decode"], abs=0.01)
        return
    for name in ("queue", "prefill", "decode"):
        assert found[name]["share"] == pytest.approx(true.get(name, 0.0), abs=0.01), name
        assert found[name]["grade"] in ("A", "B") and "members" not in found[name]
    assert found["gateway"]["members"][:2] == ["gateway", "frontend"]
    assert found["gateway"]["share"] == pytest.approx(true["frontend"], abs=0.01)
    dominant = max(true, key=lambda name: true[name])
    if result["valid"]:
        assert result["verdict"]["dominant"] == dominant
    else:  # this machine was too busy for the client, and then it withholds its verdict
        assert result["invalid_because"]
        assert result["verdict"]["dominant"] is None
        assert result["verdict"]["kind"] == "client_limited"
    assert [stack["name"] for stack in result["stacks"]] == ["vllm"]


def test_a_server_that_is_not_asked_to_states_nothing(tmp_path: Path) -> None:
    result, _ = told(tmp_path, FAULTS["healthy"], timings=False)
    assert "replies" not in result and result["breakdown"] == {}


@pytest.mark.parametrize("first", ["prefill", "decode"])
def test_a_transfer_that_a_reply_calls_queue_is_never_called_queue(
    tmp_path: Path, first: str
) -> None:
    """With prefill and decode apart the reply is of the decode server, and says queue of the way
    of the KV cache."""
    base = FAULTS["kv-transfer"]
    params = Params(
        overhead_ms=base.overhead_ms,
        weights_ms=base.weights_ms,
        disaggregated=True,
        kv_setup_ms=base.kv_setup_ms,
        kv_us=base.kv_us,
        first_token=first,
    )
    result, true = told(tmp_path, params)
    assert true["interconnect"] > 0.5
    found = shares(result)
    codes = {caveat["code"] for caveat in result["caveats"]}
    if first == "prefill":  # the token came before what the reply calls queue
        assert result["replies"]["contradicted"] == 60 and "LD427" in codes
        assert found["queue"]["share"] < 0.2
    else:
        assert "LD428" in codes
        link = next(e for e in found.values() if "interconnect" in (e.get("members") or ()))
        assert {"queue", "interconnect"} <= set(link["members"]) and link["grade"] == "E"
        of_it = sum(true.get(name, 0.0) for name in link["members"])
        assert link["lo"] - 0.01 <= of_it <= link["hi"] + 0.01


def test_a_probe_that_guesses_names_the_flag_that_would_measure(tmp_path: Path) -> None:
    words = ["probe", "demo:healthy", "--max-tokens-total", "23000", "--json", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-m", "latdiag", *words, "--out", str(tmp_path / "p.run")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    result = json.loads(done.stdout)
    validate(result)
    assert [stack["name"] for stack in result["stacks"]] == ["vllm"]
    assert "--otlp-traces-endpoint URL; then measure with --otlp" in result["verdict"]["next"]
