"""``latdiag`` called by the tests: as a process of its own where it loads, else within."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from latdiag.cli import run

ROOT = Path(__file__).resolve().parents[2]

#: Whoever is not done by then hangs; a machine with much else to do is slow, and does not.
PATIENCE_S = 150

#: Says on stderr how large the largest process below it was (KiB): its readers and writers.
_MEASURED = """
import resource, subprocess, sys
code = subprocess.run([sys.executable, "-m", "latdiag", *sys.argv[1:]]).returncode
print("largest", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(code)
"""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended, and where its run is. ``largest_kb``: of its largest process."""

    code: int
    out: str
    err: str
    run: Path
    largest_kb: int = 0

    @property
    def result(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found

    def rows(self) -> dict[int, dict[str, Any]]:
        """The run's rows by the number of their request; none may be there twice."""
        from latdiag.store.run import Run

        found: dict[int, dict[str, Any]] = {}
        for row in Run.open(str(self.run)).frame().to_dict("records"):
            number = int(row["request_id"].rpartition("-")[2], 16)
            assert number not in found, f"two rows of request {number}"
            found[number] = row
        return found


def loaded(
    folder: Path,
    url: str,
    *options: str,
    before: tuple[str, ...] = (),
    measured: bool = False,
    as_json: bool = True,
    **variables: str,
) -> Ended:
    """``latdiag BEFORE load URL OPTIONS --json`` as a process, run to its end."""
    place = folder / "it.run"
    asked = ["--json"] if as_json else []
    start = ["-c", _MEASURED] if measured else ["-m", "latdiag"]
    done = subprocess.run(
        [sys.executable, *start, *before, "load", url, "--out", str(place), *asked, *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        timeout=PATIENCE_S,
        check=False,
    )
    err, _, largest = done.stderr.rpartition("largest ") if measured else (done.stderr, "", "0")
    return Ended(done.returncode, done.stdout, err, place, int(largest))


def called(capsys: pytest.CaptureFixture[str], folder: Path, *args: str) -> Ended:
    """``latdiag load ARGS`` within this process: for what ends before anything is forked."""
    place = folder / "it.run"
    code = run(["load", *args, "--out", str(place), "--quiet"])
    said = capsys.readouterr()
    return Ended(code, said.out, said.err, place)


def well_measured(ended: Ended) -> bool:
    """Whether a load ended as it should: done, or done and found disturbed by its machine."""
    valid = ended.result["valid"]
    return ended.code == (0 if valid else 12)


def absent(value: object) -> bool:
    """Whether a cell of a row holds nothing, in whatever way pandas says so."""
    import pandas as pd

    return value is None or bool(pd.isna(value))
