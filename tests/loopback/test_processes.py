"""The processes of a load under signals, kills and used-up resources, as a user meets them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import monotonic_ns

import pytest

from latdiag.store.flush import MOST_LOST_S
from latdiag.store.run import Run

from .command import ROOT, Command, Ended, finish, load, rows_of, wait_for
from .stream_peer import Peer, streaming

STREAMS = 50
#: 60 s of streaming: nothing of it ends by itself while a test looks on.
LONG = ("--concurrency", str(STREAMS), "--requests", "1000", "--osl", "300")
#: Seconds between two flushes of a young run, and what a busy machine may add.
FLUSH_S, SLACK_S = 1.0, 2.0


@pytest.fixture(scope="module")
def slow_peer() -> Iterator[Peer]:
    """Five tokens a second and stream."""
    with streaming(ttft_s=0.05, itl_s=0.2) as peer:
        yield peer


# ---------------------------------------------------------------------- kill -9
@dataclass(frozen=True, slots=True)
class Killed:
    ended: Ended
    run: Path
    at_ns: int
    left: list[int]
    gone_after_s: float


#: The run is five minutes old for its writer when it begins.
AGED = """
from latdiag.store import flush
begin = flush.Flushes.__init__
flush.Flushes.__init__ = lambda self, begun_s: begin(self, begun_s - 300)
"""


def _kill(kind: str, folder: Path) -> Killed:
    """50 streams under way for 5 s at least, then SIGKILL, then look what remains."""
    with streaming(ttft_s=0.05, itl_s=0.2) as peer:
        run = folder / "it.run"
        aged = AGED if kind == "writer after 300 s" else ""
        command = Command(folder, load(peer.url, run, *LONG), aged)
        try:
            wait_for(lambda: peer.flight()["open"] >= STREAMS, 60, "all streams")
            time.sleep(5.0)
            readers, writers = command.named("read"), command.named("write")
            whom = {
                "parent": [command.pid],
                "reader": readers,
                "writer": writers,
                "writer after 300 s": writers,
                "parent and reader": [command.pid, *readers],
            }[kind]
            at_ns = monotonic_ns()
            for pid in whom:
                os.kill(pid, signal.SIGKILL)
            ended = command.end(60)
            wait_for(lambda: not command.group(), 30, "the end of all processes")
            gone = (monotonic_ns() - at_ns) / 1e9
            wait_for(lambda: peer.flight()["open"] == 0, 30, "the end of the load")
            return Killed(ended, run, at_ns, command.group(), gone)
        finally:
            command.destroy()


KINDS = ("parent", "reader", "writer", "writer after 300 s", "parent and reader")


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Killed]:
    """All of them at once: what is asserted of them does not depend on the machine's speed."""
    folders = [tmp_path_factory.mktemp("killed") for _ in KINDS]
    with ThreadPoolExecutor(len(KINDS)) as pool:
        return dict(zip(KINDS, pool.map(_kill, KINDS, folders), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_after_kill_9_every_stream_is_in_the_run_up_to_the_last_flush(
    killed: dict[str, Killed], kind: str
) -> None:
    case = killed[kind]
    run = Run.open(str(case.run))
    rows = run.frame()
    assert len(rows) == STREAMS
    assert set(rows["outcome"]) == {"cut_by_client"}
    assert rows["request_id"].is_unique
    newest = max(stamps[-1] for stamps in rows["arrivals_ns"])
    period = {"writer": FLUSH_S + SLACK_S, "writer after 300 s": MOST_LOST_S}.get(kind, 1.0)
    assert newest > case.at_ns - period * 1e9, "arrivals up to the last flush"
    # At five tokens a second, 5 s and more of a stream are 20 arrivals and more in every row.
    assert min(len(stamps) for stamps in rows["arrivals_ns"]) >= 10
    assert run.cut_short, "the run must be reported as cut short"
    assert not case.left and case.gone_after_s < 20


def test_a_killed_reader_or_writer_is_reported_in_a_sentence(killed: dict[str, Killed]) -> None:
    for kind, what in (("reader", "reading"), ("writer", "writing")):
        ended = killed[kind].ended
        assert ended.code == 16, ended.err
        assert f"the {what} process of w0 ended unexpectedly" in ended.err
        assert "SIGKILL" in ended.err and "Traceback" not in ended.err


def test_rows_lost_with_a_writer_are_not_claimed_to_be_none(killed: dict[str, Killed]) -> None:
    """A writer that was killed cannot count what it took with it."""
    (state,) = Run.open(str(killed["writer"].run)).writers
    assert state["state"] == "open" and state["counts"]["lost"] is None


# ---------------------------------------------------------------------- signals
def _signalled(how: str, folder: Path, peer: Peer) -> tuple[Ended, Path]:
    run = folder / "it.run"
    command = Command(folder, load(peer.url, run, *LONG))
    try:
        before = peer.flight()["total"]
        wait_for(lambda: peer.flight()["total"] >= before + STREAMS, 60, "all streams")
        time.sleep(1.0)
        if how == "group":
            command.interrupt()
        else:
            os.kill(command.pid, getattr(signal, how))
        return command.end(60), run
    finally:
        command.destroy()


@pytest.mark.parametrize(
    ("how", "code"), [("group", 130), ("SIGINT", 130), ("SIGTERM", 143)], ids=str
)
def test_a_signal_ends_the_run_in_good_order(
    slow_peer: Peer, tmp_path: Path, how: str, code: int
) -> None:
    ended, run = _signalled(how, tmp_path, slow_peer)
    assert ended.code == code, ended.err
    assert f"Saved{run}" in "".join(ended.out.split()), "the report must be printed"
    assert f"{STREAMS} failed" in ended.out
    rows = rows_of(run, "outcome", "arrivals_ns")
    assert list(rows["outcome"]) == ["cut_by_client"] * STREAMS
    assert min(len(stamps) for stamps in rows["arrivals_ns"]) >= 2
    assert Run.open(str(run)).cut_short == [], "complete up to the signal"
    assert "Traceback" not in ended.err
    wait_for(lambda: slow_peer.flight()["open"] == 0, 10, "the end of the load")


def test_a_second_ctrl_c_does_not_wait_for_a_reader_that_hangs(
    slow_peer: Peer, tmp_path: Path
) -> None:
    run = tmp_path / "it.run"
    command = Command(tmp_path, load(slow_peer.url, run, *LONG))
    try:
        before = slow_peer.flight()["total"]
        wait_for(lambda: slow_peer.flight()["total"] >= before + STREAMS, 60, "all streams")
        time.sleep(1.5)
        os.kill(command.reader(), signal.SIGSTOP)
        command.interrupt()
        time.sleep(1.0)
        assert command.process.poll() is None, "the first one waits"
        command.interrupt()
        ended = command.end(15)
        assert ended.code == 130, ended.err
        assert "Saved" in ended.out
        assert len(rows_of(run, "outcome")) == STREAMS
        assert Run.open(str(run)).cut_short
        assert not command.group()
    finally:
        command.destroy()


def test_a_stopped_and_continued_parent_loses_nothing(tmp_path: Path) -> None:
    """The readers have their work and go on; the end is noticed when the parent goes on."""
    with streaming(ttft_s=0.01, itl_s=0.005) as peer:
        run = tmp_path / "it.run"
        options = ("--rate", "constant:40", "--requests", "100", "--osl", "4")
        command = Command(tmp_path, load(peer.url, run, *options))
        try:
            wait_for(lambda: len(peer.seen()) >= 5, 60, "some requests")
            os.kill(command.pid, signal.SIGSTOP)
            wait_for(lambda: len(peer.seen()) == 100, 30, "all requests, without the parent")
            time.sleep(0.5)
            os.kill(command.pid, signal.SIGCONT)
            ended = command.end(30)
        finally:
            command.destroy()
    assert ended.code in (0, 12), ended.err
    rows = rows_of(run, "outcome")
    assert list(rows["outcome"]) == ["ok"] * 100
    assert Run.open(str(run)).cut_short == []


# ---------------------------------------------------------------------- processes that fail
_NAMED = """
from latdiag.load.processes import run as processes
from latdiag.load.processes import reader
whole = reader.run_reader
def named(plan, name, *rest):
    reader.NAME = name
    whole(plan, name, *rest)
processes.run_reader = named
"""
RAISE = (
    _NAMED
    + """
attempt = reader.Reader._attempt
async def broken(self, work):
    if reader.NAME == "w1" and self._begun == 5:
        print("this must not reach the parent's stdout")
        raise RuntimeError("boom")
    return await attempt(self, work)
reader.Reader._attempt = broken
"""
)
#: An exception where no task waits for it: in a callback of the event loop.
RAISE_IN_CALLBACK = (
    _NAMED
    + """
hand_over = reader.Outbox.hand_over
calls = 0
def broken(self):
    global calls
    calls += 1
    if reader.NAME == "w1" and calls == 30:
        raise RuntimeError("boom")
    hand_over(self)
reader.Outbox.hand_over = broken
"""
)


@pytest.mark.parametrize("setup", [RAISE, RAISE_IN_CALLBACK], ids=["task", "callback"])
def test_a_reader_that_raises_is_reported_and_the_other_goes_on(
    tmp_path: Path, setup: str
) -> None:
    with streaming(ttft_s=0.02, itl_s=0.02) as peer:
        options = ("--requests", "80", "--concurrency", "8", "--workers", "2", "--osl", "10")
        ended, run = finish(peer.url, tmp_path, *options, setup=setup)
    rows = rows_of(run, "worker", "outcome")
    mine = rows[rows["worker"] == "w0"]
    assert list(mine["outcome"]) == ["ok"] * 40, "the other worker does all of its share"
    cut = rows[rows["worker"] == "w1"]
    assert 0 < len(cut) < 40
    assert "cut_by_client" in set(cut["outcome"]), "what was under way is kept"
    assert ended.code == 12, ended.err
    said = " ".join(ended.out.split())
    assert "INVALID: Rows lost: " in said and " rows (limit 0 rows)" in said
    (why,) = Run.open(str(run)).cut_short
    assert why.startswith("writer w1 lost ")
    assert "must not reach" not in ended.out
    assert "Traceback" not in ended.err + ended.out


DIES = """
import os, signal
from latdiag.load.processes import run as processes
def dies(*_):
    os.kill(os.getpid(), signal.SIGKILL)
processes.run_{what} = dies
"""


@pytest.mark.parametrize("what", ["reader", "writer"])
def test_a_process_that_dies_at_the_start_ends_the_load(tmp_path: Path, what: str) -> None:
    with streaming() as peer:
        options = ("--requests", "5", "--workers", "1", "--osl", "3")
        ended, run = finish(peer.url, tmp_path, *options, setup=DIES.format(what=what))
    assert ended.code == 16, ended.err
    assert "ended unexpectedly (killed by SIGKILL)" in ended.err
    assert "Traceback" not in ended.err
    assert len(rows_of(run, "outcome")) == 0
    assert Run.open(str(run)).cut_short


AFTERWARDS = """
import json, os, sys
from latdiag.load.plan import LoadPlan, Target, Work
from latdiag.load.processes.run import run_load
from latdiag.store.writer import create_run
from tests.run_documents import header

url, path = sys.argv[1:]
body = json.dumps({"model": "peer", "stream": True, "max_tokens": 3, "messages": []}).encode()
work = (Work(n, -1, 0, 3, "load", body) for n in range(20))
plan = LoadPlan(Target(url + "/v1/chat/completions"), "openai-chat", (0,) * 4, None, 10**10,
                10**10, True, 2)
before = sorted(os.listdir("/proc/self/fd"))
create_run(path, header())
end = run_load(plan, work, path, "0badcafe", lambda counts: None)
after = sorted(os.listdir("/proc/self/fd"))
try:
    child = os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    child = None
print(json.dumps({"begun": end.begun, "lost": end.lost, "faults": end.faults, "child": child,
                  "before": before, "after": after}))
"""


def test_a_load_leaves_no_child_no_zombie_and_no_descriptor(tmp_path: Path) -> None:
    import json

    with streaming() as peer:
        done = subprocess.run(
            [sys.executable, "-c", AFTERWARDS, peer.url, str(tmp_path / "it.run")],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    told = json.loads(done.stdout)
    assert told["begun"] == 20 and not told["lost"] and not told["faults"]
    assert told["child"] is None
    assert told["after"] == told["before"]
    assert done.stderr == ""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_before_the_load_leaves_nothing_behind(
    tmp_path: Path, number: int, code: int
) -> None:
    """While the target is being asked what it is, there is no run yet."""
    with streaming(ttft_s=30.0) as peer:
        run = tmp_path / "it.run"
        command = Command(tmp_path, load(peer.url, run, "--requests", "5"))
        try:
            wait_for(lambda: peer.flight()["open"] > 0, 30, "the first question")
            command.interrupt(number)
            ended = command.end(15)
        finally:
            command.destroy()
    assert ended.code == code and ended.out == ""
    assert ended.err in ("interrupted\n", "terminated\n")
    assert not run.exists() and not command.group()
