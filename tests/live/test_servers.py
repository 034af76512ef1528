"""Real servers that speak: what they say of each request, against what the client saw of it.

Spans come to the load's own receiver (``--otlp``), from vLLM on CPU, from Dynamo with prefill and
decode apart, and from Envoy; HAProxy says nothing, and is found all the same.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from latdiag.attribution import reading
from latdiag.measurement import ttft_split
from latdiag.store.run import Run
from tests.schema import validate

from .conftest import LIVE, Stack, latdiag

pytestmark = pytest.mark.live

GRPC, HTTP = "127.0.0.1:14617", "127.0.0.1:14618"
#: vLLM's exporter sends every 5 s; one that found no receiver tries again within 10 s.
TELLING = ("--otlp", GRPC, "--otlp-http", HTTP, "--wait", "12s")
TTFT = "gen_ai.latency.time_to_first_token"


def load(url: str, out: Path, *options: str) -> dict[str, Any]:
    """The validated result of a load whose every request was answered and told of.

    Once more if vLLM's exporter says that it gave spans up: the receiver was away between two
    loads, and a channel that is still backing off may let a whole export expire.
    """
    given = (*TELLING, "--seed", "7", *options)
    before = gave_up()
    code, result, said = latdiag("load", url, "--out", str(out), *given)
    if gave_up() > before:
        shutil.rmtree(out)
        code, result, said = latdiag("load", url, "--out", str(out), *given)
    assert code in (0, 12), said  # 12: this machine is too busy for the client
    validate(result)
    assert result["load"]["ok"] == result["load"]["requests"] > 0
    evidence = result["evidence"]
    assert evidence["requests"] == result["load"]["requests"]
    for became in ("joined", "told"):
        assert evidence[became] >= 0.99 * evidence["requests"], (became, evidence)
    assert result["verdict"]["sentence"]
    return result


def gave_up() -> int:
    """How many exports vLLM says that it could not deliver."""
    log = LIVE / "run" / "latdiag-told.server.log"
    return log.read_text(errors="replace").count("Failed to export") if log.exists() else 0


def vllm(stack: Stack) -> str:
    options = ("--port", "8193", "--otlp", f"http://{GRPC}", "--", "--enable-per-request-metrics")
    return stack.up("vllm-cpu", "latdiag-told", *options)["URL"]


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """What is started here runs as soon as it has something to do.

    Beside this engine, which spins, an ordinary process of the same machine may wait for a whole
    reply: then any gateway holds the stream back, and is rightly named.
    """
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        pytest.skip("a gateway on the engine's own machine needs real-time priority")
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)


def ms_each(result: dict[str, Any]) -> dict[str, float]:
    """Mean time of each component a request, ms; merged ones under all their names."""
    mean = result["breakdown"]["mean"]
    return {
        "+".join(entry.get("members") or [name]): entry["sum_ns"] / mean["n"] / 1e6
        for name, entry in mean.items()
        if isinstance(entry, dict)
    }


# ---------------------------------------------------------------------- an engine
def beyond_the_span(run: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each request, ms: client's time to the first token behind the first hop, less the one
    that the server states; what the client's stamps leave open of it; and the server's."""
    opened = Run.open(str(run))
    stated: dict[str, float] = {}
    for _, span in opened.evidence(["foreign_name", "trace_id", "labels"]).iterrows():
        if span["foreign_name"] == "llm_request":
            stated[span["trace_id"]] = float(span["labels"][TTFT])
    more, slack, theirs = [], [], []
    for batch in opened.batches([*ttft_split.COLUMNS, "trace_id"]):
        parts = ttft_split.split(batch)
        assert len(parts.row) == batch.n, "a request without an exact first token"
        for at, row in enumerate(parts.row.tolist()):
            told = 1e9 * stated[batch.texts["trace_id"][row]]
            theirs.append(told)
            more.append(float(parts.server[at]) - told)
            slack.append(float(parts.network_hi[at] - parts.network_lo[at]))
    return np.array(more) / 1e6, np.array(slack) / 1e6, np.array(theirs) / 1e6


