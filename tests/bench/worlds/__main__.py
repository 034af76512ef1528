"""``python -m tests.bench.worlds``: the table for whoever works on the estimator.

``--seed TEXT`` are worlds for development; without it those of the judged run are drawn, which
change when ``latdiag/attribution`` or ``latdiag/probe`` does. ``--page KIND/SEED`` (as the table
names a run) prints its page and the truth beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from .board import add_another, add_old, judged_seed, play, row_line, table, tasks, unmet
from .kinds import KINDS
from .pages import page
from .work import Record, Task

#: Letters of a tool's name in the table.
_NAME = 17


def main() -> int:
    ask = argparse.ArgumentParser(prog="python -m tests.bench.worlds", description=__doc__)
    ask.add_argument("--kinds", default=",".join(KINDS))
    ask.add_argument("--worlds", type=int, default=3, help="of each kind")
    ask.add_argument("--seed", help="any text; without it the judged run's")
    ask.add_argument("--budget", choices=("quick", "standard"), default="quick")
    ask.add_argument("--processes", type=int, default=2)
    ask.add_argument("--old", action="store_true", help="also judge the estimator of ff408fd")
    ask.add_argument(
        "--against", type=Path, metavar="CHECKOUT", help="also judge the estimator that lies there"
    )
    ask.add_argument("--json", action="store_true", help="every judged run")
    ask.add_argument("--page", metavar="KIND/SEED", help="one run and its truth")
    ask.add_argument("--keep", type=Path, help="where runs are left")
    given = ask.parse_args()
    kinds = given.kinds.split(",")
    if unknown := set(kinds) - set(KINDS):
        ask.error(f"no kind {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    with tempfile.TemporaryDirectory() as scratch:
        runs = given.keep or Path(scratch)
        runs.mkdir(parents=True, exist_ok=True)
        if given.page:
            kind, _, seed = given.page.partition("/")
            print(page(Task(kind, seed, given.budget, runs)))
            return 0
        seed = given.seed or judged_seed()
        records = play(
            tasks(kinds, given.worlds, seed, given.budget, runs), given.processes, _tell
        )
        notes = [add_old(records, Path(scratch))] if given.old else []
        if given.against:
            tree = given.against.resolve()
            notes.append(add_another(records, tree, f"latdiag {tree.name}"[:_NAME]))
    if given.json:
        json.dump([_plain(record) for record in records], sys.stdout, indent=1)
        return 0
    print(table(records), f"seed {seed} {'; '.join(filter(None, notes))}", sep="\n")
    for miss in unmet(records, given.budget):
        print("missed:", miss)
    return 0


def _tell(record: Record) -> None:
    print(row_line(record), file=sys.stderr, flush=True)


def _plain(record: Record) -> dict[str, object]:
    found = asdict(record)
    found["task"] = record.task.name
    return dict(json.loads(json.dumps(found, default=sorted)))


if __name__ == "__main__":
    sys.exit(main())
