"""Traces to real receivers, good and bad: every span is counted, and nothing is silent."""

from __future__ import annotations

import json
import logging
import shutil
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry import trace as trace_api

from latdiag.cli import run as verb
from latdiag.export import delivery
from latdiag.export.links import OF_SERVERS
from latdiag.model import span_names as names
from latdiag.store.run import Run
from tests.exported_run import diagnose_once, diagnosis, recorded
from tests.loopback.trace_receiver import (
    GrpcReply,
    HttpReply,
    garbage_port,
    grpc_receiver,
    http_receiver,
    rejecting,
)
from tests.schema import validate
from tests.unit.golden import CAPTURES

Code = grpc.StatusCode
#: Of the 10 slowest requests of the fixture.
SPANS = 81


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    return recorded(tmp_path_factory)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run is diagnosed once, and what is waited between two tries is shorter."""
    diagnose_once(monkeypatch)
    monkeypatch.setattr("latdiag.export.delivery._WAITS_S", (0.01, 0.02))


Said = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def said(run: str, capsys: pytest.CaptureFixture[str]) -> Said:
    """(Exit code, document) of an export of the 10 slowest."""

    def say(url: str, *more: str, slowest: str | None = "10") -> tuple[int, dict[str, Any]]:
        few = ("--slowest", slowest) if slowest else ()
        code = verb(["export", run, "--to", "otlp", url, "--json", *few, *more])
        document = json.loads(capsys.readouterr().out)
        validate(document)
        return code, document

    return say


def counts(document: dict[str, Any]) -> dict[str, int]:
    """Those that are not 0; together they are all."""
    spans = dict(document["spans"])
    assert spans.pop("spans") == sum(spans.values()) == SPANS
    assert sum(each["spans"] for each in document["reasons"]) == SPANS - spans["delivered"]
    return {name: n for name, n in spans.items() if n}


def test_traces_arrive_as_the_request_was(run: str, said: Said) -> None:
    result = diagnosis(run)
    table = result.requests().set_index("request_id")
    evidence = Run.open(run).evidence(["kind", "trace_id", "span_id"])
    engine = set(zip(evidence.trace_id, evidence.span_id, strict=True))
    with grpc_receiver(lambda _: GrpcReply()) as got:
        code, document = said(f"grpc://127.0.0.1:{got.port}", slowest=None)
    assert code == 0 and document["complete"] and document["requests"]["exported"] == len(table)
    spans = got.spans
    assert len(spans) == document["spans"]["delivered"]
    roots = {span.trace_id: span for span in spans if not span.parent_span_id}
    assert len(roots) == len(table) and not any(root.links for root in roots.values())
    assert len({span.span_id for span in spans}) == len(spans)
    sums: Counter[str] = Counter()
    for span in spans:
        said_of = {each.key: each.value for each in span.attributes}
        root = roots[span.trace_id]
        if span is not root:
            assert span.parent_span_id == root.span_id
            assert root.start_time_unix_nano <= span.start_time_unix_nano
            assert span.end_time_unix_nano <= root.end_time_unix_nano
            assert {names.NS, names.GRADE, names.EVIDENCE, names.COMPONENT} <= said_of.keys()
            assert len(span.links) == (said_of[names.COMPONENT].string_value in OF_SERVERS)
            assert all((link.trace_id.hex(), link.span_id.hex()) in engine for link in span.links)
            continue
        row = table.loc[said_of[names.REQUEST_ID].string_value]
        parts = {k: v.int_value for k, v in said_of.items() if k.startswith(names.PART)}
        sums.update({name.removeprefix(names.PART): ns for name, ns in parts.items()})
        assert sum(parts.values()) == said_of[names.NS].int_value
        assert said_of[names.OUTPUT_TOKENS].int_value == row.osl
        begin = row.start.value - said_of[names.LAG_NS].int_value
        assert root.start_time_unix_nano == begin // 1000 * 1000
        assert root.name == "chat demo" and root.kind == root.SPAN_KIND_CLIENT
    mean = result.breakdowns["mean"]
    assert sums == {
        "+".join(share.members or (name,)): share.sum_ns for name, share in mean.shares.items()
    }


def test_a_second_export_sends_the_same_bytes(said: Said) -> None:
    with http_receiver(lambda _: HttpReply()) as got:
        for _ in range(2):
            assert said(f"http://127.0.0.1:{got.port}")[0] == 0
    first, second = (request.SerializeToString() for request in got.requests)
    assert first == second and len(got.spans) == 2 * SPANS
    # And opentelemetry's own provider is left to the program that we run in.
    assert isinstance(trace_api.get_tracer_provider(), trace_api.ProxyTracerProvider)


# --- receivers that take not all


def test_seven_of_all_are_rejected(said: Said) -> None:
    with http_receiver(lambda _: HttpReply(body=rejecting(7))) as http:
        code, document = said(f"http://127.0.0.1:{http.port}")
    assert (code, counts(document)) == (15, {"delivered": 74, "rejected": 7})
    assert document["reasons"] == [{"text": "rejected: too old", "spans": 7}]
    with grpc_receiver(lambda _: GrpcReply(body=rejecting(7))) as rpc:
        code, document = said(f"grpc://127.0.0.1:{rpc.port}")
    assert (code, counts(document)) == (15, {"delivered": 74, "rejected": 7})
    as_json = b'{"partialSuccess": {"rejectedSpans": "7", "errorMessage": "full"}}'
    with http_receiver(lambda _: HttpReply(body=as_json, kind="application/json")) as http:
        code, document = said(f"http://127.0.0.1:{http.port}")
    assert (code, counts(document)) == (15, {"delivered": 74, "rejected": 7})


@pytest.mark.parametrize("rejected", [-3, 10**6])
def test_a_rejection_of_more_than_was_sent_is_one_of_all(said: Said, rejected: int) -> None:
    with http_receiver(lambda _: HttpReply(body=rejecting(rejected))) as got:
        code, document = said(f"http://127.0.0.1:{got.port}")
    whole = {"rejected": SPANS} if rejected > 0 else {"delivered": SPANS}
    assert document["warnings"] == ([] if rejected > 0 else ["too old"])
    assert (code, counts(document)) == (15 if rejected > 0 else 0, whole)


@pytest.mark.parametrize(
    ("status", "sent"), [(400, 1), (401, 1), (403, 1), (404, 1), (301, 1), (500, 1), (503, 3)]
)
def test_a_status_is_a_refusal(said: Said, status: int, sent: int) -> None:
    asked: list[int] = []

    def answer(n: int) -> HttpReply:
        asked.append(n)
        return HttpReply(status, headers=(("Location", "http://127.0.0.1:9/"),))

    with http_receiver(answer) as got:
        code, document = said(f"http://127.0.0.1:{got.port}")
    assert (code, counts(document)) == (15, {"rejected": SPANS})
    assert (document["reasons"][0]["text"], len(asked)) == (f"HTTP {status}", sent)


@pytest.mark.parametrize(
    ("status", "sent"),
    [
        (Code.UNAUTHENTICATED, 1),
        (Code.UNIMPLEMENTED, 1),
        (Code.INVALID_ARGUMENT, 1),
        (Code.RESOURCE_EXHAUSTED, 1),
        (Code.ABORTED, 3),
    ],
)
def test_a_grpc_status_is_counted(said: Said, status: Code, sent: int) -> None:
    asked: list[int] = []

    def answer(n: int) -> GrpcReply:
        asked.append(n)
        return GrpcReply(status, "no")

    with grpc_receiver(answer) as got:
        code, document = said(f"grpc://127.0.0.1:{got.port}")
    assert code == 15 and counts(document) in ({"rejected": SPANS}, {"lost": SPANS})
    assert document["reasons"][0]["text"] == f"gRPC {status.name}: no" and len(asked) == sent


def test_a_429_is_waited_for_as_long_as_it_asks(
    said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    real = delivery.deliver
    monkeypatch.setattr(
        "latdiag.export.otlp.deliver", lambda *args: real(*args, sleep=waited.append)
    )
    busy = HttpReply(429, headers=(("Retry-After", "3"),))
    with http_receiver(lambda n: busy if n == 0 else HttpReply()) as http:
        code, document = said(f"http://127.0.0.1:{http.port}")
    assert (code, waited) == (0, [3.0])
    full = GrpcReply(Code.RESOURCE_EXHAUSTED, "full", retry_s=2.5)
    with grpc_receiver(lambda n: full if n == 0 else GrpcReply()) as rpc:
        code, document = said(f"grpc://127.0.0.1:{rpc.port}")
    assert (code, waited) == (0, [3.0, 2.5])
    later = HttpReply(429, headers=(("Retry-After", "3600"),))
    with http_receiver(lambda _: later) as http:
        code, document = said(f"http://127.0.0.1:{http.port}")
    assert (code, counts(document), len(waited)) == (15, {"rejected": SPANS}, 2)


def test_a_receiver_that_hangs_is_given_up(said: Said) -> None:
    with http_receiver(lambda _: HttpReply(hang_s=0.6)) as http:
        code, document = said(f"http://127.0.0.1:{http.port}", "--timeout", "150ms")
    assert document["reasons"] == [{"text": "no reply within 0.15 s", "spans": SPANS}]
    with grpc_receiver(lambda _: GrpcReply(hang_s=0.4)) as rpc:
        code, document = said(f"grpc://127.0.0.1:{rpc.port}", "--timeout", "150ms")
    assert (code, counts(document)) == (15, {"lost": SPANS})
    assert "DEADLINE_EXCEEDED" in document["reasons"][0]["text"]


def test_who_closes_midway_has_taken_what_was_before(
    said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latdiag.export.delivery._SPANS", 16)  # two traces a batch, five batches
    with http_receiver(lambda n: HttpReply(cut=n >= 2)) as got:
        code, document = said(f"http://127.0.0.1:{got.port}")
    assert (code, counts(document)) == (15, {"delivered": 32, "lost": 33, "unsent": 16})
    assert len(got.spans) == 32 and document["batches"] == {"sent": 4, "repeated": 4}
    with http_receiver(lambda n: HttpReply(cut=n == 2)) as got:  # and one that recovers
        assert said(f"http://127.0.0.1:{got.port}")[0] == 0 and len(got.spans) == SPANS


def test_nothing_is_sent_to_who_lets_nobody_in(
    said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latdiag.export.delivery._SPANS", 16)
    with http_receiver(lambda n: HttpReply(401 if n else 200)) as got:
        code, document = said(f"http://127.0.0.1:{got.port}")
    assert (code, counts(document)) == (15, {"delivered": 16, "rejected": 16, "unsent": 49})
    assert document["reasons"][0] == {"text": "not sent after: HTTP 401", "spans": 49}


@pytest.mark.parametrize(
    "words",
    [b"\x00\xff garbage", b"SSH-2.0-OpenSSH_9.2\r\n", b"", b"HTTP/1.1 200 OK\r\n\r\nhello"],
)
def test_garbage_confirms_nothing(said: Said, words: bytes) -> None:
    for scheme in ("http", "grpc"):
        with garbage_port(words) as port:
            code, document = said(f"{scheme}://127.0.0.1:{port}", "--timeout", "2s")
        assert code == 15 and counts(document) == {"lost": SPANS}, scheme


def test_another_protocol_at_the_port_confirms_nothing(said: Said) -> None:
    page = HttpReply(body=b"<html>Welcome</html>", kind="text/html")
    with http_receiver(lambda _: page) as http:
        code, document = said(f"http://127.0.0.1:{http.port}")
        assert (code, counts(document)) == (15, {"lost": SPANS})
        assert "text/html" in document["reasons"][0]["text"]
        code, document = said(f"grpc://127.0.0.1:{http.port}", "--timeout", "2s")
        assert (code, counts(document)) == (15, {"lost": SPANS})
    with grpc_receiver(lambda _: GrpcReply()) as rpc:
        code, document = said(f"http://127.0.0.1:{rpc.port}", "--timeout", "2s")
    assert (code, counts(document)) == (15, {"lost": SPANS})


def test_nobody_listens(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    for scheme in ("http", "grpc"):
        assert verb(["export", run, "--to", "otlp", f"{scheme}://127.0.0.1:{port}"]) == 15
        assert "takes no connection: connection refused" in capsys.readouterr().err


def test_secrets_go_out_and_are_never_shown(
    run: str,
    said: Said,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MY_TOKEN", "canary-4711")
    monkeypatch.setenv("MY_TENANT", "canary-4712")
    secret = ("--token-env", "MY_TOKEN", "--header-env", "X-Scope-OrgID: MY_TENANT")
    shouting = HttpReply(403, b"no canary-4711 here, canary-4712", "text/plain")
    with http_receiver(lambda n: shouting if n else HttpReply()) as http:
        assert said(f"http://127.0.0.1:{http.port}", *secret)[0] == 0
        code, document = said(f"http://127.0.0.1:{http.port}", *secret)
    assert http.headers[0]["authorization"] == "Bearer canary-4711"
    assert http.headers[0]["x-scope-orgid"] == "canary-4712"
    assert code == 15 and document["reasons"][0]["text"].startswith("HTTP 403: no [concealed]")
    loud = GrpcReply(Code.UNAUTHENTICATED, "canary-4711 is wrong")
    with grpc_receiver(lambda n: loud if n else GrpcReply()) as rpc:
        assert said(f"grpc://127.0.0.1:{rpc.port}", *secret)[0] == 0
        code, document = said(f"grpc://127.0.0.1:{rpc.port}", *secret)
    assert rpc.headers[0]["authorization"] == "Bearer canary-4711"
    assert code == 15 and "canary" not in json.dumps(document)
    sent = "".join(each.SerializeToString().decode("latin-1") for each in http.requests)
    assert "canary" not in sent + caplog.text


def test_the_environment_changes_nothing(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither proxies nor the variables of opentelemetry's own exporters."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=other")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    with http_receiver(lambda _: HttpReply()) as http, grpc_receiver(lambda _: GrpcReply()) as rpc:
        assert said(f"http://127.0.0.1:{http.port}")[0] == 0
        assert said(f"grpc://127.0.0.1:{rpc.port}")[0] == 0
    for got in (http, rpc):
        (resource,) = (each.resource for each in got.requests[0].resource_spans)
        assert {each.key for each in resource.attributes} == {"service.name", "host.id"}


# --- what is asked for


def test_usage(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    url = "http://127.0.0.1:9"
    for args, words in (
        (("--to", "zipkin", url), "no form 'zipkin'"),
        (("--to", "otlp", "nonsense"), "is not an address to export to"),
        (("--to", "otlp", "http://user:pw@127.0.0.1:9"), "user, password and query are not sent"),
        (("--to", "otlp", url, "--token-env", "NOT_THERE"), "NOT_THERE is not set"),
        (("--to", "otlp", url, "--slowest", "0"), "--slowest"),
        (("--to", "otlp"), "--to"),
    ):
        assert verb(["export", run, *args]) == 2
        assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("nonsense", "not a condition"),
        ("e2e > 5", "no column 'e2e'"),
        ("e2e_ms > slow", "not a number"),
        ("outcome > ok", "is text"),
    ],
)
def test_conditions_that_are_none(
    run: str, capsys: pytest.CaptureFixture[str], where: str, words: str
) -> None:
    with http_receiver(lambda _: HttpReply()) as got:
        url = f"http://127.0.0.1:{got.port}"
        assert verb(["export", run, "--to", "otlp", url, "--where", where]) == 2
    assert words in capsys.readouterr().err and not got.requests


def test_a_choice_is_of_those_that_match(run: str, said: Said) -> None:
    table = diagnosis(run).requests()
    slow = table[(table.e2e_ms > 200) & (table.outcome == "ok")]
    where = ("--where", "e2e_ms > 200", "--where", "outcome = ok")
    with http_receiver(lambda _: HttpReply()) as got:
        _, document = said(f"http://127.0.0.1:{got.port}", *where, slowest=None)
        assert document["requests"]["exported"] == len(slow) < len(table)
        got.requests.clear()
        _, document = said(f"http://127.0.0.1:{got.port}", "--at-most", "3", slowest=None)
        first = {span.trace_id for span in got.spans}
        whole = {"of": len(table), "matching": len(table)}
        assert document["requests"] == {**whole, "exported": 3, "sampled": True, "unplaced": 0}
        _, document = said(f"http://127.0.0.1:{got.port}", "--at-most", "3", slowest=None)
        assert {span.trace_id for span in got.spans} == first and len(first) == 3
        code, document = said(f"http://127.0.0.1:{got.port}", "--where", "e2e_ms < 0")
        assert (code, document["requests"]["exported"], document["spans"]["spans"]) == (0, 0, 0)


def test_pages_say_what_documents_say(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    with http_receiver(lambda _: HttpReply(body=rejecting(7))) as got:
        url = f"http://127.0.0.1:{got.port}"
        assert verb(["export", run, "--to", "jaeger", url, "--slowest", "10"]) == 15
    told = capsys.readouterr().out
    assert "74 of 81 spans delivered; 7 rejected by the receiver" in told
    assert "7 spans: rejected: too old" in told and "10 requests (10 of" in told


def test_a_run_without_requests_exports_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "capture"
    shutil.copytree(CAPTURES / "vllm-0.24.0-h200" / "tp1", folder)
    (client,) = folder.glob("client.jsonl*")
    client.unlink()
    out = str(tmp_path / "spans.run")
    assert verb(["import", str(folder), "--out", out, "--json"]) == 0
    capsys.readouterr()
    with http_receiver(lambda _: HttpReply()) as got:
        assert verb(["export", out, "--to", "otlp", f"http://127.0.0.1:{got.port}"]) == 0
    assert "nothing to export" in capsys.readouterr().out
