"""``latdiag load --metrics``: the demo server's sums, request by request, over real sockets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from latdiag.sim.demo import running_demo
from latdiag.sim.params import Params
from latdiag.sim.telemetry import Telemetry

from .demo_client import stream, truths
from .invoke import Ended, loaded, well_measured

#: Three seats for eight streams: most of the time goes to waiting for one.
BUSY = Params(overhead_ms=0.5, weights_ms=3.0, compute_us=60.0, max_seqs=3, noise=0.0)
_WORK = ("--concurrency", "8", "--isl", "64", "--osl", "8", "--seed", "3", "--quiet")
N = 120


def load(folder: Path, url: str, *metrics: str, n: int = N, more: tuple[str, ...] = ()) -> Ended:
    asked = [word for each in metrics for word in ("--metrics", each)]
    ended = loaded(folder, url, "--requests", str(n), *_WORK, *asked, *more)
    assert well_measured(ended), ended.err
    return ended


def page(url: str) -> str:
    return f"{url.removesuffix('/v1')}/metrics"


def own(path: Path, ended: Ended) -> list[dict[str, Any]]:
    """The truth of the run's own requests, by their ids."""
    told = truths(path)
    return [told[row["request_id"]] for row in ended.rows().values()]


def leaves_ns(lines: list[dict[str, Any]], component: str) -> int:
    return sum(
        ns
        for line in lines
        for leaf, ns in line["leaves"].items()
        if leaf.startswith(f"{component}.")
    )


def codes(ended: Ended) -> set[str]:
    return {each["code"] for each in ended.result["caveats"]}


def test_queue_and_prefill_are_those_of_the_truth(tmp_path: Path) -> None:
    path = tmp_path / "truth.jsonl"
    with running_demo(params=BUSY, truth=path) as url:
        ended = load(tmp_path, url, page(url))
    result, told = ended.result, own(path, ended)
    found = result["breakdown"]["mean"]
    # The metrics hold seconds as doubles, added up.
    for name in ("queue", "prefill"):
        assert found[name]["sum_ns"] == pytest.approx(leaves_ns(told, name), abs=1000), name
        assert found[name]["grade"] == "B"
    assert found["queue"]["share"] > 0.4
    assert found["frontend"]["members"] == ["frontend", "gateway"]
    assert found["frontend"]["sum_ns"] >= leaves_ns(told, "frontend")
    parts = [entry for entry in found.values() if isinstance(entry, dict)]
    assert sum(entry["sum_ns"] for entry in parts) == found["total_ns"]
    said = result["aggregates"]
    assert (said["verdict"], said["own"], said["bias"]) == ("own", N, 0.0)
    assert {"name": "vllm", "grounds": "its metrics"} in result["stacks"]
    assert not {"LD416", "LD417", "LD418", "LD419"} & codes(ended)


def test_a_warm_up_is_in_the_sums_and_not_in_the_result(tmp_path: Path) -> None:
    path = tmp_path / "truth.jsonl"
    with running_demo(params=BUSY, truth=path) as url:
        ended = load(tmp_path, url, page(url), more=("--warmup", "16"))
    result = ended.result
    said = result["aggregates"]
    assert said["own"] == said["finished"]["unified"] == N + 16 and said["used"]
    counted = [
        truths(path)[row["request_id"]]
        for row in ended.rows().values()
        if row["stage"] != "warmup"
    ]
    assert len(counted) == N == result["breakdown"]["mean"]["n"]
    share = leaves_ns(counted, "queue") / result["breakdown"]["mean"]["total_ns"]
    assert result["breakdown"]["mean"]["queue"]["share"] == pytest.approx(share, abs=0.02)


def test_somebody_else_s_requests_are_bounded_not_claimed(tmp_path: Path) -> None:
    path = tmp_path / "truth.jsonl"
    with running_demo(params=BUSY, truth=path) as url, _visitor(url) as visits:
        ended = load(tmp_path, url, page(url))
    told, said = own(path, ended), ended.result["aggregates"]
    assert len(visits) > 0
    assert said["verdict"] == "others" and not said["used"]
    assert said["own"] == N < said["finished"]["unified"]
    assert "LD416" in codes(ended) and ended.result["breakdown"] == {}
    for name in ("queue", "prefill"):
        (claim,) = (claim for claim in said["claims"] if claim["of"] == [name])
        assert claim["mean_ms"] is None and claim["n"] == N
        truth = leaves_ns(told, name) / 1e6 / N
        assert claim["lo_ms"] <= truth * (1 + 1e-9) and truth <= claim["hi_ms"] * (1 + 1e-9)


