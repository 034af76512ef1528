"""The demo server over sockets: what a client sees, and that the truth file says the same."""

from __future__ import annotations

import http.client
import json
import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from latdiag.runtime.children import fresh
from latdiag.sim import server
from latdiag.sim.connection import receive, want_stamps
from latdiag.sim.demo import Demo, running_demo, serving
from latdiag.sim.openai import TEMPLATE_TOKENS
from latdiag.sim.params import FAULTS, Params
from latdiag.sim.process import command

from .command import wait_for
from .demo_client import PATIENCE_NS, figure, metrics, post, stream, tcp, truths

#: Quick, and without noise: a step of one decode takes 2.02 ms and a little for its context.
QUICK = Params(overhead_ms=0.5, weights_ms=1.5, noise=0.0, kv_ns=0.0, max_seqs=8)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_demo(params=QUICK, model="m") as found:
        yield found


# --- what it answers


def test_a_chat_is_streamed_token_by_token_with_role_ids_and_usage(url: str) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "a b c"}], "max_tokens": 6}
    seen = stream(url, body, "chat/completions", x_request_id="my-7")
    (_, role), *_ = seen.events
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert len(seen.tokens) == 6
    assert [e["choices"][0]["finish_reason"] for _, e in seen.tokens] == [None] * 5 + ["length"]
    assert {e["id"] for _, e in seen.events[:-1]} == {"chatcmpl-my-7"}
    isl = 3 + TEMPLATE_TOKENS
    assert seen.events[-2][1]["usage"] == {
        "prompt_tokens": isl,
        "completion_tokens": 6,
        "total_tokens": isl + 6,
    }
    assert seen.events[-1][1] == "[DONE]"


def test_a_completion_takes_token_ids_and_tells_them(url: str) -> None:
    body = {"prompt": [5, 6, 7], "max_tokens": 4, "return_token_ids": True}
    options = {"include_usage": True, "continuous_usage_stats": True}
    seen = stream(url, {**body, "stream_options": options})
    assert [len(e["choices"][0]["token_ids"]) for _, e in seen.tokens] == [1] * 4
    assert seen.tokens[0][1]["choices"][0]["prompt_token_ids"] == [5, 6, 7]
    assert [e["usage"]["completion_tokens"] for _, e in seen.tokens] == [1, 2, 3, 4]


def test_without_stream_the_reply_comes_whole(url: str) -> None:
    reply = post(url, {"prompt": "a b", "max_tokens": 5})
    choice = reply.json()["choices"][0]
    assert (len(choice["text"].split()), choice["finish_reason"]) == (5, "length")
    assert reply.json()["usage"]["prompt_tokens"] == 2


def test_it_says_what_it_is(url: str) -> None:
    (model,) = httpx.get(f"{url}/models").json()["data"]
    assert (model["id"], model["max_model_len"]) == ("m", QUICK.max_model_len)
    assert httpx.get(url.replace("/v1", "/health")).status_code == 200
    wrong = [httpx.get(f"{url}/completions"), httpx.get(f"{url}/x"), post(url, b"", "models")]
    assert [reply.status_code for reply in wrong] == [405, 404, 405]


def test_replies_end_by_themselves_where_the_model_does_and_the_client_lets_them() -> None:
    with running_demo(params=Params(weights_ms=0.2, overhead_ms=0.2, eos_mean=4)) as url:
        body = {"prompt": "a b", "max_tokens": 60}
        free = [post(url, body).json() for _ in range(20)]
        lengths = [reply["usage"]["completion_tokens"] for reply in free]
        assert len(set(lengths)) > 1 and max(lengths) < 60
        assert {reply["choices"][0]["finish_reason"] for reply in free} == {"stop"}
        for more, least in (({"min_tokens": 40}, 40), ({"ignore_eos": True}, 60)):
            reply = post(url, {**body, **more}).json()
            assert reply["usage"]["completion_tokens"] >= least


def test_what_is_refused_takes_the_time_of_its_tokenisation_and_rubbish_does_not() -> None:
    """The least of several, so that a busy machine can only prove too little."""
    slow = Params(frontend_ms=30, frontend_us=200, max_model_len=300, kv_blocks=10)
    prompt = {"prompt": [1] * 150}
    with running_demo(params=slow) as url:
        for body, least_s in (
            ({**prompt, "temperature": -1}, 0.06),
            ({**prompt, "max_tokens": 200}, 0.06),
            ({"prompt": [1] * 400}, 0.11),
            ({**prompt, "max_tokens": 50}, 0.06),  # more than the KV cache holds
        ):
            replies = [post(url, body) for _ in range(3)]
            assert {reply.status_code for reply in replies} == {400}
            assert all(reply.json()["error"]["message"] for reply in replies)
            assert min(reply.elapsed.total_seconds() for reply in replies) >= least_s
        rubbish = [post(url, b"{") for _ in range(10)]
        assert {reply.status_code for reply in rubbish} == {400}
        assert min(reply.elapsed.total_seconds() for reply in rubbish) < 0.03
        assert figure(url, "latdiag_demo_requests_refused_total") == 12


