"""Calls from Python that send requests: beside threads, interrupted, and left alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import latdiag
from latdiag.sim.demo import running_demo, running_echo
from latdiag.store.run import Run

from .command import ROOT, wait_for

#: Each process that is started with it bears it; so does whatever these start.
_MARK = "LATDIAG_TEST_MARK"
_SLOW_S = 300


def marked(mark: str) -> list[int]:
    """Processes that are alive and bear ``mark``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                bears = f"{_MARK}={mark}".encode() in (entry / "environ").read_bytes().split(b"\0")
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if bears and state not in "ZX":
                found.append(int(entry.name))
    return found


class Caller:
    """A Python program that calls latdiag. ``path``: where it finds more modules."""

    def __init__(self, code: str, *arguments: str, mark: str, path: Path | None = None) -> None:
        self.mark = mark
        places = [str(ROOT), *([str(path)] if path else [])]
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(places), _MARK: mark},
        )

    def others(self) -> list[int]:
        """What it has started, and what that has."""
        return [pid for pid in marked(self.mark) if pid != self.process.pid]

    def end(self) -> tuple[str, str]:
        out, err = self.process.communicate(timeout=_SLOW_S)
        return out, err

    def destroy(self) -> None:
        for pid in marked(self.mark):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait(10)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


@pytest.fixture
def callers() -> Iterator[list[Caller]]:
    """Callers that the test starts; whatever is left of them at its end is killed."""
    found: list[Caller] = []
    yield found
    for caller in found:
        caller.destroy()


# ---------------------------------------------------------------------- as in a notebook
#: A design of seconds, in place of the probe's own, and a line on each fork of latdiag's.
_SHORT = """
import os, sys
_fork = os.fork
def fork():
    heavy = sorted({"numpy", "pyarrow", "scipy", "pandas"} & set(sys.modules))
    tasks = len(os.listdir("/proc/self/task"))
    with open(os.environ["FORKS"], "a") as file:
        print(os.getpid(), os.getppid(), tasks, *heavy, file=file)
    child = _fork()
    if not child:
        from latdiag.measurement.stages import PathStage, Shot, Stage
        def probe(limits, undecided):
            yield PathStage(10, (32, 512, 1024) * 2, 2)
            shots = tuple(Shot(n, 4, -1) for n in (32, 128, 256, 512, 768, 1024) * 2)
            yield Stage("S3", shots, 1)
            yield Stage("S5", (Shot(32, 40, -1), Shot(1024, 40, -1)), 1)
            work = tuple(Shot(200 + 10 * n, 12, 40_000_000 * n) for n in range(40))
            yield Stage("S10", work, segment=1)
        import latdiag.probe.design as design
        design.probe = probe
    return child
os.fork = fork
"""
_NOTEBOOK = """
import asyncio, json, os, sys, threading
import numpy, pandas
import latdiag

ticks = 0
async def ticking():
    global ticks
    while True:
        await asyncio.sleep(0.01)
        ticks += 1
threading.Thread(target=asyncio.run, args=(ticking(),), daemon=True).start()
lock = threading.Lock()
def busy():
    while True:
        with lock:
            sum(range(100))
        threading.Event().wait(0.001)
threading.Thread(target=busy, daemon=True).start()

async def cell():  # as a notebook runs one: inside of a loop that runs
    before = ticks
    result = latdiag.run_probe(
        sys.argv[1], model="demo", out=sys.argv[2], headers={"X-Key": "secret-of-the-test"},
        slo="errors<50%",
    )
    return result, ticks - before
result, ran = asyncio.run(cell())
table = result.requests()
print(json.dumps([os.getpid(), result.verdict.sentence, len(table), result.run, ran,
                  result.slo[0].met, len(result.caveats)]))
"""


def test_a_process_with_threads_and_a_loop_probes(tmp_path: Path, callers: list[Caller]) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "sitecustomize.py").write_text(_SHORT)
    forks = tmp_path / "forks"
    run = tmp_path / "it.run"
    os.environ["FORKS"] = str(forks)
    try:
        with running_demo("queue") as url:
            caller = Caller(_NOTEBOOK, url, str(run), mark=str(tmp_path), path=tmp_path / "more")
            callers.append(caller)
            out, err = caller.end()
    finally:
        del os.environ["FORKS"]
    assert err == "", err
    pid, sentence, rows, path, ticks, met, _ = json.loads(out)
    assert sentence and rows == 40 and path == str(run) and met is True
    assert ticks > 10  # the other threads went on meanwhile
    lines = [line.split() for line in forks.read_text().splitlines()]
    # The caller never forked, what did has one thread and nothing heavy, and it is the caller's.
    assert lines and pid not in {int(line[0]) for line in lines}
    assert {tuple(line[2:]) for line in lines} == {("1",)}
    assert lines[0][1] == str(pid)
    assert caller.others() == []
    assert b"secret-of-the-test" not in b"".join(
        file.read_bytes() for file in run.rglob("*") if file.is_file()
    )


