"""Runs a client against the truth server: processes, conditions, repeats of void runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic_ns
from typing import Any, Protocol

from .resources import Sampler, Usage, run_measured
from .score import Scores, Truth, score
from .seen import Seen

BENCH = Path(__file__).resolve().parents[1]
ROOT = BENCH.parents[1]
#: A void run is repeated up to this many times before the table shows it as void.
REPEATS = 3
TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class Load:
    """What any client is asked to send."""

    streams: int
    requests: int
    tokens: int = 50
    isl: int = 20
    ramp_s: float = 0.0


class Client(Protocol):
    name: str
    environment: Mapping[str, str]

    def command(self, url: str, load: Load, out: Path) -> list[str]: ...

    def read(self, out: Path, truth: Truth) -> Seen: ...


def with_path(*folders: Path) -> dict[str, str]:
    """PYTHONPATH with these folders first."""
    paths = [*map(str, folders), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(p for p in paths if p)}


class ServerProcess:
    """The truth server in a process of its own; ``prefix`` may enter a network namespace."""

    def __init__(
        self, dump: Path, flags: Sequence[str] = (), prefix: Sequence[str] = (), fifo: bool = True
    ) -> None:
        self.dump = dump
        command = [*prefix, sys.executable, "-m", "client.truth_server", "--dump", str(dump)]
        if fifo and os.geteuid() == 0:
            command += ["--fifo", "0"]
        self.process = subprocess.Popen(
            [*command, *flags],
            stdout=subprocess.PIPE,
            env={**os.environ, **with_path(BENCH)},
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the truth server did not start")
        self.said: dict[str, Any] = json.loads(line)
        self.port = int(self.said["port"])

    def stop(self) -> Truth:
        """SIGTERM, and what it recorded."""
        self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=60)
        if self.process.returncode or not out:
            raise RuntimeError(f"the truth server ended with {self.process.returncode}")
        return Truth(self.dump)

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


@dataclass(slots=True)
class Outcome:
    """One run of one client. ``void`` is why the server could not judge it."""

    scores: Scores | None
    usage: Usage
    exit_code: int
    first_request_s: float
    void: list[str]
    notes: list[str] = field(default_factory=list)
    conditions: str = ""


Disturb = Callable[[Sampler, threading.Event], None]


@dataclass(frozen=True, slots=True)
class Setting:
    """A row of the table. ``disturb`` runs beside the client until the event is set."""

    name: str
    load: Load
    server: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    disturb: Disturb | None = None
    tls: bool = False

    def flags(self) -> list[str]:
        chunks = self.load.requests * (self.load.tokens + 4)
        flags = ["--capacity", str(2 * chunks + 10_000), *self.server]
        return [*flags, "--tls"] if self.tls else flags


def run_once(client: Client, setting: Setting, folder: Path) -> Outcome:
    """Server up, client through, record read, scored."""
    folder.mkdir(parents=True)
    with ServerProcess(folder / "truth.npz", setting.flags()) as server:
        scheme = "https" if setting.tls else "http"
        url = f"{scheme}://127.0.0.1:{server.port}"
        command = client.command(url, setting.load, folder)
        begun = monotonic_ns()
        with (folder / "client.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **client.environment, **dict(setting.environment)},
                cwd=folder,
            )
            code, usage = _watched(process, setting)
        truth = server.stop()
    first = truth.requests["read_mono"]
    outcome = Outcome(
        scores=None,
        usage=usage,
        exit_code=code,
        first_request_s=(int(first.min()) - begun) / 1e9 if len(first) else float("nan"),
        void=void_because(truth),
        conditions=truth.meta["conditions"],
    )
    try:
        seen = client.read(folder, truth)
    except (OSError, LookupError, ValueError) as error:
        outcome.notes.append(f"no result: {type(error).__name__}: {error}")
        return outcome
    outcome.notes += seen.notes
    outcome.scores = score(truth, seen, setting.load.ramp_s)
    return outcome


def void_because(truth: Truth) -> list[str]:
    """Why nobody can be judged by this run, with what the machine itself did not get."""
    stolen = truth.meta["stolen_ms"]
    blame = [f"the hypervisor took {stolen:.0f} ms"] if truth.void_because and stolen else []
    return truth.void_because + blame


def _watched(process: subprocess.Popen[bytes], setting: Setting) -> tuple[int, Usage]:
    sampler, over = Sampler(process.pid), threading.Event()
    sampler.start()
    disturber = None
    if setting.disturb is not None:
        disturber = threading.Thread(target=setting.disturb, args=(sampler, over))
        disturber.start()
    try:
        return run_measured(process, sampler, TIMEOUT_S)
    finally:
        over.set()
        if disturber is not None:
            disturber.join()


def run_valid(
    client: Client, setting: Setting, folder: Path, say: Callable[[str], None]
) -> Outcome:
    """Repeats void runs, each said; the last outcome when none was valid."""
    for attempt in range(REPEATS + 1):
        outcome = run_once(client, setting, folder / f"try{attempt}")
        if not outcome.void:
            return outcome
        say(f"VOID {client.name} {setting.name}: {'; '.join(outcome.void)}")
    return outcome


def stop_and_go(role: str, stop_s: float, every_s: float) -> Disturb:
    """Stops all processes of that role ``stop_s`` in every ``every_s``, by signals."""

    def disturb(sampler: Sampler, over: threading.Event) -> None:
        while not over.wait(every_s - stop_s):
            pids = sampler.pids(role)
            try:
                _signal(pids, signal.SIGSTOP)
                over.wait(stop_s)
            finally:
                _signal(pids, signal.SIGCONT)

    return disturb


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
