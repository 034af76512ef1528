"""The OTLP receiver: real exporters, HTTP by hand, and what it must refuse."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from latdiag.ingest import collecting as child
from latdiag.ingest.otlp import intake
from latdiag.ingest.otlp.endpoints import Endpoints
from latdiag.ingest.otlp.grpc_door import GrpcDoor
from latdiag.ingest.otlp.http_door import HttpDoor
from latdiag.ingest.otlp.limits import MAX_CONNECTIONS
from latdiag.model.document import document
from tests.profiles import repetitions

from .otlp_oracle import expected
from .otlp_sender import export, mutants
from .receiver import ANY, PROTOBUF, post, receiving, rows_of, sent, state_of

JSON = {"Content-Type": "application/json"}


def as_json(spans: int) -> bytes:
    """An OTLP/JSON document of good spans."""
    made = [
        {
            "traceId": f"{number + 1:032x}",
            "spanId": f"{number + 1:016x}",
            "name": "llm_request",
            "kind": 2,
            "startTimeUnixNano": "1700000000000000000",
            "endTimeUnixNano": "1700000000000001000",
            "attributes": [
                {"key": "gen_ai.usage.prompt_tokens", "value": {"intValue": str(number)}}
            ],
        }
        for number in range(spans)
    ]
    scoped = {"scope": {"name": "vllm.llm_engine"}, "spans": made}
    return json.dumps({"resourceSpans": [{"scopeSpans": [scoped]}]}).encode()


@pytest.mark.parametrize("packed", ["plain", "gzip"])
def test_real_exporters_lose_nothing(tmp_path: Path, packed: str) -> None:
    with receiving(tmp_path) as (collector, run):
        sent("sdk", f"http://{collector.grpc}", "grpc", 1300, packed)
        sent("sdk", f"http://{collector.http}", "http", 700, packed)
        found = collector.finish(0)
    assert (found.accepted, found.refused, found.lost) == (2000, {}, 0)
    services = {s.service: (s.spans, s.known) for s in found.senders}
    assert services == {"sdk-grpc": (1300, True), "sdk-http": (700, True)}
    rows = rows_of(run)
    for service, source, count in (("grpc", "otlp/grpc", 1300), ("http", "otlp/http", 700)):
        mine = [r for r in rows if r["labels"]["service.name"] == f"sdk-{service}"]
        assert {r["source"] for r in mine} == {source}
        numbers = sorted(int(r["labels"]["gen_ai.usage.prompt_tokens"]) for r in mine)
        assert numbers == list(range(count))
    assert found.dropped_attributes == 2000
    stored = b"".join(p.read_bytes() for p in Path(run).rglob("*") if p.is_file())
    assert b"a secret" not in stored
    state = state_of(run)
    assert (state["kind"], state["state"]) == ("otlp", "closed")
    assert state["counts"] == document(found) | {"cpu_ns": state["counts"]["cpu_ns"]}
    assert all(width < 10**9 for _, _, width in state["clock"])


def test_http_in_all_its_forms(tmp_path: Path) -> None:
    body = export(5).SerializeToString()
    with receiving(tmp_path) as (collector, run):
        assert post(collector.http, body) == (200, _any_of(post(collector.http, body)), b"")
        packed = PROTOBUF | {"Content-Encoding": "gzip"}
        assert post(collector.http, gzip.compress(body), packed)[0] == 200
        status, headers, reply = post(collector.http, as_json(5), JSON)
        assert (status, headers["content-type"], reply) == (200, "application/json", b"{}")
        connection = http.client.HTTPConnection(str(collector.http), timeout=20)
        for _ in range(3):  # kept alive, and chunked
            connection.request("POST", "/v1/traces", iter([body[:9], body[9:]]), PROTOBUF)
            assert connection.getresponse().read() == b""
        connection.close()
        found = collector.finish(0)
    assert found.accepted == 7 * 5
    assert found.exports == 7
    assert len(rows_of(run)) == 35


def _any_of(reply: tuple[int, dict[str, str], bytes]) -> dict[str, str]:
    assert reply[1]["content-type"] == "application/x-protobuf"
    return reply[1]


def test_requests_may_be_sent_before_the_reply(tmp_path: Path) -> None:
    body = export(2).SerializeToString()
    head = (
        "POST /v1/traces HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-protobuf\r\n"
        f"Expect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    with receiving(tmp_path) as (collector, _):
        with _connected(collector.http) as peer:
            peer.sendall((head + body) * 3)
            said = b""
            while said.count(b"200 OK") < 3:
                data = peer.recv(1 << 16)
                assert data, said
                said += data
        assert collector.finish(0).accepted == 6


REFUSED: list[tuple[str, dict[str, Any], int, str]] = [
    ("garbage", {"body": b"\xff" * 40}, 400, "malformed"),
    ("no gzip", {"headers": PROTOBUF | {"Content-Encoding": "gzip"}}, 400, "malformed"),
    ("no json", {"body": b"[1]", "headers": JSON}, 400, "malformed"),
    ("deep json", {"body": b"[" * 100_000, "headers": JSON}, 400, "malformed"),
    ("type", {"headers": {"Content-Type": "text/plain"}}, 415, "type"),
    ("encoding", {"headers": PROTOBUF | {"Content-Encoding": "br"}}, 415, "encoding"),
    ("path", {"path": "/"}, 404, "path"),
    ("method", {"method": "PUT"}, 405, "method"),
    ("page", {"headers": PROTOBUF | {"Origin": "http://page"}}, 403, "origin"),
    ("oversize", {"body": bytes(17 << 20)}, 413, "too_large"),
    (
        "bomb",
        {
            "body": gzip.compress(bytes(60 << 20), 9),
            "headers": PROTOBUF | {"Content-Encoding": "gzip"},
        },
        413,
        "bomb",
    ),
    ("head", {"headers": PROTOBUF | {"X-Long": "x" * 40_000}}, 431, "head"),
    ("long head", {"headers": PROTOBUF | {"X-Long": "x" * 400_000}}, 431, "head"),
]


def test_what_is_refused_is_told_and_counted(tmp_path: Path) -> None:
    counted: dict[str, int] = {}
    with receiving(tmp_path) as (collector, _):
        for name, request, status, reason in REFUSED:
            asked = {"body": export(2).SerializeToString()} | request
            assert post(collector.http, **asked)[0] == status, name
            counted[reason] = counted.get(reason, 0) + 1
        assert post(collector.http, b"", path="/v1/metrics")[0] == 404
        assert post(collector.http, export(2).SerializeToString())[0] == 200
        found = collector.finish(0)
    assert found.refused_exports == counted
    assert found.other_signals == {"metrics": 1}
    assert (found.accepted, found.refused) == (2, {})


def test_chunks_without_end_are_refused(tmp_path: Path) -> None:
    head = (
        b"POST /v1/traces HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-protobuf\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    with receiving(tmp_path) as (collector, _):
        with _connected(collector.http) as peer:
            peer.sendall(head)
            chunk = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
            for _ in range(17):
                peer.sendall(chunk)
            assert peer.recv(100).startswith(b"HTTP/1.1 413")
        assert collector.finish(0).refused_exports == {"too_large": 1}


def test_spans_that_break_a_bound_are_told(tmp_path: Path) -> None:
    made = export(10)
    made.resource_spans[0].scope_spans[0].spans[3].trace_id = b"short"
    document = json.loads(as_json(4))
    document["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["spanId"] = "0" * 16
    with receiving(tmp_path) as (collector, _):
        reply = post(collector.http, made.SerializeToString())[2]
        partial = ExportTraceServiceResponse.FromString(reply).partial_success
        assert partial.rejected_spans == 1
        assert partial.error_message
        told = json.loads(post(collector.http, json.dumps(document).encode(), JSON)[2])
        assert told["partialSuccess"]["rejectedSpans"] == "1"
        found = collector.finish(0)
    assert (found.accepted, found.refused) == (12, {"ids": 2})


def test_grpc_refuses_what_it_must(tmp_path: Path) -> None:
    with receiving(tmp_path) as (collector, _):
        said = sent("refused", collector.grpc)
        found = collector.finish(0)
    assert {name: reply["status"] for name, reply in said.items()} == {
        "garbage": "INVALID_ARGUMENT",
        "oversize": "RESOURCE_EXHAUSTED",
        "bomb": "INVALID_ARGUMENT",
        "cut gzip": "INVALID_ARGUMENT",
        "metrics": "UNIMPLEMENTED",
        "method": "UNIMPLEMENTED",
        "page": "PERMISSION_DENIED",
        "deflate": "OK",
        "good": "OK",
    }
    assert not any(reply.get("retry") for reply in said.values())
    assert found.accepted == 6
    refused = found.refused_exports
    assert refused == {"malformed": 2, "bomb": 1, "origin": 1, "no_message": 1, "path": 1}
    assert found.other_signals == {"metrics": 1}


def test_a_token_is_asked_for(tmp_path: Path) -> None:
    otlp = Endpoints(ANY, ANY, token="sesame")
    body = export(3).SerializeToString()
    with receiving(tmp_path, otlp=otlp) as (collector, run):
        said = sent("token", collector.grpc, "sesame")
        statuses = [
            post(collector.http, body, PROTOBUF | extra)[0]
            for extra in (
                {},
                {"Authorization": "Bearer wrong"},
                {"Authorization": "Basic sesame"},
                {"Authorization": "Bearer sesame"},
            )
        ]
        found = collector.finish(0)
    assert [said[name]["status"] for name in ("none", "wrong", "right")] == [
        "UNAUTHENTICATED",
        "UNAUTHENTICATED",
        "OK",
    ]
    assert statuses == [401, 401, 401, 200]
    assert (found.accepted, found.refused_exports) == (6, {"token": 5})
    stored = b"".join(p.read_bytes() for p in Path(run).rglob("*") if p.is_file())
    assert b"sesame" not in stored


# ---------------------------------------------------------------------- slow, many, random
@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Doors that wait half a second for a request, and as long for the next."""
    monkeypatch.setattr(child, "HttpDoor", partial(HttpDoor, request_s=0.5, idle_s=0.5))
    monkeypatch.setattr(child, "GrpcDoor", partial(GrpcDoor, request_s=0.5))


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "begun",
    [b"", b"POST /v1/tr", b"POST /v1/traces HTTP/1.1\r\nContent-Le"],
)
def test_half_a_request_is_cut_off(tmp_path: Path, begun: bytes) -> None:
    with receiving(tmp_path) as (collector, _):
        with _connected(collector.http) as peer:
            peer.sendall(begun)
            said = peer.recv(1000)
        assert said.startswith(b"HTTP/1.1 408") if begun else not said
        refused = collector.finish(0).refused_exports
    assert refused == ({"slow": 1} if begun else {})


