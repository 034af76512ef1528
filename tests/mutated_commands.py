"""Commands on mutated runs and captures, each in a process of its own, which has a bound on memory
and says how it ended."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any, NoReturn

from tests.run_mutations import mutate_capture, mutate_run

RUNS = Path(__file__).parent / "goldens" / "runs"
#: What one command may take, in seconds of CPU.
SECONDS = 20
#: Beyond what the program itself takes, 100 MB.
MEMORY = 900 * 10**6


def outcome(args: list[str]) -> dict[str, Any]:
    """How a command of latdiag ends in this process."""
    from latdiag.cli import run

    out, err = io.StringIO(), io.StringIO()
    # The largest size of this process is counted from here on.
    Path("/proc/self/clear_refs").write_text("5")
    had, begun = _size("VmRSS:"), time.process_time()
    # Of CPU; one that waits for ever takes none. A busy machine is no fault of the program.
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.alarm(6 * SECONDS)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run(args)
    except BaseException as error:
        code, text = 1, f"{type(error).__name__}: {error}"
        print(text[:500], file=err)
    finally:
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
    text = out.getvalue() + err.getvalue()
    return {
        "code": code,
        "traceback": "Traceback" in text,
        "escape": "\x1b" in text,
        "seconds": round(time.process_time() - begun, 2),
        "peak": _size("VmHWM:") - had,
        "said": err.getvalue()[-600:],
    }


def _size(of: str) -> int:
    """A size of this process in bytes: the one that it has, or the largest since the reset."""
    return int(Path("/proc/self/status").read_text().split(of)[1].split()[0]) * 1024


def sources(where: Path) -> list[Path]:
    """The recorded runs, whole, in ``where``."""
    for archive in sorted(RUNS.glob("*.tar.gz")):
        with tarfile.open(archive) as packed:
            packed.extractall(where, filter="data")
    return sorted(where.glob("*.run"))


def batch(seeds: list[int], kind: str, where: Path) -> list[dict[str, Any]]:
    """Mutate and ask, one seed after the other, by a process that has imported all that it takes
    and forks a child for each: what ends a child ends nothing else."""
    log = where / f"{kind}-{seeds[0]}.jsonl"
    subprocess.run(
        [sys.executable, "-c", "from tests.mutated_commands import main; main()"],
        input=json.dumps([seeds, kind, str(where), str(log)]),
        text=True,
        cwd=Path(__file__).parents[1],
        check=True,
    )
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    log.unlink()
    return lines


def main() -> None:
    """The inside of ``batch``: what is done once is done before the first child."""
    seeds, kind, where, log = json.loads(sys.stdin.read())
    folder = Path(where)
    import pandas  # noqa: F401 - pyarrow imports it with the first list

    sources = sorted((folder / "sources").iterdir())
    if kind == "import":
        outcome(["import", str(sources[0]), "--out", f"{log}.run", "--json"])
        shutil.rmtree(f"{log}.run")
    elif kind == "diagnose":
        outcome(["diagnose", str(sources[0]), "--json"])
        outcome(["diagnose", str(sources[0])])
    else:
        _prepare_sides(sources)
        outcome(["compare", str(sources[0]), str(sources[0]), "--force"])
    with Path(log).open("a") as record:
        for seed in seeds:
            pid = os.fork()
            if not pid:
                _child(seed, kind, folder, record)
            if code := _ended(pid):
                died = {"seed": seed, "code": code, "died": True}
                print(json.dumps(died), file=record, flush=True)


def _child(seed: int, kind: str, folder: Path, record: Any) -> NoReturn:
    """One seed, and the end of the process."""
    code = 70
    try:
        for number in (signal.SIGALRM, signal.SIGPROF):
            signal.signal(number, _late)
        # Far above the bound: what is over it is to be measured.
        resource.setrlimit(resource.RLIMIT_AS, (6 * 10**9, 6 * 10**9))
        for line in one(seed, kind, folder):
            print(json.dumps({"seed": seed, **line}), file=record, flush=True)
        code = 0
    finally:
        os._exit(code)


def _ended(pid: int) -> int:
    """How a child ended; by SIGKILL, if it hangs where no signal of Python reaches it."""
    until = time.monotonic() + 10 * SECONDS
    while time.monotonic() < until:
        gone, status = os.waitpid(pid, os.WNOHANG)
        if gone:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _prepare_sides(runs: list[Path]) -> None:
    """Side A of a comparison is a run that is not mutated: it is read once, not for each seed."""
    from latdiag.diagnosis import run_facts
    from latdiag.store.run import Run

    read = run_facts.side_of
    sides = {str(run): read("A", Run.open(str(run))) for run in runs}

    def side_of(name: str, *given: Run) -> Any:
        known = sides.get(given[0].paths[0]) if name == "A" else None
        return known if known is not None else read(name, *given)

    run_facts.side_of = side_of


def _late(*_: object) -> None:
    raise TimeoutError(f"no end within {SECONDS} s")


def one(seed: int, kind: str, folder: Path) -> list[dict[str, Any]]:
    """What each command makes of the mutation of this seed."""
    draw = random.Random(seed)
    source = draw.choice(sorted((folder / "sources").iterdir()))
    root = folder / f"{kind}-{seed}"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(source, root, symlinks=True)
    try:
        if kind == "import":
            mutate_capture(root, draw)
            made = folder / f"made-{seed}.run"
            found = [outcome(["import", str(root), "--out", str(made), "--json"])]
            if (made / "run.json").exists():
                found.append(outcome(["diagnose", str(made)]))
            shutil.rmtree(made, ignore_errors=True)
            return found
        mutate_run(root, draw)
        if kind == "compare":
            return [outcome(["compare", str(source), str(root), "--force"])]
        return [outcome(["diagnose", str(root), *draw.choice(((), (), ("--json",)))])]
    finally:
        shutil.rmtree(root, ignore_errors=True)


def faults(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of them that must not be."""
    return [
        line
        for line in lines
        if line.get("died")
        or line["code"] in (1, None)
        or line["traceback"]
        or line["escape"]
        or line["seconds"] > SECONDS
        or line["peak"] > MEMORY
    ]
