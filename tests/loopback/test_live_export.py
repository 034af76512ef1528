"""``load --export``: traces leave while the load runs; what becomes of them is no fault."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from latdiag.export.live import Follower, caveats_of
from latdiag.export.way import Way
from latdiag.ingest.otlp.forward import Destination
from latdiag.load.trust import Trust
from latdiag.model import span_names as names
from latdiag.sim.demo import running_demo
from latdiag.store.run import Run
from tests.exported_run import recorded

from .trace_receiver import GrpcReply, HttpReply, Received, grpc_receiver, http_receiver, rejecting


def load(
    folder: Path, url: str, export: str, *options: str, env: dict[str, str] | None = None
) -> tuple[int, dict[str, Any], str]:
    """(Exit code, document, stderr) of a load with an export."""
    words = [sys.executable, "-m", "latdiag", "load", url, "--concurrency", "4", "--osl", "8"]
    done = subprocess.run(
        [*words, "--json", "--no-api-key", "--out", "x.run", "--export", export, *options],
        cwd=folder, capture_output=True, text=True, check=False, timeout=180, env=env,
    )  # fmt: skip
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout), done.stderr


def caveats(document: dict[str, Any]) -> list[str]:
    """Sentences on the export."""
    return [each["text"] for each in document["caveats"] if each["code"] == "LD434"]


def roots(received: Received) -> list[Any]:
    return [span for span in received.spans if not span.parent_span_id]


def test_traces_arrive_while_the_load_runs(tmp_path: Path) -> None:
    early: list[int] = []
    with http_receiver(lambda _: HttpReply()) as received, running_demo() as url:

        def look() -> None:
            """How many traces there were while the load went on."""
            until = time.monotonic() + 60
            while not received.requests and time.monotonic() < until:
                time.sleep(0.05)
            early.append(len(roots(received)))

        looking = threading.Thread(target=look)
        looking.start()
        to = f"http://127.0.0.1:{received.port}"
        code, document, said = load(tmp_path, url, to, "--duration", "8s")
        looking.join()
    assert code in (0, 12) and not caveats(document), said
    sent = document["load"]["requests"]
    assert 0 < early[0] < sent
    found = {
        value.value.string_value: span
        for span in roots(received)
        for value in span.attributes
        if value.key == names.REQUEST_ID
    }
    assert len(found) == len(roots(received)) == sent  # each once
    assert f"exported {len(received.spans):,} of {len(received.spans):,} spans" in said
    # Its children fill it, and are of it alone.
    apart = 0
    for root in found.values():
        own = [s for s in received.spans if s.parent_span_id == root.span_id]
        assert all(s.trace_id == root.trace_id for s in own)
        told = {value.key: value.value.bool_value for value in root.attributes}
        assert bool(own) == told[names.ATTRIBUTED]  # not where a busy client lost its stamps
        apart += bool(own)
        assert not own or max(s.end_time_unix_nano for s in own) == root.end_time_unix_nano
    assert apart
    # A later export knows more, and is not mixed with these.
    with http_receiver(lambda _: HttpReply()) as later:
        words = ["export", "x.run", "--to", "otlp", f"http://127.0.0.1:{later.port}"]
        subprocess.run(
            [sys.executable, "-m", "latdiag", *words],
            cwd=tmp_path, check=True, capture_output=True,
        )  # fmt: skip
    assert not {s.trace_id for s in later.spans} & {s.trace_id for s in received.spans}


def test_over_grpc_with_a_header_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXPORT_KEY", "sesame-42")
    with grpc_receiver(lambda _: GrpcReply()) as received, running_demo() as url:
        to = f"grpc://127.0.0.1:{received.port}"
        named = ("--export-header-env", "authorization: EXPORT_KEY")
        code, document, said = load(tmp_path, url, to, "--requests", "40", *named)
    assert code in (0, 12) and not caveats(document), said
    assert len(roots(received)) == 40
    assert {each["authorization"] for each in received.headers} == {"sesame-42"}
    assert "sesame-42" not in said + json.dumps(document)


def test_what_does_not_arrive_is_a_caveat_and_no_exit_code(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        nobody = f"http://127.0.0.1:{held.getsockname()[1]}"
    with running_demo() as url:
        code, document, _ = load(tmp_path, url, nobody, "--requests", "30")
    assert code in (0, 12)
    (text,) = caveats(document)
    assert nobody in text and "spans: " in text and "the connection failed" in text
    assert document["load"]["ok"] == 30


def test_spans_that_are_rejected_are_counted(tmp_path: Path) -> None:
    with http_receiver(lambda _: HttpReply(body=rejecting(7))) as received, running_demo() as url:
        to = f"http://127.0.0.1:{received.port}"
        code, document, said = load(tmp_path, url, to, "--requests", "30")
        lost = 7 * len(received.requests)
    (text,) = caveats(document)
    assert code in (0, 12) and f"{lost} of {len(received.spans)} spans: rejected: too old" in text
    assert f"exported {len(received.spans) - lost:,} of" in said


def test_a_receiver_that_hangs_delays_no_request_and_is_waited_for_a_while(tmp_path: Path) -> None:
    with http_receiver(lambda _: HttpReply(hang_s=60.0)) as received, running_demo() as url:
        to = f"http://127.0.0.1:{received.port}"
        code, document, _ = load(tmp_path, url, to, "--duration", "6s")
        (text,) = caveats(document)
    assert code in (0, 12)
    assert document["load"]["ok"] == document["load"]["requests"] > 30
    assert "no reply within 3 s" in text
    # Every span has its reason.
    (whole,) = {int(each) for each in re.findall(r"of ([\d]+) spans:", text.replace(",", ""))}
    each = re.findall(r"([\d]+) of [\d]+ spans:", text.replace(",", ""))
    assert sum(map(int, each)) == whole >= 2 * document["load"]["requests"]


def test_what_waits_when_the_time_is_over_is_counted(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run = recorded(tmp_path_factory)
    with http_receiver(lambda _: HttpReply()) as received:
        to = Destination.parse(f"http://127.0.0.1:{received.port}", "to export to")
        way = Way(to, (), Trust(), 10**9)
        follower = Follower(run, way)
        follower.step(until=time.monotonic() - 1)
        follower.step()  # nothing is new
    sent = follower.account()
    assert sent.unread == sent.attempts == Run.open(run).frame(["attempt"]).shape[0] > 0
    assert sent.spans == 0 and not received.requests
    (text,) = (each.text for each in caveats_of(sent, way.name))
    assert f"{sent.unread:,} of {sent.attempts:,} requests were still waiting" in text
    (text,) = (each.text for each in caveats_of(None, way.name))
    assert "gave no account" in text


@pytest.mark.parametrize("options", [("--export", "nonsense"), ("--export-header-env", "A: B")])
def test_what_cannot_be_meant_costs_nothing(tmp_path: Path, options: tuple[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "latdiag", "load", "http://127.0.0.1:9", *options],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and not list(tmp_path.iterdir()), done.stderr
