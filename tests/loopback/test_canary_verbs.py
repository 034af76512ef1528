"""Every verb, its failures, and servers that echo: nothing of a secret anywhere.

Each command runs as a user starts it, in a folder of its own that holds its working directory,
its temporary files and its runs. Looked through are both streams, every byte of every file, what
parquet decodes to, and the command lines of all its processes, sampled while they live.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from latdiag.cli import run

from .invoke import PATIENCE_S, ROOT
from .peers import Asked, Script, Wire, event, serving, well
from .test_canary import FORBIDDEN, KEY, PROMPTS, SECRET_PIECE, assert_silent, pieces, prompts_file

TOKEN = "w5hn1k8rz0qy7m4xv3jp"
METRICS = "Basic bWV0cmljczpxN3ptMWs4cg=="
HEADER = "token h2kz9wq4mxr7tnv1"
VARIABLES = {"API_KEY": KEY, "TOKEN": TOKEN, "METRICS_AUTH": METRICS, "EXTRA": HEADER}
WATCHED = {
    **FORBIDDEN,
    **{s: pieces(s, SECRET_PIECE) for s in (KEY, TOKEN, METRICS.split()[1], HEADER.split()[1])},
}
OPTIONS = ("--api-key-env", "API_KEY", "--header-env", "X-Extra: EXTRA")
SCRAPED = ("--metrics-header-env", "Authorization: METRICS_AUTH")
FAST = ("--requests", "4", "--timeout", "5s")


# ---------------------------------------------------------------------- a command, watched
@dataclass
class Watched:
    """A command under way. ``lines``: the command lines of its processes, as others see them."""

    process: subprocess.Popen[bytes]
    folder: Path
    lines: set[str] = field(default_factory=set)
    code: int = -1

    def sample(self) -> None:
        """Look at its session until it has ended."""
        while self.process.poll() is None:
            for entry in Path("/proc").iterdir():
                if entry.name.isdigit():
                    with suppress(OSError, IndexError, ValueError):
                        stat = (entry / "stat").read_text().rpartition(")")[2].split()
                        if str(self.process.pid) in (stat[1], stat[3]):
                            self.lines.add(
                                (entry / "cmdline").read_bytes().decode(errors="replace")
                            )
            time.sleep(0.05)

    def err(self) -> str:
        return (self.folder / "stderr").read_text(errors="replace")

    def out(self) -> str:
        return (self.folder / "stdout").read_text(errors="replace")

    def everything(self) -> str:
        """All that it left: streams, every file, what parquet holds, and command lines."""
        return "\n".join((*self.lines, contents(self.folder)))


def contents(folder: Path) -> str:
    """Every file below it, and what parquet holds."""
    import pyarrow.parquet as pq

    found = []
    for file in sorted(folder.rglob("*")):
        found.append(str(file.relative_to(folder)))
        if file.is_file() and file.name != "prompts.jsonl":
            found.append(file.read_bytes().decode("utf-8", "replace"))
            if file.suffix == ".parquet":
                table = pq.read_table(file)
                found.append(repr(table.to_pylist()) + repr(table.schema.metadata))
    return "\n".join(found)


@contextmanager
def watched(
    folder: Path, *arguments: str, before_exec: Callable[[], None] | None = None
) -> Iterator[Watched]:
    """Run ``latdiag ARGUMENTS`` and look at it; at the block's end it has ended by itself."""
    for name in ("work", "tmp"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    with (folder / "stdout").open("ab") as out, (folder / "stderr").open("ab") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "latdiag", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=folder / "work",
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "TMPDIR": str(folder / "tmp"),
                **VARIABLES,
            },
            start_new_session=True,
            preexec_fn=before_exec,
        )
    command = Watched(process, folder)
    sampler = threading.Thread(target=command.sample)
    sampler.start()
    try:
        yield command
        command.code = process.wait(PATIENCE_S)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        sampler.join()