@pytest.mark.usefixtures("impatient")
def test_a_body_that_drips_is_cut_off(tmp_path: Path) -> None:
    head = (
        b"POST /v1/traces HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-protobuf\r\n"
        b"Content-Length: 100000\r\n\r\n"
    )
    with receiving(tmp_path) as (collector, _):
        with _connected(collector.http) as peer:
            peer.sendall(head)
            peer.settimeout(0.05)
            said = b""
            for _ in range(200):
                try:
                    peer.sendall(b"x")
                    said = peer.recv(1000)
                    break
                except TimeoutError:
                    continue
        assert said.startswith(b"HTTP/1.1 408")
        assert collector.finish(0).refused_exports == {"slow": 1}


@pytest.mark.usefixtures("impatient")
def test_messages_that_never_come_hold_up_nobody(tmp_path: Path) -> None:
    with receiving(tmp_path) as (collector, _):
        said = sent("slow", collector.grpc, 12)
        found = collector.finish(0)
    assert said["good"]["status"] == "OK"
    assert set(said["ended"]) == {"DEADLINE_EXCEEDED"}
    assert (found.accepted, found.refused_exports) == (3, {"slow": 12})


def test_a_new_connection_always_finds_a_place(tmp_path: Path) -> None:
    """Others hold all places, with a byte now and then; those who send come in at once, and one
    that has sent before keeps its place among them."""
    body = export(1).SerializeToString()

    def send(connection: http.client.HTTPConnection) -> int:
        connection.request("POST", "/v1/traces", body, PROTOBUF)
        reply = connection.getresponse()
        reply.read()
        return reply.status

    with receiving(tmp_path) as (collector, _):
        every = [http.client.HTTPConnection(str(collector.http), timeout=20) for _ in range(11)]
        assert send(every[0]) == 200
        keeps = every[0].sock
        peers = [_connected(collector.http) for _ in range(MAX_CONNECTIONS)]
        for peer in peers:
            peer.sendall(b"POST ")
        for connection in every[1:]:
            assert send(connection) == send(every[0]) == 200
        assert every[0].sock is keeps
        for one in [*peers, *every]:
            one.close()
        found = collector.finish(0)
    assert found.accepted == 21
    # One of which no byte was looked at yet goes uncounted.
    assert set(found.refused_exports) == {"crowded"} and found.refused_exports["crowded"] <= 11


