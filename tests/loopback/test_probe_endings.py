"""How a probe ends: servers that fail, designs that break, signals, nonsense."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from latdiag.cli.outcome import INTERRUPTED, TERMINATED
from latdiag.model.errors import LocalFault, TargetFault
from latdiag.store.run import Run

from .command import Command, Ended, wait_for
from .designed import arguments, cuts, probed, result, rows, told, well_ended
from .peers import Asked, Wire, event, models, serving, well
from .stream_peer import Peer, streaming

# ---------------------------------------------------------------------- a server that fails
MANY = """
yield Stage("S3", shots(4), 1)
yield Stage("S5", shots(16), 4)
yield Stage("S6", shots(40), 4)
"""


def test_a_server_that_fails_is_left_alone_and_the_run_is_kept(tmp_path: Path) -> None:
    """Three of ten fail in the second stage: too many, and the third is not sent."""

    def script(wire: Wire, asked: Asked) -> None:
        if asked.number is not None and asked.number >= 4 and asked.number % 3 == 0:
            wire.reply(500, "{}")
        elif not models(wire, asked):
            well(wire, asked)

    with serving(script) as peer:
        ended, run = probed(peer.url, tmp_path, MANY, "--json")
    assert well_ended(ended), ended.err
    found = rows(run)
    assert set(found.stage) == {"S3", "S5"}
    assert (found.outcome == "http_error").sum() >= 3
    (cut,) = cuts(ended)
    assert "more than 20 % of the requests failed, so latdiag stopped" in cut


def test_failures_of_small_stages_add_up(tmp_path: Path) -> None:
    """No stage is large enough to be judged alone, and one in three fails."""
    design = 'for n in range(9):\n    yield Stage(f"S{n}", shots(3), 1)'

    def script(wire: Wire, asked: Asked) -> None:
        if asked.number is not None and asked.number % 3 == 0:
            wire.reply(500, "{}")
        elif not models(wire, asked):
            well(wire, asked)

    with serving(script) as peer:
        ended, run = probed(peer.url, tmp_path, design, "--json")
    assert set(rows(run).stage) == {"S0", "S1", "S2", "S3"}
    assert "more than 20 %" in cuts(ended)[0]


@pytest.mark.parametrize("status", [429, 503, 529, 200])
def test_refusals_as_too_many_are_for_the_design(tmp_path: Path, status: int) -> None:
    """Four of ten in one stage: of another failure so many would end it."""

    def script(wire: Wire, asked: Asked) -> None:
        if asked.number is not None and 5 <= asked.number < 9:
            if status == 200:
                wire.head()
                wire.chunk(event(error={"type": "overloaded_error", "message": "Overloaded"}))
                wire.end()
            else:
                wire.reply(status, "{}")
        elif not models(wire, asked):
            well(wire, asked)

    with serving(script) as peer:
        ended, run = probed(peer.url, tmp_path, MANY, "--json")
    assert well_ended(ended), ended.err
    found = rows(run)
    assert set(found.stage) == {"S3", "S5", "S6"} and len(found) == 60 and cuts(ended) == []
    assert (found.outcome != "ok").sum() == 4
    (limit,) = result(ended)["limits"]
    assert (limit["refused"], limit["requests"]) == (4, 60)


def test_refusals_that_were_asked_for_are_no_failures(tmp_path: Path) -> None:
    def script(wire: Wire, asked: Asked) -> None:
        if asked.body and asked.document.get("temperature") == -1:
            wire.reply(400, json.dumps({"error": {"message": "temperature"}}))
        elif not models(wire, asked):
            well(wire, asked)

    design = 'yield PathStage(2, (20,) * 12, 1)\nyield Stage("S3", shots(2), 1)'
    with serving(script) as peer:
        ended, run = probed(peer.url, tmp_path, design, "--json")
    assert well_ended(ended) and cuts(ended) == []
    found = rows(run)
    assert (found.scenario == "refused").sum() == 12
    assert set(found[found.scenario == "refused"].outcome) == {"http_error"}
    assert (found.stage == "S3").sum() == 2


def test_a_server_that_answers_nothing_usable_is_a_fault_of_the_target(tmp_path: Path) -> None:
    def script(wire: Wire, asked: Asked) -> None:
        if asked.number is not None:
            wire.reply(500, '{"error": {"message": "no memory"}}')
        elif not models(wire, asked):
            well(wire, asked)

    design = 'yield PathStage(1, (), 0)\nyield Stage("S3", shots(12), 4)'
    with serving(script) as peer:
        ended, run = probed(peer.url, tmp_path, design, "--json")
    assert ended.code == TargetFault.exit_code
    assert result(ended)["run"] == str(run) and len(rows(run)) >= 11
    assert "gave no usable reply in 1" in ended.err and "HTTP 500: no memory" in ended.err


# ---------------------------------------------------------------------- an end in between
BROKEN = 'yield Stage("S3", shots(3), 1)\nraise RuntimeError("no such law")'
KILLED = 'yield Stage("S3", shots(3), 1)\nos.kill(os.getpid(), 9)'


def test_a_design_that_breaks_is_our_bug_and_the_run_is_kept(tmp_path: Path) -> None:
    with streaming() as peer:
        ended, run = probed(peer.url, tmp_path, BROKEN, "--json")
    assert ended.code == 1
    assert "planning the probe failed: RuntimeError: no such law" in ended.err
    assert "Traceback" not in ended.err
    assert result(ended)["run"] == str(run) and result(ended)["error"]["code"] == "bug"
    assert len(rows(run)) == 3 and Run.open(str(run)).cut_short == []


def test_the_traceback_of_a_design_can_be_seen(tmp_path: Path) -> None:
    with streaming() as peer:
        run = tmp_path / "it.run"
        command = Command(tmp_path, ["-vv", *arguments(peer.url, run)], told(BROKEN))
        ended = command.end()
    assert ended.code == 1 and "in probe" in ended.err and "in _steps" in ended.err


def test_a_planner_that_is_killed_leaves_its_run(tmp_path: Path) -> None:
    with streaming() as peer:
        ended, run = probed(peer.url, tmp_path, KILLED)
    assert ended.code == LocalFault.exit_code
    assert "the planning process ended unexpectedly (killed by SIGKILL)" in ended.err
    assert len(rows(run)) == 3


UNWRITTEN = """
from latdiag.load.processes import run as processes
written = processes.run_writer
def write(plan, *rest):
    if plan.name.startswith("s5-"):
        os.kill(os.getpid(), 9)
    written(plan, *rest)
