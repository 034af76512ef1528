"""What a load sends, when, and what of it counts: seen by the peer, and found in the run."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from latdiag.store.run import Run

from .command import Ended, finish, rows_of
from .stream_peer import Seen, streaming


def _result(ended: Ended) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ended.out)
    return found


# ---------------------------------------------------------------------- how many, on what
@pytest.mark.parametrize(("workers", "streams"), [("2", "3"), ("3", "7")])
def test_several_workers_send_exactly_what_was_asked_for(
    tmp_path: Path, workers: str, streams: str
) -> None:
    with streaming() as peer:
        options = ("--requests", "41", "--warmup", "6", "--concurrency", streams)
        ended, run = finish(
            peer.url, tmp_path, *options, "--workers", workers, "--osl", "4", "--json"
        )
        seen = peer.seen()
    assert ended.code in (0, 12), ended.err
    rows = rows_of(run, "request_id", "stage", "outcome", "worker", "trace_id")
    assert len(rows) == len(seen) == 47
    assert rows["request_id"].is_unique and rows["trace_id"].is_unique
    assert {one.id for one in seen} == set(rows["request_id"])
    assert set(rows["outcome"]) == {"ok"}
    assert dict(rows["stage"].value_counts()) == {"load": 41, "warmup": 6}
    first = {one.id for one in seen[: 6 + int(streams)]}
    warm = set(rows[rows["stage"] == "warmup"]["request_id"])
    assert warm <= first, "the warm-up comes first"
    result = _result(ended)
    assert result["load"]["requests"] == 41, "the warm-up does not count"
    assert result["metrics"]["e2e"]["mean"]["n"] == 41
    assert Run.open(str(run)).cut_short == []
    assert rows["worker"].nunique() == int(workers)


def test_each_worker_gets_work_by_its_share_of_the_streams(tmp_path: Path) -> None:
    """Three streams on two workers: else the one with one stream would be at work at the end
    for as long again, and the concurrency would not be what was asked for."""
    with streaming(ttft_s=0.03) as peer:
        options = ("--requests", "60", "--concurrency", "3", "--workers", "2", "--osl", "2")
        _, run = finish(peer.url, tmp_path, *options)
    counts = rows_of(run, "worker")["worker"].value_counts()
    assert counts["w0"] == 40 and counts["w1"] == 20


def test_a_worker_without_any_work_does_not_keep_the_load_going(tmp_path: Path) -> None:
    with streaming() as peer:
        options = ("--rate", "10", "--requests", "1", "--workers", "3", "--osl", "2")
        ended, run = finish(peer.url, tmp_path, *options)
    assert ended.code in (0, 12), ended.err
    assert len(rows_of(run, "outcome")) == 1


# ---------------------------------------------------------------------- until when
def test_after_the_duration_nothing_begins_and_everything_may_end(tmp_path: Path) -> None:
    with streaming(ttft_s=0.01, itl_s=0.05) as peer:
        options = ("--duration", "1500ms", "--concurrency", "4", "--osl", "20")
        ended, run = finish(peer.url, tmp_path, *options)
        seen = peer.seen()
    assert ended.code in (0, 12), ended.err
    rows = rows_of(run, "outcome", "sent_ns", "done_ns")
    sent = rows["sent_ns"].astype("int64")
    # A stream takes 0.97 s: the second round begins within the time and ends far beyond it.
    assert len(rows) == len(seen) == 8
    assert set(rows["outcome"]) == {"ok"}, "what was under way came to its end"
    assert sent.max() - sent.min() <= 1.5e9
    assert rows["done_ns"].max() - sent.min() > 1.6e9
    assert all(one.whole for one in seen)
    assert ended.seconds < 20


@pytest.mark.parametrize("what", ["ramp", "pause"])
def test_a_slot_that_waits_does_not_hold_up_the_end(tmp_path: Path, what: str) -> None:
    """For its start in a long ramp, or out the pause that the server asked for."""
    options = ["--duration", "1s", "--concurrency", "4", "--osl", "2"]
    if what == "ramp":
        options += ["--ramp", "60s"]
    with streaming(refuse="25" if what == "pause" else "") as peer:
        ended, run = finish(peer.url, tmp_path, *options)
        seen = peer.seen()
    rows = rows_of(run, "outcome", "sent_ns")
    assert ended.seconds < 12, "1 s of load, not 25 and not 60"
    assert Run.open(str(run)).cut_short == []
    if what == "ramp":
        assert set(rows["outcome"]) == {"ok"}
        assert {one.connection for one in seen if one.got_ns} == {seen[0].connection}
    else:
        assert list(rows["outcome"]) == ["rate_limited"] * 4, "one request a slot, then the pause"


# ---------------------------------------------------------------------- when
def test_an_open_loop_stays_open_when_the_server_is_slow(tmp_path: Path) -> None:
    """All that is due is sent when it is due, though no reply has come yet."""
    with streaming(ttft_s=1.2) as peer:
        options = ("--rate", "constant:50", "--duration", "2s", "--osl", "2")
        ended, run = finish(peer.url, tmp_path, *options)
        seen = sorted(peer.seen(), key=lambda one: one.got_ns)
        flight = peer.flight()
    assert ended.code in (0, 12), ended.err
    rows = rows_of(run, "due_ns", "sent_ns", "outcome").sort_values("due_ns")
    due, sent = rows["due_ns"].astype("int64"), rows["sent_ns"].astype("int64")
    assert len(rows) == len(seen) == 100
    assert set(rows["outcome"]) == {"ok"}
    assert list(due.diff().dropna()) == [20_000_000] * 99
    assert (sent >= due).all()
    # A closed loop in disguise would have waited: 1.2 s for each.
    assert (sent - due).median() < 0.02e9
    assert (sent - due).max() < 0.6e9
    first_end = min(one.ended_ns for one in seen)
    assert sum(one.got_ns < first_end for one in seen) >= 45, "60 are due before the first ends"
    assert flight["most_open"] >= 45


def test_a_ramp_starts_slowly_in_both_loops(tmp_path: Path) -> None:
    with streaming(ttft_s=0.01, itl_s=0.05) as peer, ThreadPoolExecutor(2) as pool:
        ramp = ("--ramp", "2s")
        rate = (*ramp, "--rate", "constant:60", "--duration", "2s", "--osl", "2")
        slots = (*ramp, "--concurrency", "8", "--requests", "8", "--osl", "50")
        opened = pool.submit(finish, peer.url, tmp_path / "o", *rate)
        closed = pool.submit(finish, peer.url, tmp_path / "c", *slots)
        runs = {"open": opened.result()[1], "closed": closed.result()[1]}
    sent = {
        name: rows_of(run, "sent_ns")["sent_ns"].astype("int64").sort_values()
        for name, run in runs.items()
    }
    # The rate grows linearly to 60/s over the 2 s: 60 requests, of which a quarter by half-time.
    assert len(sent["open"]) == pytest.approx(60, abs=1)
    half = (sent["open"] - sent["open"].min()) < 1.0e9
    assert half.sum() == pytest.approx(15, abs=3)
    # Slot k starts at k * 250 ms, and its stream outlasts the ramp.
    starts = [(one - sent["closed"].min()) / 1e9 for one in sent["closed"]]
    assert starts == pytest.approx([0.25 * slot for slot in range(8)], abs=0.12)


# ---------------------------------------------------------------------- the same again
def _bodies(seen: list[Seen]) -> list[str]:
    return [one.body for one in sorted(seen, key=lambda one: one.id[-8:])]


def test_a_seed_gives_the_same_requests_at_the_same_offsets(tmp_path: Path) -> None:
    def once(name: str, seed: str) -> tuple[list[str], list[int]]:
        with streaming() as peer:
            options = ("--rate", "poisson:30", "--requests", "25", "--osl", "uniform:2-9")
            _, run = finish(peer.url, tmp_path / name, *options, "--seed", seed)
            due = rows_of(run, "due_ns")["due_ns"].astype("int64").sort_values()
            return _bodies(peer.seen()), list(due.diff().dropna())

    with ThreadPoolExecutor(3) as pool:
        first, again, other = pool.map(once, "abc", ("7", "7", "8"))
    assert first == again
    assert len(first[0]) == 25 and len(set(first[0])) == 25, "every prompt is its own"
    assert not set(first[0]) & set(other[0])
    assert first[1] != other[1]
