"""The demo's gateway: what it does to POSTs and their streams, and that it says so exactly."""

from __future__ import annotations

import itertools
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from latdiag.sim.demo import MEANINGS, serving
from latdiag.sim.params import FAULTS, OF_SERVER, Params, draw

from .demo_client import Seen, stream, truths

MS = 1_000_000
#: Two clocks are read for one instant: kernel stamps are REALTIME.
CLOCKS_NS = 2 * MS
FAST: dict[str, Any] = {"overhead_ms": 1.0, "weights_ms": 4.0, "frontend_ms": 0.0, "noise": 0.0}
ASK: dict[str, Any] = {"model": "demo", "prompt": [1] * 20, "max_tokens": 16, "ignore_eos": True}


def through(tmp_path: Path, n: int = 1, **gateway: Any) -> list[tuple[Seen, dict[str, Any]]]:
    """Requests at once: as the client saw each, and what the gateway says of it."""
    place = tmp_path / "truth.jsonl"
    with serving(Params(**FAST, **gateway), truth=place) as demo, ThreadPoolExecutor(n) as pool:
        asked = [pool.submit(stream, demo.url, ASK, x_request_id=f"r{i}") for i in range(n)]
        seen = [each.result() for each in asked]
    lines = Path(f"{place}.gateway").read_text().splitlines()
    visits = {one["request_id"]: one for one in map(json.loads, lines)}
    server = truths(place)
    assert len(visits) == n
    for i in range(n):
        check(seen[i], visits[f"r{i}"], server[f"r{i}"])
    return [(seen[i], visits[f"r{i}"]) for i in range(n)]


def check(seen: Seen, visit: dict[str, Any], server: dict[str, Any]) -> None:
    """The gateway's own account holds together, and with the server's it fits into what the
    client waited."""
    assert seen.status == 200 and len(seen.tokens) == 16
    order = ("request_in_ns", "request_out_ns", "first_in_ns", "first_out_ns", "last_out_ns")
    assert [visit[name] for name in order] == sorted(visit[name] for name in order)
    assert visit["request_in_ns"] >= seen.sent_ns - CLOCKS_NS
    assert visit["last_out_ns"] <= seen.done_ns + CLOCKS_NS
    front = visit["request_out_ns"] - visit["request_in_ns"]
    back = visit["last_out_ns"] - visit["last_in_ns"]
    assert visit["gateway_ns"] == front + back
    engine = server["finished_ns"] - server["arrived_ns"]
    assert visit["gateway_ns"] + engine <= seen.done_ns - seen.sent_ns + CLOCKS_NS
    assert server["arrived_ns"] >= visit["request_out_ns"] - CLOCKS_NS
    assert visit["last_in_ns"] >= server["finished_ns"] - CLOCKS_NS


def test_a_post_is_delayed_and_a_get_is_not(tmp_path: Path) -> None:
    [(seen, visit)] = through(tmp_path, gateway_ms=300.0)
    assert visit["gateway_ns"] >= 300 * MS
    with serving(Params(**FAST, gateway_ms=300.0)) as demo:
        begun = time.monotonic_ns()
        assert httpx.get(f"{demo.url}/models").status_code == 200
        took = time.monotonic_ns() - begun
        [refused] = [httpx.post(f"{demo.url}/completions", json={"model": "demo"})]
    assert refused.status_code == 400 and took < seen.done_ns - seen.sent_ns


def test_work_on_each_token_draws_the_stream_out(tmp_path: Path) -> None:
    [(_, visit)] = through(tmp_path, gateway_token_ms=20.0)
    # 16 tokens take 16 times the work, and the server made the last one long before. (The first
    # may leave late on a busy machine.)
    assert visit["last_out_ns"] - visit["request_out_ns"] >= 16 * 20 * MS
    assert visit["last_out_ns"] - visit["last_in_ns"] >= 150 * MS


def test_a_stream_is_held_back_and_its_end_leaves_at_once(tmp_path: Path) -> None:
    [(_, visit)] = through(tmp_path, gateway_flush_ms=40.0)
    assert visit["first_out_ns"] - visit["first_in_ns"] >= 30 * MS
    # The last token waits for nobody: so much less than a beat of the timer.
    assert visit["last_out_ns"] - visit["last_in_ns"] < 40 * MS


def test_so_many_go_through_at_once(tmp_path: Path) -> None:
    visits = [visit for _, visit in through(tmp_path, n=4, gateway_admits=1)]
    turns = sorted(visits, key=lambda visit: visit["request_out_ns"])
    for before, after in itertools.pairwise(turns):
        assert after["request_out_ns"] >= before["last_in_ns"]


def test_a_client_that_leaves_gives_its_place_to_the_next(tmp_path: Path) -> None:
    with serving(Params(**FAST, gateway_admits=1)) as demo:
        long = {**ASK, "max_tokens": 3000, "stream": True}
        with (
            httpx.Client() as client,
            client.stream("POST", f"{demo.url}/completions", json=long) as reply,
        ):
            next(reply.iter_lines())
        assert len(stream(demo.url, ASK).tokens) == 16


def test_gateway_and_network_stand_one_behind_the_other(tmp_path: Path) -> None:
    [(seen, visit)] = through(tmp_path, gateway_ms=50.0, network_ms=40.0)
    assert visit["gateway_ns"] >= 50 * MS
    assert seen.done_ns - seen.sent_ns >= visit["gateway_ns"] + 2 * 40 * MS


def test_the_faults_of_gateways_have_names() -> None:
    named = [name for name in FAULTS if name not in OF_SERVER]
    assert named == ["gateway", "gateway-tokens", "gateway-flush", "gateway-queue"]
    assert all(name in MEANINGS for name in named)


@pytest.mark.parametrize("fault", [name for name in FAULTS if name not in OF_SERVER])
def test_a_drawn_gateway_has_its_fault_and_is_the_same_again(fault: str) -> None:
    assert draw(fault, 3).has_gateway and draw(fault, 3) == draw(fault, 3) != draw(fault, 4)
