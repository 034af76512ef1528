"""What a new user meets first: a server that is found, completion, variables, known words."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
import pytest

from latdiag.cli import VERBS, find, foreign, latdiag, run
from latdiag.cli.options import KeyOptions
from latdiag.cli.verb import GROUPS, Verb
from latdiag.model.errors import UsageFault

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


def replying(document: Any, status: int = 200) -> Answer:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def dripping(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(200):
        try:
            handler.wfile.write(b" ")
        except OSError:
            return
        time.sleep(0.05)


MODELS = {"object": "list", "data": [{"id": "tiny"}, {"id": "large"}]}


@contextmanager
def serving(answer: Answer) -> Iterator[int]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self) if self.path == "/v1/models" else self.send_error(404)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def usual(monkeypatch: pytest.MonkeyPatch, *answers: Answer) -> Iterator[list[int]]:
    """Servers at what are the usual ports for this time."""
    with ExitStack() as stack:
        ports = [stack.enter_context(serving(answer)) for answer in answers]
        monkeypatch.setattr(find, "USUAL", dict.fromkeys(ports, "vLLM") or {1: "nobody"})
        yield ports


# ---------------------------------------------------------------------- a server that is found
def test_the_one_server_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with usual(monkeypatch, replying({"x": 1}), replying(MODELS), replying(b"<html>")) as ports:
        server = find.the_server()
    assert server.url == f"http://127.0.0.1:{ports[1]}/v1"
    assert server.line() == f"{server.url} (model tiny, large; usual port of vLLM)"


def test_several_are_listed_and_none_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        usual(monkeypatch, replying(MODELS), replying(b"", 401)) as ports,
        pytest.raises(UsageFault) as fault,
    ):
        find.the_server()
    assert all(str(port) in fault.value.text for port in ports)
    assert "requires an API key" in fault.value.text
    assert f"latdiag probe http://127.0.0.1:{ports[0]}/v1" in fault.value.remedy


def test_none_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with usual(monkeypatch):
        assert run(["probe"]) == 2
    assert "no URL was given" in capsys.readouterr().err


@pytest.mark.parametrize(
    "answer",
    [
        dripping,
        replying(b"[" * 60_000),
        replying(b"x" * 10_000_000),
        replying({"data": "all"}),
        replying({"data": {}}, 500),
        replying([1]),
    ],
)
def test_what_is_no_list_of_models_is_no_server(
    monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    with usual(monkeypatch, answer):
        assert list(find.servers()) == []


def test_names_from_outside_are_shown_as_words(monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = {"data": [{"id": "\x1b[2Jx" * 50}, {"id": 7}, 7, {"name": "b"}]}
    with usual(monkeypatch, replying(hostile)):
        line = find.the_server().line()
    assert "\x1b" not in line and len(line) < 200


# ---------------------------------------------------------------------- other tools' words
def verb(name: str) -> click.Command:
    command = latdiag.get_command(click.Context(latdiag), name)
    assert isinstance(command, Verb)
    return command


def options(command: click.Command) -> set[str]:
    return {opt for param in command.params for opt in param.opts}


@pytest.mark.parametrize("word", sorted(foreign.OURS))
def test_every_foreign_word_is_answered_with_an_option_that_is_there(
    word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = foreign.OURS[word]
    assert word not in options(verb("load"))
    if ours.startswith("--"):
        assert ours.split()[0] in options(verb("load"))
    assert run(["load", word, "1", "http://127.0.0.1:1"]) == 2
    said = capsys.readouterr().err
    assert ours in " ".join(said.split()) and word in said
    # A verb without that option does not promise it.
    assert run(["explain", word, "1"]) == 2
    said = capsys.readouterr().err
    assert not ours.startswith("--") or "latdiag load" in said


def test_a_word_of_no_tool_is_a_plain_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["load", "--no-such-thing"]) == 2
    assert "No such option" in capsys.readouterr().err


# ---------------------------------------------------------------------- variables
def test_options_may_stand_in_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATDIAG_MODEL", "tiny")
    monkeypatch.setenv("LATDIAG_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("LATDIAG_SLO", "ttft.p95<1s tpot.p50<9ms")
    monkeypatch.setenv("LATDIAG_INSECURE", "1")
    monkeypatch.setenv("LATDIAG_JSON", "1")
    given = verb("load").make_context("load", []).params
    assert (given["model"], given["url"]) == ("tiny", "http://127.0.0.1:1/v1")
    assert given["slos"] == ("ttft.p95<1s", "tpot.p50<9ms")
    assert not given["insecure"] and not given["as_json"]
    assert verb("load").make_context("load", ["--model", "other"]).params["model"] == "other"


@pytest.mark.parametrize(
    ("url", "headers", "sent"),
    [
        ("https://api.example.com/v1", (), True),
        ("http://127.0.0.1:8000", (), True),
        ("http://localhost:8000", (), True),
        ("http://[::1]:8000", (), True),
        ("http://10.0.0.7:8000", (), False),
        ("http://localhost.example.com", (), False),
        ("http://127.0.0.1.example.com", (), False),
        ("demo:queue", (), False),
        ("https://api.example.com/v1", ("Authorization: Basic eA==",), False),
        ("https://api.example.com/v1", ("x-api-key: VARIABLE",), False),
        ("https://api.example.com/v1", ("x-team: a",), True),
    ],
)
def test_the_usual_key_goes_where_nobody_can_read_it(
    monkeypatch: pytest.MonkeyPatch, url: str, headers: tuple[str, ...], sent: bool
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-0123456789")

    def asked(**more: Any) -> KeyOptions:
        default: dict[str, Any] = {"api_key_env": None, "no_api_key": False, "header_env": ()}
        return KeyOptions(**{**default, "plain": headers, **more})

    assert asked().key_of(url) == ("OPENAI_API_KEY" if sent else None)
    assert asked(no_api_key=True).key_of(url) is None
    assert asked(api_key_env="MINE").key_of(url) == "MINE"
    with pytest.raises(UsageFault, match="contradict"):
        asked(api_key_env="MINE", no_api_key=True).key_of(url)
    monkeypatch.delenv("OPENAI_API_KEY")
    assert asked().key_of(url) is None


# ---------------------------------------------------------------------- help
@pytest.mark.parametrize("name", VERBS)
def test_help_fits_and_every_option_of_a_load_has_its_group(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([name, "--help"]) == 0
    page = capsys.readouterr().out
    assert all(len(line) <= 79 for line in page.splitlines()), page
    if name in ("load", "probe"):
        assert "\nOptions:" not in page
        assert all(f"\n{heading}:" in page for heading in GROUPS)
        assert "lognormal:512,0.8" in page


def test_short_options() -> None:
    given = verb("load").make_context("load", ["-n", "5", "-c", "2", "-o", "a.run", "u"]).params
    assert (given["requests"], given["concurrency"], given["out"]) == (5, 2, "a.run")


# ---------------------------------------------------------------------- completion
_SHELLS = {
    # Each prints the completions of "latdiag pro" and of "latdiag diagnose a", one a line.
    "bash": 'eval "$(_LATDIAG_COMPLETE=bash_source latdiag)"\n'
    "for words in 'latdiag pro' 'latdiag diagnose a'; do\n"
    "  COMP_WORDS=($words); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=()\n"
    '  _latdiag_completion latdiag; printf "%s\\n" "${COMPREPLY[@]}"\ndone\n',
    "zsh": "compdef() { :; }; compadd() { print -l -- ${(P)@[-1]}; }\n"
    "_describe() { print -l -- ${(P)3} | sed 's/:.*//'; }\n"
    'eval "$(_LATDIAG_COMPLETE=zsh_source latdiag)" 2>/dev/null\n'
    "words=(latdiag pro); CURRENT=2; _latdiag_completion\n"
    "words=(latdiag diagnose a); CURRENT=3; _latdiag_completion\n",
    "fish": "_LATDIAG_COMPLETE=fish_source latdiag | source\n"
    "complete -C 'latdiag pro'\ncomplete -C 'latdiag diagnose a'\n",
}


@pytest.mark.parametrize("shell", _SHELLS)
def test_a_shell_completes_verbs_and_runs(shell: str, tmp_path: Path) -> None:
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"{shell} is not on this machine")
    (tmp_path / "aa.run").mkdir()
    (tmp_path / "ab").mkdir()
    (tmp_path / "b.run").mkdir()
    tool = tmp_path / "bin" / "latdiag"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\nexec {sys.executable} -m latdiag "$@"\n')
    tool.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tool.parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
    }
    plain = {"bash": ["--noprofile", "--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
    done = subprocess.run(
        [path, *plain, "-c", _SHELLS[shell]],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        timeout=120,
    )
    found = {line.split("\t")[0].strip() for line in done.stdout.splitlines()} - {""}
    assert found == {"probe", "aa.run", "ab/"}, done.stdout + done.stderr