def test_headers_come_when_the_prompt_is_parsed_and_not_with_the_first_token() -> None:
    slow = Params(frontend_ms=20, weights_ms=300, noise=0.0)
    with running_demo(params=slow) as url:
        seen = stream(url, {"prompt": "a", "max_tokens": 1})
    assert seen.headers_ns - seen.sent_ns >= 20_000_000
    assert seen.tokens[0][0] - seen.headers_ns >= 150_000_000


# --- the truth


def test_the_truth_is_what_the_clients_saw(tmp_path: Path) -> None:
    path = tmp_path / "truth.jsonl"
    params = Params(overhead_ms=0.5, weights_ms=3.0, max_seqs=3, noise=0.1)
    bodies: list[dict[str, Any]] = [
        {"prompt": [1] * (20 + n), "max_tokens": 5 + n % 4} for n in range(12)
    ]
    with serving(params, seed=3, truth=path) as demo:
        with ThreadPoolExecutor(12) as pool:
            calls = [
                pool.submit(stream, demo.url, body, x_request_id=f"r{n}")
                for n, body in enumerate(bodies)
            ]
            replies = [call.result() for call in calls]
        found = truths(path)
        successes = figure(demo.url, "vllm:request_success_total")
    assert found.keys() == {f"r{n}" for n in range(12)} and successes == 12
    for n, (body, seen) in enumerate(zip(bodies, replies, strict=True)):
        truth = found[f"r{n}"]
        assert (truth["isl"], truth["osl"]) == (len(body["prompt"]), body["max_tokens"])
        assert sum(truth["leaves"].values()) == truth["finished_ns"] - truth["arrived_ns"]
        first = truth["first_token_leaves"]
        assert sum(first.values()) == truth["first_ns"] - truth["arrived_ns"]
        assert min(truth["leaves"].values()) >= 0 and truth["late_ns"] >= 0
        assert truth["leaves"]["frontend.parse"] == 1_000_000 + 1000 * truth["isl"]
        # One clock: nothing is read before it left, and not grossly later.
        at = [instant for instant, _ in seen.tokens]
        assert len(at) == truth["osl"]
        assert seen.sent_ns <= truth["arrived_ns"] <= seen.sent_ns + PATIENCE_NS
        assert truth["first_ns"] <= at[0] <= truth["first_ns"] + PATIENCE_NS
        assert truth["finished_ns"] <= at[-1] <= truth["finished_ns"] + PATIENCE_NS
        assert at[0] - seen.sent_ns >= truth["first_ns"] - truth["arrived_ns"]
    assert sum(truth["leaves"]["queue.admission"] for truth in found.values()) > 0
    late = demo.report["lateness"]
    assert late["n"] == sum(truth["osl"] for truth in found.values())
    assert late["max_ns"] == max(truth["late_ns"] for truth in found.values())


def test_a_server_that_was_held_up_is_late_and_its_schedule_stays(tmp_path: Path) -> None:
    """Stopped in the midst of a stream, it catches up: no instant of the truth has moved."""
    path, long = tmp_path / "truth.jsonl", 1500  # 3 s: whoever stops it may be slow
    with serving(QUICK, truth=path) as demo, ThreadPoolExecutor(1) as pool:
        call = pool.submit(
            stream, demo.url, {"prompt": "a", "max_tokens": long}, x_request_id="held"
        )
        wait_for(lambda: figure(demo.url, "vllm:generation_tokens_total") > 5, 60, "tokens")
        os.kill(demo.pids[0], signal.SIGSTOP)
        time.sleep(0.15)
        os.kill(demo.pids[0], signal.SIGCONT)
        seen = call.result()
        truth = truths(path)["held"]
    assert len(seen.tokens) == long
    step_ns = 2_020_000
    assert truth["finished_ns"] - truth["first_ns"] == (long - 1) * step_ns
    assert truth["late_ns"] >= 100_000_000
    assert seen.done_ns >= truth["finished_ns"]


