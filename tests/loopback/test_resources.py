"""A disk, a limit or a pipe that runs out while a load is under way; a place that is taken."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from latdiag.store.run import Run

from .command import ROOT, Command, Ended, finish, load, rows_of, wait_for
from .stream_peer import streaming

#: Soon more rows than there is room for; 60 s if nothing stops it.
MUCH = ("--concurrency", "8", "--ramp", "5s", "--duration", "60s", "--osl", "20")


# ---------------------------------------------------------------------- resources
@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem with 100 KB of room."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("no right to mount")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.root
def test_a_full_disk_ends_the_load_and_keeps_the_run(small_disk: Path, tmp_path: Path) -> None:
    with streaming(ttft_s=0.01, itl_s=0.001) as peer:
        command = Command(tmp_path, load(peer.url, small_disk / "it.run", *MUCH))
        try:
            ended = command.end(60)
        finally:
            command.destroy()
        _check_full(ended, small_disk / "it.run", "No space left on device")
        wait_for(lambda: peer.flight()["open"] == 0, 10, "the end of the load")


def test_a_limit_on_file_sizes_ends_the_load_and_keeps_the_run(tmp_path: Path) -> None:
    with streaming(ttft_s=0.01, itl_s=0.001) as peer:
        ended, run = finish(
            peer.url,
            tmp_path,
            *MUCH,
            before_exec=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000)),
        )
    _check_full(ended, run, "File too large")


@pytest.mark.root
def test_a_full_disk_ends_an_import_and_says_what_is_kept(
    small_disk: Path, tmp_path: Path
) -> None:
    capture = ROOT / "tests" / "captures" / "vllm-0.24.0-h200" / "tp1"
    command = Command(tmp_path, ["import", str(capture), "--out", str(small_disk / "it.run")])
    ended = command.end(60)
    assert ended.code == 16 and ended.out == "", ended.err
    assert f"error: cannot write {small_disk}/it.run/requests/" in ended.err
    assert f"No space left on device; {small_disk}/it.run holds nothing" in ended.err
    assert ended.err.rstrip().endswith("write elsewhere with --out")  # nothing to diagnose


def _check_full(ended: Ended, run: Path, why: str) -> None:
    assert ended.code == 16, ended.err
    assert ended.seconds < 40
    assert ended.err.count("error: ") == 1 and why in ended.err
    assert f"{why}; {run} holds " in ended.err and " requests\n" in ended.err
    assert f"or write elsewhere with --out; `latdiag diagnose {run}` reads" in ended.err
    assert "Traceback" not in ended.err
    kept = Run.open(str(run))
    rows = kept.frame(["outcome"])
    assert kept.caveats == [], "nothing half written"
    assert len(rows) > 0, "what was written before is kept"
    # The writer could say so or not, by the room that was left; closed it never is.
    (writer,) = kept.writers
    (reason,) = kept.cut_short
    assert writer["state"] == "open"
    if writer["ended"] == "disk":
        counts = writer["counts"]
        assert isinstance(counts, dict)
        done = (rows["outcome"] != "cut_by_client").sum()
        assert counts["lost"] == counts["begun"] - counts["rows"] and counts["rows"] == done
        assert f"could no longer write, and lost {counts['lost']} of" in reason
    else:
        assert writer["ended"] is None and "never closed" in reason


def test_too_few_descriptors_for_the_streams_are_refused_before_the_load(tmp_path: Path) -> None:
    with streaming() as peer:
        ended, _ = finish(
            peer.url,
            tmp_path,
            "--concurrency",
            "300",
            "--requests",
            "300",
            before_exec=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256)),
        )
        assert ended.code == 16, ended.err
        assert "300 streams need 428 open files, this system allows 256" in ended.err
        assert not peer.seen()


def test_descriptors_that_run_out_in_an_open_loop_stop_the_load(tmp_path: Path) -> None:
    """The server must not be blamed for connections that this machine could not open."""
    with streaming(itl_s=0.5) as peer:
        ended, run = finish(
            peer.url,
            tmp_path,
            "--rate",
            "constant:100",
            "--duration",
            "60s",
            "--osl",
            "100",
            before_exec=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60)),
        )
    assert ended.code == 16, ended.err
    assert "Too many open files" in ended.err and "ulimit -n" in ended.err
    assert ended.seconds < 30
    rows = rows_of(run, "outcome", "error")
    assert set(rows["outcome"]) <= {"cut_by_client", "refused"}
    assert (rows["outcome"] == "cut_by_client").sum() > 20


def test_a_run_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    with streaming() as peer:
        first, run = finish(peer.url, tmp_path, "--requests", "2", "--osl", "3")
        kept = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
        second, _ = finish(peer.url, tmp_path, "--requests", "2", "--osl", "3")
    assert first.code in (0, 12) and second.code == 2
    assert "exists already" in second.err and second.err.count("error: ") == 1
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == kept


# ---------------------------------------------------------------------- closed pipe
@pytest.mark.parametrize("option", ["--json", "--quiet"], ids=["json", "text"])
def test_a_reader_of_the_report_that_is_gone_ends_it_silently(tmp_path: Path, option: str) -> None:
    ended, code = _piped("true", tmp_path, option)
    assert code == 141
    assert ended.stderr == b"" and ended.stdout == b""


def test_head_gets_its_line_and_no_complaint_follows(tmp_path: Path) -> None:
    ended, code = _piped("head -1", tmp_path, "--quiet")
    assert code in (0, 12, 141)  # by how much was written when head had read enough
    assert ended.stderr == b"" and ended.stdout.count(b"\n") == 1


def _piped(into: str, folder: Path, option: str) -> tuple[subprocess.CompletedProcess[bytes], int]:
    with streaming() as peer:
        words = load(peer.url, folder / "it.run", "--requests", "3", "--osl", "3", option)
        said = folder / "code"
        script = f'"$@" | {into}; echo ${{PIPESTATUS[0]}} > {said}'
        ended = subprocess.run(
            ["bash", "-c", script, "bash", sys.executable, "-m", "latdiag", *words],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            timeout=60,
        )
    return ended, int(said.read_text())
