"""What is hidden in an arm: it voids a gate and is named, or is no reason for a red."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from latdiag.sim.demo import running_demo, serving
from latdiag.sim.params import FAULTS

from .failing_front import failing_front
from .gates import arms, document, ended, gate, measured_pairs

HEALTHY = FAULTS["healthy"]


def reasons(folder: Path) -> dict[str, str]:
    """Sentences by rule."""
    return {each["rule"]: each["text"] for each in document(folder)["result"]["reasons"]}


@pytest.mark.long
@pytest.mark.parametrize(
    ("base", "candidate", "options", "rules"),
    [
        # Replies that end by themselves, twice as late.
        (
            {"eos_mean": 8, "refuses": frozenset({"ignore_eos", "min_tokens"})},
            {"eos_mean": 16, "refuses": frozenset({"ignore_eos", "min_tokens"})},
            ("--osl", "64"),
            {"lengths"},
        ),
        # A cache that only one of them has, for what all prompts begin with.
        ({}, {"prefix_cache": True}, ("--shared-prefix", "112", "--osl", "8"), {"cache"}),
    ],
    ids=["longer", "cache"],
)
def test_a_hidden_difference_voids_the_run(
    tmp_path: Path,
    base: dict[str, Any],
    candidate: dict[str, Any],
    options: Sequence[str],
    rules: set[str],
) -> None:
    with (
        running_demo(params=replace(HEALTHY, **base)) as one,
        running_demo(params=replace(HEALTHY, **candidate), seed=4) as other,
    ):
        code, out, err = ended(gate(tmp_path, *arms(one, other), *options))
    assert code == 12, out + err
    assert rules <= reasons(tmp_path).keys()


@pytest.mark.long
@pytest.mark.parametrize("warm", ["base", "candidate"])
def test_a_cache_that_an_earlier_gate_filled_voids_the_run(tmp_path: Path, warm: str) -> None:
    """The same seed asks the same prompts again, and one of the arms has served them before."""
    (tmp_path / "latdiag.toml").write_text("[gate]\nseed = 5\n")
    keeps = replace(HEALTHY, prefix_cache=True)
    with running_demo(params=keeps) as used, running_demo(params=keeps, seed=4) as fresh:
        with running_demo(params=keeps, seed=5) as other:
            before = ended(gate(tmp_path, *arms(other, used), "--out", "before.json"))
            assert before[0] in (0, 12), before
        ends = (used, fresh) if warm == "base" else (fresh, used)
        code, out, err = ended(gate(tmp_path, *arms(*ends)))
    assert code == 12, out + err
    assert "prompt tokens from a cache" in reasons(tmp_path)["cache"]


@pytest.mark.long
@pytest.mark.parametrize("failing", ["base", "candidate"])
def test_errors_of_one_arm_void_the_run(tmp_path: Path, failing: str) -> None:
    """2 % of its requests; both arms are behind a front."""
    every = (50, 0) if failing == "base" else (0, 50)
    with (
        running_demo() as one,
        running_demo(seed=4) as other,
        failing_front(one, every[0]) as base,
        failing_front(other, every[1]) as candidate,
    ):
        code, out, err = ended(gate(tmp_path, *arms(base, candidate, "2m"), "--osl", "4"))
    assert code == 12, out + err
    whole = document(tmp_path)["result"]
    lost = whole["counts"]["failed"]
    place = ("base", "candidate").index(failing)
    assert lost[place] >= 8 and not lost[1 - place]
    text = reasons(tmp_path)["failed"]
    assert f"{lost[0]} of the base and {lost[1]} of the candidate failed" in text


@pytest.mark.long
def test_without_evidence_a_slow_handover_is_in_the_class_that_is_named(tmp_path: Path) -> None:
    """The client cannot see that two servers share a request, nor exclude it."""
    apart = replace(HEALTHY, disaggregated=True, first_token="decode", kv_setup_ms=10.0, kv_us=3.0)
    with (
        running_demo(params=apart) as base,
        running_demo(params=replace(apart, kv_setup_ms=40.0), seed=4) as candidate,
    ):
        code, out, err = ended(gate(tmp_path, *arms(base, candidate)))
    assert code in (10, 12), out + err
    if code == 10:
        assert "interconnect" in document(tmp_path)["result"]["cause"].split(" + ")


@pytest.mark.long
@pytest.mark.parametrize("who", ["base", "candidate", "both"])
def test_a_stall_is_no_regression(tmp_path: Path, who: str) -> None:
    """5 s in the midst of a gate over equal servers: of one of them, as where its machine does
    something else, or of both."""
    with serving(HEALTHY) as base, serving(HEALTHY, seed=4) as candidate:
        pids = {"base": base.pids, "candidate": candidate.pids}
        pids["both"] = (*base.pids, *candidate.pids)
        process = gate(tmp_path, *arms(base.url, candidate.url))
        until = time.monotonic() + 60
        while measured_pairs(tmp_path) < 2 and time.monotonic() < until:
            time.sleep(0.2)
        stop_for(5.0, pids[who])
        code, out, err = ended(process)
    assert code in (0, 12), out + err
    result = document(tmp_path)["result"]
    assert result["verdict"] != "REGRESSED" and result["cause"] is None
    # One pair is no system: neither its order nor an arm's losses.
    assert not reasons(tmp_path).keys() & {"order", "lengths", "cache", "unlike_arms"}
    # The twin that met the stall is kept: nothing is left out for being slow.
    assert sum(result["counts"]["failed"]) == 0


@pytest.mark.long
def test_a_stall_of_the_client_is_no_regression(tmp_path: Path) -> None:
    """Its machine stands still for 5 s: requests leave late, which is counted."""
    with running_demo() as base, running_demo(seed=4) as candidate:
        process = gate(tmp_path, *arms(base, candidate))
        until = time.monotonic() + 60
        while measured_pairs(tmp_path) < 2 and time.monotonic() < until:
            time.sleep(0.2)
        stop_for(5.0, (process.pid, *children_of(process.pid)))
        code, out, err = ended(process)
    assert code in (0, 12), out + err
    result = document(tmp_path)["result"]
    assert result["verdict"] != "REGRESSED" and result["cause"] is None
    assert reasons(tmp_path).keys() <= {"late", "missing", "few_pairs"}


def children_of(pid: int) -> list[int]:
    """Those that it started, and theirs."""
    own = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [found for each in own for found in (each, *children_of(each))]


def stop_for(seconds: float, pids: Sequence[int]) -> None:
    """Processes stand still and go on."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
