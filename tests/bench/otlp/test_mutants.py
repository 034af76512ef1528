"""Bodies that are changed in their structure, at a real ``latdiag collect``; and metrics."""

from __future__ import annotations

import http.client
import time
from pathlib import Path

import pytest

from latdiag.ingest.prometheus import read_exposition
from tests import otlp_mutants as mutants
from tests.loopback.otlp_oracle import expected
from tests.loopback.receiver import sent
from tests.loopback.test_abuse import check
from tests.loopback.watched import watched

BY_HTTP, BY_GRPC, JSON, METRICS = 4000, 3000, 3000, 5000
HANGS_S = 20.0


def _answers(address: str, bodies: list[bytes], kind: str) -> list[int]:
    connection = http.client.HTTPConnection(address, timeout=HANGS_S)
    found = []
    for body in bodies:
        connection.request("POST", "/v1/traces", body, {"Content-Type": f"application/{kind}"})
        reply = connection.getresponse()
        reply.read()
        found.append(reply.status)
    connection.close()
    return found


@pytest.mark.bench
def test_ten_thousand_exports(tmp_path: Path) -> None:
    bodies = mutants.protobuf(seed=31, count=BY_HTTP)
    with watched(tmp_path, "it") as found:
        by_http = _answers(found.http, bodies, "x-protobuf")
        by_json = _answers(found.http, mutants.json_texts(seed=32, count=JSON), "json")
        by_grpc = sent("mutants", found.grpc, 33, BY_GRPC)["answers"]
    check(found)
    assert [status == 200 for status in by_http] == [
        expected(body).spans is not None for body in bodies
    ]
    assert set(by_json) == {200, 400}
    assert set(by_grpc) == {"OK", "INVALID_ARGUMENT"}
    print(
        f"\n{len(by_http)} by HTTP ({by_http.count(200)} taken), {len(by_json)} in JSON"
        f" ({by_json.count(200)} taken), by gRPC {by_grpc}; RSS at most"
        f" {max(found.rss_mb):.0f} MB, others answered within"
        f" {max(found.behaved[door]['worst_s'] for door in ('grpc', 'http')):.2f} s"
    )


@pytest.mark.bench
def test_five_thousand_metric_texts() -> None:
    read, longest = 0, 0.0
    for text in mutants.metrics(seed=34, count=METRICS):
        begun = time.monotonic()
        try:
            read += bool(read_exposition(text, mutants.FAMILIES).series)
        except ValueError as fault:
            assert "\n" not in str(fault)
        longest = max(longest, time.monotonic() - begun)
    print(f"\n{METRICS} texts, {read} with a series; the longest took {longest:.3f} s")
    assert longest < HANGS_S
