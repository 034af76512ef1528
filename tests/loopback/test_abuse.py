"""Hostile senders at a real ``latdiag collect``: those who behave lose nothing meanwhile.

How long they wait is measured by the bench (``tests/bench/otlp/test_abuse.py``), which has more.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.loopback.abuse import ABUSES
from tests.loopback.receiver import rows_of
from tests.loopback.watched import Watched, watched

#: What each is counted as: reasons of refusals, or the door that was wrong.
COUNTED = {
    "a group, then 8.4 M messages": {"malformed"},
    "gzip of a million members": {"bomb"},
    "900,000 empty spans in JSON": {"too_many"},
    "one trailer without end": {"framing"},
    "60 bodies of 16 MB that do not end": {"busy"},
    "TLS at both": {"spoke TLS at the gRPC port", "spoke TLS at the HTTP port"},
    "HTTP/1.1 at the gRPC port": {"spoke HTTP/1.1 at the gRPC port"},
    "gRPC at the HTTP port": {"spoke gRPC at the HTTP port"},
    "a resource in 8 M pieces": {"too_many"},
    "900,000 times the same key in JSON": {"malformed"},
    "Redis at both": {"malformed", "spoke neither gRPC nor HTTP at the gRPC port"},
}
MOST_MB = 500


def check(found: Watched) -> None:
    """Those who behaved were answered, all of it is in the run, and it ended as it was asked."""
    by_grpc, by_http = found.behaved["grpc"]["answers"], found.behaved["http"]["answers"]
    assert set(by_grpc) == {"OK"} and set(by_http) == {"200"}
    taken = sum(by_grpc.values()) + sum(by_http.values())
    counts = found.result["collected"]
    rows = rows_of(str(found.run))
    behaved = sum(row["labels"].get("service.name") == "behaves" for row in rows)
    assert behaved == taken > 0
    assert (counts["accepted"], counts["lost"]) == (len(rows), 0)
    assert found.code == 130  # it was interrupted, by this test
    assert "Traceback" not in found.stderr and "a bug" not in found.stderr
    assert max(found.rss_mb) <= MOST_MB


@pytest.mark.parametrize("name", COUNTED)
def test_one_who_behaves_is_answered_beside(tmp_path: Path, name: str) -> None:
    with watched(tmp_path, "it") as found:
        ABUSES[name](found.grpc, found.http)
    check(found)
    counts = found.result["collected"]
    doors = {door.rpartition(" port ")[0] + " port" for door in counts.get("wrong_doors", {})}
    assert {*counts["refused_exports"], *doors} == COUNTED[name]
    codes = {caveat["code"] for caveat in found.result["caveats"]}
    assert ("LD431" if doors else "LD421") in codes
