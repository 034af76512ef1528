"""``latdiag gate run`` on real servers: what it finds, what it refuses, how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from latdiag.sim.demo import running_demo
from latdiag.sim.params import FAULTS

from .gates import arms, document, ended, gate, measured_pairs

HEALTHY = FAULTS["healthy"]


def test_a_slower_candidate_is_red_and_its_component_named(tmp_path: Path) -> None:
    slower = replace(HEALTHY, weights_ms=HEALTHY.weights_ms * 1.5)
    with running_demo() as base, running_demo(params=slower, seed=4) as candidate:
        code, out, err = ended(gate(tmp_path, *arms(base, candidate), "--comment", "c.md"))
    assert code in (10, 12), out + err
    found = document(tmp_path)["result"]
    if code == 12:  # other programs took the client's time
        assert found["reasons"]
        return
    assert found["cause"] == "decode"
    assert out.startswith("REGRESSED")
    assert "decode is the cause" in (tmp_path / "c.md").read_text()
    # Whatever the client measured stands in the run, and the verdict follows from the file alone.
    replayed = subprocess.run(
        [sys.executable, "-m", "latdiag", "gate", "replay", "gate.json", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (replayed.returncode, replayed.stdout) == (10, (tmp_path / "gate.json").read_text())
    again = ended(gate(tmp_path, *arms(base, candidate)))
    assert again[0] == 2 and "holds a verdict already" in again[2]


def test_what_is_cut_goes_on_and_equal_servers_are_not_red(tmp_path: Path) -> None:
    with running_demo() as base, running_demo(seed=4) as candidate:
        process = gate(tmp_path, *arms(base, candidate))
        until = time.monotonic() + 60
        while measured_pairs(tmp_path) < 3 and time.monotonic() < until:
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        code, out, err = ended(process)
        assert code == 130, out + err
        first = document(tmp_path)
        stop = first["result"]["stop"]
        assert stop["why"] == "cut" and stop["measured"] >= 1
        code, out, err = ended(gate(tmp_path, *arms(base, candidate, "90s")))
    assert code in (0, 12), out + err
    whole = document(tmp_path)
    assert whole["plan"] == first["plan"]
    measured = stop["measured"]
    for key in ("candidate_second", "kept", "failed"):
        assert whole["blocks"][key][:measured] == first["blocks"][key]
    assert whole["result"]["stop"]["measured"] > measured
    assert whole["result"]["verdict"] != "REGRESSED"


def test_a_gate_that_is_killed_goes_on(tmp_path: Path) -> None:
    """With what it kept at the last look at it, and the alpha that was spent by then is gone."""
    with running_demo() as base, running_demo(seed=4) as candidate:
        process = gate(tmp_path, *arms(base, candidate))
        until = time.monotonic() + 90
        while not (tmp_path / "gate.json").exists() and time.monotonic() < until:
            time.sleep(0.2)
        process.kill()
        assert ended(process)[0] == -signal.SIGKILL
        first = document(tmp_path)
        stop = first["result"]["stop"]
        assert stop["why"] == "cut" and stop["measured"] >= 1 and stop["spent"] > 0
        code, out, err = ended(gate(tmp_path, *arms(base, candidate, "90s")))
    assert code in (0, 12), out + err
    whole = document(tmp_path)
    assert whole["plan"] == first["plan"]
    measured = stop["measured"]
    assert whole["blocks"]["kept"][:measured] == first["blocks"]["kept"]
    assert whole["result"]["stop"]["measured"] > measured
    assert whole["result"]["stop"]["spent"] >= stop["spent"]
    # No file is left half written.
    assert {each.name for each in tmp_path.iterdir()} == {"gate.json", "latdiag-runs"}


def test_other_models_are_no_comparison(tmp_path: Path) -> None:
    with running_demo() as base, running_demo(model="another") as candidate:
        code, out, err = ended(gate(tmp_path, *arms(base, candidate)))
    assert code == 12, out + err
    assert "the arms differ in model" in out
    assert document(tmp_path)["result"]["stop"]["measured"] == 1


@pytest.mark.long
def test_an_endpoint_against_itself(tmp_path: Path) -> None:
    """In other words of the same lengths, so that a prefix cache favours neither arm."""
    words = [sys.executable, "-m", "latdiag", "gate"]
    with running_demo(params=replace(HEALTHY, prefix_cache=True)) as base:
        options = ["--base", base, "--budget", "60s", "--quiet", "--json"]
        done, planned = (
            subprocess.run(
                [*words, verb, *options], cwd=tmp_path, capture_output=True, text=True, check=False
            )
            for verb in ("aa", "plan")
        )
    assert done.returncode in (0, 12), done.stdout + done.stderr
    result = json.loads(done.stdout)["result"]
    assert result["verdict"] != "REGRESSED"
    assert all("cache" not in reason["text"] for reason in result["reasons"])
    (line,) = (tmp_path / "gate-aa.jsonl").read_text().splitlines()
    assert json.loads(line)["verdict"] == result["verdict"]
    assert "A/A run" in done.stderr
    assert planned.returncode == 0, planned.stderr
    plan = json.loads(planned.stdout)
    assert plan["pairs"] >= 12 and 0 < plan["visible"]["tpot.shift"] < 10
    assert not (tmp_path / "gate.json").exists()


@pytest.mark.long
def test_servers_that_the_gate_starts(tmp_path: Path) -> None:
    command = f"{sys.executable} -m latdiag demo healthy --quiet --port {{port}}"
    words = ["--base-cmd", command, "--cand-cmd", f"{command} --set weights_ms=7"]
    code, out, err = ended(gate(tmp_path, *words, "--budget", "60s"))
    assert code in (10, 12), out + err
    assert document(tmp_path)["result"]["cause"] in ("decode", None)


@pytest.mark.long
def test_a_round_is_a_pair_where_there_are_enough_of_them(tmp_path: Path) -> None:
    command = f"{sys.executable} -m latdiag demo healthy --quiet --port {{port}}"
    words = ["--base-cmd", command, "--cand-cmd", f"{command} --set weights_ms=7"]
    turns = ("--one-at-a-time", "--rounds", "13", "--budget", "3m", "--osl", "8")
    # Each of 26 starts and warm-ups takes what the machine lets it.
    code, out, err = ended(gate(tmp_path, *words, *turns), 580)
    assert code in (10, 12), out + err
    found = document(tmp_path)
    assert found["plan"]["pairs"] == 13 and found["plan"]["block"] >= 25
    assert found["result"]["cause"] in ("decode", None)


@pytest.mark.long
def test_servers_that_are_started_in_turn(tmp_path: Path) -> None:
    """A start of the candidate fails while rounds go on: what was measured before is kept."""
    starts = tmp_path / "starts"
    command = f"{sys.executable} -m latdiag demo healthy --quiet --port {{port}}"
    script = tmp_path / "candidate.sh"
    script.write_text(
        f"#!/bin/sh\necho >>{starts}\n"
        f"[ $(wc -l <{starts}) -lt 3 ] || {{ echo no memory; exit 3; }}\n"
        f"exec {command.replace('{port}', '$PORT')}\n"
    )
    script.chmod(0o755)
    words = ["--base-cmd", command, "--cand-cmd", str(script), "--one-at-a-time"]
    code, out, err = ended(gate(tmp_path, *words, "--budget", "90s", "--osl", "16"))
    assert code == 15, out + err
    assert "the candidate ended with status 3" in err and "  no memory" in err
    stop = document(tmp_path)["result"]["stop"]
    assert stop["why"] == "cut" and stop["measured"] >= 2
    refused = ended(gate(tmp_path, *words[:2], "--cand", "http://127.0.0.1:1", "--one-at-a-time"))
    assert refused[0] == 2 and "give --base-cmd and --cand-cmd" in refused[2]


def test_one_endpoint_twice_is_refused(tmp_path: Path) -> None:
    with running_demo() as base:
        other = base.replace("127.0.0.1", "localhost")
        code, _, err = ended(gate(tmp_path, *arms(base, other)))
    assert code == 2 and "are one endpoint" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.long
@pytest.mark.parametrize("which", ["base", "candidate"])
def test_an_arm_that_goes_down_midway_is_15_and_what_was_measured_kept(
    tmp_path: Path, which: str
) -> None:
    with running_demo() as stays:
        with running_demo(seed=4) as goes:
            ends = (goes, stays) if which == "base" else (stays, goes)
            process = gate(tmp_path, *arms(*ends))
            until = time.monotonic() + 60
            while measured_pairs(tmp_path) < 2 and time.monotonic() < until:
                time.sleep(0.2)
        code, out, err = ended(process)
    assert code == 15, out + err
    assert f"the {which} (http://127.0.0.1" in err and "no longer gives usable replies" in err
    stop = document(tmp_path)["result"]["stop"]
    assert stop["why"] == "cut" and stop["measured"] >= 1
