"""Exports that are passed on: unchanged, counted, and never in a circle."""

from __future__ import annotations

import gzip
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from latdiag.ingest.otlp.endpoints import Endpoints
from latdiag.model.errors import UsageFault

from .otlp_sender import export
from .receiver import PROTOBUF, post, receiving, rows_of, sent
from .test_otlp_receiver import JSON, as_json


class Taking(HTTPServer):
    """A collector that keeps what it gets, and answers with ``status``."""

    def __init__(self, status: int = 200) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = status
        self.seen: list[tuple[str, str | None, str | None, bytes]] = []
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Taking

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        kinds = self.headers["Content-Type"], self.headers["Content-Encoding"]
        self.server.seen.append((self.path, *kinds, body))
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Not on the terminal."""


@pytest.mark.parametrize("status", [200, 503])
def test_http_is_passed_on_byte_by_byte(tmp_path: Path, status: int) -> None:
    body = export(4).SerializeToString()
    packed = gzip.compress(body)
    taking = Taking(status)
    with receiving(tmp_path, forward=taking.url) as (collector, run):
        taking.thread.start()  # after the fork
        assert post(collector.http, body)[0] == 200
        assert post(collector.http, packed, PROTOBUF | {"Content-Encoding": "gzip"})[0] == 200
        assert post(collector.http, as_json(4), JSON)[0] == 200
        assert post(collector.http, b"refused")[0] == 400
        assert post(collector.http, b"metrics", path="/v1/metrics")[0] == 200
        found = collector.finish(0)
    taking.shutdown()
    taking.server_close()
    taking.thread.join()
    spans, other = "/v1/traces", "/v1/metrics"
    kind = PROTOBUF["Content-Type"]
    assert sorted(taking.seen, key=str) == sorted(
        [
            (spans, kind, None, body),
            (spans, kind, "gzip", packed),
            (spans, "application/json", None, as_json(4)),
            (other, kind, None, b"metrics"),
        ],
        key=str,
    )
    counts = (found.forwarded, found.forward_failed)
    assert counts == ((4, 0) if status == 200 else (0, 4))
    assert found.forward_failure == ("" if status == 200 else "HTTP 503")
    assert len(rows_of(run)) == found.accepted == 12


def test_grpc_and_json_are_passed_on_by_grpc(tmp_path: Path) -> None:
    with receiving(tmp_path, "last") as (last, last_run):
        url = f"grpc://{last.grpc}"
        with receiving(tmp_path, "first", forward=url) as (first, _):
            sent("sdk", f"http://{first.grpc}", "grpc", 600, "gzip")
            assert post(first.http, as_json(5), JSON)[0] == 200
            sent("metrics", first.grpc)
            found = first.finish(0)
        there = last.finish(0)
    assert found.accepted == there.accepted == 605
    # The last one takes no metrics, and says so.
    assert found.forward_failed == 1
    assert found.forward_failure == "gRPC UNIMPLEMENTED"
    assert there.other_signals == {"metrics": 1}
    assert {row["source"] for row in rows_of(last_run)} == {"otlp/grpc"}


def test_a_destination_that_is_away_costs_nothing(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        for scheme in ("http", "grpc"):
            url = f"{scheme}://127.0.0.1:{closed.getsockname()[1]}"
            with receiving(tmp_path, scheme, forward=url) as (collector, run):
                for _ in range(5):
                    assert post(collector.http, export(2).SerializeToString())[0] == 200
                found = collector.finish(0)
            assert (found.accepted, len(rows_of(run))) == (10, 10)
            assert (found.forwarded, found.forward_failed) == (0, 5)


def test_a_receiver_does_not_forward_to_itself(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = Endpoints(None, f"127.0.0.1:{port}")
    with (
        pytest.raises(UsageFault, match="itself"),
        receiving(tmp_path, otlp=own, forward=f"http://localhost:{port}"),
    ):
        pass
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))
