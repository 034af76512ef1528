"""The planning process: what it sees, what it answers, and how it ends."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import pytest

from latdiag.measurement.stages import Limits, Shot, Stage
from latdiag.probe import planner
from latdiag.probe.planner import Design
from latdiag.store.batch import Batch
from latdiag.store.writer import RunWriter, create_run
from tests.run_documents import header

ROOT = Path(__file__).resolve().parents[2]
LIMITS = Limits("quick", 1000, None, 7)


# ---------------------------------------------------------------------- what a design sees
def test_a_design_sees_all_rows_up_to_the_stage_that_it_named(tmp_path: Path) -> None:
    path = create_run(str(tmp_path / "a.run"), header())
    writer = RunWriter(path, "w")
    seen: list[list[str]] = []

    def probe(_limits: Limits, _undecided: object) -> Generator[Stage, Any, str]:
        for number in range(3):
            observed = yield Stage(f"S{number}", (Shot(1, 1, -1),), 1)
            seen.append(observed)
        return "enough"

    def observe(batches: Iterable[Batch]) -> Any:
        return [name for batch in batches for name in batch.texts["stage"].tolist()]

    design = Design(probe, observe, ("stage",), bool)
    steps = planner._steps(design, path, LIMITS)
    told = []
    outcomes = [("ok", 200), ("rate_limited", 429), ("http_error", 503)]
    for place, step in enumerate(steps):
        told.append((step.stage and step.stage.name, step.why))
        if place < 3:
            outcome, status = outcomes[place]
            row: dict[str, Any] = {"request_id": [f"r{place}"], "attempt": [1]}
            row |= {"stage": [f"S{place}"], "outcome": [outcome], "status": [status]}
            writer.write_part(row)
    assert seen == [["S0"], ["S0", "S1"], ["S0", "S1", "S2"]]
    assert told == [("S0", None), ("S1", None), ("S2", None), (None, "enough")]


def test_a_design_that_wants_nothing_is_at_its_end(tmp_path: Path) -> None:
    def probe(_limits: Limits, _undecided: object) -> Generator[Stage, Any, None]:
        yield from ()

    design = Design(probe, list, (), bool)
    steps = planner._steps(design, create_run(str(tmp_path / "a.run"), header()), LIMITS)
    assert list(steps) == [planner.Step(None)]


# ---------------------------------------------------------------------- the process
#: A parent with a planner of the design in argv[1], its run at argv[2]; says what each step is.
PARENT = """
import json, os, signal, sys, time
from latdiag.measurement.stages import Limits, PathStage, Shot, Stage
from latdiag.probe.planner import Design, Planner
from latdiag.runtime import channel
from latdiag.model.errors import LatdiagError
from tests.run_documents import header
from latdiag.store.writer import create_run

def one(_limits, _undecided):
    seen = yield Stage("S3", (Shot(_limits.seed, 2, -1),), 1)
    yield Stage("S4", (Shot(seen, 2, 0),))

def breaks(_limits, _undecided):
    yield Stage("S3", ())
    raise ValueError("no root in [0, 1]")

def dies(_limits, _undecided):
    yield Stage("S3", ())
    os.kill(os.getpid(), signal.SIGKILL)

def sleeps(_limits, _undecided):
    time.sleep(60)
    yield Stage("S3", ())

def much(_limits, _undecided):
    yield Stage("S3", (Shot(10**7, 10**7, 10**15),) * 50_000)

def unwritable(_limits, _undecided):
    yield Stage("S3", (object(),))

def missing():
    import no_such_package

def of(probe):
    return lambda: Design(probe, lambda batches: sum(b.n for b in batches) + 1, ("stage",), bool)

before = sorted(os.listdir("/proc/self/fd"))
name = sys.argv[1]
if name == "grown":
    channel.LARGEST_MESSAGE = 1 << 10
    name = "much"
design = missing if name == "missing" else of(globals()[name])
said, large = [], False
try:
    with Planner(design) as planning:
        pid = planning.pid
        print(pid, flush=True)
        if sys.argv[3:] == ["wait"]:
            time.sleep(60)
        planning.begin(create_run(sys.argv[2], header()), Limits("quick", 9, None, 7))
        while (step := planning.step(lambda: name == "sleeps")) is not None:
            said.append(repr(step)[:1000])
            large = large is True or step.stage is not None and len(step.stage.shots) == 50_000
            if step.stage is None:
                break
except LatdiagError as fault:
    said.append([type(fault).__name__, fault.text, "".join(fault.__notes__)
                 if hasattr(fault, "__notes__") else ""])
if large:
    said.append("all of it")
alive = os.path.exists(f"/proc/{pid}")
print(json.dumps([said, alive, sorted(os.listdir("/proc/self/fd")) == before,
                  sorted({"numpy", "pyarrow", "pandas", "scipy"} & set(sys.modules))]))
"""


def parent(folder: Path, name: str, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PARENT, name, str(folder / "a.run"), *more],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def said(folder: Path, name: str) -> list[Any]:
    """What the parent says; nothing of the planner is left, and the parent has stayed light."""
    running = parent(folder, name)
    out, _ = running.communicate(timeout=50)
    assert running.returncode == 0
    told, alive, closed, heavy = json.loads(out.splitlines()[1])
    assert not alive and closed and not heavy
    assert isinstance(told, list)
    return told


def test_the_parent_gets_the_stages_in_turn_and_stays_light(tmp_path: Path) -> None:
    first, second, end = said(tmp_path, "one")
    assert "name='S3'" in first and "Shot(isl=7, osl=2, at_ns=-1)" in first
    assert "name='S4'" in second and "Shot(isl=1, osl=2, at_ns=0)" in second
    assert end == "Step(stage=None, why=None)"


def test_what_breaks_in_there_is_raised_here(tmp_path: Path) -> None:
    _, fault = said(tmp_path, "breaks")
    assert fault[0] == "LatdiagError" and fault[1].endswith("ValueError: no root in [0, 1]")
    assert "in breaks" in fault[2]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing", "No module named 'no_such_package'"),
        ("unwritable", "object is no declared message"),
    ],
)
def test_what_breaks_before_the_first_stage_is_too(tmp_path: Path, name: str, words: str) -> None:
    (fault,) = said(tmp_path, name)
    assert fault[0] == "LatdiagError" and words in fault[1]


def test_a_planner_that_is_killed_is_this_machines_fault(tmp_path: Path) -> None:
    _, fault = said(tmp_path, "dies")
    assert fault[:2] == [
        "LocalFault",
        "the planning process ended unexpectedly (killed by SIGKILL)",
    ]


def test_a_wait_ends_when_it_is_interrupted(tmp_path: Path) -> None:
    assert said(tmp_path, "sleeps") == []


def test_a_large_stage_passes_whole(tmp_path: Path) -> None:
    assert said(tmp_path, "much")[-1] == "all of it"


def test_a_message_beyond_the_bound_is_not_even_awaited(tmp_path: Path) -> None:
    (fault,) = said(tmp_path, "grown")
    assert fault[0] == "LatdiagError" and "bytes at once" in fault[1]


def test_a_planner_ends_with_its_parent(tmp_path: Path) -> None:
    running = parent(tmp_path, "one", "wait")
    assert running.stdout is not None
    watched = os.pidfd_open(int(running.stdout.readline()))
    running.kill()
    running.communicate(timeout=30)
    poll = select.poll()
    poll.register(watched, select.POLLIN)
    ended = poll.poll(30_000)
    os.close(watched)
    assert ended