def test_half_open_grpc_connections_hold_up_nobody(tmp_path: Path) -> None:
    with receiving(tmp_path) as (collector, _):
        peers = [_connected(collector.grpc) for _ in range(30)]
        for number, peer in enumerate(peers):
            if number % 2:
                peer.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * (number % 5))
        assert sent("good", collector.grpc, 7)["status"] == "OK"
        assert collector.finish(0).accepted == 7
        for peer in peers:
            peer.close()


@pytest.mark.repeated
def test_ten_thousand_payloads(tmp_path: Path) -> None:
    """So many in the profile ``ci``: four of five over HTTP, the others by gRPC."""
    posted, called = repetitions(8000), repetitions(2000)
    spans, malformed, answers = 0, 0, {200: 0, 400: 0}
    with receiving(tmp_path) as (collector, run):
        connection = http.client.HTTPConnection(str(collector.http), timeout=20)
        for number, body in enumerate(mutants(seed=11, count=posted)):
            packed = PROTOBUF | {"Content-Encoding": "gzip"} if number % 4 == 0 else PROTOBUF
            wire = gzip.compress(body, 1) if number % 4 == 0 else body
            connection.request("POST", "/v1/traces", wire, packed)
            reply = connection.getresponse()
            said = reply.read()
            answers[reply.status] += 1
            wanted = expected(body)
            assert reply.status == (400 if wanted.spans is None else 200), body.hex()
            if wanted.spans is not None:
                spans += wanted.spans
                malformed += wanted.malformed
                partial = ExportTraceServiceResponse.FromString(said).partial_success
                assert wanted.malformed <= partial.rejected_spans <= wanted.spans
        connection.close()
        by_grpc = sent("fuzz", collector.grpc, 12, called)
        found = collector.finish(0)
    assert min(answers.values()) > posted // 8
    assert set(by_grpc["answers"]) == {"OK", "INVALID_ARGUMENT"}
    assert found.accepted + sum(found.refused.values()) == spans + by_grpc["spans"]
    assert found.refused_exports["malformed"] == (
        answers[400] + by_grpc["answers"]["INVALID_ARGUMENT"]
    )
    assert len(rows_of(run)) == found.rows == found.accepted > (posted + called) // 2
    assert found.refused.get("ids", 0) > 0 or posted < 8000, "rare"
    assert found.refused["malformed"] == malformed + by_grpc["malformed"] > 0