def test_vllm_and_the_client_agree_on_every_request(stack: Stack, tmp_path: Path) -> None:
    url, run = vllm(stack), tmp_path / "x.run"
    shape = ("--concurrency", "1", "--isl", "64", "--osl", "24")
    result = load(url, run, "--requests", "100", *shape)
    evidence = result["evidence"]
    assert evidence["joined_by"]["trace_id"] == evidence["joined"]
    assert evidence["partial"] == evidence["contradicted"] == 0
    more, slack, theirs = beyond_the_span(run)
    # The server begins to count when it has read the request, and ends before it has written the
    # token: what the client sees is never less, and hardly more.
    assert (more + slack > -1.0).all(), more.min()
    assert np.median(more) < max(5.0, 0.05 * float(np.median(theirs))), np.median(more)
    mean = result["breakdown"]["mean"]
    assert abs(mean["unattributed"]["share"]) < 0.1
    assert {mean[name]["grade"] for name in ("queue", "prefill", "decode")} == {"A"}
    (clock,) = evidence["clocks"]
    # It is the clock of this machine: the truth is 0.
    assert 0 < clock["half_width_ms"] < 50
    assert abs(clock["offset_ms"]) <= clock["half_width_ms"] + 1.0
    assert not clock["steps"] and "batching" not in evidence


def test_what_vllm_states_in_replies_is_what_its_spans_say(stack: Stack, tmp_path: Path) -> None:
    url, out = vllm(stack), tmp_path / "x.run"
    # Prompts of many steps: else a reply might be of a server that another did the prompt for.
    shape = ("--requests", "60", "--concurrency", "2", "--isl", "1500", "--osl", "24")
    result = load(url, out, *shape)
    assert result["replies"]["told"] == result["replies"]["requests"] == 60
    read = reading.read(Run.open(str(out)))
    by_spans, by_replies = read.spoken(), read.stated()
    assert by_spans is not None and by_replies is not None
    assert by_spans.parts is not None and by_replies.parts is not None
    total = int(by_replies.parts.total.sum())
    assert int(by_spans.parts.total.sum()) == total
    for name in ("queue", "prefill", "decode"):
        by_span, by_reply = (int(p.parts.parts[name].sum()) for p in (by_spans, by_replies))
        print(f"{name}: {by_span / total:.4f} by spans, {by_reply / total:.4f} by replies")
        assert by_reply == pytest.approx(by_span, abs=0.01 * total), name


# ---------------------------------------------------------------------- two workers and a link
TIMED = ("--body-json", '{"nvext":{"extra_fields":["timing"]}}')


@pytest.mark.parametrize(
    ("more_said", "told_with"),
    [((), ["queue", "prefill", "interconnect"]), (TIMED, ["interconnect"])],
    ids=["spans", "spans and replies"],
)
def test_a_slow_kv_link_is_interconnect(
    stack: Stack, tmp_path: Path, more_said: tuple[str, ...], told_with: list[str]
) -> None:
    """131,072 B a token at 0.1 GB/s: 1.3 ms a token of the prompt, 400 ms for 313.

    ``ttft_ms`` of Dynamo's replies ends before it. Its spans alone do not part what the prefill
    worker computes from what it sends: then interconnect is told with queue and prefill. The
    replies say when the prefill was over.
    """
    found, e2e = {}, {}
    for speed in ("64", "0.1"):
        name = "latdiag-link"
        options = ("--port", "8323", "--otlp", f"http://{GRPC}", "--kv-gbps", speed)
        url = stack.up("dynamo", name, *options)["URL"]
        try:
            shape = ("--requests", "40", "--rate", "1.5", "--isl", "313", "--osl", "24")
            result = load(url, tmp_path / f"{speed}.run", *shape, *more_said)
        finally:
            stack.stop(name)
        assert result["evidence"]["partial"] == result["evidence"]["contradicted"] == 0
        assert abs(result["breakdown"]["mean"]["unattributed"]["share"]) < 0.02
        found[speed] = ms_each(result)
        e2e[speed] = sum(found[speed].values())
        isl = result["load"]["isl_mean"]
    more = e2e["0.1"] - e2e["64"]
    assert more == pytest.approx(isl * 131_072 / 0.1e9 * 1e3, rel=0.1)
    assert found["0.1"].keys() == found["64"].keys()
    moved = {name: found["0.1"][name] - found["64"][name] for name in found["64"]}
    (link,) = (name for name in moved if "interconnect" in name.split("+"))
    assert link.split("+") == told_with
    assert moved[link] == pytest.approx(more, rel=0.1)
    assert all(abs(moved[name]) < 0.02 * more for name in moved if name != link), moved


