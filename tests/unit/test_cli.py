"""How commands end: exit codes, one sentence, one object; and every word explained."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import signal
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from latdiag import __version__, cli
from latdiag.cli import run
from latdiag.model import entries, errors, secrets
from latdiag.model.caveats import CAVEATS
from latdiag.model.components import COMPONENTS, LEAVES
from latdiag.model.errors import LatdiagError
from latdiag.model.metrics import METRICS
from latdiag.model.records import Outcome
from latdiag.model.terms import AUDIT_RULES, EXIT_CODES
from tests.schema import SCHEMA, validate

FAULTS = [
    c for c in vars(errors).values() if isinstance(c, type) and c.__module__ == errors.__name__
]

Body = Callable[[], int | None]


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Body], None]]:
    """Installs a verb ``try-it`` that does what the test says; forgets what was concealed."""

    def install(body: Body) -> None:
        @click.command()
        @click.option("--json", "as_json", is_flag=True)
        def command(as_json: bool) -> int | None:
            return body()

        module = types.ModuleType("latdiag_verb_of_a_test")
        module.__dict__["command"] = command
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(cli.VERBS, "try-it", (f"{module.__name__}:command", "For a test."))

    yield install
    secrets._secrets.clear()


def _raising(exc: BaseException) -> Body:
    def body() -> int | None:
        raise exc

    return body


def _latdiag(*args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    command = [sys.executable, "-m", "latdiag", *args]
    return subprocess.run(command, text=True, timeout=60, check=False, **options)


# --- endings


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_sentence_a_remedy_and_its_exit_code(
    fault: type[LatdiagError], verb: Callable[[Body], None], capsys: pytest.CaptureFixture[str]
) -> None:
    verb(_raising(fault("the thing broke", "mend it", "runs/a.run")))
    assert run(["try-it"]) == fault.exit_code
    assert capsys.readouterr() == ("", "error: the thing broke\ntry: mend it\n")
    assert run(["try-it", "--json"]) == fault.exit_code
    out, err = capsys.readouterr()
    document = json.loads(out)
    error = {"code": fault.code, "text": "the thing broke", "remedy": "mend it"}
    assert document == {"schema": 1, "error": error, "run": "runs/a.run"}
    assert err.startswith("error: ")
    validate(document)
    assert fault.exit_code in EXIT_CODES


@pytest.mark.parametrize("code", [None, 0, 12, 14])
def test_a_verb_returns_its_exit_code(code: int | None, verb: Callable[[Body], None]) -> None:
    verb(lambda: code)
    assert run(["try-it"]) == (code or 0)


def test_interrupts_and_signals_have_the_codes_of_the_shell(
    verb: Callable[[Body], None], capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    for number, code, word in (
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "terminated"),
    ):
        verb(lambda number=number: signal.raise_signal(number))  # type: ignore[misc]
        assert run(["try-it", "--json"]) == code
        out, err = capsys.readouterr()
        assert (json.loads(out)["error"]["code"], err) == (word, f"{word}\n")
        validate(json.loads(out))
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_gets_out_of_a_callback_of_an_event_loop(verb: Callable[[Body], None]) -> None:
    async def work() -> None:
        asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGTERM)
        await asyncio.Event().wait()

    verb(lambda: asyncio.run(work()))
    assert run(["try-it"]) == 143


def test_a_sigterm_that_is_ignored_stays_ignored(verb: Callable[[Body], None]) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        verb(lambda: signal.raise_signal(signal.SIGTERM))
        assert run(["try-it"]) == 0
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMFILE, errno.EACCES, errno.EROFS])
def test_what_the_machine_lacks_is_16(
    number: int, verb: Callable[[Body], None], capsys: pytest.CaptureFixture[str]
) -> None:
    verb(_raising(OSError(number, os.strerror(number), "/data/x.run")))
    assert run(["try-it"]) == 16
    said, remedy = capsys.readouterr().err.splitlines()
    assert said == f"error: {os.strerror(number).lower()} (/data/x.run)"
    assert remedy.startswith("try: ")


@pytest.mark.parametrize(
    "exc", [ValueError("odd"), FileNotFoundError(2, "gone"), BrokenPipeError(32, "a socket's")]
)
def test_anything_else_is_a_bug_of_ours(
    exc: Exception, verb: Callable[[Body], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Also a broken pipe that is neither stdout nor stderr: it must not pass for a closed one."""
    verb(_raising(exc))
    assert run(["try-it"]) == 1
    assert run(["-v", "try-it"]) == 1
    err = capsys.readouterr().err
    assert err.count(f"error: a bug in latdiag: {type(exc).__name__}: {exc}\n") == 2
    assert "Traceback" not in err
    assert run(["-vv", "try-it"]) == 1
    err = capsys.readouterr().err
    assert "Traceback (most recent call last):" in err and "    raise exc" in err


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ([ValueError("a"), errors.TargetFault("down")], 15),
        ([OSError(errno.ENOSPC, "full"), ValueError("a")], 16),
        ([ExceptionGroup("inner", [errors.RunFault("not a run")])], 2),
        ([ValueError("a")], 1),
    ],
)
def test_of_a_group_the_gravest_counts(
    members: list[Exception], code: int, verb: Callable[[Body], None]
) -> None:
    verb(_raising(ExceptionGroup("several", members)))
    assert run(["try-it"]) == code


