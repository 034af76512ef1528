"""The examples for CI servers, run as they are written: red on a slower candidate, green on an
equal one, and no permission needed where a pull request comes from a fork."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import pytest

from latdiag.sim.demo import running_demo
from latdiag.sim.params import FAULTS

from .ci_files import Job, read

EXAMPLES = Path(__file__).parents[2] / "examples"
HEALTHY = FAULTS["healthy"]
SLOWER = replace(HEALTHY, weights_ms=HEALTHY.weights_ms * 1.5)
MARKER = "<!-- latdiag-gate:default -->"


@pytest.fixture
def programs(tmp_path: Path) -> dict[str, str]:
    """A PATH on which latdiag is installed, as this one."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, words in (("latdiag", "-m latdiag"), ("python3", "")):
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        script.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


class Forge:
    """The comments of a pull request, as GitHub's REST API has them; ``calls``: what was asked."""

    def __init__(self) -> None:
        self.comments: list[dict[str, Any]] = [
            {"id": n, "user": {"login": "someone"}, "body": f"{MARKER} not ours"}
            for n in range(1, 121)
        ]
        self.calls: list[tuple[str, str]] = []
        self.refuses = False

    def answer(self, method: str, path: str, body: Any) -> Any:
        """None: this token may not."""
        self.calls.append((method, path))
        if self.refuses and method != "GET":
            return None
        if method == "GET":
            page = int(path.rpartition("page=")[2])
            return self.comments[100 * (page - 1) : 100 * page]
        if method == "POST":
            made = {"id": 1_000, "user": {"login": "github-actions[bot]"}, **body}
            self.comments.append(made)
            return made
        (mine,) = (c for c in self.comments if path.endswith(f"/comments/{c['id']}"))
        mine.update(body)
        return mine


@contextlib.contextmanager
def serving(forge: Forge) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            assert self.headers["Authorization"] == "Bearer secret"
            found = forge.answer(self.command, self.path, body)
            data = json.dumps(found if found is not None else {"message": "no"}).encode()
            self.send_response(200 if found is not None else 403)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def do_PATCH(self) -> None:
            self._answer()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


@contextlib.contextmanager
def job(
    tmp_path: Path, programs: dict[str, str], forge: Forge, candidate: str, fork: bool
) -> Iterator[tuple[Job, bool]]:
    """The workflow on a repository whose serve.sh serves the demo; the candidate's with the
    options ``candidate``. The servers end with it."""
    workspace, temp = tmp_path / "work", tmp_path / "temp"
    temp.mkdir()
    for name, options in (("base", ""), ("candidate", candidate)):
        (workspace / name).mkdir(parents=True)
        (workspace / name / "serve.sh").write_text(
            f'echo $$ > pid\nexec latdiag demo healthy --port "$1" {options} --quiet\n'
        )
    action = workspace / "candidate" / ".github" / "actions" / "latdiag-gate"
    shutil.copytree(EXAMPLES / "github", action)
    ports = dict(zip(("BASE_PORT", "CAND_PORT"), map(str, free_ports()), strict=True))
    with serving(forge) as api:
        made = Job(
            workspace,
            {
                **programs,
                **ports,
                "BUDGET": "40s",
                "GITHUB_API_URL": api,
                "GITHUB_STEP_SUMMARY": str(temp / "summary.md"),
            },
            {
                "repository": "owner/name",
                "token": "secret",
                "event.pull_request.number": "12",
                "event.pull_request.head.repo.full_name": "fork/name" if fork else "owner/name",
            },
            temp,
        )
        try:
            yield made, made.run(read(EXAMPLES / "github" / "latency-gate.yml"), "gate")
        finally:
            for name in ("base", "candidate"):
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    os.kill(int((workspace / name / "pid").read_text()), signal.SIGTERM)


def test_the_workflow_is_red_on_a_slower_candidate_and_names_it(
    tmp_path: Path, programs: dict[str, str]
) -> None:
    slow = f"--set weights_ms={SLOWER.weights_ms:g}"
    forge = Forge()
    with job(tmp_path, programs, forge, slow, fork=False) as (done, green):
        assert not green, done.log
        verdict = done.outputs["gate"]["verdict"]
        summary = (tmp_path / "temp" / "summary.md").read_text()
        comment = forge.comments[-1]["body"]
        assert comment == summary and comment.startswith(MARKER), done.log
        assert len(comment.splitlines()) <= 40
        assert (done.artifacts["latdiag-gate-default"] / "gate.json").exists()
        assert "::error title=latdiag gate%3A" in done.log
        if verdict == "INVALID":  # other programs took the client's time, and it says so
            assert done.outputs["gate"]["code"] == "12" and "No verdict" in comment
            return
        assert (verdict, done.outputs["gate"]["cause"]) == ("REGRESSED", "decode"), done.log
        assert "### latdiag gate: REGRESSED, decode is the cause" in comment
        # What others wrote with the same marker is theirs; a second run changes ours.
        assert forge.calls[-1][0] == "POST" and len(forge.comments) == 121
        print(comment)