def test_who_is_too_fast_is_told_to_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "MAX_WAITING_ROWS", 1500)
    body = export(1000).SerializeToString()
    with receiving(tmp_path) as (collector, run):
        statuses = [post(collector.http, body)[0] for _ in range(20)]
        _, headers, _ = post(collector.http, body)
        statuses.append(429 if "retry-after" in headers else 200)
        # The SDK's exporter comes again by itself, as it is told.
        sent("sdk", f"http://{collector.grpc}", "grpc", 5000, "plain")
        found = collector.finish(0)
    assert set(statuses) == {200, 429}
    by_http = 1000 * statuses.count(200)
    assert found.accepted == by_http + 5000
    assert found.refused["busy"] >= 1000 * statuses.count(429)
    assert len(rows_of(run)) == found.accepted


def test_an_export_that_could_never_wait_is_refused_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "MAX_WAITING_ROWS", 1500)
    with receiving(tmp_path) as (collector, _):
        status, headers, _ = post(collector.http, export(1501).SerializeToString())
        assert (status, headers.get("retry-after")) == (413, None)
        assert post(collector.http, export(1500).SerializeToString())[0] == 200
        found = collector.finish(0)
    assert (found.accepted, found.refused) == (1500, {"too_many": 1501})


def _connected(address: str | None) -> socket.socket:
    host, _, port = str(address).rpartition(":")
    return socket.create_connection((host, int(port)), timeout=20)
