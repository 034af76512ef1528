"""The self-audit: every rule that makes a measurement INVALID, broken on purpose.

The client is the real one, in its own processes, against a peer that notes when it sent. What a
healthy run reads is asserted rule by rule, of the best of some runs: a busy machine is no fault
of the rules. With the right to real-time priority, which readers then take, others' work stays
out of the readings; without it, what depends on the others is not asserted.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from latdiag.diagnosis.diagnose import result_of
from latdiag.model.records import OUTPUT_KINDS
from latdiag.model.terms import AUDIT_RULES
from latdiag.store.run import Run

from .command import Command, Ended, finish, load, rows_of, wait_for
from .stream_peer import Peer, streaming

#: Between tokens, s. In 50 ms of a stopped client 6 of them wait, which is less than the 10
#: segments that TCP sends without an ACK: what the peer sends is on its way at once.
ITL_S = 0.008
OPEN = ("--rate", "constant:60", "--duration", "3s", "--osl", "8")
TRIES = 3


def favoured() -> bool:
    """Whether readers may go before everybody else's work."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    with streaming(ttft_s=0.02, itl_s=ITL_S) as running:
        yield running


def readings(run: Path) -> dict[str, Any]:
    """The readings of a run's self-audit by rule, read again from what is stored."""
    audit = result_of(Run.open(str(run)), "load").to_json()["self_audit"]
    return {one["rule"]: one for one in audit["readings"]}


TITLES = {rule.name: rule.title for rule in AUDIT_RULES}


def assert_broken(ended: Ended, run: Path, rule: str) -> float:
    """INVALID (12), with the rule in words and the reading on stdout, or its name where another
    that is broken too stands before it; the reading."""
    assert ended.code == 12, ended.err + ended.out
    said = " ".join(ended.out.split())
    title = re.escape(TITLES[rule])
    first = re.match(
        rf"INVALID: {title}: ([\d.]+) \S+ \(limit ([\d.]+) \S+\)", said, re.IGNORECASE
    )
    also = re.match(rf"INVALID: .* Also over the limit: [^.]*{title}", said, re.IGNORECASE)
    assert first or also, said[:600]
    stored = readings(run)[rule]
    assert stored["broken"]
    if first:
        assert float(first[1]) == pytest.approx(stored["reading"], rel=0.01)
    return float(stored["reading"])


@contextlib.contextmanager
def stopping(pid: int, stopped_s: float, period_s: float) -> Iterator[list[float]]:
    """SIGSTOP ``pid`` for ``stopped_s`` in every ``period_s`` by a process of its own.

    Yields a list which holds, after the block, the share of time in which it was stopped.
    """
    script = (
        "import os, signal, sys, time\n"
        "pid, stop, go = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])\n"
        "begun = time.monotonic(); total = 0.0\n"
        "try:\n"
        "    while True:\n"
        "        at = time.monotonic(); os.kill(pid, signal.SIGSTOP); time.sleep(stop)\n"
        "        os.kill(pid, signal.SIGCONT); total += time.monotonic() - at; time.sleep(go)\n"
        "except ProcessLookupError:\n"
        "    print(total / (time.monotonic() - begun))\n"
    )
    arguments = [str(pid), str(stopped_s), str(period_s - stopped_s)]
    with subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        share: list[float] = []
        yield share
        told, _ = process.communicate(timeout=30)  # it ends when there is nobody to stop
        share.append(float(told))


def run_stopped(
    peer: Peer, folder: Path, stopped_s: float, *options: str, setup: str = ""
) -> tuple[Ended, Path, float]:
    """A load whose reader is stopped for so long in every 150 ms; the share of stopped time."""
    run = folder / "it.run"
    command = Command(folder, load(peer.url, run, "--workers", "1", *options), setup)
    try:
        with stopping(command.reader(), stopped_s, 0.15) as share:
            ended = command.end(60)
        return ended, run, share[0]
    finally:
        command.destroy()


# ---------------------------------------------------------------------- a healthy run
HEALTHY = ("reader_cpu", "rows_lost", "clock_step")
UNDISTURBED = ("schedule_lag", "censored", "first_censored")


def test_a_healthy_run_reads_below_every_limit(peer: Peer, tmp_path: Path) -> None:
    best: dict[str, float] = {}
    rules = HEALTHY + (UNDISTURBED if favoured() else ())
    for number in range(TRIES):
        ended, run = finish(peer.url, tmp_path / str(number), *OPEN)
        assert ended.code in (0, 12), ended.err
        found = readings(run)
        assert found["loop_lag"]["reading"] is None, "kernel stamps: a late loop does no harm"
        for rule in rules:
            assert found[rule]["reading"] is not None, found[rule]["reason"]
            best[rule] = min(found[rule]["reading"], best.get(rule, float("inf")))
        if all(best[rule] <= found[rule]["limit"] for rule in rules):
            return
    assert best == {}, "above a limit in every run"