def ran(folder: Path, *arguments: str, before_exec: Callable[[], None] | None = None) -> Watched:
    """A command run to its end, of which nothing secret is left anywhere."""
    with watched(folder, *arguments, before_exec=before_exec) as command:
        pass
    assert command.lines
    assert_silent(command.everything(), WATCHED)
    assert "Traceback" not in command.err()
    return command


def shown(folder: Path, *arguments: str) -> None:
    """A command that starts no process and knows no secret but what its run may hold: within
    this process, looked through as others are."""
    out, err = io.StringIO(), io.StringIO()
    with chdir(folder / "work"), redirect_stdout(out), redirect_stderr(err):
        run(list(arguments))
    said = out.getvalue() + err.getvalue()
    assert said and "Traceback" not in said
    assert_silent(said + contents(folder), WATCHED)


# ---------------------------------------------------------------------- servers that echo
def heard(asked: Asked) -> str:
    """What came, in one line."""
    return " ".join(
        value for name, value in asked.headers if name.lower().startswith(("auth", "x-e"))
    )


def exposition(asked: Asked) -> str:
    """Metrics that say in labels what the scrape's headers were, and what others asked for."""
    labels = {
        "authorization": heard(asked), "key": KEY, "prompt": PROMPTS[0], "word": PROMPTS[2],
        "token": TOKEN,
    }  # fmt: skip
    inside = ",".join(f"{name}={json.dumps(text)}" for name, text in labels.items())
    said = "# TYPE vllm:num_requests_running gauge\n"
    said += "# TYPE vllm:request_queue_time_seconds histogram\n"
    said += f"vllm:num_requests_running{{{inside}}} 1\n"
    for end in ('_bucket{le="+Inf",', "_count{", "_sum{"):
        said += f"vllm:request_queue_time_seconds{end}{inside}}} 1\n"
    return said


def _echoing(reply: Script) -> Script:
    """A server whose models and metrics echo too; requests are answered by ``reply``."""

    def script(wire: Wire, asked: Asked) -> None:
        path = asked.target.partition("?")[0]
        if path.endswith("/metrics"):
            wire.reply(200, exposition(asked), f"Server: {heard(asked)}")
        elif asked.method == "GET":
            wire.reply(
                200, json.dumps({"data": [{"id": "tiny"}]}), f"Set-Cookie: k={heard(asked)}"
            )
        else:
            reply(wire, asked)

    return script


def _echo_error(status: int, *headers: str) -> Script:
    def reply(wire: Wire, asked: Asked) -> None:
        said = {"error": {"message": f"no: {heard(asked)} {asked.body.decode()}"}}
        lines = [line.format(heard(asked).replace(" ", "")) for line in headers]
        wire.reply(status, json.dumps(said), "Content-Type: application/json", *lines)

    return reply


def _garbage(wire: Wire, asked: Asked) -> None:
    wire.head(f"X-Request-Id: {heard(asked)}")
    wire.chunk(
        f"data: {heard(asked)} {PROMPTS[0]}\n\n".encode(), event(id=KEY, model=KEY, choices=[])
    )
    wire.end()


def _stalled(wire: Wire, asked: Asked) -> None:
    wire.head()
    wire.chunk(event(id=heard(asked), choices=[], error=None))
    wire.hang()


def _cut(wire: Wire, asked: Asked) -> None:
    wire.send(f"HTTP/1.1 200 {heard(asked)}\r\nX-Echo: {heard(asked)}".encode())
    wire.close()


REPLIES: dict[str, Script] = {
    "well": well,
    "401": _echo_error(401, "WWW-Authenticate: Basic realm={}"),
    "400": _echo_error(400),
    "redirect": _echo_error(307, "Location: http://{0}@h/{0}?{0}", "Set-Cookie: {}"),
    "500": _echo_error(500, "Retry-After: {}", "Server: {}"),
    "garbage": _garbage,
    "stalled": _stalled,
    "cut": _cut,
}


