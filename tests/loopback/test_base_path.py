"""The requests that measure the path: what goes out, and what the run then says of them."""

from __future__ import annotations

import json
import os
import random
import signal
import ssl
import subprocess
import sys
import threading
import time
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latdiag.load.dialects import DIALECTS
from latdiag.load.plan import Work
from latdiag.load.processes.ids import request_id
from latdiag.load.wire import stamps
from latdiag.load.work.lengths import Lengths
from latdiag.load.work.path import path_work
from latdiag.load.work.workload import Workload
from latdiag.store.run import Run

from .command import ROOT, rows_of
from .invoke import absent
from .peers import Asked, Script, Wire, models, serving, well

#: Makes the requests of argv[3] (JSON) against the peer at argv[1], into the run at argv[2].
RUNS = """
import json, sys
from latdiag.load.wire import stamps
from latdiag.load.plan import LoadPlan, Target, Work
from latdiag.load.trust import Trust
from latdiag.load.processes.run import run_load
from latdiag.store.writer import create_run
from tests.run_documents import header

base, path, work = sys.argv[1:4]
key = ("Authorization", "Bearer key")
target = Target(base + "/v1/chat/completions", (key,), trust=Trust(verify=False))
timeout = int(2e9)
plan = LoadPlan(target, "openai-chat", (0,), None, timeout, timeout, True, 1, name="s1-path-",
                kernel_stamps=stamps.why_unavailable() is None, give_up=0.2,
                path_url=base + "/v1/models")
create_run(path, header())
work = [Work(n, due, isl, osl, stage, body.encode(), *rest)
        for n, due, isl, osl, stage, body, *rest in json.loads(work)]
light = {"numpy", "pyarrow"} & set(sys.modules)
end = run_load(plan, iter(work), path, "0badcafe", lambda counts: None)
assert not light and not {"numpy", "pyarrow"} & set(sys.modules)
print(json.dumps({"signal": end.signal, "gave_up": end.gave_up, "begun": end.begun,
                  "faults": end.faults, "lost": end.lost}))
"""
NO_STAMPS = stamps.why_unavailable()
needs_stamps = pytest.mark.skipif(NO_STAMPS is not None, reason=str(NO_STAMPS))
BODY = json.dumps({"model": "tiny", "messages": [], "stream": True, "temperature": -1})


