"""Commands on mutated runs and captures, each in a process of its own, which has a bound on memory
and says how it ended.

What is the same for all is done once: one process imports everything and reads the sources, and
forks the workers, which fork a child for each mutation and each command. Some commands are given
to a shell's ``latdiag`` as well, which must end in the same way with the same words.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from tests.run_mutations import mutate_capture, mutate_run

HERE = Path(__file__).parent
RUNS = HERE / "goldens" / "runs"
CAPTURES = HERE / "captures" / "vllm-0.24.0-h200"
KINDS = ("diagnose", "compare", "import")
#: What one command may take, in seconds of CPU.
SECONDS = 20
#: Beyond what the program itself takes, 100 MB.
MEMORY = 900 * 10**6
#: One seed of so many goes through a new interpreter as well.
COMMAND_EVERY = 50
_MANY = 20
_CASE = struct.Struct("<ii")
#: Over the bound on memory: what is over that is to be measured.
_ADDRESSES = 6 * 10**9
#: Each process has one processor.
_ALONE = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def ask(
    seeds: dict[str, range],
    where: Path,
    processes: int = 1,
    command_every: int = COMMAND_EVERY,
    limit_s: float = 0.0,
) -> list[dict[str, Any]]:
    """How the commands on these mutations end, one line or two a seed; ``where``: a folder for
    files. No mutation is begun after ``limit_s`` (0: all are)."""
    _make_sources(where)
    until = time.time() + limit_s if limit_s else 0.0
    plan = {
        "seeds": {kind: [each.start, each.stop] for kind, each in seeds.items()},
        "where": str(where),
        "processes": processes,
        "command_every": command_every,
        "until": until,
    }
    subprocess.run(
        [sys.executable, "-m", "tests.mutated_commands"],
        input=json.dumps(plan),
        text=True,
        cwd=HERE.parent,
        env=os.environ | _ALONE,
        check=True,
    )
    logs = sorted(where.glob("log-*.jsonl"))
    return [json.loads(line) for log in logs for line in log.read_text().splitlines()]


def _make_sources(where: Path) -> None:
    """The recorded runs and captures, whole, in ``where``."""
    (where / "runs").mkdir()
    for archive in sorted(RUNS.glob("*.tar.gz")):
        with tarfile.open(archive) as packed:
            packed.extractall(where / "runs", filter="data")
    for name in ("tp1", "tp2", "pd"):
        shutil.copytree(CAPTURES / name, where / "captures" / name)


def _sources(where: Path, kind: str) -> list[Path]:
    return sorted((where / ("captures" if kind == "import" else "runs")).iterdir())


# ---------------------------------------------------------------- one process for all
def main() -> None:
    """Read the plan from stdin and fork the workers, once all is imported."""
    plan = json.loads(sys.stdin.read())
    where = Path(plan["where"])
    for kind, (first, last) in plan["seeds"].items():
        _warm_up(where, kind, last - first)
    gc.collect()
    gc.freeze()  # no collector of a child touches, and so copies, what is here already
    take, give = os.pipe()
    workers = []
    for number in range(plan["processes"]):
        pid = os.fork()
        if not pid:
            os.close(give)
            _ended_by(lambda number=number: _work(plan, take, where / f"log-{number}.jsonl"))
        workers.append(pid)
    os.close(take)
    # By their share of each kind, so that what is stopped early has tried some of all.
    cases = sorted(
        ((seed - first) / (last - first), KINDS.index(kind), seed)
        for kind, (first, last) in plan["seeds"].items()
        for seed in range(first, last)
    )
    with contextlib.suppress(BrokenPipeError), os.fdopen(give, "wb", buffering=0) as cases_to:
        for _, kind, seed in cases:
            cases_to.write(_CASE.pack(kind, seed))
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in workers]
    if any(codes):
        sys.exit(f"workers ended with {codes}")


def _warm_up(where: Path, kind: str, seeds: int) -> None:
    """Import, and read, what every child would; for a few it does not pay to go through all."""
    import pandas  # noqa: F401 - pyarrow imports it with the first list

    made = where / "warm.run"
    sources = _sources(where, kind)
    if kind == "compare":
        _prepare_sides(sources)
    for source in sources if seeds > _MANY else sources[:1]:
        for args in _commands(kind, source, source, made, json_too=True):
            outcome(args)
        shutil.rmtree(made, ignore_errors=True)


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


def _work(plan: dict[str, Any], take: int, log: Path) -> None:
    """One case after the other, until there is none."""
    where = Path(plan["where"])
    with log.open("a") as record:
        while case := os.read(take, _CASE.size):
            if plan["until"] and time.time() > plan["until"]:
                return
            number, seed = _CASE.unpack(case)
            kind = KINDS[number]
            try_command = seed % plan["command_every"] == 0
            for line in _lines_of(kind, seed, where, try_command):
                print(json.dumps({"kind": kind, "seed": seed, **line}), file=record, flush=True)


# ---------------------------------------------------------------- one seed
def _lines_of(kind: str, seed: int, where: Path, try_command: bool) -> Iterator[dict[str, Any]]:
    draw = random.Random(seed)
    source = draw.choice(_sources(where, kind))
    root, made = where / f"{kind}-{seed}", where / f"made-{kind}-{seed}.run"
    answer = where / f"answer-{kind}-{seed}.json"
    shutil.copytree(source, root, symlinks=True)
    mutate = mutate_capture if kind == "import" else mutate_run
    try:
        died = _forked(lambda: mutate(root, draw))
        if died:
            yield {"code": died, "died": True}
            return
        json_too = random.Random(f"json {seed}").random() < 0.3
        for args in _commands(kind, source, root, made, json_too):
            if args[0] != kind and not (made / "run.json").exists():
                continue  # nothing was imported
            died = _forked(lambda args=args: answer.write_text(json.dumps(outcome(args))))
            line = {"code": died, "died": True} if died else json.loads(answer.read_text())
            if try_command and not died:
                if args[0] == "import":
                    shutil.rmtree(made, ignore_errors=True)
                line["by_command"] = _by_command(args)
            yield line
    finally:
        for path in (root, made):
            shutil.rmtree(path, ignore_errors=True)
        answer.unlink(missing_ok=True)


def _commands(kind: str, source: Path, root: Path, made: Path, json_too: bool) -> list[list[str]]:
    if kind == "import":
        return [["import", str(root), "--out", str(made), "--json"], ["diagnose", str(made)]]
    if kind == "compare":
        return [["compare", str(source), str(root), "--force"]]
    return [["diagnose", str(root), *(["--json"] if json_too else [])]]


def _by_command(args: list[str]) -> dict[str, Any]:
    """How the same command ends that a shell gives."""
    ended = subprocess.run(
        [sys.executable, "-m", "latdiag", *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=HERE.parent,
        timeout=10 * SECONDS,
        preexec_fn=_limit,
    )
    return {"code": ended.returncode, "out": _text(ended.stdout), "err": _text(ended.stderr)}


def outcome(args: list[str]) -> dict[str, Any]:
    """How a command of latdiag ends in this process."""
    from latdiag.cli import run

    with _captured() as said:
        begun = time.process_time()
        # Of CPU; one that waits for ever takes none. A busy machine is no fault of the program.
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.alarm(6 * SECONDS)
        had = _resident()
        try:
            code = run(args)
        except BaseException as error:
            code, text = 1, f"{type(error).__name__}: {error}"
            print(text[:500], file=sys.stderr)
        finally:
            signal.alarm(0)
            signal.setitimer(signal.ITIMER_PROF, 0)
        seconds = round(time.process_time() - begun, 2)
        # The largest size of a process is counted from its fork on.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - had
    out, err = (_text(one) for one in said)
    return {"code": code, "seconds": seconds, "peak": peak, "out": out, "err": err}


def _text(written: bytes) -> str:
    return written.decode(errors="backslashreplace")


def _resident() -> int:
    """Bytes that this process holds in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@contextlib.contextmanager
