"""Metrics by way of a Prometheus server: raw samples, edges around the load, hostile replies."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from latdiag.ingest.prometheus import server as prometheus
from latdiag.ingest.prometheus.server import PrometheusServer, api_url
from latdiag.stacks.catalogue import families

from .invoke import called, loaded
from .peers import Asked, Script, Wire, models, serving, well

#: Prometheus' clock is another: so far ahead of this machine's (s).
AHEAD_S = 5000.0
EVERY_S = 0.5


class Fake:
    """A Prometheus that scrapes two servers of one job each ``EVERY_S``; a count grows by one a
    second of its own clock."""

    def __init__(self, names: str = "vllm:{}") -> None:
        self.names = names
        self.begun = time.time()
        self.queries: list[str] = []
        self.dead: set[str] = set()

    def now(self) -> float:
        return time.time() + AHEAD_S

    def __call__(self, wire: Wire, asked: Asked) -> None:
        parts = urlsplit(asked.target)
        assert parts.path == "/prom/api/v1/query"
        (query,) = parse_qs(parts.query)["query"]
        self.queries.append(query)
        now = self.now()
        if query == "time()":
            data: Any = {"resultType": "scalar", "result": [round(now, 3), str(now)]}
        else:
            seconds = int(query.rpartition("[")[2].removesuffix("s]"))
            data = {"resultType": "matrix", "result": list(self.series(now, seconds))}
        wire.reply(200, json.dumps({"status": "success", "data": data}))

    def series(self, now: float, seconds: int) -> Any:
        first = self.begun + AHEAD_S - 3.0
        at = [first + i * EVERY_S for i in range(10_000) if first + i * EVERY_S < now]
        at = [t for t in at if t > now - seconds]
        for instance in ("a:8000", "b:8000"):
            kept = [t for t in at if instance not in self.dead or t < self.begun + AHEAD_S]
            for name, of in (
                ("prompt_tokens_total", lambda t: t - first),
                ("num_requests_running", lambda _t: 2.0),
            ):
                metric = {"__name__": self.names.format(name), "job": "j", "instance": instance}
                metric["model_name"] = 'a "b"\\c'
                values = [[round(t, 3), str(of(t))] for t in kept]
                yield {"metric": metric, "values": values}


def asked_at(url: str, match: str = "", **more: Any) -> PrometheusServer:
    return PrometheusServer(f"{url}/prom", families(), match, **more)


@pytest.mark.parametrize("names", ["vllm:{}", "ray_vllm_{}"])
def test_the_scrapes_around_a_load_are_its_edges(names: str) -> None:
    fake = Fake(names)
    with serving(fake) as peer:
        server = asked_at(peer.url, 'job="j"')
        before_ns = time.monotonic_ns()
        begin, none = server.scrape("begin")
        between, _ = server.scrape("periodic")
        time.sleep(3 * EVERY_S)
        periodic, _ = server.scrape("periodic")
        end_ns = time.monotonic_ns()
        end, missing = server.scrape("end")
    assert none == missing == []
    assert 'job="j"' in fake.queries[-1] and "vllm" in fake.queries[-1]
    assert not between.get("kind") or set(between["foreign_value"]) == {"periodic"}
    # One scrape of each server before the load, on this machine's clock, and one after it.
    assert set(begin["foreign_value"]) == {"begin"}
    assert set(begin["foreign_name"]) == {"vllm:prompt_tokens_total", "vllm:num_requests_running"}
    replicas = {f"{peer.url}/prom#j/a:8000", f"{peer.url}/prom#j/b:8000"}
    assert set(begin["replica"]) == replicas and len(begin["kind"]) == 4
    slack_ns = 20_000_000
    assert all(at < before_ns + slack_ns for at in begin["window_end_ns"])
    assert all(at > before_ns - 2e9 * EVERY_S - slack_ns for at in begin["window_end_ns"])
    assert set(periodic["foreign_value"]) == {"periodic"}
    last = [at for at, edge in zip(end["window_end_ns"], end["foreign_value"], strict=True)
            if edge == "end"]  # fmt: skip
    assert len(last) == 4 and all(at > end_ns - slack_ns for at in last)
    # Raw samples: the count grows by the seconds between them.
    rows = [
        (at, value)
        for found in (begin, periodic, end)
        for at, value, name, who in zip(
            *(found[c] for c in ("window_end_ns", "value", "foreign_name", "replica")), strict=True
        )
        if name.endswith("total") and who.endswith("a:8000")
    ]
    assert len(rows) == len(set(rows)) >= 5
    for (at, value), (later, more) in itertools.pairwise(rows):
        assert abs((more - value) - (later - at) / 1e9) < 0.05


def test_a_server_that_it_no_longer_scrapes_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "PATIENCE_S", 1.5)
    fake = Fake()
    with serving(fake) as peer:
        server = asked_at(peer.url)
        server.scrape("begin")
        fake.dead.add("b:8000")
        fake.begun = time.time() - 60  # its scrapes ended long ago
        columns, problems = server.scrape("end")
    assert [one.replica.rpartition("#")[2] for one in problems] == ["j/b:8000"]
    assert "did not scrape it within" in problems[0].text
    assert {who.rpartition("#")[2] for who in columns["replica"]} == {"j/a:8000"}


def answering(document: Any, status: int = 200) -> Script:
    return lambda wire, _: wire.reply(status, json.dumps(document))


def _data(result: Any) -> Script:
    def script(wire: Wire, asked: Asked) -> None:
        timed = "time" in asked.target
        data = {"result": [time.time(), "1"] if timed else result}
        wire.reply(200, json.dumps({"status": "success", "data": data}))

    return script


REFUSALS: dict[str, tuple[Script, str]] = {
    "401": (answering({}, 401), r"HTTP 401: Prometheus wants a token"),
    "error": (
        answering({"status": "error", "error": "bad query"}, 400),
        "refuses the query: bad query",
    ),
    "404": (answering("no", 404), "HTTP 404: it is no Prometheus server"),
    "page": (lambda wire, _: wire.reply(200, "<html>"), "no Prometheus server"),
    "list": (answering([1]), "no Prometheus server"),
    "deep": (lambda wire, _: wire.reply(200, "[" * 99_999), "no Prometheus server"),
    "no time": (answering({"status": "success", "data": {"result": "x"}}), "query API"),
    "no data": (answering({"status": "success", "data": None}), "refuses the query"),
    "nothing": (_data([]), "no sample of a family"),
    "rubbish": (_data([1, {"metric": 1}, {"metric": {}, "values": [[None]]}]), "no sample"),
    "closed": (lambda wire, _: wire.close(), "Error"),
    "bytes": (lambda wire, _: wire.reply(200, b"\xff\xfe"), "no Prometheus server"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_no_answer_is_one_sentence(name: str) -> None:
    script, sentence = REFUSALS[name]
    with serving(script) as peer:
        columns, problems = asked_at(peer.url).scrape("begin")
    assert not columns.get("kind")
    assert len(problems) == 1 and sentence in problems[0].text


def test_a_reply_without_end_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "MOST_TEXT", 1 << 20)

    def endless(wire: Wire, _asked: Asked) -> None:
        wire.head("Content-Type: application/json")
        for _ in range(500):
            wire.chunk(b" " * (1 << 16))

    with serving(endless) as peer:
        _, problems = asked_at(peer.url).scrape("begin")
    assert "longer than 1 MiB" in problems[0].text


def test_the_token_goes_to_prometheus_alone_and_is_never_stored(tmp_path: Path) -> None:
    fake, token = Fake(), "a-canary-token-of-mine"
    seen: list[str | None] = []

    def keyed(wire: Wire, asked: Asked) -> None:
        seen.append(asked.header("authorization"))
        fake(wire, asked)

    def target(wire: Wire, asked: Asked) -> None:
        assert token not in str(asked.headers)
        if not models(wire, asked):
            well(wire, asked)

    with serving(keyed) as peer, serving(target) as server:
        ended = loaded(
            *(tmp_path, server.url, "--requests", "2", "--osl", "3"),
            *("--prometheus", f"{peer.url}/prom/graph", "--prometheus-token-env", "PROM"),
            PROM=token,
        )
    assert ended.code in (0, 12), ended.err
    assert seen and set(seen) == {f"Bearer {token}"}
    kept = b"".join(each.read_bytes() for each in ended.run.rglob("*") if each.is_file())
    assert token.encode() not in kept and token not in ended.out + ended.err


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("prom:9090", "http://prom:9090/api/v1/query"),
        ("http://prom:9090/", "http://prom:9090/api/v1/query"),
        ("https://x/prometheus/api/v1/query_range", "https://x/prometheus/api/v1/query"),
        ("https://x/api/v1", "https://x/api/v1/query"),
        ("https://x/graph", "https://x/api/v1/query"),
    ],
)
def test_its_url_is_taken_as_people_write_it(written: str, asked: str) -> None:
    assert api_url(written) == asked


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--prometheus", "http://u:p@h"), "user name or password"),
        (("--prometheus", "ftp://h"), "is not an http or https URL"),
        (("--prometheus-match", 'job="x"'), "no --prometheus is given"),
    ],
)
def test_what_cannot_be_is_said_before_the_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, options: tuple[str, ...], text: str
) -> None:
    ended = called(capsys, tmp_path, "http://127.0.0.1:1", *options)
    assert ended.code == 2 and text in ended.err and not ended.run.exists()
