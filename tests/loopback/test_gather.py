"""``latdiag load --otlp``: the servers' spans beside the load, to a breakdown at its end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from latdiag.sim.demo import running_demo
from tests.schema import validate

LOAD = [sys.executable, "-m", "latdiag", "load"]
SHORT = ["--requests", "40", "--concurrency", "8", "--isl", "64", "--osl", "12", "--quiet"]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def loaded(*words: str, timeout: float = 90) -> tuple[int, dict[str, Any], str]:
    done = subprocess.run(
        [*LOAD, *words, "--json"], capture_output=True, text=True, timeout=timeout
    )
    document = json.loads(done.stdout)
    validate(document)
    return done.returncode, document, done.stderr


def test_a_load_that_hears_the_server_says_where_the_time_went(tmp_path: Path) -> None:
    port = free_port()
    with running_demo("queue", otlp=f"http://127.0.0.1:{port}") as url:
        code, result, said = loaded(
            *(url, *SHORT, "--otlp-http", f"127.0.0.1:{port}", "--wait", "1s"),
            *("--out", str(tmp_path / "a.run")),
        )
    assert code in (0, 12), said
    evidence = result["evidence"]
    assert evidence["requests"] == evidence["joined"] == evidence["told"] == 40
    assert evidence["joined_by"]["trace_id"] == 40
    shares = result["breakdown"]["mean"]
    assert shares["queue"]["grade"] == "A" and shares["queue"]["share"] > 0.5
    parts = [e["sum_ns"] for e in shares.values() if isinstance(e, dict)]
    assert sum(parts) == shares["total_ns"]
    assert result["collected"]["accepted"] >= 40
    (clock,) = evidence["clocks"]
    assert abs(clock["offset_ms"]) <= clock["half_width_ms"] + 1  # one host, one clock


def test_the_built_in_server_is_told_where_to_send_its_spans(tmp_path: Path) -> None:
    port = free_port()
    options = (
        "--otlp-http",
        f"127.0.0.1:{port}",
        "--wait",
        "1s",
        "--out",
        str(tmp_path / "a.run"),
    )
    code, result, said = loaded("demo:prefill", *SHORT, *options)
    assert code in (0, 12), said
    assert result["evidence"]["told"] == 40


def test_a_server_that_says_nothing_leaves_a_load_as_it_was(tmp_path: Path) -> None:
    with running_demo("healthy") as url:
        code, result, said = loaded(
            *(url, *SHORT, "--otlp-http", f"127.0.0.1:{free_port()}", "--wait", "200ms"),
            *("--out", str(tmp_path / "a.run")),
        )
    assert code in (0, 12), said
    assert "evidence" not in result and result["breakdown"] == {}
    assert "LD424" in {caveat["code"] for caveat in result["caveats"]}


@pytest.mark.parametrize(
    ("options", "code", "word"),
    [
        (["--otlp", "http://127.0.0.1:9"], "usage", "HOST:PORT"),
        (["--otlp", "0.0.0.0:0"], "usage", "token"),
        (
            ["--otlp", "127.0.0.1:0", "--token-env", "NO_SUCH_VARIABLE"],
            "usage",
            "NO_SUCH_VARIABLE",
        ),
        (["--metrics", "ftp://127.0.0.1/"], "usage", ""),
        (["--otlp", "127.0.0.1:0", "--forward", "nowhere"], "usage", ""),
    ],
)
def test_options_that_cannot_be_cost_no_request(
    tmp_path: Path, options: list[str], code: str, word: str
) -> None:
    out = tmp_path / "a.run"
    status, document, _ = loaded("http://127.0.0.1:9", *options, "--out", str(out))
    assert status == 2 and document["error"]["code"] == code
    assert word in document["error"]["text"] + document["error"]["remedy"]
    assert not out.exists()


def test_a_port_that_is_taken_is_said_before_the_load_begins(tmp_path: Path) -> None:
    with socket.socket() as taken, running_demo("healthy") as url:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        out = str(tmp_path / "a.run")
        status, document, _ = loaded(url, *SHORT, "--otlp-http", where, "--out", out)
    assert status == 16
    assert where.rpartition(":")[2] in document["error"]["text"]


def test_whoever_interrupts_the_wait_for_late_spans_keeps_the_result(tmp_path: Path) -> None:
    port = free_port()
    words = ["--otlp-http", f"127.0.0.1:{port}", "--wait", "60s", "--out", str(tmp_path / "a.run")]
    quick = [word for word in SHORT if word != "--quiet"]
    with running_demo("healthy", otlp=f"http://127.0.0.1:{port}") as url:
        load = subprocess.Popen(
            [*LOAD, url, *quick, *words, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert load.stderr is not None
        for line in load.stderr:
            if line.startswith("waiting"):
                break
        time.sleep(0.3)
        load.send_signal(signal.SIGINT)
        out, _ = load.communicate(timeout=30)
    assert load.returncode == 130
    assert json.loads(out)["evidence"]["told"] == 40


@pytest.mark.skipif(not Path("/proc/self/comm").exists(), reason="finds the child by /proc")
def test_a_receiver_that_dies_costs_no_measurement(tmp_path: Path) -> None:
    port = free_port()
    words = ["--otlp-http", f"127.0.0.1:{port}", "--wait", "1s", "--out", str(tmp_path / "a.run")]
    with running_demo("healthy", otlp=f"http://127.0.0.1:{port}") as url:
        load = subprocess.Popen(
            [*LOAD, url, "--duration", "4s", "--concurrency", "4", "--quiet", *words, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        receiver = receiver_of(load.pid)
        under_way = tmp_path / "a.run" / "writers" / "w0.json"
        until = time.monotonic() + 60
        while not under_way.exists() and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(1.5)
        os.kill(receiver, signal.SIGKILL)
        out, err = load.communicate(timeout=60)
    result = json.loads(out)
    validate(result)
    assert load.returncode in (12, 16)
    assert result["load"]["ok"] > 0
    (unheard,) = [one["text"] for one in result["caveats"] if one["code"] == "LD433"]
    assert "the collecting process ended unexpectedly" in unheard
    assert "LD110" not in {caveat["code"] for caveat in result["caveats"]}  # the load was done
    assert err.count("error: the collecting process ended unexpectedly; ") == 1
    assert f"{tmp_path}/a.run holds " in err and f" {result['load']['requests']} requests" in err


def receiver_of(pid: int) -> int:
    """The collecting child of a process, once it is there."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        for entry in Path("/proc").iterdir():
            try:
                status = (entry / "status").read_text().splitlines()
            except OSError:
                continue
            found = dict(line.split(":\t", 1) for line in status if ":\t" in line)
            if found.get("Name") == "latdiag-collect" and found.get("PPid") == str(pid):
                return int(entry.name)
        time.sleep(0.02)
    raise AssertionError("no receiver was started")
