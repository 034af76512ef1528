"""Every byte of the results of recorded runs stays as it is: JSON, page and claims."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from .golden import CAPTURES, COLLECTED, RUNS, SHARED, check, said, unpack

pytestmark = pytest.mark.usefixtures("one_diagnosis")

DEMO = sorted(path.name.removesuffix(".run.tar.gz") for path in RUNS.glob("*.tar.gz"))
IMPORTED = ("vllm-0.24.0-h200/tp1", "vllm-0.24.0-h200/tp2", "vllm-0.24.0-h200/pd",
            "sglang-0.5.16-h200/tp1", "sglang-0.5.16-h200/pd")  # fmt: skip
CUT = tuple(capture for capture in IMPORTED if not capture.endswith("tp2"))
H200 = ("A-idle", "A-long", "A-mod", "B-c64", "B-over", "B-sat", "pd-mod", "tp2-idle")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths in the output are relative, so that they are the same wherever tests run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)


def _diagnosed(name: str, path: str) -> None:
    check(f"{name}.page", said("diagnose", path))
    check(f"{name}.full", said("diagnose", path, "--full"))
    check(f"{name}.json", said("diagnose", path, "--json"))


@pytest.mark.parametrize("name", DEMO)
def test_demo_runs(name: str, tmp_path: Path) -> None:
    path = unpack(RUNS / f"{name}.run.tar.gz", tmp_path)
    _diagnosed(f"demo/{name}", path)
    check(f"demo/{name}.why", said("diagnose", path, "--why", "queue"))
    check(f"demo/{name}.notes", said("diagnose", path, "--notes"))


def test_comparison(tmp_path: Path) -> None:
    a, b = (unpack(RUNS / f"{name}.run.tar.gz", tmp_path) for name in DEMO[:2])
    views = {"page": (), "full": ("--full",), "notes": ("--notes",), "json": ("--json",)}
    for name, flags in views.items():
        check(f"demo/compare.{name}", said("compare", a, b, "--seed", "1", *flags))


def test_a_run_of_servers_alone(tmp_path: Path) -> None:
    unpack(COLLECTED, tmp_path)
    _diagnosed("collected/dynamo", next(path.name for path in tmp_path.glob("*.run")))


@pytest.mark.parametrize("capture", IMPORTED)
def test_captures(capture: str, tmp_path: Path) -> None:
    name = capture.replace("/", "-")
    folder = tmp_path / name
    shutil.copytree(CAPTURES / capture, folder)
    for cut in folder.glob("cut.*"):
        cut.unlink()
    check(f"captures/{name}.import", said("import", name, "--out", "a.run", "--json"))
    _diagnosed(f"captures/{name}", "a.run")


@pytest.mark.parametrize("capture", CUT)
def test_captures_of_which_spans_were_lost(capture: str, tmp_path: Path) -> None:
    name = capture.replace("/", "-")
    folder = tmp_path / name
    shutil.copytree(CAPTURES / capture, folder)
    (folder / "cut.spans.otlp.jsonl.gz").replace(folder / "spans.otlp.jsonl.gz")
    said("import", name, "--out", "a.run")
    _diagnosed(f"captures/{name}-cut", "a.run")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the probes on H200s are not on this machine")
@pytest.mark.parametrize("evidence", ["spans", "outside"])
@pytest.mark.parametrize("name", H200)
def test_probes_of_real_servers(name: str, evidence: str, tmp_path: Path) -> None:
    unpack(SHARED / f"{name}.run.tar.gz", tmp_path)
    found = next(path.name for path in tmp_path.glob("*.run"))
    if evidence == "outside":
        shutil.rmtree(tmp_path / found / "evidence")
    _diagnosed(f"h200/{name}.{evidence}", found)