def test_what_comes_while_the_server_is_held_up_arrived_when_it_came(tmp_path: Path) -> None:
    """On a connection that is there and on one that the server has yet to accept."""
    path = tmp_path / "truth.jsonl"
    body = json.dumps({"prompt": "a", "max_tokens": 1}).encode()
    head = "POST /v1/completions HTTP/1.1\r\nx-request-id: {}\r\nContent-Length: {}\r\n\r\n"

    def ask(peer: socket.socket, name: str) -> int:
        peer.sendall(head.format(name, len(body)).encode() + body)
        return time.monotonic_ns()

    def answered(peer: socket.socket) -> bool:
        with http.client.HTTPResponse(peer) as reply:
            reply.begin()
            return reply.status == 200 and bool(reply.read())

    with serving(QUICK, truth=path) as demo, tcp(demo.url) as known:
        sent_ns = {"warm": ask(known, "warm")}
        assert answered(known)
        os.kill(demo.pids[0], signal.SIGSTOP)
        try:
            with tcp(demo.url) as fresh:
                sent_ns |= {"known": ask(known, "known"), "fresh": ask(fresh, "fresh")}
                time.sleep(0.3)
                os.kill(demo.pids[0], signal.SIGCONT)
                assert answered(known) and answered(fresh)
        finally:
            os.kill(demo.pids[0], signal.SIGCONT)
    for name, truth in truths(path).items():
        assert truth["arrived_ns"] - sent_ns[name] < 150_000_000, name
        assert sum(truth["leaves"].values()) == truth["finished_ns"] - truth["arrived_ns"]


def test_a_prompt_that_comes_again_is_in_the_cache_and_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "truth.jsonl"
    with running_demo(params=Params(prefix_cache=True), truth=path) as url:
        body = {"prompt": list(range(100)), "max_tokens": 2}
        seen = [stream(url, body, x_request_id=name) for name in ("one", "two")]
        hits = figure(url, "vllm:prefix_cache_hits_total")
    cached = [
        reply.events[-2][1]["usage"]["prompt_tokens_details"]["cached_tokens"] for reply in seen
    ]
    found = truths(path)
    assert cached == [found["one"]["cached"], found["two"]["cached"]] == [0, hits]
    assert hits >= 80


def test_an_arrival_is_when_the_bytes_came_and_not_when_they_were_read() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        want_stamps(listener)
        with (
            socket.create_connection(listener.getsockname()) as client,
            closing(listener.accept()[0]) as server,
        ):
            want_stamps(server)
            ages = []
            for _ in range(20):  # the kernel begins to stamp a moment after it was asked to
                client.sendall(b"x")
                sent_ns = time.monotonic_ns()
                time.sleep(0.01)
                data, at_ns = receive(server)
                assert data == b"x" and at_ns <= time.monotonic_ns()
                ages.append(at_ns - sent_ns)
    assert min(abs(age) for age in ages) < 5_000_000


# --- figures


@contextmanager
def counted(demo_url: str) -> Iterator[dict[str, float]]:
    """How much the samples of /metrics grew within the block."""
    before, grown = metrics(demo_url), dict[str, float]()
    yield grown
    for key, value in metrics(demo_url).items():
        grown[key] = value - before[key]


def test_the_counters_count_the_requests(url: str) -> None:
    with counted(url) as grown:
        for n in range(5):
            stream(url, {"prompt": [1] * 10, "max_tokens": 3 + n})
        post(url, {"prompt": "a", "temperature": -1})
    labels = '{engine="0",model_name="m"}'
    assert (
        grown['vllm:request_success_total{engine="0",finished_reason="length",model_name="m"}']
        == 5
    )
    assert grown[f"vllm:prompt_tokens_total{labels}"] == 50
    assert grown[f"vllm:generation_tokens_total{labels}"] == 25
    assert grown[f"vllm:inter_token_latency_seconds_count{labels}"] == 20
    for name in ("time_to_first_token", "e2e_request_latency", "request_queue_time",
                 "request_prefill_time", "request_decode_time", "request_inference_time",
                 "request_time_per_output_token"):  # fmt: skip
        assert grown[f"vllm:{name}_seconds_count{labels}"] == 5, name
    assert grown["latdiag_demo_emission_lateness_seconds_count"] == 25
    assert grown["latdiag_demo_requests_refused_total"] == 1


def test_many_streams_at_once_are_all_served_and_their_sum_is_right() -> None:
    with serving(Params(max_seqs=64)) as demo:
        with ThreadPoolExecutor(30) as pool:
            body = {"prompt": "a b c", "max_tokens": 20}
            seen = list(pool.map(lambda _: stream(demo.url, body), range(30)))
        assert figure(demo.url, "vllm:generation_tokens_total") == 600
    assert [len(reply.tokens) for reply in seen] == [20] * 30
    assert _late(demo)["n"] == 600


def _late(demo: Demo) -> dict[str, int]:
    late: dict[str, int] = demo.report["lateness"]
    assert late["p50_us"] <= late["p99_us"] <= late["max_ns"] / 1000
    return late


def test_a_server_ends_in_good_order_with_a_parent_that_left_its_words_unread() -> None:
    child, channel = fresh(command("server", server.Setup(FAULTS["healthy"]).to_json()))
    readable = select.poll()
    readable.register(channel, select.POLLIN)
    assert readable.poll(60_000), "it says where it listens"
    channel.close()
    assert child.ends_within(60) and child.status == 0