processes.run_writer = write
"""


def test_a_stage_whose_writer_is_killed_ends_it(tmp_path: Path) -> None:
    with streaming() as peer:
        run = tmp_path / "it.run"
        command = Command(tmp_path, arguments(peer.url, run), told(MANY) + UNWRITTEN)
        try:
            ended = command.end()
        finally:
            command.destroy()
    assert ended.code == LocalFault.exit_code, ended.err
    assert "writing process of s5-1-w0 ended unexpectedly (killed by SIGKILL)" in ended.err
    assert set(rows(run).stage) == {"S3"}


ENDINGS = pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, INTERRUPTED), (signal.SIGTERM, TERMINATED)]
)


def interrupted(
    peer: Peer, folder: Path, design: str, number: int, ripe: Any
) -> tuple[Ended, Path]:
    """The probe gets a signal, as its whole group does, once ``ripe()`` says so."""
    run = folder / "it.run"
    command = Command(folder, arguments(peer.url, run, "--json"), told(design))
    try:
        wait_for(ripe, 30, "the moment for a signal")
        command.interrupt(number)
        ended = command.end(30)
        assert command.group() == []
    finally:
        command.destroy()
    return ended, run


@ENDINGS
def test_a_signal_in_a_stage_ends_with_a_report(tmp_path: Path, number: int, code: int) -> None:
    design = 'yield Stage("S3", shots(2), 1)\nyield Stage("S5", shots(900, osl=50), 2)'
    with streaming(itl_s=0.01) as peer:
        ended, run = interrupted(
            peer, tmp_path, design, number, lambda: peer.flight()["total"] > 6
        )
    assert ended.code == code and ended.seconds < 20
    found = rows(run)
    assert found.stage.value_counts()["S3"] == 2
    assert set(found[found.stage == "S5"].outcome) <= {"ok", "cut_by_client"}
    assert (found.outcome == "cut_by_client").sum() == 2
    assert cuts(ended)[0].find(f"stopped by {signal.Signals(number).name}") > 0
    assert Run.open(str(run)).cut_short == []


@ENDINGS
def test_a_signal_between_stages_does_too(tmp_path: Path, number: int, code: int) -> None:
    """The design thinks for a minute: it is not waited for."""
    thinking = tmp_path / "thinking"
    design = f"""