def _export(text: str) -> bytes:
    """An OTLP/JSON export that says ``text`` wherever text may stand."""
    attributes = [
        {"key": name, "value": {"stringValue": text}}
        for name in ("gen_ai.request.id", "gen_ai.response.model", "http.url", "prompt", text)
    ]
    span = {
        "traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "name": text,
        "startTimeUnixNano": "1700000000000000000", "endTimeUnixNano": "1700000000000001000",
        "attributes": attributes, "events": [{"name": text}], "status": {"message": text},
    }  # fmt: skip
    service = [
        {"key": name, "value": {"stringValue": text}} for name in ("service.name", "host.name")
    ]
    scope = {"scope": {"name": text}, "spans": [span, {**span, "name": "llm_request"}]}
    return json.dumps(
        {"resourceSpans": [{"resource": {"attributes": service}, "scopeSpans": [scope]}]}
    ).encode()


def send(where: str, text: str) -> None:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
    url = f"http://{where}/v1/traces"
    for body in (_export(text), b"{" + text.encode(), text.encode()):
        request = urllib.request.Request(url, body, headers)
        with suppress(OSError):
            urllib.request.urlopen(request, timeout=20).close()


# ---------------------------------------------------------------------- the verbs
@pytest.mark.parametrize("reply", REPLIES)
@pytest.mark.parametrize("verb", ["load", "probe"])
def test_requests_to_a_server_that_echoes(verb: str, reply: str, tmp_path: Path) -> None:
    if verb == "probe" and reply in ("well", "stalled"):
        pytest.skip("a whole probe costs a minute; its requests are those of a load")
    prompts = ("--prompts", str(prompts_file(tmp_path)), *FAST) if verb == "load" else ()
    with serving(_echoing(REPLIES[reply])) as peer:
        more = (*OPTIONS, *prompts, "--metrics", peer.url, *SCRAPED, "--out", "it.run")
        command = ran(tmp_path, "-vv", verb, peer.url, *more, "--timeout", "2s")
        assert any(one.header("authorization") == METRICS for one in peer.asked) == (
            (tmp_path / "work/it.run").exists()
        )
    if (tmp_path / "work/it.run").exists():
        assert "withheld" in command.everything()
        for line in (("diagnose",), ("diagnose", "--json"), ("compare", "it.run")):
            shown(tmp_path, *line, "it.run")


@pytest.mark.parametrize("verb", ["load", "probe", "stacks"])
@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/v1?k={}", "https://127.0.0.1:{}/v1", "http://no.invalid"]
)
def test_targets_that_cannot_be_reached(verb: str, url: str, tmp_path: Path) -> None:
    with serving(_echoing(well)) as peer:
        asked = url.format(peer.port if "https" in url else "q-cred-6zn7kw0wr2m9")
        timeout = () if verb == "stacks" else ("--timeout", "2s")
        assert ran(tmp_path, "-vv", verb, asked, *OPTIONS, *timeout).code == 15
    assert "q-cred" not in (tmp_path / "stderr").read_text()


def test_an_interrupted_load_and_a_full_disk(tmp_path: Path) -> None:
    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    prompts = ("--prompts", str(prompts_file(tmp_path)))

    def reply(wire: Wire, asked: Asked) -> None:
        (well if asked.number is None else _garbage)(wire, asked)

    with serving(_echoing(reply)) as peer:
        line = ("-vv", "load", peer.url, *OPTIONS, *prompts, "--metrics", peer.url, *SCRAPED)
        with watched(tmp_path / "cut", *line, "--duration", "60s") as command:
            until = time.monotonic() + PATIENCE_S
            while not peer.of_load() and time.monotonic() < until:
                time.sleep(0.05)
            command.process.send_signal(signal.SIGINT)
        assert command.code == 130
        assert_silent(command.everything(), WATCHED)
        command = ran(tmp_path / "full", *line, "--requests", "200", before_exec=full)
        assert command.code == 16