def process(url: str, run: Path, asks: list[Work]) -> subprocess.Popen[str]:
    told = json.dumps([a._replace(body=a.body.decode()) for a in asks])
    return subprocess.Popen(
        [sys.executable, "-c", RUNS, url, str(run), told],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def made(
    script: Script, folder: Path, asks: list[Work], tls: ssl.SSLContext | None = None
) -> tuple[Any, Any, list[Asked], int]:
    """(The run's rows as they were sent, how it ended, what the peer was asked, connections)."""
    run = folder / "it.run"
    with serving(script, tls=tls) as peer:
        running = process(peer.url, run, asks)
        said, _ = running.communicate(timeout=40)
    assert running.returncode == 0
    return rows_of(run).sort_values("sent_ns"), json.loads(said), peer.asked, peer.connections


def get(number: int, fresh: bool = False, wait_s: float = 0.0) -> Work:
    return Work(number, -1, 0, 0, "S1", b"", fresh, round(wait_s * 1e9))


def refused(number: int, isl: int = 40) -> Work:
    return Work(number, -1, isl, 0, "S1", BODY.encode())


def refusing(wire: Wire, asked: Asked) -> None:
    """Lists its models, and refuses every body."""
    if not models(wire, asked):
        wire.reply(400, json.dumps({"error": {"message": "temperature must not be negative"}}))


# ---------------------------------------------------------------------- what is asked
@given(
    gets=st.integers(0, 40),
    fresh=st.integers(0, 40),
    isls=st.lists(st.integers(1, 9), max_size=9),
    seed=st.integers(0, 9),
)
def test_the_asks_are_those_wanted_in_an_order_and_at_moments_of_the_seed(
    gets: int, fresh: int, isls: list[int], seed: int
) -> None:
    def asks() -> list[Work]:
        def body(number: int, isl: int) -> bytes:
            return b"%d of %d" % (number, isl)

        return path_work("S1", gets, fresh, isls, body, count(7), random.Random(seed))

    found = asks()
    assert found == asks()
    assert [a.number for a in found] == list(range(7, 7 + gets + len(isls)))
    assert sum(not a.body for a in found) == gets
    assert sorted(a.isl for a in found if a.body) == sorted(isls)
    assert all(a.body == b"%d of %d" % (a.number, a.isl) for a in found if a.body)
    assert all(0 <= a.wait_ns <= 100_000_000 for a in found)
    # The first opens the kept connection: with it there are as many new ones as wanted.
    assert not found or not found[0].fresh
    opened = sum(a.fresh for a in found) + (1 if gets else 0)
    assert opened == (max(1, min(fresh, gets)) if gets else 0)
    assert not any(a.fresh for a in found if a.body)
    if gets:
        assert not found[0].body


def test_the_waits_are_spread_over_the_tenth_of_a_second() -> None:
    asks = path_work("S1", 400, 0, (), lambda number, isl: b"", count(), random.Random(1))
    waits = sorted(a.wait_ns / 1e9 for a in asks)
    # Kolmogorov's distance from the uniform law; 0.0815 is its 1 % bound for n = 400.
    assert max(abs(w / 0.1 - i / 400) for i, w in enumerate(waits)) < 0.0815


@pytest.mark.parametrize("dialect", ["openai-chat", "openai-completions"])
def test_a_body_to_be_refused_is_ordinary_but_for_its_temperature(dialect: str) -> None:
    workload = Workload(
        dialect=DIALECTS[dialect],
        model="tiny",
        isl=Lengths.parse("5"),
        osl=Lengths.parse("5"),
        seed=3,
        extras=frozenset({"usage", "min_tokens", "ignore_eos"}),
        overlay={"temperature": 0.5, "top_p": 0.9},
    )
    found, ordinary = (
        json.loads(text) for text in (workload.refusable(4, 40), workload.shot(4, 40, 16))
    )
    assert (found.pop("temperature"), ordinary.pop("temperature")) == (-1, 0.5)
    assert found == ordinary and found["max_tokens"] == 16 and found["top_p"] == 0.9
    said = found["prompt"] if "prompt" in found else found["messages"][0]["content"].split()
    assert len(said) == 40


# ---------------------------------------------------------------------- what comes of it
@needs_stamps
def test_rows_tell_what_was_asked_and_bear_kernel_stamps_in_order(tmp_path: Path) -> None:
    asks = [get(0), get(1), refused(2), get(3, fresh=True), refused(4, 900), get(5), get(6, True)]
    rows, end, asked, connections = made(refusing, tmp_path, asks)
    assert end == {"signal": 0, "gave_up": False, "begun": 7, "faults": [], "lost": []}
    assert connections == 3
    assert [a.method for a in asked] == ["GET", "GET", "POST", "GET", "POST", "GET", "GET"]
    assert [a.target for a in asked] == [
        "/v1/chat/completions" if a.method == "POST" else "/v1/models" for a in asked
    ]
    assert [a.body.decode() for a in asked] == ["", "", BODY, "", BODY, "", ""]
    assert all(a.header("authorization") == "Bearer key" for a in asked)
    assert asked[0].header("content-type") is None and asked[0].header("content-length") is None
    ids = [request_id("0badcafe", n) for n in range(7)]
    assert rows.request_id.tolist() == ids == [a.header("x-request-id") for a in asked]
    assert [a.header("traceparent") for a in asked] == [
        f"00-{row.trace_id}-{row.span_id}-01" for row in rows.itertuples()
    ]
    assert set(rows.stage) == {"S1"}
    kinds = ["get", "get", "refused", "get", "refused", "get", "get"]
    assert rows.scenario.tolist() == kinds
    assert rows.outcome.tolist() == ["http_error" if k == "refused" else "ok" for k in kinds]
    assert rows.status.tolist() == [400 if k == "refused" else 200 for k in kinds]
    assert rows.reused.tolist() == [False, True, True, False, True, True, False]
    assert [None if absent(v) else v for v in rows.isl_wanted] == [
        None, None, 40, None, 900, None, None
    ]  # fmt: skip
    assert all(absent(v) for v in (*rows.due_ns, *rows.osl_wanted))
    for row in rows.itertuples():
        assert absent(row.error) == (row.outcome == "ok")
        assert row.stamp_source == "kernel" and row.min_rtt_ns > 0 and not row.clock_step
        assert row.sent_ns <= row.written_ns <= row.wire_ns <= row.wire_last_ns
        assert row.wire_last_ns < row.headers_ns <= row.done_ns
        assert absent(row.tcp_ns) == row.reused
        assert row.reused or row.sent_ns <= row.tcp_ns <= row.written_ns
    # A request's end comes before the next one's beginning.
    assert (rows.done_ns.to_numpy()[:-1] <= rows.sent_ns.to_numpy()[1:]).all()


def test_tls_is_shaken_hands_on_once_a_connection(tmp_path: Path) -> None:
    trustme = pytest.importorskip("trustme")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    asks = [get(0), refused(1), get(2, fresh=True), get(3)]
    rows, _, _, connections = made(refusing, tmp_path, asks, context)
    assert connections == 2
    assert rows.outcome.tolist() == ["ok", "http_error", "ok", "ok"]
    assert [absent(at) for at in rows.tls_ns] == [False, True, False, True]
    opened = rows[~rows.reused]
    assert (opened.tcp_ns < opened.tls_ns).all() and (opened.tls_ns <= opened.written_ns).all()


def test_its_writer_speaks_as_the_others_do(tmp_path: Path) -> None:
    made(refusing, tmp_path, [get(0), refused(1), get(2, fresh=True)])
    run = Run.open(str(tmp_path / "it.run"))
    (writer,) = run.writers
    assert writer["writer"].startswith("s1-path")
    assert (writer["state"], writer["ended"], run.cut_short) == ("closed", "complete", [])
    assert writer["counts"]["begun"] == writer["counts"]["rows"] == 3
    assert writer["counts"]["lost"] == writer["counts"]["failed"] == 0
    assert len(writer["clock"]) >= 2 and writer["audit"]["reader_cpu"] is not None
    assert writer["audit"]["loop_lag"]["n"] > 0


def test_the_wait_before_a_request_is_kept_and_is_no_part_of_it(tmp_path: Path) -> None:
    waits = [0.0, 0.08, 0.02, 0.1]
    asks = [get(n, wait_s=wait) for n, wait in enumerate(waits)]
    rows, _, _, _ = made(refusing, tmp_path, asks)
    pauses = (rows.sent_ns.to_numpy()[1:] - rows.done_ns.to_numpy()[:-1]) / 1e9
    for pause, wait in zip(pauses, waits[1:], strict=True):
        assert wait - 0.001 <= pause
    assert (rows.written_ns - rows.sent_ns).max() < 50_000_000


@needs_stamps
def test_the_first_byte_of_a_reply_is_told_from_its_last(tmp_path: Path) -> None:
    spans: list[tuple[int, int]] = []

    def slowly(wire: Wire, asked: Asked) -> None:
        time.sleep(0.01)
        before = time.monotonic_ns()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
        time.sleep(0.03)
        spans.append((before, time.monotonic_ns()))
        wire.send(b"done")

    rows, _, _, _ = made(slowly, tmp_path, [get(0), get(1)])
    for row, (first, last) in zip(rows.itertuples(), spans, strict=True):
        # The stamps' clock is known to some microseconds.
        assert row.wire_last_ns < first - 9_000_000 and first - 100_000 <= row.headers_ns < last
        assert row.done_ns >= last


def test_a_server_that_takes_the_body_is_marked_and_asked_no_more(tmp_path: Path) -> None:
    def takes(wire: Wire, asked: Asked) -> None:
        if not models(wire, asked):
            well(wire, asked)

    asks = [get(0), refused(1), get(2), refused(3), get(4), refused(5)]
    rows, end, asked, _ = made(takes, tmp_path, asks)
    assert [a.method for a in asked] == ["GET", "POST", "GET", "GET"]
    assert rows.scenario.tolist() == ["get", "refused", "get", "get"]
    assert rows.outcome.tolist() == ["ok"] * 4 and rows.status.tolist() == [200] * 4
    assert [len(arrivals) for arrivals in rows.arrivals_ns] == [0, 8, 0, 0]  # a role, 7 tokens
    assert end["begun"] == 4 and not end["lost"]


@pytest.mark.parametrize("status", [404, 401, 500])
def test_any_word_of_the_servers_will_do(tmp_path: Path, status: int) -> None:
    """A path that is not there is answered as fast as one that is."""
    rows, end, _, _ = made(
        lambda wire, asked: wire.reply(status, "no"),
        tmp_path,
        [refused(n) if n % 2 else get(n) for n in range(14)],
    )
    assert rows.status.tolist() == [status] * 14 and not end["gave_up"]
    assert set(rows.outcome) == {"http_error"}


@pytest.mark.parametrize(("status", "outcome"), [(429, "rate_limited"), (503, "http_error")])
def test_a_busy_server_is_left_alone(tmp_path: Path, status: int, outcome: str) -> None:
    def busy(wire: Wire, asked: Asked) -> None:
        wire.reply(status if asked.body else 200, "{}")

    rows, _, asked, _ = made(busy, tmp_path, [get(0), refused(1), get(2), refused(3)])
    assert len(asked) == 2
    assert rows.outcome.tolist() == ["ok", outcome]


def test_a_server_that_says_nothing_is_asked_three_times(tmp_path: Path) -> None:
    rows, end, asked, _ = made(
        lambda wire, asked: wire.reset(), tmp_path, [get(n) for n in range(9)]
    )
    assert rows.outcome.tolist() == ["reset"] * 3 and len(asked) == 3
    assert not end["lost"] and not end["faults"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cuts_what_is_under_way_and_keeps_what_was(tmp_path: Path, number: int) -> None:
    waiting = threading.Event()

    def second_hangs(wire: Wire, asked: Asked) -> None:
        if asked.number == 1:
            waiting.set()
            wire.hang()
        wire.reply(200, "{}")

    run = tmp_path / "it.run"
    with serving(second_hangs) as peer:
        running = process(peer.url, run, [get(n) for n in range(5)])
        assert waiting.wait(30)
        os.killpg(running.pid, number)
        said, _ = running.communicate(timeout=30)
    end = json.loads(said)
    assert end["signal"] == number and end["begun"] == 2 and not end["lost"]
    rows = rows_of(run).sort_values("sent_ns")
    assert rows.outcome.tolist() == ["ok", "cut_by_client"]
    (writer,) = Run.open(str(run)).writers
    assert (writer["state"], writer["ended"], writer["counts"]["lost"]) == ("closed", "stopped", 0)
