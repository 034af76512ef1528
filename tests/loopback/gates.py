"""Gates that tests start, and what these leave behind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def gate(folder: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "latdiag", "gate", "run", "--quiet", *options],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str], patience_s: float = 240) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=patience_s)
    return process.returncode, out, err


def document(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "gate.json").read_text())
    return found


def arms(base: str, candidate: str, budget: str = "60s") -> Sequence[str]:
    return "--base", base, "--cand", candidate, "--budget", budget


def measured_pairs(folder: Path) -> int:
    """How many pairs the newest run holds whole, by what its requests are."""
    counts: dict[int, int] = {}
    from latdiag.store.run import Run

    for path in folder.glob("latdiag-runs/*.run"):
        for batch in Run.open(str(path)).batches(["request_id", "attempt"]):
            for text in batch.texts["request_id"]:
                number = int(str(text)[-12:], 16)
                if number < 1 << 40:
                    counts[number // 50] = counts.get(number // 50, 0) + 1
    return sum(n == 50 for n in counts.values())