def test_secrets_and_control_characters_never_reach_the_terminal(
    verb: Callable[[Body], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def body() -> None:
        secrets.conceal("sk-very-secret", None, "")
        logging.getLogger("latdiag.load").info("header sk-very-secret \x1b[31m")
        raise ValueError("key sk-very-secret refused \x1b[31m\u202e")

    verb(body)
    run(["-vv", "try-it", "--json"])
    assert not logging.getLogger("latdiag").handlers
    out, err = capsys.readouterr()
    assert "INFO latdiag.load: header [concealed]" in err and "Traceback" in err
    for text in (out, err):
        assert "sk-very-secret" not in text and "\x1b" not in text and "\u202e" not in text
        assert "key [concealed] refused" in text


# --- usage


@pytest.mark.parametrize(
    ("args", "says", "remedy"),
    [
        (["lod"], "no verb 'lod'. Did you mean 'load'?", "latdiag --help"),
        (["xyz"], "no verb 'xyz'.", "latdiag --help"),
        (["--nonsense"], "--nonsense", "latdiag --help"),
        (["explain", "--jso"], "--jso", "latdiag explain --help"),
        (["explain", "ttfft"], "Did you mean ttft", "latdiag explain ttft"),
    ],
)
def test_a_usage_error_is_2_and_says_what_to_try(
    args: list[str], says: str, remedy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(args) == 2
    out, err = capsys.readouterr()
    assert out == "" and says in err and err.endswith(f"try: {remedy}\n")
    assert err.startswith("error: ") and err.count("\n") == 2
    assert run([*args, "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    validate(document)
    assert says in document["error"]["text"] and document["error"]["code"] == "usage"


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in cli.VERBS)
    assert all(len(line) <= 79 for line in text.splitlines())
    assert run([]) == 0
    assert capsys.readouterr().out == text
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"latdiag {__version__}\n"


def test_every_verb_of_the_table_exists_and_takes_json() -> None:
    context = click.Context(cli.latdiag)
    for name in cli.VERBS:
        command = cli.latdiag.get_command(context, name)
        assert command is not None
        group = isinstance(command, click.Group)
        each = command.list_commands(context) if group else [""]
        for inner in each:
            own = command.get_command(context, inner) if group else command
            assert own is not None
            assert any("--json" in parameter.opts for parameter in own.params), (name, inner)


# --- streams


@pytest.mark.parametrize("args", [["explain", "json-schema"], ["--version"]])
def test_a_closed_pipe_is_141_without_a_word(args: list[str]) -> None:
    """Larger than any buffer, and small enough to meet the pipe only at the last flush."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = _latdiag(*args, stdout=writing)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize(
    "args", [["explain"], ["explain", "ttft", "--json"], ["nonsense", "--json"]]
)
def test_a_full_disk_under_stdout_is_16_and_said_once(args: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = _latdiag(*args, stdout=full)
    usage = args[0] == "nonsense"
    assert done.returncode == (2 if usage else 16)
    assert done.stderr.startswith("error: " + ("there is no" if usage else "no space left"))
    assert done.stderr.count("error") == 1 and "Exception ignored" not in done.stderr


def test_no_stdout_at_all_is_nobodys_fault() -> None:
    command = f"exec {sys.executable} -m latdiag explain ttft >&-"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# --- explain


def _explained(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert run(["explain", *args]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "word",
    [
        *(m.name for m in METRICS),
        *COMPONENTS,
        *(leaf.name for leaf in LEAVES),
        *(leaf.code for leaf in LEAVES),
        *CAVEATS,
        *Outcome,
        *(rule.name for rule in AUDIT_RULES),
        *map(str, EXIT_CODES),
    ],
)
def test_every_word_is_explained(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = _explained(capsys, word)
    assert word.casefold() in text.casefold()
    assert all(len(line) <= 79 for line in text.splitlines())
    document = json.loads(_explained(capsys, word, "--json"))
    validate(document)
    assert all(entry["text"] for entry in document["entries"])


def test_the_list_names_every_word_once_and_each_leads_somewhere(
    capsys: pytest.CaptureFixture[str],
) -> None:
    document = json.loads(_explained(capsys, "--json"))
    validate(document)
    text = " ".join(_explained(capsys).split())
    all_of_them = entries.all_entries()
    for words in document["words"].values():
        assert len(words) == len(set(words)) and ", ".join(words) in text
    for entry in all_of_them:
        for word in (*entry.see, *entry.also):
            assert entries.look_up(word, all_of_them), word


def test_spelling_does_not_matter(capsys: pytest.CaptureFixture[str]) -> None:
    expected = _explained(capsys, "ttft")
    for word in ("TTFT", "ttft.p95", "ttft.p99.9", "ttft.mean"):
        assert _explained(capsys, word) == expected
    assert _explained(capsys, "self_audit") == _explained(capsys, "Self", "Audit")


def test_a_word_of_several_meanings_gives_all(capsys: pytest.CaptureFixture[str]) -> None:
    text = _explained(capsys, "schedule_lag")
    assert "(metric)" in text and "(audit rule)" in text


def test_the_schema_is_printed_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(_explained(capsys, "json-schema")) == SCHEMA
