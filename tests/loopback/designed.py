"""``latdiag probe`` with a design of the test's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .command import Command, Ended, rows_of

#: Put before every design: its words, and what tells when this process would fork too late.
PREPARED = """
import os, sys, time
from latdiag.measurement.stages import PathStage, Shot, Stage

HEAVY = {"numpy", "pyarrow", "scipy", "pandas"}
parent, forks, fork = os.getpid(), 0, os.fork
def watched_fork():
    global forks
    here = os.getpid() == parent
    if here:
        forks += 1
        tasks = len(os.listdir("/proc/self/task"))
        loaded = sorted(HEAVY & set(sys.modules))
        print(f"fork {forks}: heavy {loaded} tasks {tasks}", file=sys.stderr, flush=True)
    child = fork()
    if here and forks == 1 and not child:  # the planner: nobody else needs the design
        import latdiag.probe.design as design
        design.probe = probe
    return child
os.fork = watched_fork

def shots(n, isl=20, osl=4, at_ns=-1):
    return (Shot(isl, osl, at_ns),) * n

def probe(limits, undecided):
"""


def told(design: str) -> str:
    """Python that makes the body ``design`` of a generator the design of the probe."""
    lines = [f"    {line}" for line in design.strip().splitlines()]
    return PREPARED + "\n".join(lines) + "\n"


def arguments(url: str, run: Path, *options: str) -> list[str]:
    return ["probe", url, "--model", "peer", "--out", str(run), *options]


def probed(
    url: str, folder: Path, design: str, *options: str, seconds: float = 60.0
) -> tuple[Ended, Path]:
    """``latdiag probe`` with a design of the test's, run to its end."""
    run = folder / "it.run"
    command = Command(folder, arguments(url, run, *options), told(design))
    try:
        return command.end(seconds), run
    finally:
        command.destroy()


def rows(run: Path) -> Any:
    return rows_of(run).sort_values("sent_ns")


def result(ended: Ended) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ended.out)
    return found


def cuts(ended: Ended) -> list[str]:
    """Why the run was cut short, as its result says."""
    return [c["text"] for c in result(ended)["caveats"] if c["code"] == "LD110"]


def well_ended(ended: Ended) -> bool:
    """Done, or done and found disturbed by its machine."""
    return ended.code == (0 if result(ended)["valid"] else 12)