@pytest.mark.long
def test_the_workflow_is_green_on_equal_servers_and_a_fork_needs_no_permission(
    tmp_path: Path, programs: dict[str, str]
) -> None:
    forge = Forge()
    with job(tmp_path, programs, forge, "--seed 4", fork=True) as (done, green):
        verdict = done.outputs["gate"]["verdict"]
        assert verdict != "REGRESSED" and green == (verdict != "INVALID"), done.log
        assert not forge.calls
        summary = (tmp_path / "temp" / "summary.md").read_text()
        assert f"### latdiag gate: {verdict}" in summary


def test_a_workflow_without_servers_is_red_before_it_measures(
    tmp_path: Path, programs: dict[str, str]
) -> None:
    """serve.sh fails: the step that starts it does, and its log is shown."""
    workflow = read(EXAMPLES / "github" / "latency-gate.yml")
    start = workflow["jobs"]["gate"]["steps"][2]
    assert "seq 300" in start["run"]
    start["run"] = start["run"].replace("seq 300", "seq 1")
    workspace = tmp_path / "work"
    for name in ("base", "candidate"):
        (workspace / name).mkdir(parents=True)
        (workspace / name / "serve.sh").write_text("echo no such model; exit 3\n")
    ports = dict(zip(("BASE_PORT", "CAND_PORT"), map(str, free_ports()), strict=True))
    made = Job(workspace, {**programs, **ports}, {"repository": "owner/name"}, tmp_path)
    assert not made.run(workflow, "gate")
    assert "no such model" in made.log and "gate" not in made.outputs


def test_the_comment_is_replaced_and_a_token_that_may_not_write_is_no_fault(
    tmp_path: Path,
) -> None:
    forge = Forge()

    def comment(text: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "c.md").write_text(text)
        with serving(forge) as api:
            return subprocess.run(
                [sys.executable, "-I", EXAMPLES / "github" / "comment.py", tmp_path / "c.md"],
                env={
                    "GITHUB_API_URL": api,
                    "GITHUB_TOKEN": "secret",
                    "GITHUB_REPOSITORY": "owner/name",
                    "PULL_REQUEST": "12",
                },
                capture_output=True,
                text=True,
                check=False,
            )

    for text in ("first", "second"):
        assert comment(f"{MARKER}\n{text}").returncode == 0
    assert [each["body"] for each in forge.comments[120:]] == [f"{MARKER}\nsecond"]
    forge.refuses = True
    refused = comment(f"{MARKER}\nthird")
    assert refused.returncode == 0 and "may not write one (403)" in refused.stdout
    assert comment("no marker").returncode == 2


@pytest.mark.long
def test_the_template_of_gitlab_is_red_on_a_slower_candidate(
    tmp_path: Path, programs: dict[str, str]
) -> None:
    template = read(EXAMPLES / "gitlab" / "latdiag-gate.yml")[".latdiag-gate"]
    with running_demo() as base, running_demo(params=SLOWER, seed=4) as candidate:
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", "\n".join(template["script"])],
            cwd=tmp_path,
            env={
                **os.environ,
                **template["variables"],
                **programs,
                "BASE_URL": base,
                "CAND_URL": candidate,
                "BUDGET": "40s",
            },
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode in (10, 12), done.stdout + done.stderr
    artifacts = template["artifacts"]
    for path in artifacts["paths"]:
        assert (tmp_path / path).exists(), path
    assert set(artifacts["reports"].values()) <= set(artifacts["paths"])
    failures = Xml.parse(tmp_path / artifacts["reports"]["junit"]).iter()
    assert {"failure" if done.returncode == 10 else "error"} <= {each.tag for each in failures}
    assert (tmp_path / artifacts["reports"]["metrics"]).read_text().endswith("# EOF\n")


@pytest.mark.long
def test_the_fixture_of_pytest_fails_a_test_on_a_slower_candidate(tmp_path: Path) -> None:
    """And skips it where no servers are named."""
    shutil.copytree(EXAMPLES / "pytest", tmp_path / "tests")

    def pytest_(*options: str) -> str:
        words = (sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "tests")
        done = subprocess.run(
            [*words, *options], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        return done.stdout + done.stderr

    assert "1 skipped" in pytest_()
    with running_demo() as base, running_demo(params=SLOWER, seed=4) as candidate:
        urls = ("--latdiag-base", base, "--latdiag-cand", candidate)
        text = pytest_(*urls, "--latdiag-budget", "40s")
    assert "1 failed" in text
    assert "decode takes" in text or "No verdict" in text


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("git*/*.yml")), ids=lambda p: p.name)
def test_the_files_are_yaml_as_a_real_reader_has_it(path: Path) -> None:
    """What this test takes them for is what they are, where a reader of YAML is installed."""
    yaml = pytest.importorskip("yaml")
    document = yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)
    assert read(path) == document
