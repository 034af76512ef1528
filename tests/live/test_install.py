"""The ways to install that README names, from a copy of the tracked files, by their own tools."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from latdiag import __version__

pytestmark = pytest.mark.live

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkout")
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True)
    subprocess.run(["tar", "-x"], cwd=folder, input=archive.stdout, check=True)
    return folder


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of pipx and uvx, in an environment of their own."""
    folder = tmp_path_factory.mktemp("tools")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run([folder / "bin" / "pip", "install", "-q", "pipx", "uv"], check=True)
    return folder / "bin"


def _done(command: list[str], checkout: Path, home: Path, tools: Path) -> str:
    environment = {
        **{k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")},
        "HOME": str(home),
        "PATH": f"{tools}:{os.environ['PATH']}",
        "PIPX_HOME": str(home / "pipx"),
        "PIPX_BIN_DIR": str(home / "bin"),
    }
    ended = subprocess.run(
        command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=600
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_pipx_installs_a_checkout(checkout: Path, tools: Path, tmp_path: Path) -> None:
    assert "`pipx install .`" in README
    _done(["pipx", "install", "."], checkout, tmp_path, tools)
    said = _done([str(tmp_path / "bin" / "latdiag"), "--version"], checkout, tmp_path, tools)
    assert said.strip() == f"latdiag {__version__}"


def test_uvx_runs_a_checkout_without_installing(
    checkout: Path, tools: Path, tmp_path: Path
) -> None:
    (command,) = re.findall(r"`(uvx --from \. latdiag) \w+`", README)
    assert __version__ in _done([*command.split(), "--version"], checkout, tmp_path, tools)
