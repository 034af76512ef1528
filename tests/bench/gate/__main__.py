"""``python -m tests.bench.gate``: G1 to G11 of the gate beside what others do, on all cores.

Each process keeps to its core, so a library of algebra must not start threads of its own::

    export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
    python -m tests.bench.gate --json gate_bench.json
    python -m tests.bench.gate --only false_red --runs 2000
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import table
from .jobs import Job, counted
from .replay import replay_lines
from .score import Tally


@dataclass(frozen=True)
class Section:
    """A part of the table: its jobs, and its lines from their counts."""

    jobs: Sequence[Job]
    lines: Callable[[Sequence[Tally]], Iterable[str]]


def sections(runs: int, power: int, seed: int) -> dict[str, Section]:
    """Every part by its name. ``runs``: of equal arms; ``power``: of every other row."""
    found = {}
    for margin, alpha in (table.SHIPPED, (0.0, table.SHIPPED[1])):
        found[f"false_red at {margin:.0%}"] = Section(
            table.alarm_jobs(runs, margin, alpha, seed),
            lambda each, m=margin, a=alpha: table.alarm_lines(m, a, each),
        )
    for margin, alpha in (table.STRICT, table.SHIPPED):
        found[f"power at {margin:.0%}"] = Section(
            table.power_jobs(power, margin, alpha, seed + 10_000_000),
            lambda each, m=margin, a=alpha: table.power_lines(m, a, each),
        )
    safe = table.safe_jobs(2 * power, seed + 20_000_000)
    found["safe"] = Section(safe, lambda each: table.safe_lines(safe, each))
    found["causes"] = Section(table.cause_jobs(power, seed + 30_000_000), table.cause_lines)
    found["hidden"] = Section(table.hidden_jobs(power, seed + 40_000_000), table.hidden_lines)
    return found


def main() -> None:
    """Print what is asked for, and write its counts."""
    parser = argparse.ArgumentParser(
        prog="tests.bench.gate", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=10_020, help="equal arms, over all regimes")
    parser.add_argument("--power", type=int, default=300, help="runs of every other row")
    parser.add_argument("--seed", type=int, default=0, help="first seed")
    parser.add_argument("--only", default="", help="sections that begin so")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, help="where the counts go")
    asked = parser.parse_args()
    document: dict[str, object] = {"seed": asked.seed}
    for name, section in sections(asked.runs, asked.power, asked.seed).items():
        if not name.startswith(asked.only):
            continue
        start = time.monotonic()
        found = counted(section.jobs, asked.processes)
        lines = list(section.lines(found))
        print("\n".join(lines), f"  ({time.monotonic() - start:.0f} s)", sep="\n", flush=True)
        document[name] = {"lines": lines, "rows": [each.keys() for each in found]}
        _write(document, asked.json)
    if "replay".startswith(asked.only):
        lines = list(replay_lines(20, asked.seed + 50_000_000))
        print("\n".join(lines), flush=True)
        document["replay"] = {"lines": lines}
        _write(document, asked.json)


def _write(document: dict[str, object], to: Path | None) -> None:
    """After every section, so that what is cut is not lost."""
    if to is not None:
        to.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
