"""Every abuse of ``tests/loopback/abuse.py``: how long others wait meanwhile, and the memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.loopback.abuse import ABUSES
from tests.loopback.test_abuse import check
from tests.loopback.watched import watched

ANSWERED_S = 1.0


@pytest.mark.bench
@pytest.mark.parametrize("name", ABUSES)
def test_others_are_answered_within_a_second(tmp_path: Path, name: str) -> None:
    with watched(tmp_path, "it") as found:
        ABUSES[name](found.grpc, found.http)
    worst = {door: found.behaved[door]["worst_s"] for door in ("grpc", "http")}
    counts = found.result["collected"]
    print(
        f"\n{name}: others answered within {worst['grpc']:.2f} s by gRPC and"
        f" {worst['http']:.2f} s by HTTP; RSS at most {max(found.rss_mb):.0f} MB,"
        f" {found.rss_mb[-1]:.0f} MB at the end; refused {counts['refused_exports']},"
        f" spans {counts['refused']}, doors {counts.get('wrong_doors')}"
    )
    check(found)
    assert max(worst.values()) <= ANSWERED_S