yield Stage("S3", shots(3), 1)
open({str(thinking)!r}, "w").close()
time.sleep(60)
yield Stage("S5", shots(3), 1)
"""
    with streaming() as peer:
        ended, run = interrupted(peer, tmp_path, design, number, thinking.exists)
    assert ended.code == code and ended.seconds < 20
    assert rows(run).stage.tolist() == ["S3"] * 3
    assert len(cuts(ended)) == 1 and Run.open(str(run)).cut_short == []


LATE = """
from latdiag.load.processes import run as processes
real, count = processes.run_load, 0
def late(*given):
    global count
    count += 1
    if count == 2:
        os.kill(os.getpid(), 2)  # after the last look, before the load takes signals over
    return real(*given)
processes.run_load = late
"""


def test_a_signal_just_before_a_stage_is_not_lost(tmp_path: Path) -> None:
    design = 'yield Stage("S3", shots(2), 1)\nyield Stage("S5", shots(900, osl=50), 1)'
    with streaming(itl_s=0.01) as peer:
        run = tmp_path / "it.run"
        command = Command(tmp_path, arguments(peer.url, run, "--json"), told(design) + LATE)
        try:
            ended = command.end(30)
        finally:
            command.destroy()
    assert ended.code == INTERRUPTED and ended.seconds < 20
    assert len(rows(run)) < 20 and Run.open(str(run)).cut_short == []


def test_a_signal_in_the_path_stage_keeps_what_was(tmp_path: Path) -> None:
    with streaming() as peer:
        run = tmp_path / "it.run"
        setup = told('yield PathStage(300, (), 1)\nyield Stage("S3", shots(3), 1)')
        command = Command(tmp_path, arguments(peer.url, run, "--json"), setup)
        try:
            command.reader()
            wait_for(lambda: _begun(run) > 3, 30, "some requests")
            command.interrupt()
            ended = command.end(30)
        finally:
            command.destroy()
    assert ended.code == INTERRUPTED
    found = rows(run)
    assert set(found.stage) == {"S1"} and 3 < len(found) < 300
    assert Run.open(str(run)).cut_short == []


def _begun(run: Path) -> int:
    """What the first writer last said of the requests begun."""
    said = [*run.glob("writers/[a-z]*.json")]
    return int(json.loads(said[0].read_text())["counts"]["begun"]) if said else 0


# ---------------------------------------------------------------------- nonsense
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--rate", "3", "--concurrency", "2"), "open loop"),
        (("--rate", "constant:3"), "random times"),
        (("--rate", "fast"), "is not a rate"),
        (("--isl", "long"), "is not a token length"),
        (("--body-json", '{"max_tokens": 5}'), "sets max_tokens"),
        (("--max-tokens-total", "0"), "max-tokens-total"),
        (("--budget", "huge"), "--budget"),
    ],
)
def test_nonsense_is_refused_before_anything_is_sent(
    tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    with streaming() as peer:
        ended, run = probed(peer.url, tmp_path, "yield PathStage(1, (), 0)", *options)
        assert peer.flight()["total"] == 0
    assert ended.code == 2 and words in ended.err
    assert not run.exists() and "fork" not in ended.err
