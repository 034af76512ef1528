"""``latdiag gate``: what its verbs print, write and exit with."""

from __future__ import annotations

import json
import shlex
import sys
import time
from dataclasses import fields, replace
from pathlib import Path
from xml.etree import ElementTree as Xml

import numpy as np
import pytest

from latdiag.cli import run
from latdiag.cli.gate import GATE_VERBS, aa
from latdiag.gate.blocks import joined
from latdiag.gate.document import dumped
from latdiag.gate.live.kept import kept
from latdiag.gate.live.served import Served, serving
from latdiag.model.errors import LatdiagError, RunFault, TargetFault, UsageFault
from tests.bench.gate.world import Fault

from .made import GATE_SCHEMA, measured, with_settings


@pytest.fixture(scope="module")
def red(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gate") / "gate.json"
    made = measured(Fault(prefill=1.4), pairs=24, settings=with_settings(flips=999))
    path.write_text(dumped(made))
    return path


def test_a_replay_is_the_same_to_the_last_byte(
    red: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["gate", "replay", str(red), "--json"]) == 10
    text = capsys.readouterr().out
    assert text == red.read_text()
    GATE_SCHEMA.validate(json.loads(text))


def test_every_face_of_one_replay(
    red: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    files = {name: tmp_path / name for name in ("comment", "junit", "gitlab")}
    options = [word for name, path in files.items() for word in (f"--{name}", str(path))]
    assert run(["gate", "replay", str(red), "--github", "--name", "serving", *options]) == 10
    shown = capsys.readouterr()
    assert shown.out.startswith("REGRESSED")
    assert len(shown.out.splitlines()) <= 24
    assert shown.err.startswith("::error title=latdiag gate%3A REGRESSED")
    comment = files["comment"].read_text()
    assert comment.startswith("<!-- latdiag-gate:serving -->\n### latdiag gate: REGRESSED")
    assert summary.read_text() == "before\n" + comment
    assert int(Xml.parse(files["junit"]).getroot().attrib["failures"]) >= 1
    assert files["gitlab"].read_text().endswith("latdiag_gate_exit_code 10\n# EOF\n")
    assert {path.name for path in tmp_path.iterdir()} == {*files, "summary.md"}


def test_a_file_that_was_changed_is_refused(
    red: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = tmp_path / "gate.json"
    raw = json.loads(red.read_text())
    raw["blocks"]["columns"]["ttft.shift"]["value"][3] *= 0.5
    changed.write_text(json.dumps(raw))
    assert run(["gate", "replay", str(changed)]) == 2
    assert "was changed after it was written" in capsys.readouterr().err
    assert run(["gate", "replay", str(tmp_path / "none.json")]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_16(
    red: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = tmp_path / "no" / "junit.xml"
    assert run(["gate", "replay", str(red), "--junit", str(nowhere)]) == 16
    assert "cannot be written" in capsys.readouterr().err
    assert run(["gate", "rn"]) == 2


def test_why_a_verdict_is_what_it_is(red: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["gate", "explain", str(red), "--why", "prefill", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    document = json.loads(red.read_text())
    wanted = {
        o["name"]: o["verdict"] for o in document["result"]["outcomes"] if o["level"] != "off"
    }
    assert {each["name"]: each["verdict"] for each in found["checks"]} == wanted
    part = document["blocks"]["parts"]["prefill"]
    apart = (part["candidate_ns"][0] - part["base_ns"][0]) / document["blocks"]["alike"][0]
    assert found["component"]["ms_by_pair"][0] == round(apart / 1e6, 4)
    assert run(["gate", "explain", str(red), "--why", "prefill"]) == 0
    page = capsys.readouterr().out
    assert page.startswith("REGRESSED") and all(len(line) <= 79 for line in page.splitlines())
    assert run(["gate", "explain", str(red), "--why", "nothing"]) == 2
    assert "there are" in capsys.readouterr().err


@pytest.mark.parametrize("name", GATE_VERBS)
def test_help_fits(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["gate", name, "--help"]) == 0
    assert all(len(line) <= 79 for line in capsys.readouterr().out.splitlines())


# --- what a run goes on with


def test_blocks_that_are_cut_and_joined_are_the_same() -> None:
    whole = measured(Fault(prefill=1.1), pairs=20, settings=with_settings(flips=999))
    one = whole.blocks.first(7)
    rest = measured(Fault(prefill=1.1), pairs=20, settings=with_settings(flips=999)).blocks
    names = [each.name for each in fields(rest) if each.name not in ("columns", "parts")]
    other = replace(
        rest,
        **{name: getattr(rest, name)[7:] for name in names},
        columns={
            name: replace(c, **{f.name: getattr(c, f.name)[7:] for f in fields(c)})
            for name, c in rest.columns.items()
        },
        parts={
            name: replace(p, base_ns=p.base_ns[7:], candidate_ns=p.candidate_ns[7:])
            for name, p in rest.parts.items()
        },
    )
    again = replace(whole, blocks=joined(one, other))
    assert dumped(again) == dumped(whole)
    alone = replace(other, parts={"another": other.parts["prefill"]})
    mixed = joined(one, alone).parts
    assert mixed["another"].base_ns[:7].sum() == 0 and mixed["prefill"].base_ns[7:].sum() == 0
    assert np.array_equal(mixed["another"].base_ns[7:], other.parts["prefill"].base_ns)


def test_only_a_run_that_was_cut_goes_on(red: Path, tmp_path: Path) -> None:
    assert kept(tmp_path / "none.json") is None
    with pytest.raises(UsageFault, match="holds a verdict already"):
        kept(red)
    made = measured(Fault(), pairs=40, settings=with_settings(flips=999))
    cut = tmp_path / "cut.json"
    cut.write_text(dumped(replace(made, blocks=made.blocks.first(3))))
    found = kept(cut)
    assert found is not None and (found.pairs, found.planned) == (3, 40)
    assert found.seed == made.plan.settings.seed
    for text in ("", "[]", "{}", '{"plan": 3}', '{"plan": {}, "result": {"stop": {}}}'):
        cut.write_text(text)
        with pytest.raises(RunFault, match="and is not a gate"):
            kept(cut)


# --- servers that are started


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def _server(code: str, start_ns: int, said: list[str]) -> Served:
    return Served(f"{sys.executable} -c {shlex.quote(code)}", "candidate", start_ns, said.append)


def test_a_server_that_ends_is_said_with_the_end_of_its_log() -> None:
    said: list[str] = []
    server = _server("print('x\\n' * 50, 'no \\x1b[2J GPU'); raise SystemExit(7)", 10**10, said)
    with pytest.raises(TargetFault, match="ended with status 7") as fault, serving(server):
        pass
    assert fault.value.exit_code == 15
    assert len(said) == 12 and said[-1] == "   no [2J GPU".replace("   ", "  ")


def test_a_server_that_never_answers_is_ended_with_all_that_it_started() -> None:
    said: list[str] = []
    code = (
        "import subprocess, sys, time; child = subprocess.Popen([sys.executable, '-c',"
        " 'import time; time.sleep(600)']); print(child.pid, flush=True); time.sleep(600)"
    )
    server = _server(code, 10**9, said)
    with pytest.raises(TargetFault, match="did not answer GET /v1/models within"), serving(server):
        pass
    (pid,) = (int(line) for line in said)
    until = time.monotonic() + 30  # the kernel's own time to end what was killed
    while _lives(pid) and time.monotonic() < until:
        time.sleep(0.01)
    assert not _lives(pid)


@pytest.mark.parametrize(
    ("command", "says"),
    [("'", "cannot be read"), ("", "is empty"), ("/nowhere/x", "names no program")],
)
def test_a_command_that_is_none_is_refused(command: str, says: str) -> None:
    with (
        pytest.raises(LatdiagError, match=says) as fault,
        serving(Served(command, "base", 10**9, print)),
    ):
        pass
    assert fault.value.exit_code == 2


def test_either_a_url_or_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["gate", "run", "--base", "http://a"]) == 2
    assert "the candidate is not given" in capsys.readouterr().err
    assert run(["gate", "run", "--base", "http://a", "--base-cmd", "x", "--cand", "http://b"]) == 2
    assert "the base is given twice" in capsys.readouterr().err


# --- the ledger


def test_the_ledger_counts_what_was_judged(tmp_path: Path) -> None:
    ledger = tmp_path / "aa.jsonl"
    assert aa._read(ledger) == []
    for verdict in ("OK", "INCONCLUSIVE", "REGRESSED", "INVALID"):
        aa._add(ledger, {"verdict": verdict})
    said = aa._so_far(aa._read(ledger))
    assert said.startswith("1 of 3 A/A runs were red so far: 33.3 % [0.8, 90.6]")
    assert said.endswith("; 1 more were INVALID.")
    assert aa._so_far(["INVALID"]).startswith("No A/A run could be judged")
    ledger.write_text("hello\n")
    with pytest.raises(RunFault, match="is no ledger"):
        aa._read(ledger)
