"""Every abuse of ``tests/loopback/abuse.py``: how long others wait meanwhile, and the memory."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.loopback.abuse import ABUSES
from tests.loopback.test_abuse import check
from tests.loopback.watched import watched

ROOT = Path(__file__).parents[3]
ANSWERED_S = 1.0
_HEAD = (
    f"{'abuse':44} {'sent':>5} {'gRPC s':>11} {'plain gRPC':>11} {'HTTP s':>11} {'plain HTTP':>11}"
    f" {'MB':>5} {'end':>5} ok   refused"
)


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    """Its rows are printed in one piece at the end."""
    rows = [_HEAD]
    yield rows
    print("\n" + "\n".join(rows))


def _abuse(name: str, grpc: str, http: str) -> None:
    """By a process that gives way: who abuses from afar has processors of its own."""
    command = [sys.executable, "-m", "tests.loopback.abuse", name, grpc, http]
    subprocess.run(["nice", "-n", "10", *command], cwd=ROOT, check=True, timeout=300)


@contextlib.contextmanager
def _plain() -> Iterator[dict[str, Any]]:
    """The answers of plain servers meanwhile: what this machine makes of them."""
    command = [sys.executable, "-m", "tests.bench.otlp.plain"]
    answers: dict[str, Any] = {}
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as beside:
        assert beside.stdout is not None
        beside.stdout.readline()  # it has begun
        yield answers
        answers.update(json.loads(beside.communicate()[0]))


def _times(answers: dict[str, Any]) -> str:
    """The middle one and the longest, in seconds."""
    return f"{answers['middle_s']:5.3f}/{answers['worst_s']:5.2f}"


@pytest.mark.bench
@pytest.mark.parametrize("name", ABUSES)
def test_others_are_answered_within_a_second(tmp_path: Path, name: str, table: list[str]) -> None:
    """Columns: exports of others, the middle and the longest answer to one by either door (each
    over a new connection) and of plain servers meanwhile, the largest RSS of a process and that at
    the end, whether all is as it must be, what was refused of the abuse."""
    with watched(tmp_path, "it") as found, _plain() as plain:
        _abuse(name, found.grpc, found.http)
    worst = {door: found.behaved[door]["worst_s"] for door in ("grpc", "http")}
    counts = found.result["collected"]
    exports = sum(sum(found.behaved[door]["answers"].values()) for door in worst)
    refused = {**counts["refused_exports"], **counts["refused"], **counts.get("wrong_doors", {})}
    words = ", ".join(f"{number:,} {why}" for why, number in refused.items())
    row = (
        f"{name:44} {exports:5} {_times(found.behaved['grpc'])} {_times(plain['grpc'])}"
        f" {_times(found.behaved['http'])} {_times(plain['http'])}"
        f" {max(found.rss_mb):5.0f} {found.rss_mb[-1]:5.0f}"
    )
    table.append(f"{row}  no  {words}")
    print(f"\n{row} {found.behaved}")
    check(found)
    assert max(worst.values()) <= ANSWERED_S
    table[-1] = f"{row} yes  {words}"