def test_collecting_from_servers_that_echo(tmp_path: Path) -> None:
    """Spans, metrics, and a collector behind that refuses what it gets and echoes it."""
    with serving(_echoing(_echo_error(400))) as peer:
        options = ("--metrics", peer.url, *SCRAPED, "--token-env", "TOKEN", "--wait", "0s")
        doors = (
            "--otlp",
            "off",
            "--otlp-http",
            "127.0.0.1:0",
            "--forward",
            f"{peer.url}/v1/traces",
        )
        line = ("-vv", "collect", *doors, *options, "--duration", "5s", "--out", "it.run")
        with watched(tmp_path, *line) as command:
            until = time.monotonic() + PATIENCE_S
            while "HTTP at " not in command.err() and time.monotonic() < until:
                time.sleep(0.05)
            where = command.err().partition("HTTP at ")[2].split()[0]
            for text in (KEY, TOKEN, METRICS, f"GET /{KEY}", f"{PROMPTS[0]} {KEY}"):
                send(where, text)
        assert command.code == 0, command.err()
    assert_silent(command.everything(), WATCHED)
    assert "llm_request" in command.everything() and "withheld" in command.everything()
    for end in ((), ("--json",)):
        shown(tmp_path, "-vv", "diagnose", "it.run", *end)


def test_an_import_of_a_capture_that_echoes(tmp_path: Path) -> None:
    capture = tmp_path / "kept" / "capture"
    (capture / "metrics").mkdir(parents=True)
    begun = 1_700_000_000_000_000_000
    line: dict[str, Any] = {
        "send_ns": begun, "headers_ns": begun + 10**6, "done_ns": begun + 9 * 10**6, "status": 200,
        "chunks": [[begun + 5 * 10**6, 4]], "scenario": "c1", "id": KEY, "rid": f"r-{KEY}",
        "prompt": PROMPTS[0], "headers": {"authorization": f"Bearer {KEY}"}, "error": KEY,
    }  # fmt: skip
    (capture / "client.jsonl").write_text(
        "".join(json.dumps(line | {"rid": f"{i}-{KEY}"}) + "\n" for i in range(3))
    )
    with gzip.open(capture / "spans.otlp.jsonl.gz", "wb") as spans:
        spans.write(_export(KEY) + b"\n" + _export(f"Bearer {KEY}") + b"\n")
    asked = Asked("GET", "/metrics", (("Authorization", METRICS),), b"", 0, 0)
    for edge in ("before", "after"):
        (capture / "metrics" / f"c1.decode.{edge}.prom").write_text(exposition(asked))
    command = ran(tmp_path / "run", "-vv", "import", str(capture), "--out", "it.run")
    assert command.code == 0, command.err()
    shown(tmp_path / "run", "diagnose", "it.run")


def test_a_demo_and_what_it_starts(tmp_path: Path) -> None:
    """Servers of our own need no key: neither their command lines nor their variables hold one."""
    environments: set[bytes] = set()
    line = (
        "load",
        "demo:network",
        *OPTIONS,
        "--requests",
        "30",
        "--rate",
        "10",
        "--out",
        "it.run",
    )
    with watched(tmp_path, "-vv", *line) as command:
        while command.process.poll() is None:
            for entry in Path("/proc").iterdir():
                with suppress(OSError):
                    ours = (entry / "stat").read_text().split()[3] == str(command.process.pid)
                    if ours and b"latdiag.sim" in (entry / "cmdline").read_bytes():
                        environments.add((entry / "environ").read_bytes())
            time.sleep(0.05)
    assert command.code in (0, 12), command.err()
    assert environments and not any(KEY.encode() in one for one in environments)
    assert_silent(command.everything(), WATCHED)
    assert any("latdiag.sim" in line for line in command.lines)


def test_verbs_that_send_nothing(tmp_path: Path) -> None:
    with serving(_echoing(well)) as peer:
        line = ("stacks", peer.url, "--metrics", peer.url, *SCRAPED, *OPTIONS)
        for end in ((), ("--json",)):
            ran(tmp_path, "-vv", *line, *end)
        assert {one.header("authorization") for one in peer.asked} == {f"Bearer {KEY}", METRICS}
    assert ran(tmp_path, "explain", "ttft").code == 0
