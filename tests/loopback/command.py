"""``latdiag`` as a user starts it: in a session of its own, with all its processes in view."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_RUN = "from latdiag.cli import main\nmain()\n"

#: A machine with much else to do is slow by so much, and nothing hangs because of it.
_SLOW = 5


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended: exit code, what it printed, how long it took in all."""

    code: int
    out: str
    err: str
    seconds: float


class Command:
    """A running ``latdiag ARGUMENTS``. ``setup``: Python that runs before, to break something.

    ``before_exec`` runs in the child (limits of resources).
    """

    def __init__(
        self,
        folder: Path,
        arguments: Sequence[str],
        setup: str = "",
        before_exec: Callable[[], None] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._out, self._err = folder / "stdout", folder / "stderr"
        start = ["-c", setup + "\n" + _RUN] if setup else ["-m", "latdiag"]
        self._begun = time.monotonic()
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, *start, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                start_new_session=True,
                preexec_fn=before_exec,
            )
        self.pid = self.process.pid

    # ------------------------------------------------------------------ its processes
    def group(self) -> list[int]:
        """Pids of its session that are alive (a zombie is not)."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    text = (entry / "stat").read_text()
                except OSError:
                    continue
                state, _, _, session = text[text.rindex(")") + 2 :].split()[:4]
                if int(session) == self.pid and state not in "ZX":
                    found.append(int(entry.name))
        return sorted(found)

    def named(self, what: str) -> list[int]:
        """Pids of its ``read`` or ``write`` processes, in the order of their start."""
        found = []
        for pid in self.group():
            try:
                name = Path(f"/proc/{pid}/comm").read_text()
            except OSError:
                continue
            if name.startswith(f"latdiag-{what}"):
                found.append(pid)
        return found

    def reader(self) -> int:
        """The pid of its first reader, once there is one."""
        wait_for(lambda: bool(self.named("read")), 30, "a reader")
        return self.named("read")[0]

    # ------------------------------------------------------------------ its end
    def interrupt(self, number: int = signal.SIGINT) -> None:
        """A signal to the whole group, as a terminal sends it at Ctrl-C."""
        os.killpg(self.pid, number)

    def end(self, seconds: float = 60.0) -> Ended:
        """Wait for its end; a command that goes on is killed, and the test fails.

        ``seconds``: what is too long where nobody else is at work.
        """
        try:
            code = self.process.wait(_SLOW * seconds)
        except subprocess.TimeoutExpired:
            self.destroy()
            raise AssertionError(f"still running after {_SLOW * seconds} s") from None
        took = time.monotonic() - self._begun
        return Ended(
            code,
            self._out.read_text(errors="replace"),
            self._err.read_text(errors="replace"),
            took,
        )

    def destroy(self) -> None:
        """Kill what is left of it, and reap it."""
        for pid in self.group():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait(10)


def wait_for(holds: Callable[[], bool], seconds: float, what: str) -> None:
    """Look until something holds; fail if it does not within a bound that is far too long."""
    until = time.monotonic() + _SLOW * seconds
    while not holds():
        assert time.monotonic() < until, f"{what}: not within {_SLOW * seconds} s"
        time.sleep(0.02)


def load(url: str, run: Path, *options: str) -> list[str]:
    """The arguments of ``latdiag load`` without progress, into ``run``."""
    return ["load", url, "--model", "peer", "--quiet", "--out", str(run), *options]


def finish(
    url: str,
    folder: Path,
    *options: str,
    setup: str = "",
    before_exec: Callable[[], None] | None = None,
    seconds: float = 60.0,
) -> tuple[Ended, Path]:
    """Run ``latdiag load`` to its end; how it ended, and where its run is."""
    run = folder / "it.run"
    command = Command(folder, load(url, run, *options), setup, before_exec)
    try:
        return command.end(seconds), run
    finally:
        command.destroy()


def rows_of(run: Path, *columns: str) -> Any:
    """The requests of a run as a pandas frame."""
    from latdiag.store.run import Run

    return Run.open(str(run)).frame(list(columns) or None)
