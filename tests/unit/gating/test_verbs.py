"""``latdiag gate``: what its verbs print, write and exit with."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest

from latdiag.cli import run
from latdiag.gate.document import dumped
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
