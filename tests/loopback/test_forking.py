"""Processes are forked while their parent is light."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("grpc", "numpy", "opentelemetry", "pandas", "pyarrow", "scipy", "tokenizers")


@pytest.mark.parametrize("verb", ["load", "probe", "collect"])
def test_what_forks_is_light(verb: str, tmp_path: Path) -> None:
    """A reader shares its parent's pages: whatever is loaded before the fork is in all of them."""
    code = (
        "import os, sys\n"
        f"heavy = {HEAVY}\n"
        "os.register_at_fork(before=lambda: print(*(m for m in heavy if m in sys.modules),"
        " 'forks', file=sys.stderr))\n"
        "from latdiag.cli import run; sys.exit(run(sys.argv[1:]))"
    )
    doors = ("--otlp", "127.0.0.1:0", "--otlp-http", "127.0.0.1:0")
    wishes = {
        "load": ("demo:echo", "--requests", "3", "--wait", "0s", *doors),
        "probe": (
            "demo:echo",
            "--isl",
            "16",
            "--osl",
            "4",
            "--rate",
            "20",
            "--max-tokens-total",
            "3000",
            "--wait",
            "0s",
            *doors,
        ),
        "collect": ("--duration", "0.1s", *doors),
    }
    command = [sys.executable, "-c", code, verb, *wishes[verb], "--out", str(tmp_path / "a.run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if line.endswith("forks")]
    assert said and set(said) == {"forks"}, done.stderr
