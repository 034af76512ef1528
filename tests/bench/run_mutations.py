"""3,000 mutated runs, diagnosed and compared, and 500 mutated captures, imported.

``python -m tests.bench.run_mutations --processes 16 --json OUT`` needs no pytest and no git: only
the packages that latdiag itself needs. The seeds are kept: a fault is made again by
``--kinds diagnose --seeds 279:280``.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.mutated_commands import COMMAND_EVERY, KINDS, ask, faults

SEEDS = dict(zip(KINDS, (3000, 3000, 500), strict=True))
_SAID = 2_000


def summary(lines: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """The figures of one kind; long texts of its faults are cut."""
    own = [line for line in lines if line["kind"] == kind]
    ended = [line for line in own if not line.get("died")]
    wrong = [
        {k: v[:_SAID] if isinstance(v, str) else v for k, v in line.items() if k != "by_command"}
        | {f"shell_{k}": str(v)[:_SAID] for k, v in line.get("by_command", {}).items()}
        for line in faults(own)
    ]
    return {
        "seeds": len({line["seed"] for line in own}),
        "commands": len(own),
        "codes": dict(collections.Counter(line["code"] for line in own)),
        "from_a_shell_too": sum("by_command" in line for line in ended),
        "cpu_s": round(sum(line["seconds"] for line in ended), 1),
        "slowest_s": max((line["seconds"] for line in ended), default=0.0),
        "slowest_seed": max(ended, key=lambda line: line["seconds"], default={}).get("seed"),
        "largest_mb": round(max((line["peak"] for line in ended), default=0) / 1e6),
        "largest_seed": max(ended, key=lambda line: line["peak"], default={}).get("seed"),
        "faults": wrong,
    }


def _seeds(text: str) -> range:
    first, _, last = text.partition(":")
    return range(int(first), int(last))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.run_mutations")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seeds", type=_seeds, help="FIRST:LAST, the last one not included")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--command-every", type=int, default=COMMAND_EVERY)
    parser.add_argument("--limit-s", type=float, default=0.0, help="begin none after that")
    parser.add_argument("--json", type=Path, help="a file for the figures and all faults")
    given = parser.parse_args()
    seeds = {
        kind: range(SEEDS[kind])[given.seeds.start : given.seeds.stop]
        if given.seeds
        else range(SEEDS[kind])
        for kind in given.kinds
    }
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="run-mutations-") as folder:
        lines = ask(seeds, Path(folder), given.processes, given.command_every, given.limit_s)
    report: dict[str, Any] = {
        "wall_s": round(time.monotonic() - begun, 1),
        "processes": given.processes,
        "python": sys.version.split()[0],
        "kinds": {kind: summary(lines, kind) for kind in seeds},
        "asked": {kind: len(each) for kind, each in seeds.items()},
    }
    if given.json:
        given.json.write_text(json.dumps(report, indent=1))
    print(json.dumps(report, indent=1))
    tried = all(report["kinds"][kind]["seeds"] == len(each) for kind, each in seeds.items())
    return 0 if tried and not any(one["faults"] for one in report["kinds"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