# ---------------------------------------------------------------------- rule by rule
def test_schedule_lag(peer: Peer, tmp_path: Path) -> None:
    """A reader that does not run sends late; the requests say when they were due."""
    run = tmp_path / "it.run"
    command = Command(tmp_path, load(peer.url, run, *OPEN))
    try:
        reader = command.reader()
        wait_for(lambda: len(peer.seen()) % 180 > 20, 30, "some requests")
        os.kill(reader, signal.SIGSTOP)
        time.sleep(0.4)
        os.kill(reader, signal.SIGCONT)
        ended = command.end(60)
    finally:
        command.destroy()
    reading = assert_broken(ended, run, "schedule_lag")
    assert 10 < reading < 2000, "ms: the first of those that were due waited for 400"
    rows = rows_of(run, "due_ns", "sent_ns", "outcome")
    assert len(rows) == 180 and set(rows["outcome"]) == {"ok"}, "late, but none is left out"
    late = (rows["sent_ns"] - rows["due_ns"]) > 100e6
    assert 10 <= late.sum() <= 40


def test_censored_and_what_is_not_flagged_is_right(tmp_path: Path) -> None:
    """Stopped for 50 ms in every 150, several tokens wait in one read: only the last has its
    stamp. Those are flagged, and the intervals that are left are those that the peer sent."""
    with streaming(ttft_s=0.02, itl_s=ITL_S) as peer:
        options = ("--concurrency", "10", "--requests", "20", "--osl", "150")
        ended, run, share = run_stopped(peer, tmp_path, 0.05, *options)
        seen = {one.id: np.array(one.sent) for one in peer.seen()}
    found = result_of(Run.open(str(run)), "load").to_json()
    audit = {one["rule"]: one for one in found["self_audit"]["readings"]}
    assert audit["censored"]["broken"]
    reading = audit["censored"]["reading"]
    # The gaps that are left favour quiet moments: none is stated. The rest stands, unless too many
    # first tokens have no stamp either.
    assert found["metrics"]["itl"]["p50"]["value"] is None
    assert "overwritten stamp" in found["metrics"]["itl"]["refused"]
    assert found["metrics"]["tpot"]["mean"]["value"] is not None
    first = audit["first_censored"]
    assert ended.code == (12 if first["broken"] else 0)
    assert [one["rule"] for one in found["invalid_because"]] == ["first_censored"] * first[
        "broken"
    ]
    errors, flagged, total = [], 0, 0
    for row in rows_of(run, "request_id", "arrivals_ns", "kinds", "censored").itertuples():
        output = np.isin(row.kinds, [int(kind) for kind in OUTPUT_KINDS])
        stamps, censored = np.asarray(row.arrivals_ns)[output], np.asarray(row.censored)[output]
        sent = seen[row.request_id]
        assert len(stamps) == len(sent) == 150
        touched = censored[1:] | censored[:-1]
        gaps = np.diff(stamps)
        # The kernel took each token somewhere between the two stamps around its send.
        least, most = sent[1:, 0] - sent[:-1, 1], sent[1:, 1] - sent[:-1, 0]
        errors.append(np.maximum(least - gaps, gaps - most).clip(0)[~touched])
        flagged, total = flagged + int(touched.sum()), total + len(touched)
    error = np.concatenate(errors)
    assert error.max() <= 2e6 and np.quantile(error, 0.99) <= 50e3
    assert share > 0.2, "else nothing is shown here"
    assert 0.5 * share < flagged / total < 1.2 * share
    assert flagged / total <= 0.40 or share > 1 / 3
    assert reading == pytest.approx(100 * flagged / total, abs=0.5)


def test_reader_cpu(tmp_path: Path) -> None:
    """Millions of HTTP chunks of one byte keep a reader busy all the time."""
    if not favoured():
        pytest.skip("a reader that shares its core with others' work cannot use it up")
    body = json.dumps({"dust": 3.0})
    with streaming() as peer:
        options = ("--concurrency", "2", "--requests", "2", "--osl", "3", "--body-json", body)
        ended, run = finish(peer.url, tmp_path, *options, "--workers", "1")
    reading = assert_broken(ended, run, "reader_cpu")
    assert reading <= 101
    assert list(rows_of(run, "outcome")["outcome"]) == ["ok", "ok"]


