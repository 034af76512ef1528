"""The receiver as the tests run it: a collecting child on free ports, and what its run holds."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from latdiag.ingest.collector import Collector, collecting
from latdiag.ingest.otlp.endpoints import Endpoints
from latdiag.stacks.catalogue import families, stacks
from latdiag.store.run import Run
from latdiag.store.writer import create_run
from tests.run_documents import header

ANY = "127.0.0.1:0"
PROTOBUF = {"Content-Type": "application/x-protobuf"}
SENDER = Path(__file__).parent / "otlp_sender.py"


@contextlib.contextmanager
def receiving(folder: Path, name: str = "it", **options: Any) -> Iterator[tuple[Collector, str]]:
    """(The collector, its run); options as of ``collecting``."""
    run = create_run(str(folder / f"{name}.run"), header())
    asked = {"otlp": Endpoints(ANY, ANY)} | options
    with collecting(run, stacks(), families(), **asked) as collector:
        yield collector, run


def sent(kind: str, address: str | None, *rest: object) -> dict[str, Any]:
    """What a sender process of ``kind`` says."""
    ended = subprocess.run(
        [sys.executable, str(SENDER), kind, str(address), *map(str, rest)],
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    )
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def post(
    address: str | None,
    body: bytes,
    headers: dict[str, str] | None = None,
    path: str = "/v1/traces",
    method: str = "POST",
) -> tuple[int, dict[str, str], bytes]:
    """One request on a connection of its own: status, headers (names in lower case), body."""
    connection = http.client.HTTPConnection(str(address), timeout=20)
    try:
        connection.request(method, path, body, PROTOBUF if headers is None else headers)
        reply = connection.getresponse()
        return reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read()
    finally:
        connection.close()


def rows_of(run: str) -> list[dict[str, Any]]:
    """The rows of evidence of a run."""
    found = Run.open(run).evidence()
    rows: list[dict[str, Any]] = found.to_dict("records")
    return rows


def state_of(run: str) -> dict[str, Any]:
    """The collector's word about itself in the run."""
    found: dict[str, Any] = json.loads(Path(run, "writers", "collector.json").read_text())
    return found
