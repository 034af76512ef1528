"""Does it work at all: measure, attribute, compare and import, as a user would, in seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from latdiag.cli import run
from tests.loopback.designed import probed, result, well_ended
from tests.schema import validate
from tests.unit.golden import CAPTURES, RUNS, unpack

pytestmark = pytest.mark.smoke

#: A probe of seconds: too short to be sure of a share, long enough to state them all.
DESIGN = """
yield PathStage(10, (32, 512, 1024) * 2, 2)
yield Stage("warmup", shots(1), 1)
yield Stage("S2", shots(1, osl=40), 1)
yield Stage("S3", tuple(Shot(n, 4, -1) for n in (32, 128, 256, 512, 768, 1024) * 2), 1)
yield Stage("S5", (Shot(32, 40, -1), Shot(1024, 40, -1)), 1)
work = tuple(Shot(200 + 10 * n, 12, 40_000_000 * n) for n in range(40))
yield Stage("S10", work, segment=1)
yield Stage("S10", work, segment=2)
"""


def page(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """What a verb prints for people."""
    assert run(list(map(str, args))) in (0, 12)
    text = capsys.readouterr().out
    assert text and all(len(line) <= 79 for line in text.splitlines())
    return text


def document(capsys: pytest.CaptureFixture[str], *args: object) -> dict[str, Any]:
    """What a verb prints for programs."""
    assert run([*map(str, args), "--json"]) in (0, 12)
    found = json.loads(capsys.readouterr().out)
    validate(found)
    assert isinstance(found, dict)
    return found


def test_a_probe_and_its_diagnosis(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended, saved = probed("demo:queue", tmp_path, DESIGN, "--model", "demo", "--json")
    assert well_ended(ended), ended.err
    probe = result(ended)
    validate(probe)
    mean = probe["breakdown"]["mean"]
    parts = [entry for entry in mean.values() if isinstance(entry, dict)]
    assert sum(part["sum_ns"] for part in parts) == mean["total_ns"] > 0
    assert probe["learned"] is not None
    assert probe["verdict"]["sentence"] in " ".join(page(capsys, "diagnose", saved).split())


def test_a_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("load-metrics", "load-replies-metrics")
    sides = [tmp_path / unpack(RUNS / f"{name}.run.tar.gz", tmp_path) for name in names]
    compared = document(capsys, "compare", *sides)["compared"]
    assert compared["sentence"] and compared["metrics"]
    assert "end to end" in page(capsys, "compare", *sides)


def test_a_capture_of_a_real_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = tmp_path / "imported.run"
    document(capsys, "import", CAPTURES / "vllm-0.24.0-h200" / "tp1", "--out", saved)
    assert document(capsys, "diagnose", saved)["breakdown"]["mean"]["queue"]["grade"] == "A"