@contextmanager
def _visitor(url: str) -> Iterator[list[int]]:
    """Somebody who sends a request after the other."""
    done = threading.Event()
    visits: list[int] = []

    def visit() -> None:
        while not done.is_set():
            visits.append(stream(url, {"prompt": "a b c", "max_tokens": 6}).status)

    thread = threading.Thread(target=visit)
    thread.start()
    try:
        yield visits
    finally:
        done.set()
        thread.join()


def test_counters_that_begin_anew_say_nothing(tmp_path: Path) -> None:
    # The load goes on for some 4 s; a process that is younger by a second is another one.
    with running_demo(params=BUSY, telemetry=Telemetry(reset_after_s=2.5)) as url:
        ended = load(tmp_path, url, page(url), n=400)
    said = ended.result["aggregates"]
    assert said["verdict"] == "uncounted" and said["claims"] == []
    (replica,) = said["replicas"]
    assert replica["left_out"] == "its process restarted during the window"
    assert {"LD416", "LD419"} <= codes(ended) and ended.result["breakdown"] == {}


# ---------------------------------------------------------------------- two replicas
@contextmanager
def _balanced(*urls: str) -> Iterator[str]:
    """The URL of a balancer that gives connections to the servers in turn."""
    places = [(urlsplit(url).hostname, urlsplit(url).port) for url in urls]
    open_sockets: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener, ExitStack() as stack:
        thread = threading.Thread(target=_accept, args=(listener, places, open_sockets))
        thread.start()
        stack.callback(thread.join)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        finally:
            for each in (listener, *open_sockets):
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, places: list[Any], held: list[socket.socket]) -> None:
    threads = []
    with suppress(OSError):
        while True:
            near, _ = listener.accept()
            far = socket.create_connection(places[len(held) // 2 % len(places)])
            for one, other in ((near, far), (far, near)):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                held.append(one)
                threads.append(threading.Thread(target=_pass_on, args=(one, other)))
                threads[-1].start()
    for thread in threads:
        thread.join()
    for one in held:
        one.close()


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def test_two_replicas_are_added_and_shown_apart(tmp_path: Path) -> None:
    slow = Params(overhead_ms=0.5, weights_ms=9.0, compute_us=60.0, max_seqs=2, noise=0.0)
    paths = [tmp_path / "1.jsonl", tmp_path / "2.jsonl"]
    with (
        running_demo(params=BUSY, truth=paths[0]) as one,
        running_demo(params=slow, truth=paths[1]) as two,
        _balanced(one, two) as url,
    ):
        ended = load(tmp_path, url, page(one), page(two))
    ids = {row["request_id"] for row in ended.rows().values()}
    told = [[t for key, t in truths(path).items() if key in ids] for path in paths]
    assert all(told) and sum(map(len, told)) == N
    found = ended.result["breakdown"]["mean"]
    for name in ("queue", "prefill"):
        truth = sum(leaves_ns(each, name) for each in told)
        assert found[name]["sum_ns"] == pytest.approx(truth, abs=1000)
    replicas = {each["replica"]: each for each in ended.result["aggregates"]["replicas"]}
    for url, mine in ((one, told[0]), (two, told[1])):
        assert replicas[page(url)]["finished"] == len(mine)
        (queue,) = (c for c in replicas[page(url)]["claims"] if c["of"] == ["queue"])
        assert queue["mean_ms"] == pytest.approx(leaves_ns(mine, "queue") / 1e6 / len(mine))


def test_one_of_two_replicas_is_not_enough(tmp_path: Path) -> None:
    with (
        running_demo(params=BUSY) as one,
        running_demo(params=BUSY) as two,
        _balanced(one, two) as url,
    ):
        ended = load(tmp_path, url, page(one), n=60)
    assert ended.result["aggregates"]["verdict"] == "contradictory"
    assert ended.result["aggregates"]["claims"] == []
    assert "other servers must have served the rest" in ended.result["aggregates"]["why"]