# ---------------------------------------------------------------------- ends
_LONG = """
import sys, latdiag
try:
    latdiag.run_load(sys.argv[1], duration="10m", concurrency=4, out=sys.argv[2])
except BaseException as error:
    print(type(error).__name__, isinstance(error, KeyboardInterrupt), error.run, str(error))
    assert isinstance(error, latdiag.LatdiagError)
"""


def loading(url: str, tmp_path: Path, callers: list[Caller], code: str = _LONG) -> Caller:
    """A caller whose load has written requests."""
    caller = Caller(code, url, str(tmp_path / "it.run"), mark=str(tmp_path))
    callers.append(caller)

    def begun() -> bool:
        assert caller.process.poll() is None, caller.end()
        return any((tmp_path / "it.run" / "requests").glob("*"))

    wait_for(begun, 60, "a request")
    return caller


def test_an_interrupted_call_ends_what_it_started_and_leaves_a_run(
    tmp_path: Path, callers: list[Caller]
) -> None:
    with running_echo() as url:
        caller = loading(url, tmp_path, callers)
        caller.process.send_signal(signal.SIGINT)
        out, err = caller.end()
    kind, interrupt, path, text = out.split(" ", 3)
    assert (kind, interrupt, path, err) == ("Interrupted", "True", str(tmp_path / "it.run"), "")
    assert "holds what was done until then" in text
    assert caller.others() == []
    run = Run.open(path)
    assert run.cut_short == [] and len(latdiag.diagnose_run(run).requests())


def test_an_interrupt_that_nobody_takes_ends_a_program_and_names_the_run(
    tmp_path: Path, callers: list[Caller]
) -> None:
    code = "import sys, latdiag\nlatdiag.run_load(sys.argv[1], duration='10m', out=sys.argv[2])"
    with running_echo() as url:
        caller = loading(url, tmp_path, callers, code)
        caller.process.send_signal(signal.SIGINT)
        out, err = caller.end()
    assert out == "" and caller.process.returncode not in (0, None)
    assert f"try: latdiag.diagnose_run('{tmp_path / 'it.run'}')" in err


def test_a_caller_that_is_killed_leaves_nobody_behind(
    tmp_path: Path, callers: list[Caller]
) -> None:
    with running_echo() as url:
        caller = loading(url, tmp_path, callers)
        assert caller.others()
        caller.process.kill()
        wait_for(lambda: caller.others() == [], 60, "the end of its processes")
    run = Run.open(str(tmp_path / "it.run"))
    assert run.cut_short == [] and run.frame(["outcome"]).shape[0] > 0


def test_a_measuring_process_that_is_lost_is_a_fault(
    tmp_path: Path, callers: list[Caller]
) -> None:
    with running_echo() as url:
        caller = loading(url, tmp_path, callers)
        (child,) = [pid for pid in caller.others() if os.getpgid(pid) == pid]
        os.kill(child, signal.SIGKILL)
        out, err = caller.end()
        wait_for(lambda: caller.others() == [], 60, "the end of its processes")
    assert out.startswith("LocalFault False") and "killed by SIGKILL" in out and err == ""


_STUBBORN = """
import signal, time
def main():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        time.sleep(1)
"""
_TWICE = """
import os, signal, sys, threading, time
import latdiag
from latdiag.runtime import calls
calls._MODULE = "stubborn"
def interrupt():
    for _ in range(2):
        time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt, daemon=True).start()
try:
    latdiag.run_load("http://127.0.0.1:9")
except latdiag.Interrupted as error:
    print(error.run, error)
"""


def test_a_second_interrupt_does_not_wait(tmp_path: Path, callers: list[Caller]) -> None:
    (tmp_path / "stubborn.py").write_text(_STUBBORN)
    caller = Caller(_TWICE, mark=str(tmp_path), path=tmp_path)
    callers.append(caller)
    assert caller.end() == ("None interrupted\n", "")
    assert caller.others() == []


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:9", "Connection refused"),
        ("http://no.such.host.invalid", "no.such.host.invalid"),
        ("demo:nothing", "no target demo:nothing"),
        ("file:///etc", ""),
    ],
)
def test_a_server_that_is_not_there_is_a_fault(
    url: str, words: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(latdiag.LatdiagError) as caught:
        latdiag.run_probe(url, out=tmp_path / "it.run")
    assert words in str(caught.value) and caught.value.remedy
    assert capfd.readouterr() == ("", "")


def test_an_import_is_a_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    capture = ROOT / "tests" / "captures" / "vllm-0.24.0-h200" / "tp1"
    run = latdiag.import_run(capture, out=tmp_path / "it.run")
    breakdown = latdiag.diagnose_run(run).breakdown("mean")
    assert breakdown is not None and breakdown.shares["queue"].grade == "A"
    with pytest.raises(latdiag.LatdiagError, match="exists already"):
        latdiag.import_run(capture, out=tmp_path / "it.run")
    assert capfd.readouterr() == ("", "")
