"""How a load beside a receiver ends when one of its processes is killed or stopped, or the disk is
full: what of the requests and of the spans is lost, and what is said of it. A table.

A cell is true where at most 5 s are lost of either and `diagnose` says so. The age of 300 s is
injected into every writer's rule of when to write; the processes are ten seconds old.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic_ns
from typing import Any

import pytest

from latdiag.store.flush import MOST_LOST_S
from latdiag.store.run import Run
from tests.loopback.command import ROOT, Command, Ended, load, wait_for
from tests.loopback.otlp_sender import export
from tests.loopback.receiver import post, state_of
from tests.loopback.stream_peer import streaming

pytestmark = pytest.mark.bench

STREAMS, AGE_S = 20, 10.0
LONG = ("--concurrency", str(STREAMS), "--requests", "1000", "--osl", "600", "--wait", "0s")
AGED = """
from latdiag.store import flush
begin = flush.Flushes.__init__
flush.Flushes.__init__ = lambda self, begun_s: begin(self, begun_s - 300)
"""
WHOM = ("parent", "read", "write", "collect")
CELLS = [
    *(f"kill -9 {whom} at {age} s" for whom in WHOM for age in (10, 300)),
    *(f"SIGSTOP 10 s {whom}" for whom in WHOM),
    "SIGTERM parent",
]
#: Cells at a time: they wait most of their time.
_AT_ONCE = 3


@dataclass
class Sender:
    """Sends a span each 50 ms, and remembers when it was answered."""

    address: str
    answered_ns: dict[str, int] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event)

    def live(self) -> None:
        number = 0
        while not self.over.wait(0.05):
            number += 1
            with contextlib.suppress(OSError):
                made = export(1, number)
                if post(self.address, made.SerializeToString())[0] == 200:
                    span = made.resource_spans[0].scope_spans[0].spans[0]
                    self.answered_ns[span.trace_id.hex()] = monotonic_ns()


@contextlib.contextmanager
def sending(address: str) -> Iterator[Sender]:
    sender = Sender(address)
    thread = threading.Thread(target=sender.live, daemon=True)
    thread.start()
    try:
        yield sender
    finally:
        sender.over.set()
        thread.join()


@dataclass(frozen=True)
class Case:
    """``client_s``, ``spans_s``: seconds before the event of which something is lost; None where
    nothing is. ``said``: what `diagnose` says of the end."""

    ended: Ended
    client_s: float | None
    spans_s: float | None
    lost_spans: int
    code: int
    said: list[str]


def _port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _diagnosed(run: Path) -> tuple[int, list[str]]:
    """The exit code of `diagnose`, and its sentences about how the run ended."""
    command = [sys.executable, "-m", "latdiag", "diagnose", str(run), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert "Traceback" not in done.stderr
    try:
        caveats = json.loads(done.stdout)["caveats"]
    except (ValueError, KeyError):
        return done.returncode, [done.stderr.strip()]
    about = ("LD110", "LD111", "LD114", "LD432", "LD433")
    return done.returncode, [c["text"] for c in caveats if c["code"] in about]


def _judged(run: Path, ended: Ended, sender: Sender, at_ns: int) -> Case:
    opened = Run.open(str(run))
    rows = opened.frame()
    newest = [stamps[-1] for stamps in rows["arrivals_ns"] if len(stamps)]
    kept = set(opened.evidence(["trace_id"])["trace_id"])
    lost = [ns for trace, ns in sender.answered_ns.items() if trace not in kept]
    client_s = (at_ns - max(newest)) / 1e9 if newest else float("inf")
    spans_s = (at_ns - min(lost)) / 1e9 if lost else None
    code, said = _diagnosed(run)
    return Case(ended, client_s if client_s > 0 else None, spans_s, len(lost), code, said)


def _cell(name: str, folder: Path) -> Case:
    whom = next(word for word in name.split() if word in WHOM)
    run, port = folder / "it.run", _port()
    arguments = load("", run, *LONG, "--otlp-http", f"127.0.0.1:{port}")
    with streaming(ttft_s=0.05, itl_s=0.1) as peer, contextlib.ExitStack() as stack:
        arguments[1] = peer.url
        command = Command(folder, arguments, AGED if "300 s" in name else "")
        stack.callback(command.destroy)
        wait_for(lambda: peer.flight()["open"] >= STREAMS, 60, "all streams")
        sender = stack.enter_context(sending(f"127.0.0.1:{port}"))
        time.sleep(AGE_S)
        pids = [command.pid] if whom == "parent" else command.named(whom)
        assert pids
        at_ns = monotonic_ns()
        number = signal.SIGSTOP if "SIGSTOP" in name else signal.SIGKILL
        for pid in pids:
            os.kill(pid, signal.SIGTERM if "SIGTERM" in name else number)
        if "SIGSTOP" in name:
            time.sleep(10.0)
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
            time.sleep(1.0)
            at_ns = monotonic_ns()
            os.kill(command.pid, signal.SIGINT)
        elif whom == "collect":  # the load goes on without it
            time.sleep(2.0)
            os.kill(command.pid, signal.SIGINT)
        ended = command.end(60)
        wait_for(lambda: not command.group(), 60, "the end of all processes")
        sender.over.set()
        return _judged(run, ended, sender, at_ns)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Case]]:
    folders = [tmp_path_factory.mktemp("end") for _ in CELLS]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = dict(zip(CELLS, pool.map(_cell, CELLS, folders), strict=True))
    yield found
    print(f"\n{'':26} exit  client s  spans s (lost)  diagnose  says")
    for name, case in found.items():
        client = "none" if case.client_s is None else f"{case.client_s:.1f}"
        spans = "none" if case.spans_s is None else f"{case.spans_s:.1f} ({case.lost_spans})"
        said = "; ".join(case.said)
        print(f"{name:26} {case.ended.code:4}  {client:>8}  {spans:>14}  {case.code:8}  {said}")


#: What a command ends with, by what was done to whom.
EXITS = {
    "kill -9 parent": -9,
    "kill -9 collect": 16,
    "kill -9": 16,
    "SIGTERM parent": 143,
    "SIGSTOP": 130,
}


@pytest.mark.parametrize("name", CELLS)
def test_little_is_lost_and_diagnose_says_so(cases: dict[str, Case], name: str) -> None:
    case = cases[name]
    assert case.ended.code == next(code for begin, code in EXITS.items() if begin in name)
    assert "Traceback" not in case.ended.err
    assert (case.client_s or 0.0) <= MOST_LOST_S
    assert (case.spans_s or 0.0) <= MOST_LOST_S
    if "kill" in name:
        # Who was killed did not close its part of the run; nothing else is cut short.
        assert any("never closed" in text or "lost" in text for text in case.said), case.said
    else:
        assert case.lost_spans == 0
        assert not any("never closed" in text for text in case.said), case.said
    assert case.code in (0, 12, 13), case.said


# ---------------------------------------------------------------------- a full disk
@contextlib.contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("no right to mount")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def _noise(spans: int) -> bytes:
    made = export(spans)
    for span in made.resource_spans[0].scope_spans[0].spans:
        span.trace_id, span.span_id = os.urandom(16), os.urandom(8)
    return bytes(made.SerializeToString())


def _filled(command: Command, run: Path, address: str) -> tuple[Ended, int]:
    """Send until the disk is full; how it ended, and how many spans were answered with 200."""
    taken = 0
    until = time.monotonic() + 120
    while command.process.poll() is None and time.monotonic() < until:
        try:
            status = post(address, _noise(500))[0]
        except OSError:
            time.sleep(0.05)
            continue
        taken += 500 * (status == 200)
        if status == 507:
            break
        time.sleep(0.02)
    time.sleep(1.0)
    if command.process.poll() is None:
        os.kill(command.pid, signal.SIGINT)
    return command.end(60), taken


@pytest.mark.root
@pytest.mark.parametrize("verb", ["load", "collect"])
def test_a_disk_that_fills_is_told_to_the_last_span(tmp_path: Path, verb: str) -> None:
    with (
        small_disk(tmp_path / "disk", "700k") as disk,
        streaming(ttft_s=0.05, itl_s=0.1) as peer,
    ):
        run, address = disk / "it.run", f"127.0.0.1:{_port()}"
        arguments: list[Any] = load(peer.url, run, *LONG, "--otlp-http", address)
        if verb == "collect":
            arguments = ["collect", "--out", str(run), "--otlp", "off", "--otlp-http", address]
            arguments += ["--duration", "1h", "--wait", "0s"]
        command = Command(tmp_path / "it", arguments)
        try:
            wait_for((run / "writers" / "collector.json").exists, 60, "the receiver")
            ended, taken = _filled(command, run, address)
        finally:
            command.destroy()
        kept = len(Run.open(str(run)).evidence(["kind"]))
        code, said = _diagnosed(run)
        counts = state_of(str(run))["counts"]
        print(
            f"\nfull disk under {verb}: exit {ended.code}; {taken} spans answered, {kept} kept,"
            f" {counts['lost']} counted as lost; diagnose {code}: {'; '.join(said)}"
        )
        assert ended.code == 16
        assert "Traceback" not in ended.err
        assert f"error: cannot write {run}/" in ended.err
        assert f"; {run} holds " in ended.err and f"{kept:,} of {taken:,} spans" in ended.err
        assert "try: free some space, or write elsewhere with --out; `latdiag dia" in ended.err
        assert taken > kept
        if counts["lost"]:
            assert counts["lost"] == taken - kept
            assert any(text.startswith(f"{taken - kept:,} rows") for text in said) or any(
                f"{taken - kept} rows" in text for text in said
            )
        else:  # the last word of the writer found no room
            assert any("never closed" in text for text in said)
