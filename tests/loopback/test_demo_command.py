"""``latdiag demo`` as a user starts it, and the ends of its processes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from latdiag.cli import run
from latdiag.sim.demo import MEANINGS, params_of
from latdiag.sim.params import FAULTS

from .command import Command, wait_for
from .demo_client import stream, truths
from .test_resources import small_disk  # noqa: F401


def started(folder: Path, *arguments: str) -> tuple[Command, str]:
    """``latdiag demo ARGUMENTS`` on a free port, and its URL."""
    command = Command(folder, ["demo", *arguments, "--port", "0"])
    said = folder / "stdout"
    wait_for(lambda: said.read_text().endswith("\n"), 30, "the URL")
    return command, said.read_text().strip()


def refuses(url: str) -> bool:
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname, parts.port), timeout=1).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        pass  # taken on by a socket that is just being closed
    return False


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_it_serves_until_a_signal_and_then_tells_its_lateness(
    tmp_path: Path, number: int, code: int
) -> None:
    path = tmp_path / "truth.jsonl"
    command, url = started(tmp_path, "queue", "--truth", str(path), "--set", "noise=0")
    seen = stream(url, {"prompt": "a b", "max_tokens": 7}, x_request_id="it")
    command.interrupt(number)
    ended = command.end()
    assert (ended.code, ended.out) == (code, f"{url}\n")
    assert len(seen.tokens) == truths(path)["it"]["osl"] == 7
    meant, attempt, late, *_ = ended.err.splitlines()
    assert meant == f"queue: {MEANINGS['queue']}"
    assert attempt == f"try: latdiag probe {url}"
    pattern = r"7 tokens left later than scheduled by (\S+) ms \(p50\), (\S+) ms \(p99\), (\S+) ms"
    found = re.match(pattern, late)
    assert found, ended.err
    assert 0 < float(found[1]) <= float(found[2]) <= float(found[3])
    assert refuses(url) and command.group() == []


def test_a_slow_network_and_spans_are_told_of_at_the_end(tmp_path: Path) -> None:
    options = ("--set", "network_ms=5", "--otlp", "http://127.0.0.1:9")
    command, url = started(tmp_path, "network", *options)
    stream(url, {"prompt": "a", "max_tokens": 2})
    command.interrupt()
    err = command.end().err
    assert "relayed pieces left later" in err and "0 spans sent, 1 dropped" in err


def test_what_is_lost_on_purpose_is_told_of_at_the_end(tmp_path: Path) -> None:
    options = ("--otlp", "http://127.0.0.1:9", "--telemetry", "lost=1,skew")
    command, url = started(tmp_path, "kv-transfer", "--set", "kv_setup_ms=1", *options)
    stream(url, {"prompt": "a", "max_tokens": 2})
    command.interrupt()
    assert "0 spans sent, 0 dropped, 2 lost on purpose" in command.end().err


def test_quiet_leaves_the_url_alone(tmp_path: Path) -> None:
    command, url = started(tmp_path, "--quiet", "--draw", "--seed", "3")
    assert httpx.get(f"{url}/models").status_code == 200
    command.interrupt()
    ended = command.end()
    assert (ended.out, ended.err) == (f"{url}\n", "interrupted\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_as_json_it_tells_its_start_and_its_end_in_a_line_each(
    tmp_path: Path, number: int, code: int
) -> None:
    command, line = started(tmp_path, "prefill", "--json", "--quiet", "--seed", "4")
    start = json.loads(line)["demo"]
    stream(start["url"], {"prompt": "a", "max_tokens": 3})
    command.interrupt(number)
    ended = command.end()
    assert (ended.code, ended.err) == (code, "")
    _, last = map(json.loads, ended.out.splitlines())
    assert start["constants"] == json.loads(FAULTS["prefill"].to_json())
    assert (start["fault"], start["seed"]) == ("prefill", 4)
    assert last["schema"] == 1 and last["demo"]["url"] == start["url"]
    assert last["demo"]["lateness"]["n"] == 3


def test_a_server_that_dies_is_said(tmp_path: Path) -> None:
    command, _ = started(tmp_path)
    server = _children(command.pid)
    assert len(server) == 1
    os.kill(server[0], signal.SIGKILL)
    ended = command.end()
    assert ended.code == 16 and "the demo server stopped unexpectedly" in ended.err


@pytest.mark.root
@pytest.mark.parametrize("fault", ["healthy", "gateway"])
def test_a_full_disk_under_the_truth_ends_it_with_words(
    small_disk: Path,  # noqa: F811
    tmp_path: Path,
    fault: str,
) -> None:
    """Of a gateway's two files either may be the one that finds no room."""
    truth = small_disk / "truth.jsonl"
    command, url = started(tmp_path, fault, "--truth", str(truth))
    with (small_disk / "filling").open("wb", buffering=0) as filling:
        room = os.statvfs(small_disk)
        filling.write(bytes(max(0, room.f_bavail * room.f_bsize - 8192)))
    with contextlib.suppress(httpx.HTTPError, AssertionError):
        for _ in range(200):
            stream(url, {"prompt": "a", "max_tokens": 1})
    ended = command.end()
    assert (ended.code, ended.out) == (16, f"{url}\n"), ended.err
    assert f"error: cannot write {truth}" in ended.err
    assert "No space left on device; the lines before are kept" in ended.err
    assert "try: free some space, or write elsewhere with --truth" in ended.err
    lines = [each for file in small_disk.glob("truth*") for each in file.read_text().splitlines()]
    assert lines and all(map(json.loads, lines))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["quue"], "Did you mean 'queue'?"),
        (["--set", "max_seq=3"], "Did you mean max_seqs? There are overhead_ms, weights_ms"),
        (["--set", "max_seqs"], "'max_seqs' is not NAME=VALUE"),
        (["--set", "max_seqs=many"], "'many' is not a whole number"),
        (["--set", "weights_ms=slow"], "'slow' is not a number"),
        (["--set", "chunked=perhaps"], "'perhaps' is not true or false"),
        (["--set", "eos_mean=1.5"], "'1.5' is not a whole number or none"),
        (["--set", "weights_ms=-1"], "weights_ms"),
        (["--set", "weights_ms=nan"], "weights_ms"),
        (["--set", "refuses=everything"], "everything"),
        (["--set", "first_token=never"], "first_token"),
        (["--otlp", "localhost:4318"], "not an http URL"),
        (["--telemetry", "skw"], "there are skew, step"),
        (["--telemetry", "lost=3"], "a share"),
    ],
)
def test_what_cannot_be_is_a_usage_error_with_a_way_out(
    capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert run(["demo", *arguments]) == 2
    said = capsys.readouterr()
    assert says in said.err and "try: " in said.err and said.out == ""


def test_what_can_be_set_is_set(tmp_path: Path) -> None:
    changes = {
        "refuses": "temperature,ignore_eos",
        "max_model_len": "50",
        "chunked": "off",
        "eos_mean": "none",
        "first_token": "decode",
    }
    options = [f"--set={name}={value}" for name, value in changes.items()]
    command, url = started(tmp_path, *options)
    (model,) = httpx.get(f"{url}/models").json()["data"]
    body = {"prompt": "a", "max_tokens": 2}
    refused = httpx.post(f"{url}/completions", json={**body, "ignore_eos": True})
    taken = httpx.post(f"{url}/completions", json={**body, "min_tokens": 1})
    command.interrupt()
    command.end()
    assert model["max_model_len"] == 50
    assert (refused.status_code, taken.status_code) == (400, 200)


@pytest.mark.parametrize("options", [[], ["--set", "network_ms=1"]])
def test_a_port_that_is_taken_is_said(tmp_path: Path, options: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = Command(tmp_path, ["demo", "--port", str(port), *options]).end()
    assert ended.code == 16 and ended.out == ""
    assert f"did not start on port {port}" in ended.err and "--port" in ended.err


def test_a_truth_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    ended = Command(tmp_path, ["demo", "--port", "0", "--truth", "/nowhere/x"]).end()
    assert ended.code == 16 and "/nowhere/x" in ended.err


def test_every_fault_says_what_it_does() -> None:
    assert MEANINGS.keys() == FAULTS.keys()
    assert params_of("queue") is FAULTS["queue"]
    with pytest.raises(ValueError, match="healthy, queue"):
        params_of("gremlins")


# --- with their parent

_PARENT = """
import sys, time
from latdiag.sim.demo import serving
from latdiag.sim.params import Params
with serving(Params(network_ms=1), otlp=sys.argv[1]) as demo:
    print(demo.url, *demo.pids, flush=True)
    time.sleep(60)
"""


def test_all_processes_end_with_their_parent_however_that_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        otlp = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        with subprocess.Popen(
            [sys.executable, "-c", _PARENT, otlp], stdout=subprocess.PIPE, text=True
        ) as parent:
            assert parent.stdout is not None
            url, *pids = parent.stdout.readline().split()
            ours = [int(pid) for pid in pids]
            ours += [child for pid in ours for child in _children(pid)]
            assert len(ours) == 3  # server, relay, exporter of spans
            assert httpx.get(f"{url}/models").status_code == 200
            os.kill(parent.pid, signal.SIGKILL)
        try:
            wait_for(lambda: not any(map(_lives, ours)), 10, "the end of all of them")
        finally:
            for pid in filter(_lives, ours):
                os.kill(pid, signal.SIGKILL)


def _stat(pid: int) -> list[str]:
    text = Path(f"/proc/{pid}/stat").read_text()
    return text[text.rindex(")") + 2 :].split()


def _lives(pid: int) -> bool:
    try:
        return _stat(pid)[0] not in "ZX"
    except OSError:
        return False


def _children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and int(_stat(int(entry.name))[1]) == pid:
                found.append(int(entry.name))
        except OSError:
            pass
    return found