def _captured() -> Iterator[list[bytes]]:
    """What this process writes to stdout and stderr, libraries in C included, once it is over."""
    said: list[bytes] = []
    own = [os.dup(number) for number in (1, 2)]
    kept = [os.memfd_create("said") for _ in own]
    for number, file in enumerate(kept, 1):
        os.dup2(file, number)
    try:
        yield said
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(ValueError):  # closed by what ran
                stream.flush()
        for number, (file, before) in enumerate(zip(kept, own, strict=True), 1):
            os.dup2(before, number)
            os.close(before)
            with os.fdopen(file, "rb") as written:
                written.seek(0)
                said.append(written.read())


# ---------------------------------------------------------------- processes
def _forked(work: Callable[[], object]) -> int:
    """Do it in a child of this process; the code with which that ended, 0 if all went well. By
    SIGKILL, if it hangs where no signal of Python reaches it."""
    pid = os.fork()
    if not pid:
        for number in (signal.SIGALRM, signal.SIGPROF):
            signal.signal(number, _late)
        _limit()
        _ended_by(work)
    until = time.monotonic() + 10 * SECONDS
    while time.monotonic() < until:
        gone, status = os.waitpid(pid, os.WNOHANG)
        if gone:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _ended_by(work: Callable[[], object]) -> NoReturn:
    """Do it, and end this process."""
    code = 70
    try:
        work()
        code = 0
    finally:
        os._exit(code)


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESSES, _ADDRESSES))


def _late(*_: object) -> None:
    raise TimeoutError(f"no end within {SECONDS} s")


# ---------------------------------------------------------------- the judgement
def faults(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of them that must not be, with the reason."""
    judged = ({"fault": _fault(line), **line} for line in lines)
    return [line for line in judged if line["fault"]]


def _fault(line: dict[str, Any]) -> str:
    if line.get("died"):
        return "died"
    text = line["out"] + line["err"]
    shell = line.get("by_command")
    wrong = {
        "exit 1": line["code"] in (1, None),
        "traceback": "Traceback" in text,
        "escape": "\x1b" in text,
        "hang": line["seconds"] > SECONDS,
        "memory": line["peak"] > MEMORY,
        "otherwise from a shell": shell is not None
        and any(shell[part] != line[part] for part in ("code", "out", "err")),
    }
    return next((name for name, is_so in wrong.items() if is_so), "")


if __name__ == "__main__":
    main()
