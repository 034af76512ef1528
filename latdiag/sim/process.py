"""Servers as processes of their own: begun, ended, and ended with their parent however it ends."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: A child may have spans to deliver before it ends.
_PATIENCE_S = 8.0
#: Loads this very package, wherever it lies, and nothing else from there: no module of the
#: working directory (-P) or beside the package can take the place of one that a server needs.
_START = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); import latdiag; del sys.path[0]; "
    "from latdiag.sim.{module} import main; main()"
)


@dataclass(slots=True)
class Child:
    """A server process. ``url``: of its root, without a path. ``report``: what it said when it
    ended; empty while it runs, and where it ended otherwise than asked to.
    """

    url: str
    pid: int
    wait: Callable[[], int]
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


def command(module: str, *arguments: str) -> list[str]:
    """The command that runs ``main()`` of ``latdiag.sim.MODULE``."""
    root = str(Path(__file__).resolve().parents[2])
    return [sys.executable, "-P", "-c", _START.format(module=module), root, *arguments]


@contextlib.contextmanager
def running(module: str, *arguments: str, failure: str) -> Iterator[Child]:
    """A server of ``latdiag.sim.MODULE`` for the time of the block.

    It prints its URL when it listens, and one line of JSON when its stdin closes: at the block's
    end, or when this process ends. A Ctrl-C in the terminal does not reach it, so that a client
    can still finish what is in flight. Raises OSError with ``failure`` where it does not start;
    it has said why on stderr.
    """
    process = subprocess.Popen(
        command(module, *arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    child = Child("", process.pid, process.wait)
    try:
        child.url = process.stdout.readline().strip()
        if not child.url:
            raise OSError(failure)
        yield child
    finally:
        try:
            said, _ = process.communicate(timeout=_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            said, _ = process.communicate()
        with contextlib.suppress(ValueError):
            child.report.update(json.loads(said))


def announce(port: int) -> None:
    """Tell the parent where this server listens."""
    print(f"http://127.0.0.1:{port}", flush=True)


def say_report(report: Mapping[str, Any]) -> None:
    """Tell the parent what there was, if it still listens."""
    with contextlib.suppress(OSError):
        print(json.dumps(report), flush=True)


def run_at_once() -> bool:
    """Real-time priority, the lowest there is, for this process alone; whether it was granted.

    Without it the schedule is kept as well as an ordinary process can.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except (OSError, AttributeError):
        return False
    return True


def settle_memory() -> None:
    """What has been loaded stays: the collector need not look at it again, and runs when told."""
    gc.collect()
    gc.freeze()
    gc.disable()