@contextlib.contextmanager
def rivals(core: int, count: int) -> Iterator[None]:
    """Processes that do nothing but hold one core."""
    hold = f"os.sched_setaffinity(0, {{{core}}})"
    script = f"import os\n{hold}\nwhile True:\n    pass\n"
    # Sessions of their own: where the kernel shares cores by session, each is a rival.
    command = [sys.executable, "-c", script]
    busy = [subprocess.Popen(command, start_new_session=True) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def test_run_queue(peer: Peer, tmp_path: Path) -> None:
    """Rivals on its core: the reader is ready to run, and does not. The kernel's stamps do not
    wait for it, so that alone makes nothing invalid."""
    run = tmp_path / "it.run"
    core = min(os.sched_getaffinity(0))
    command = Command(tmp_path, load(peer.url, run, *OPEN, "--priority", "ordinary"))
    try:
        os.sched_setaffinity(command.reader(), {core})
        with rivals(core, 6):
            wait_for(lambda: not command.named("read"), 60, "the end of the reader")
        ended = command.end(60)
    finally:
        command.destroy()
    found = readings(run)["run_queue"]
    assert found["reading"] > 10 and found["limit"] is None and not found["broken"]
    assert ended.code in (0, 12), ended.err


def test_rows_lost(peer: Peer, tmp_path: Path) -> None:
    """A reader that is killed takes the ends of what was under way with it: they are counted,
    and what was recorded before is reported as invalid."""
    run = tmp_path / "it.run"
    options = ("--concurrency", "20", "--requests", "400", "--osl", "8")
    before = len(peer.seen())
    command = Command(tmp_path, load(peer.url, run, *options, "--workers", "2"))
    try:
        wait_for(lambda: len(peer.seen()) > before + 100, 30, "some requests")
        os.kill(command.reader(), signal.SIGKILL)
        ended = command.end(30)
    finally:
        command.destroy()
    reading = assert_broken(ended, run, "rows_lost")
    states = {w["writer"]: w for w in Run.open(str(run)).writers}
    rows = rows_of(run, "worker", "outcome")
    # Ten streams were under way in that reader; ten more may have ended or begun just then.
    assert 1 <= reading <= 20
    assert states["w0"]["counts"]["lost"] == reading
    assert states["w0"]["ended"] == "reader_lost" and states["w1"]["counts"]["lost"] == 0
    assert (rows["worker"] == "w1").sum() == 200, "the other reader goes on"
    assert set(rows[rows["worker"] == "w1"]["outcome"]) == {"ok"}
    assert Run.open(str(run)).cut_short == [f"writer w0 lost {reading:.0f} of its rows"]


#: Two seconds after the first sample of the process that samples: however long it took to start.
STEPPED = """
import os, time
from latdiag.store import clock
real, begun = clock.sample, {{}}
def stepped(tries=5):
    found = real(tries)
    since = begun.setdefault(os.getpid(), time.monotonic())
    ahead = {step} if time.monotonic() - since > 1.7 else 0
    return found._replace(real_ns=found.real_ns + ahead)
clock.sample = stepped
"""


@pytest.mark.parametrize("step", [5_000_000, -5_000_000], ids=["forward", "backward"])
def test_clock_step(peer: Peer, tmp_path: Path, step: int) -> None:
    """The machine's clock itself is left alone: what the client reads of it is moved by 5 ms."""
    options = ("--concurrency", "4", "--duration", "4s", "--osl", "30")
    ended, run = finish(peer.url, tmp_path, *options, setup=STEPPED.format(step=step))
    reading = assert_broken(ended, run, "clock_step")
    rows = rows_of(run, "sent_ns", "done_ns", "clock_step")
    (since, until), *more = Run.open(str(run)).writers[0]["clock_steps"]
    assert not more and 0.5e9 < until - since < 5e9
    astride = (rows["sent_ns"] < until) & (rows["done_ns"] > since)
    assert astride.any() and not astride.all()
    # What ended within a millisecond of the sample may fall to either side of it.
    near = (rows["done_ns"] - since).abs() < 6e6
    assert (rows["clock_step"].astype(bool) == astride)[~near].all()
    # The kernel's own stamps do not step here: after a step forward rows contradict themselves,
    # and are not among those that are read.
    marks = [batch.bools["clock_step"] for batch in Run.open(str(run)).batches()]
    assert reading == pytest.approx(100 * np.concatenate(marks).mean())


USER = """
from latdiag.load.wire import stamps
stamps.why_unavailable = lambda: "switched off by a test"
"""


def test_loop_lag_in_user_stamp_mode(peer: Peer, tmp_path: Path) -> None:
    """Without kernel stamps every lag of the loop is in the figures."""
    options = ("--concurrency", "4", "--duration", "2s", "--osl", "10")
    ended, run, _ = run_stopped(peer, tmp_path / "stopped", 0.05, *options, setup=USER)
    reading = assert_broken(ended, run, "loop_lag")
    assert 30 < reading < 1000
    assert "switched off by a test" in " ".join(ended.out.split())
    assert set(rows_of(run, "stamp_source")["stamp_source"]) == {"user"}
    healthy = []
    for number in range(TRIES):
        _, run = finish(peer.url, tmp_path / str(number), *options, setup=USER)
        found = readings(run)["loop_lag"]
        healthy.append(found["reading"])
        if healthy[-1] <= (found["limit"] if favoured() else reading / 2):
            return
    raise AssertionError(f"too much in every healthy run: {healthy}")