def test_a_slow_kv_link_shows_without_a_span(stack: Stack, tmp_path: Path) -> None:
    """What Dynamo states in its replies ends before the transfer; the client waits for more."""
    name, found = "latdiag-quiet", {}
    for speed in ("64", "0.1"):
        url = stack.up("dynamo", name, "--port", "8333", "--kv-gbps", speed)["URL"]
        try:
            shape = ("--requests", "40", "--rate", "1.5", "--isl", "313", "--osl", "24", *TIMED)
            run = ("--seed", "7", "--out", str(tmp_path / f"{speed}.run"))
            code, result, said = latdiag("load", url, *shape, *run)
        finally:
            stack.stop(name)
        assert code in (0, 12), said
        assert result["replies"]["told"] >= 39, result["replies"]
        found[speed] = ms_each(result)
        isl = result["load"]["isl_mean"]
    moved = {name: found["0.1"][name] - found["64"][name] for name in found["64"]}
    print({name: round(value, 2) for name, value in moved.items()})
    # No reply is of a gateway before Dynamo: what it does not state may be one's as well.
    link = moved.pop("gateway+interconnect")
    assert link == pytest.approx(isl * 131_072 / 0.1e9 * 1e3, rel=0.1)
    assert all(abs(value) < 0.05 * link for value in moved.values()), moved


# ---------------------------------------------------------------------- gateways
def test_a_delay_in_envoy_is_gateway(stack: Stack, tmp_path: Path) -> None:
    behind = urlsplit(vllm(stack)).netloc
    options = ("--port", "18380", "--upstream", behind, "--otlp", f"http://{GRPC}")
    with at_once():
        url = stack.up("envoy", "latdiag-envoy", *options)["URL"]
    shape = ("--requests", "40", "--concurrency", "1", "--isl", "64", "--osl", "16")
    plain = load(url, tmp_path / "plain.run", *shape)
    header = ("--header", "x-envoy-fault-delay-request: 300")
    late = load(url, tmp_path / "late.run", *shape, *header)
    for result in (plain, late):
        stacks = {sender["stack"] for sender in result["evidence"]["senders"]}
        assert stacks == {"envoy", "vllm"}
        assert abs(result["breakdown"]["mean"]["unattributed"]["share"]) < 0.1
        assert result["breakdown"]["mean"]["gateway"]["grade"] == "A"
        assert "batching" not in result["evidence"]
    without, with_ = (r["evidence"]["medians_ms"]["gateway"] for r in (plain, late))
    assert with_ - without == pytest.approx(300.0, abs=2.0)
    assert late["verdict"]["dominant"] == "gateway"


@pytest.mark.parametrize("no_delay", ["off", "on"])
def test_haproxy_that_gathers_the_stream_is_named(
    stack: Stack, tmp_path: Path, no_delay: str
) -> None:
    """As Debian ships it, it holds small chunks back for up to 200 ms; asked not to, it does
    not, and nobody is blamed."""
    behind, name = urlsplit(vllm(stack)).netloc, f"latdiag-haproxy-{no_delay}"
    options = ("--port", "18370", "--upstream", behind, "--no-delay", no_delay)
    with at_once():
        url = stack.up("haproxy", name, *options)["URL"]
    try:
        shape = ("--requests", "16", "--concurrency", "1", "--isl", "64", "--osl", "400")
        result = load(url, tmp_path / "x.run", *shape)
    finally:
        stack.stop(name)
    said = [c["text"] for c in result["caveats"] if c["code"] == "LD415"]
    if no_delay == "on":
        assert said == [] and "batching" not in result["evidence"]
        return
    found = result["evidence"]["batching"]
    assert len(said) == 1 and "a gateway that buffers the stream" in said[0]
    assert found["held"] > 0.9 * found["requests"]
    assert found["tokens"] > 4 and found["every_ms"] > 40
    # Over a reply as many tokens come as the server makes.
    assert found["tokens"] * found["step_ms"] == pytest.approx(found["every_ms"], rel=0.3)
