"""``latdiag import --jaeger``: what is asked of it, and what it may answer."""

from __future__ import annotations

import contextlib
import gzip
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from latdiag.cli import run as verb
from latdiag.store.run import Run

#: What a real Jaeger saved.
FIXTURE = Path(__file__).parents[1] / "fixtures" / "jaeger-1.76.0" / "traces_v1.json.gz"
Answer = Callable[[str], tuple[int, bytes]]


@contextlib.contextmanager
def answering(answer: Answer) -> Iterator[tuple[str, list[str]]]:
    """(URL, what was asked) of a server; ``answer``: of a path its status and body."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            status, body = answer(self.path)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()


def imported(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path, *words: str
) -> tuple[int, str, str]:
    monkeypatch.chdir(folder)
    code = verb(["import", *words, "--quiet", "--out", "x.run", "--json"])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_newest_of_a_service(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = gzip.decompress(FIXTURE.read_bytes())
    with answering(lambda _: (200, saved)) as (url, asked):
        words = ("--jaeger", url, "--service", "latdiag", "--lookback", "2h", "--limit", "7")
        code, out, err = imported(capsys, monkeypatch, tmp_path, *words)
        (tmp_path / "traces.json").write_bytes(saved)
        other = verb(["import", "traces.json", "--quiet", "--out", "y.run", "--json"])
        file = json.loads(capsys.readouterr().out)
    assert (code, other) == (0, 0), err
    rows = [Run.open(str(tmp_path / name)).frame(["request_id"]) for name in ("x.run", "y.run")]
    assert len(rows[0]) == len(rows[1]) > 0 and json.loads(out)["verb"] == file["verb"]
    (path,) = asked
    query = {key: value for key, (value,) in parse_qs(urlsplit(path).query).items()}
    assert path.startswith("/api/traces?")
    assert (query["service"], query["limit"]) == ("latdiag", "7")
    assert int(query["end"]) - int(query["start"]) == 2 * 3_600 * 10**6


def test_traces_by_their_ids_of_an_old_jaeger_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no API v3."""
    whole = json.loads(gzip.decompress(FIXTURE.read_bytes()))["data"]
    by_id = {each["traceID"]: each for each in whole}

    def answer(path: str) -> tuple[int, bytes]:
        name = path.rpartition("/")[2]
        if path.startswith("/api/v3") or name not in by_id:
            return 404, b"{}"
        return 200, json.dumps({"data": [by_id[name]]}).encode()

    one, two = list(by_id)[:2]
    with answering(answer) as (url, asked):
        words = ("--jaeger", f"{url}/", "--trace", one, "--trace", two)
        code, _, err = imported(capsys, monkeypatch, tmp_path, *words)
        assert code == 0, err
        assert asked[:2] == [f"/api/v3/traces/{one}", f"/api/traces/{one}"]
        absent = imported(
            capsys, monkeypatch, tmp_path, "--jaeger", url, "--trace", "f" * 32, "--out", "z.run"
        )
    assert absent[0] == 15 and f"holds no trace {'f' * 32}" in absent[2] + absent[1]


@pytest.mark.parametrize(
    ("status", "body", "code", "words"),
    [
        (200, b'{"data": []}', 15, "holds no trace of service"),
        (503, b"{}", 15, "answered with HTTP 503"),
        (302, b"", 15, "answered with HTTP 302"),
        (404, b"", 15, "answered with HTTP 404"),
    ],
)
def test_answers_that_hold_nothing(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    body: bytes,
    code: int,
    words: str,
) -> None:
    with answering(lambda _: (status, body)) as (url, _):
        done = imported(capsys, monkeypatch, tmp_path, "--jaeger", url, "--service", "x")
    assert done[0] == code and words in done[1] + done[2]
    assert not (tmp_path / "x.run").exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((), "nothing is named to import"),
        (("--trace", "ab"), "give --jaeger URL"),
        (("--jaeger", "http://127.0.0.1:9"), "give --trace ID, or --service NAME"),
        (("--jaeger", "localhost", "--service", "x"), "is no URL of a Jaeger"),
        (("--jaeger", "http://127.0.0.1:9", "--trace", "../x"), "is no id of a trace"),
        (("--jaeger", "http://a:9", "--trace", "a", "--service", "x"), "give --trace ID, or"),
    ],
)
def test_what_cannot_be_meant(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    text: str,
) -> None:
    code, out, err = imported(capsys, monkeypatch, tmp_path, *words)
    assert code == 2 and text in out + err


def test_nobody_listens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--jaeger", "http://127.0.0.1:9", "--service", "x")
    code, out, err = imported(capsys, monkeypatch, tmp_path, *words)
    assert code == 15 and "cannot be asked" in out + err
