"""Processes share the tests only where each finds the same ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def _names(seed: str, plugin: Path) -> list[str]:
    """Of all tests, in a process with this seed of hashes, years away."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", plugin.stem, "tests"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": f"{ROOT}:{plugin.parent}"},
    )
    assert done.returncode == 0, done.stdout[-2000:]
    return [line for line in done.stdout.splitlines() if "::" in line]


def test_tests_have_the_same_names_in_every_process(tmp_path: Path) -> None:
    """Their names hold their parameters: no clock, no hash and no draw may be in these."""
    later = tmp_path / "later.py"
    later.write_text("import time\n_time = time.time\ntime.time = lambda: _time() + 86400\n")
    now = tmp_path / "now.py"
    now.write_text("")
    assert _names("1", now) == _names("2", later)
